"""Twisted bilayers against published sizes and angles, and by their bonds, which know nothing of (m, n)."""

import time
import warnings

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from deeph_tracegrad.errors import ConfigError, MismatchError
from deeph_tracegrad.poscar import read_poscar
from deeph_tracegrad.structures.moire import Twist, graphene, twisted_bilayer

BOND = 2.46 / np.sqrt(3)


def bilayer(m, n, monolayer=None):
    return twisted_bilayer(graphene() if monolayer is None else monolayer, Twist.of(m, n))


def space_group(structure):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SpacegroupAnalyzer(structure, symprec=1e-5).get_space_group_number()


def turned(structure):
    """By how much the bonds of the upper layer are turned against those of the lower one, degrees from 0 to 60."""
    first, second, shift, _ = structure.get_neighbor_list(BOND * 1.1)
    bonds = structure.cart_coords[second] + shift @ structure.lattice.matrix - structure.cart_coords[first]
    sixfold = np.exp(6j * np.arctan2(bonds[:, 1], bonds[:, 0]))
    upper = structure.cart_coords[first, 2] > structure.cart_coords[:, 2].mean()
    return np.degrees(np.angle(sixfold[upper].mean() / sixfold[~upper].mean())) / 6 % 60


# 11,164 atoms at 1.08°: Nat. Comput. Sci. 2 (2022) 367; 3,268 of (17, 16): doi 10.1038/s41467-024-53028-4
@pytest.mark.parametrize(
    ("m", "n", "atoms", "angle"),
    [
        *((1, 2, 28, 21.79), (2, 3, 76, 13.17), (3, 4, 148, 9.43), (6, 7, 508, 5.09), (10, 11, 1324, 3.15)),
        *((14, 15, 2524, 2.28), (16, 17, 3268, 2.00), (30, 31, 11164, 1.08), (31, 32, 11908, 1.05)),
        *((1, 3, 52, 32.20), (1, 4, 28, 38.21)),
    ],
)
def test_published_sizes_and_angles(m, n, atoms, angle):
    twist = Twist.of(m, n)
    assert 4 * twist.cells == atoms
    assert twist.angle == pytest.approx(angle, abs=0.005)
    cosine = (m * m + 4 * m * n + n * n) / (2 * (m * m + m * n + n * n))
    assert np.cos(np.radians(twist.angle)) == pytest.approx(cosine, abs=1e-14)
    assert Twist.of(n, m).angle == -twist.angle


@pytest.mark.parametrize(("m", "n"), [(1, 2), (2, 1), (2, 3), (1, 3), (1, 4), (3, 7), (6, 7)])
def test_every_atom_has_three_neighbours_in_a_hexagonal_cell(m, n):
    structure = bilayer(m, n)
    first, _, _, distance = structure.get_neighbor_list(BOND * 1.5)
    assert np.bincount(first).tolist() == [3] * len(structure)
    np.testing.assert_allclose(distance, BOND, rtol=1e-12)
    a, b, _, *angles = structure.lattice.parameters
    np.testing.assert_allclose([a, *angles], [b, 90, 90, 120], rtol=1e-12)
    assert a * a == pytest.approx(len(structure) / 4 * 2.46**2)
    assert turned(structure) == pytest.approx(Twist.of(m, n).angle % 60, abs=1e-9)
    assert space_group(structure) == 177  # P622: a hexagon's centre over another


def test_the_layers_and_the_vacuum():
    structure = twisted_bilayer(graphene(2.5), Twist.of(1, 2), distance=3.2, vacuum=15.0)
    heights = structure.cart_coords[:, 2]
    np.testing.assert_allclose(np.unique(heights.round(9)), [7.5, 10.7])
    assert structure.lattice.c == pytest.approx(18.2)
    assert structure.lattice.a == pytest.approx(2.5 * np.sqrt(7))


def test_without_twist_the_layers_are_stacked_aa_or_ab():
    aa = bilayer(1, 1)
    assert len(aa) == 4
    assert space_group(aa) == 191
    np.testing.assert_array_equal(aa.frac_coords[:2, :2], aa.frac_coords[2:, :2])
    around_an_atom = Structure(Lattice.hexagonal(2.46, 10), ["C", "C"], [[0, 0, 0.5], [1 / 3, 2 / 3, 0.5]])
    ab = bilayer(0, 1, around_an_atom)
    assert len(ab) == 4
    assert space_group(ab) == 164  # Bernal
    assert Twist.of(0, 1).angle == pytest.approx(60)


