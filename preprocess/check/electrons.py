"""Whether the runs have the electrons that their atoms bring.

Shape letters: G kinds of cells, S elements.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_array, eye_array

from deeph_tracegrad.preprocess.defects import Defect, Kind
from deeph_tracegrad.preprocess.figures import Figures

TOLERANCE = 1e-3


def electron_misfits(runs: Sequence[Figures]) -> Iterator[tuple[int, Defect]]:
    """The runs, by place, whose number of electrons is not what the valence electrons of their atoms make.

    Where the bases do not tell valence electrons, those are taken that fit to most of the runs.
    """
    known = {place: run.electrons for place, run in enumerate(runs) if run.electrons is not None}
    if not known:
        return
    elements = sorted({element for place in known for element in runs[place].elements})
    atoms = {place: tuple(runs[place].elements.count(element) for element in elements) for place in known}
    cells = Counter((atoms[place], electrons) for place, electrons in known.items())
    usual = valences([counts for counts, _ in cells], [electrons for _, electrons in cells], list(cells.values()))
    for place, electrons in known.items():
        told = _told(runs[place])
        neutral = float(np.dot(atoms[place], usual)) if told is None else told
        if abs(electrons - neutral) > TOLERANCE:
            message = f"{electrons:g} electrons, where the valence electrons of {runs[place].formula} make {neutral:g}"
            yield place, Defect(Kind.ELECTRONS, message)


def valences(cells: Sequence[Sequence[int]], electrons: Sequence[float], runs: Sequence[int]) -> np.ndarray:
    """The valence electrons v >= 0 of each element, (S,), that fit to most runs.

    They make sum(runs * |cells v - electrons|) least, a linear programme (Charnes, Cooper and Ferguson, Management
    Science 1, 138 (1955)); unlike least squares it lets a few charged cells stand aside.

    cells: (G, S), atoms of each element. electrons: (G,). runs: (G,), how many such runs there are.
    """
    atoms, total = np.array(cells, dtype=float), np.array(electrons)
    slack = eye_array(len(atoms))
    solution = linprog(
        np.concatenate([np.zeros(atoms.shape[1]), runs]),
        A_ub=block_array([[atoms, -slack], [-atoms, -slack]], format="csr"),
        b_ub=np.concatenate([total, -total]),
    )
    return solution.x[: atoms.shape[1]]


def _told(run: Figures) -> float | None:
    """The electrons of the neutral cell, where the bases tell those of every element."""
    atoms = [run.basis[element].valence_electrons for element in run.elements]
    known = [number for number in atoms if number is not None]
    return sum(known) if len(known) == len(atoms) else None
