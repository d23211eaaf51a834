"""The folder of a model that the official DeepH-E3 trained, read without running anything in it."""

from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deeph_tracegrad.deeph_e3.arguments import NetArguments, read_arguments
from deeph_tracegrad.deeph_e3.layers import Channels, parse_channels, their_outputs
from deeph_tracegrad.deeph_e3.outputs import read_basis, read_targets
from deeph_tracegrad.deeph_e3.weights import OfficialNetwork
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import SCALAR
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.targets import Target
from deeph_tracegrad.text_tables import read_text
from deeph_tracegrad.torch_files import read_torch_file

WEIGHTS = "best_model.pkl"
ARGUMENTS = "src/build_model.py"
DATASET = "src/dataset_info.json"
TARGETS = "src/target_blocks.json"
SETTINGS = "src/train.ini"

_DTYPES = {"float": torch.float32, "double": torch.float64}


@dataclass(frozen=True, eq=False)
class OfficialModel:
    """What the folder of a model tells.

    cutoff_radius: end of the radial grid, Å. dtype: that it was trained in. dataset: the name of the training data.
    state: the network's tensors by DeepH-E3's names. epochs: passes over the training data. validation_loss: eV².
    """

    path: Path
    network: OfficialNetwork
    basis: Basis
    spin: SpinMode
    cutoff_radius: float
    dtype: torch.dtype
    dataset: str
    state: Mapping[str, Tensor]
    epochs: int
    validation_loss: float


def read_model(path: Path) -> OfficialModel:
    """Read the folder that holds `best_model.pkl` and `src`.

    Raises:
        ReadError: a file is missing, damaged, contradicts another, or asks for what this program does not have.
    """
    if not path.is_dir():
        raise ReadError(path, f"should be the folder of a model, which holds {WEIGHTS} and src")
    arguments = read_arguments(path / ARGUMENTS)
    basis, spin = read_basis(path / DATASET)
    if arguments.num_species != len(basis):
        raise ReadError(
            path / ARGUMENTS, f"num_species is {arguments.num_species}, but {DATASET} lists {', '.join(basis)}"
        )
    network = _network(path / ARGUMENTS, arguments, read_targets(path / TARGETS, basis), spin)
    dtype, dataset = _read_settings(path / SETTINGS)
    state, epochs, validation_loss = _read_weights(path / WEIGHTS)
    return OfficialModel(
        path, network, basis, spin, float(arguments.r_max), dtype, dataset, state, epochs, validation_loss
    )


def _network(path: Path, arguments: NetArguments, targets: list[Target], spin: SpinMode) -> OfficialNetwork:
    """The network that the arguments, read from `path`, describe."""
    texts = {name: text for name, text in arguments._asdict().items() if name.startswith("irreps_")}
    layers = {name: _channels(path, name, text) for name, text in texts.items()}
    harmonics = layers["irreps_sh"]
    if harmonics != [(Irrep(degree, natural=True), 1) for degree in range(len(harmonics))]:
        raise ReadError(path, f"irreps_sh should be one harmonic of each degree, not {texts['irreps_sh']}")
    for name, smallest in (("irreps_embed_node", 1), ("irreps_edge_init", 2)):
        if [irrep for irrep, _ in layers[name]] != [SCALAR] or layers[name][0][1] < smallest:
            raise ReadError(path, f"{name} should be scalars such as 64x0e, not {texts[name]}")
    outputs = [(output.irrep, 1) for output in their_outputs(targets, spin)]
    if layers["irreps_out_edge"] != _merged(outputs):
        raise ReadError(path, f"irreps_out_edge is not what the blocks in {TARGETS} need")
    if Layout(layers["irreps_post_edge"]) != Layout(outputs):
        raise ReadError(path, f"irreps_post_edge is {texts['irreps_post_edge']}; supported is {Layout(outputs)}")
    return OfficialNetwork(
        species=arguments.num_species,
        blocks=arguments.num_block,
        harmonics_degree=len(harmonics) - 1,
        embed_node=layers["irreps_embed_node"],
        edge_init=layers["irreps_edge_init"],
        mid_node=layers["irreps_mid_node"],
        post_node=layers["irreps_post_node"],
        mid_edge=layers["irreps_mid_edge"],
        post_edge=layers["irreps_post_edge"],
        targets=targets,
    )


def _channels(path: Path, name: str, text: str) -> Channels:
    """The irreps of a layer, neighbours merged, each once but for the outputs."""
    try:
        channels = _merged(parse_channels(text))
    except MismatchError as error:
        raise ReadError(path, f"{name}: {error}") from error
    if not channels or (len(dict(channels)) < len(channels) and name != "irreps_out_edge"):
        raise ReadError(path, f"{name} should list each irrep once, not {text!r}")
    return channels


def _merged(channels: Channels) -> Channels:
    """Equal irreps side by side as one group."""
    groups = groupby(channels, key=lambda group: group[0])
    return [(irrep, sum(count for _, count in group)) for irrep, group in groups]


def _read_settings(path: Path) -> tuple[torch.dtype, str]:
    """Precision and name of the training data from the settings of the training."""
    parser = ConfigParser(inline_comment_prefixes=(";",), interpolation=None)
    text = read_text(path)
    try:
        parser.read_string(text)
    except ConfigParserError as error:
        raise ReadError(path, f"is no ini file ({' '.join(str(error).split())})") from error
    # DeepH-E3's own defaults
    target = parser.get("target", "target", fallback="hamiltonian")
    precision = parser.get("basic", "dtype", fallback="float")
    if target != "hamiltonian":
        raise ReadError(path, f"the model predicts {target!r}; this program only knows hamiltonian")
    if precision not in _DTYPES:
        raise ReadError(path, f"dtype should be float or double, not {precision!r}")
    return _DTYPES[precision], parser.get("data", "dataset_name", fallback="")


def _read_weights(path: Path) -> tuple[Mapping[str, Tensor], int, float]:
    """The state dict, epochs done and validation loss; code that someone might have put into the file is refused."""
    content = read_torch_file(path, "checkpoint of DeepH-E3")
    state, epoch, loss = (_entry(path, content, key) for key in ("state_dict", "epoch", "val_loss"))
    if not isinstance(state, Mapping) or not all(map(_is_weight, state.items())):
        raise ReadError(path, "its state_dict does not hold named tensors only")
    if type(epoch) is not int or not isinstance(loss, float):
        raise ReadError(path, f"epoch and val_loss should be numbers, not {str(epoch)[:40]!r} and {str(loss)[:40]!r}")
    return state, epoch + 1, loss


def _is_weight(item: tuple[Any, Any]) -> bool:
    """Whether this is a name and a dense tensor."""
    name, tensor = item
    return isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided


def _entry(path: Path, content: Any, key: str) -> Any:
    """One entry of a checkpoint."""
    if not isinstance(content, Mapping) or key not in content:
        raise ReadError(path, f"no checkpoint of DeepH-E3: there is no {key} in it")
    return content[key]
