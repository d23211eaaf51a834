"""High-symmetry paths that follow from the lattice alone.

Only the lattice vectors count, not the atoms in the cell: a supercell, or a cell with displaced atoms, gets the path of
its own lattice, in units of its own reciprocal vectors. Tabulated points κ' belong to a standard cell a' = T a of the
same lattice (T integer, |det T| = 1); in the cell at hand they are κ = T⁻¹ κ'.

Shape letters: T candidate cells.
"""

import itertools
import warnings

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.symmetry.kpath import KPathSetyawanCurtarolo

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.kpoints import periodic_axes

TOLERANCE = 2e-3  # of cosines, and relative of squared lengths
SYMMETRY_PRECISION = 0.01  # Å

Corner = tuple[str, np.ndarray]


def automatic_corners(structure: Structure) -> list[list[Corner]]:
    """Labelled corners of the path, one list for each unbroken part; k (3,) in units of the reciprocal vectors.

    Crystals follow Setyawan and Curtarolo, Comput. Mater. Sci. 49, 299 (2010), slabs the boundary of the zone of their
    plane lattice, chains Γ-X; a molecule has Γ alone.

    Raises:
        SolverError: the lattice cannot be brought to a standard cell.
    """
    axes = np.flatnonzero(periodic_axes(structure))
    if len(axes) == 3:
        return _crystal_corners(structure.lattice)
    if len(axes) == 2:
        corners = plane_corners(structure.lattice.matrix[axes])
    else:
        corners = [("Γ", np.zeros(len(axes))), ("X", np.full(len(axes), 0.5))][: len(axes) + 1]
    k = np.zeros((len(corners), 3))
    k[:, axes] = [point for _, point in corners]
    return [[(label, point) for (label, _), point in zip(corners, k, strict=True)]]


def plane_corners(vectors: np.ndarray) -> list[Corner]:
    """The path along the zone boundary of the plane lattice with these vectors, (2, d) Å; k is (2,).

    K, H, H1, X1 and the X of a centred rectangular lattice, the M of a square and the S of a rectangular one are
    corners of the zone, the other points middles of its edges.
    """
    cells = _plane_cells(vectors)
    metrics = cells @ (vectors @ vectors.T) @ cells.transpose(0, 2, 1)
    first, second, product = metrics[:, 0, 0], metrics[:, 1, 1], metrics[:, 0, 1]
    cosine = product / np.sqrt(first * second)
    equal = abs(first - second) < TOLERANCE * first
    shortest = first + second < (first + second).min() * (1 + TOLERANCE)
    square_corner, b1, b2 = (1, 1), (1, 0), (0, 1)
    shapes = {  # condition on the standard cell; route; its points as the lattice vectors whose bisectors meet there
        "hexagonal": (equal & (abs(cosine + 0.5) < TOLERANCE), {"Γ": (), "K": (b1, b2), "M": (b1,)}),
        "square": (equal & (abs(cosine) < TOLERANCE), {"Γ": (), "X": (b1,), "M": (b1, b2)}),
        "rectangular": (abs(cosine) < TOLERANCE, {"Γ": (), "X": (b1,), "S": (b1, b2), "Y": (b2,)}),
        "centred": (
            equal & (cosine > 0),
            {"Γ": (), "X": (b1, (0, -1)), "S": (b1,), "X1": (b1, square_corner), "Y": (square_corner,)},
        ),
        "oblique": (
            shortest & (cosine > 0),
            {
                "Γ": (),
                "Y": (b2,),
                "H": (b2, square_corner),
                "C": (square_corner,),
                "H1": (b1, square_corner),
                "X": (b1,),
            },
        ),
    }
    matches, points = next(shape for shape in shapes.values() if shape[0].any())
    chosen = int(np.argmax(matches))
    metric = np.linalg.inv(metrics[chosen])
    path = [(label, np.linalg.solve(cells[chosen], _bisected(edges, metric)) + 0.0) for label, edges in points.items()]
    return [*path, path[0]]


def _plane_cells(vectors: np.ndarray) -> np.ndarray:
    """Integer matrices T (T, 2, 2) that take the vectors to short cells of the same lattice, gentlest first."""
    reduced = np.eye(2, dtype=int)
    while True:  # Lagrange's reduction
        reduced = reduced[np.argsort(np.linalg.norm(reduced @ vectors, axis=1), kind="stable")]
        short, long = reduced @ vectors
        step = round(float(long @ short / (short @ short)))
        if step == 0:
            break
        reduced[1] -= step * reduced[0]
    changes = np.array(list(itertools.product(range(-2, 3), repeat=4))).reshape(-1, 2, 2)
    cells = changes[abs(changes[:, 0, 0] * changes[:, 1, 1] - changes[:, 0, 1] * changes[:, 1, 0]) == 1] @ reduced
    return cells[np.argsort(abs(cells - np.eye(2)).sum(axis=(1, 2)), kind="stable")]


def _bisected(edges: tuple[tuple[int, int], ...], metric: np.ndarray) -> np.ndarray:
    """The zone-boundary point (2,) where the bisectors of these reciprocal lattice vectors G meet: 2 k·G = G²."""
    if not edges:
        return np.zeros(2)
    vectors = np.array(edges, dtype=float)
    if len(vectors) == 1:
        return vectors[0] / 2
    return np.linalg.solve(vectors @ metric, np.einsum("gi,ij,gj->g", vectors, metric, vectors) / 2)


def _crystal_corners(lattice: Lattice) -> list[list[Corner]]:
    """The tabulated path of the Bravais lattice, carried over to this choice of its vectors."""
    with warnings.catch_warnings():  # about a cell that is not the standard one, which is dealt with here
        warnings.simplefilter("ignore")
        standard = KPathSetyawanCurtarolo(Structure(lattice, ["H"], [[0, 0, 0]]), symprec=SYMMETRY_PRECISION)
    mappings = lattice.find_all_mappings(standard.prim.lattice, ltol=0.01, atol=0.5, skip_rotation_matrix=True)
    cells = [cell for _, _, cell in mappings if abs(abs(np.linalg.det(cell)) - 1) < 1e-6]
    if not cells or standard.kpath is None:
        raise SolverError("no standard path was found for this lattice; give the corners with --kpath")
    gentlest = min(cells, key=lambda cell: float(abs(cell - np.eye(3)).sum()))
    points = {
        label: (label.replace("\\Gamma", "Γ").replace("_", ""), np.linalg.solve(gentlest, point) + 0.0)
        for label, point in standard.kpath["kpoints"].items()
    }
    return [[points[label] for label in part] for part in standard.kpath["path"]]
