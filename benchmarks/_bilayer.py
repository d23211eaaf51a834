"""Twisted bilayer graphene with DFT's own blocks in each layer, for sizes that no DFT run reaches.

Every pair of atoms of a layer is a pair of the OpenMX fixture, turned about z: its H(R) is taken from there. S comes
from the two-centre integrals. Between the layers H_ij = S_ij (h_i + h_j) / 2 with the on-site energies h of the
fixture's shells (Mulliken's approximation). C6.0-s2p2d1: 13 orbitals an atom, about 95 neighbours.

Shape letters: E pairs.
"""

import lzma
import tempfile
from pathlib import Path

import numpy as np
from _fixtures import FIXTURES, read_fixture
from scipy.spatial import cKDTree

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.matrices import Orbitals
from deeph_tracegrad.integrals.overlap import overlap_material
from deeph_tracegrad.material import Material
from deeph_tracegrad.structures.moire import Twist, graphene, twisted_bilayer

DEGREES = (0, 0, 1, 1, 2)  # of the shells s2p2d1
TWISTS = [(1, 2), (3, 4), (6, 7), (10, 11), (14, 15), (20, 21), (30, 31)]  # 28 to 11,164 atoms
ORBITALS = 13
TOLERANCE = 1e-3  # Å


def twisted_graphene(m: int, n: int) -> Material:
    """The bilayer twisted by (m, n) with H(R) and S(R)."""
    orbitals, fixture = carbon_orbitals(), read_fixture("graphene")
    structure = twisted_bilayer(graphene(), Twist.of(m, n))
    material = overlap_material(structure, orbitals)
    overlap = material.overlap
    if overlap is None:
        raise ValueError("two-centre integrals make an overlap")
    atoms = len(structure)
    layer, sublattice = np.divmod(np.arange(atoms) * 4 // atoms, 2)
    first, second = overlap.pairs[:, 3], overlap.pairs[:, 4]
    vectors = material.pair_vectors(overlap.pairs)

    energies = onsite_energies(fixture)
    blocks = overlap.entries.reshape(-1, ORBITALS, ORBITALS) * (energies[:, None] + energies) / 2
    for which in (0, 1):
        inside = np.flatnonzero((layer[first] == which) & (layer[second] == which))
        angle = turned_by(vectors[inside], sublattice[first[inside]], fixture)
        source = fixture_pairs(vectors[inside], sublattice[first[inside]], angle, fixture)
        turn = orbital_turn(angle)
        known = fixture.hamiltonian[0].entries.reshape(-1, ORBITALS, ORBITALS)
        blocks[inside] = np.where((source >= 0)[:, None, None], (turn @ known @ turn.T)[source], 0.0)
    hamiltonian = BlockMatrix.of(overlap.pairs, blocks.ravel(), overlap.sizes).symmetrised()[0]
    return Material(
        structure,
        material.basis,
        material.spin,
        overlap,
        (hamiltonian,),
        electrons=material.electrons,
        fermi_level=fixture.fermi_level,
    )


def carbon_orbitals() -> Orbitals:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "C6.0.pao").write_bytes(lzma.decompress((FIXTURES / "pao" / "C6.0.pao.xz").read_bytes()))
        return read_orbitals(Path(folder), {"C": "C6.0-s2p2d1"}, ["C"])


def onsite_energies(fixture: Material) -> np.ndarray:
    """On-site energy of each orbital, (13,) eV, averaged over its shell."""
    hamiltonian = fixture.hamiltonian[0]
    place = int(np.flatnonzero((hamiltonian.pairs == 0).all(axis=1))[0])
    block = hamiltonian.entries[hamiltonian.offsets[place] : hamiltonian.offsets[place + 1]]
    shell = np.repeat(np.eye(len(DEGREES)), [2 * degree + 1 for degree in DEGREES], axis=0)
    return shell @ (np.diag(block.reshape(ORBITALS, ORBITALS)) @ shell / shell.sum(axis=0))


def turned_by(vectors: np.ndarray, sublattice: np.ndarray, fixture: Material) -> float:
    """By which angle about z a layer is turned against the fixture; vectors: (E, 3) Å."""
    known = fixture.pair_vectors(fixture.hamiltonian[0].pairs)
    from_first = fixture.hamiltonian[0].pairs[:, 3] == 0

    def bond(candidates: np.ndarray) -> float:
        length = np.linalg.norm(candidates, axis=1)
        x, y, _ = candidates[np.where(length > 0.1, length, np.inf).argmin()]
        return float(np.arctan2(y, x))

    return bond(vectors[sublattice == 0]) - bond(known[from_first])


def fixture_pairs(vectors: np.ndarray, sublattice: np.ndarray, angle: float, fixture: Material) -> np.ndarray:
    """The pair of the fixture that each pair (E, 3) Å of a layer is a copy of, (E,); -1 where there is none."""
    pairs = fixture.hamiltonian[0].pairs
    cosine, sine = np.cos(angle), np.sin(angle)
    back = vectors @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])

    def marked(places: np.ndarray, atoms: np.ndarray) -> np.ndarray:
        return np.column_stack([places, 100.0 * atoms])

    tree = cKDTree(marked(fixture.pair_vectors(pairs), pairs[:, 3]))
    distance, nearest = tree.query(marked(back, sublattice))
    return np.where(distance < TOLERANCE, nearest, -1)


def orbital_turn(angle: float) -> np.ndarray:
    """(13, 13): the orbitals turned about z by an angle, in terms of those that are not."""
    turn = np.zeros((ORBITALS, ORBITALS))
    start = 0
    for degree in DEGREES:
        centre = start + degree
        turn[centre, centre] = 1
        for m in range(1, degree + 1):  # -m: sin(m phi), +m: cos(m phi)
            turn[centre + m, centre + m] = turn[centre - m, centre - m] = np.cos(m * angle)
            turn[centre - m, centre + m], turn[centre + m, centre - m] = np.sin(m * angle), -np.sin(m * angle)
        start += 2 * degree + 1
    return turn