@pytest.mark.parametrize("factor", [2, 7])
def test_common_factors_make_no_difference(factor):
    assert Twist.of(factor, 2 * factor) == Twist.of(1, 2)
    assert Twist.of(5 * factor, 5 * factor) == Twist.of(1, 1)


@pytest.mark.parametrize(("m", "n"), [(0, 0), (-1, 2), (3, -4)])
def test_what_is_no_twist(m, n):
    with pytest.raises(ConfigError, match="is no twist"):
        Twist.of(m, n)


def test_too_many_atoms():
    with pytest.raises(ConfigError, match="has 108036004 atoms"):
        bilayer(3000, 3001)


def rotated(structure):
    """The same monolayer, turned in space."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return Structure(Lattice(structure.lattice.matrix @ turn), structure.species, structure.frac_coords)


def in_vectors(structure, vectors):
    """The same atoms in other lattice vectors, integer combinations (rows) of their own."""
    return Structure(
        Lattice(np.array(vectors) @ structure.lattice.matrix),
        structure.species,
        structure.cart_coords,
        coords_are_cartesian=True,
    )


@pytest.fixture
def sulfide(unpacked):
    """A layer of MoS2 as ABACUS had it."""
    return read_poscar(unpacked("abacus/mos2") / "deeph_dock" / "POSCAR")


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer,
        rotated,
        lambda layer: in_vectors(layer, [[1, 0, 0], [1, 1, 0], [0, 0, 1]]),  # 60°
        lambda layer: in_vectors(layer, [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),  # left-handed
        lambda layer: in_vectors(layer, [[1, 0, 0], [-1, 1, 0], [0, 0, 1]]),  # 150°, a lattice all the same
        lambda layer: in_vectors(layer, [[1, 0, 0], [0, 1, 0], [0, 0, -1]]),
        lambda layer: layer.copy().translate_sites(range(3), [0, 0, -layer.frac_coords[0, 2]], to_unit_cell=True),
    ],
)
def test_any_hexagonal_monolayer(sulfide, change):
    """Distances and symmetry are the same however the layer is described, also where it crosses the cell's face."""
    expected, structure = bilayer(1, 2, sulfide), bilayer(1, 2, change(sulfide))
    assert structure.formula == "Mo14 S28"
    assert [site.specie.symbol for site in structure] == ["Mo"] * 14 + ["S"] * 28
    assert structure.lattice.c == pytest.approx(expected.lattice.c)
    assert space_group(structure) == space_group(expected)
    distances = [np.sort(one.distance_matrix, axis=None) for one in (structure, expected)]
    np.testing.assert_allclose(*distances, atol=1e-5)


def test_bonds_of_the_monolayer_stay(sulfide):
    structure = bilayer(2, 3, sulfide)
    distances = sulfide.get_neighbor_list(2.6)[3]
    first, _, _, found = structure.get_neighbor_list(2.6)
    assert np.bincount(first).tolist() == [6 if site.specie.symbol == "Mo" else 3 for site in structure]
    np.testing.assert_allclose([found.min(), found.max()], [distances.min(), distances.max()], atol=1e-6)
    between = np.diff(np.unique(structure.cart_coords[:, 2].round(6)))
    assert between[2] == pytest.approx(3.35)  # S to S


@pytest.mark.parametrize(
    "lattice",
    [
        Lattice.orthorhombic(3, 4, 20),
        Lattice.tetragonal(3, 20),
        Lattice.from_parameters(3, 3, 20, 90, 90, 118),
        Lattice.from_parameters(3, 3, 20, 90, 80, 120),
        Lattice.orthorhombic(3, 3 * np.sqrt(3), 20),
    ],
)
def test_other_lattices_are_refused(lattice):
    with pytest.raises(MismatchError, match="hexagonal lattice is needed"):
        bilayer(1, 2, Structure(lattice, ["C"], [[0, 0, 0]]))


def test_a_large_cell_takes_less_than_two_seconds():
    start = time.process_time()
    structure = bilayer(30, 31)
    assert time.process_time() - start < 2
    assert len(structure) == 11164
    assert turned(structure) == pytest.approx(1.0845, abs=1e-4)
