"""The arguments of DeepH-E3's network, from the `build_model.py` that the program writes.

That file is one call, `net = Net(name=literal, ...)`, which DeepH-E3 imports. Here it is parsed, not run.
"""

import ast
import math
from pathlib import Path
from typing import Any, NamedTuple

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.text_tables import read_text


class NetArguments(NamedTuple):
    """What shapes the network; irreps in e3nn's notation, r_max in Å."""

    num_species: int
    num_block: int
    r_max: float
    irreps_embed_node: str
    irreps_edge_init: str
    irreps_sh: str
    irreps_mid_node: str
    irreps_post_node: str
    irreps_mid_edge: str
    irreps_post_edge: str
    irreps_out_edge: str


# the only value of each switch that this program knows, and what the other one means
_SWITCHES = {
    "use_sc": (True, "it has no self-connections"),
    "no_parity": (False, "it was trained with ignore_parity"),
    "use_sbf": (False, "it uses a spherical Bessel basis (spherical_basis_irreps)"),
    "only_ij": (False, "it takes each edge in one direction only (only_ij)"),
    "if_sort_irreps": (False, "it sorts the irreps of its layers (if_sort_irreps)"),
}
# of an output that DeepH-E3 computes and drops
_UNUSED = {"irreps_out_node"}


def read_arguments(path: Path) -> NetArguments:
    """The arguments in a `build_model.py`.

    Raises:
        ReadError: it is not the file that DeepH-E3 writes, or describes a network that this program does not have.
    """
    values = _call(path)
    known = {*NetArguments._fields, *_SWITCHES, *_UNUSED}
    for names, what in ((sorted(known - set(values)), "lacks"), (sorted(set(values) - known), "has the unknown")):
        if names:
            raise ReadError(path, f"the call of Net {what} argument {', '.join(names)}; DeepH-E3 writes another set")
    for name, (value, meaning) in _SWITCHES.items():
        if values[name] is not value:
            raise ReadError(path, f"{name} is {values[name]!r}: {meaning}, which this program does not support")
    arguments = NetArguments(**{name: values[name] for name in NetArguments._fields})
    for name in ("num_species", "num_block"):
        if type(values[name]) is not int or values[name] < 1:
            raise ReadError(path, f"{name} should be a positive integer, not {values[name]!r}")
    if type(arguments.r_max) not in (int, float) or not 0 < arguments.r_max < math.inf:
        raise ReadError(path, f"r_max should be a length in Å, not {arguments.r_max!r}")
    for name in arguments._fields:
        if name.startswith("irreps_") and not isinstance(values[name], str):
            raise ReadError(path, f"{name} should be a text such as '8x0e+4x1o', not {values[name]!r}")
    return arguments


def _call(path: Path) -> dict[str, Any]:
    """The keywords of the one call and their values."""
    text = read_text(path)
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ReadError(path, f"is no Python file ({error})") from error
    match module.body:
        case [ast.ImportFrom(), ast.Assign(value=ast.Call(func=ast.Name(id="Net"), args=[], keywords=keywords))]:
            pass
        case _:
            raise ReadError(path, "is not the one call of Net that DeepH-E3 writes")
    try:
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ReadError(path, "has an argument of Net that is no plain text, number, True or False") from error
