"""Supercells of known make: the lattice, the sites and the cells are found again."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.inference.spectra.supercell import map_supercell
from deeph_tracegrad.structures.moire import Twist, graphene, twisted_bilayer

LAYER = Structure(
    Lattice.hexagonal(3.18, 22.0), ["Mo", "S", "S"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.43], [2 / 3, 1 / 3, 0.57]]
)
CRYSTAL = Structure(
    Lattice([[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]]), ["Si", "C"], [[0, 0, 0], [0.25, 0.25, 0.25]]
)


def supercell(primitive, transform):
    large = primitive.copy()
    return large.make_supercell(np.array(transform), to_unit_cell=False)


def expected(structure, primitive):
    """Site and cell of atoms that stand exactly on the primitive lattice."""
    fractions = structure.cart_coords @ np.linalg.inv(primitive.lattice.matrix)
    away = fractions[:, None] - primitive.frac_coords
    site = np.linalg.norm(away - np.rint(away), axis=2).argmin(axis=1)
    return site, np.rint(away[np.arange(len(site)), site]).astype(int)


def rotation(axis, angle):
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.array(axis) / np.linalg.norm(axis) * angle).as_matrix()


@pytest.mark.parametrize(
    ("primitive", "transform"),
    [
        (LAYER, [[2, 1, 0], [-1, 3, 0], [0, 0, 1]]),
        (LAYER, [[0, 1, 0], [-1, -1, 0], [0, 0, 1]]),
        (CRYSTAL, [[2, 0, 0], [0, 2, 0], [0, 0, 2]]),
        (CRYSTAL, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    ],
)
def test_displaced_atoms_are_found_on_their_sites(primitive, transform):
    perfect = supercell(primitive, transform)
    site, cell = expected(perfect, primitive)
    noise = np.random.default_rng(0).uniform(-0.15, 0.15, (len(perfect), 3))
    displaced = Structure(perfect.lattice, perfect.species, perfect.cart_coords + noise, coords_are_cartesian=True)
    found = map_supercell(displaced, primitive, 0.7)
    np.testing.assert_array_equal(found.transform, transform)
    np.testing.assert_array_equal(found.site, site)
    difference = found.cell - cell  # the same for all: where the origin lies is a choice
    assert (difference == difference[0]).all()
    assert 0.05 < found.displacement.max() < 0.45
    assert (found.vacancies, found.strangers) == (0, 0)
    assert found.num_cells == len(perfect) // len(primitive)


def test_vacancies_other_elements_and_additional_atoms():
    changed = supercell(LAYER, np.diag([4, 4, 1]))
    changed.replace(20, "Se")
    changed.append("Li", changed[0].coords + np.array([0, 0, 4.5]), coords_are_cartesian=True)
    changed.remove_sites([3])
    found = map_supercell(changed, LAYER, 0.5)
    assert (found.vacancies, found.strangers) == (1, 1)
    assert found.site[-1] == -1
    assert np.isnan(found.displacement[-1])
    assert found.site[19] >= 0


def test_two_atoms_on_one_site():
    crowded = supercell(LAYER, np.diag([3, 3, 1]))
    for away in (np.array([0.3, 0, 0]), crowded.lattice.matrix[0] + np.array([0, 0.2, 0])):
        crowded.append("Mo", crowded[0].coords + away, coords_are_cartesian=True)
    found = map_supercell(crowded, LAYER, 0.5)
    assert found.site[0] >= 0
    assert found.site[-2:].tolist() == [-1, -1]


@pytest.mark.parametrize("height", [15.0, 40.0])
def test_shifted_turned_and_strained_layer_in_another_vacuum(height):
    perfect = supercell(LAYER, [[3, 1, 0], [-1, 2, 0], [0, 0, 1]])
    vectors = perfect.lattice.matrix.copy()
    vectors[2, 2] = height
    turn = rotation([0, 0, 1], 0.4) * 1.002
    moved = Structure(
        Lattice(vectors @ turn.T),
        perfect.species,
        perfect.cart_coords @ turn.T + [0.7, -1.1, 2.0],
        coords_are_cartesian=True,
    )
    found = map_supercell(moved, LAYER, 0.3)
    assert found.num_cells == 7
    assert (found.vacancies, found.strangers) == (0, 0)
    assert np.nanmax(found.displacement) < 0.03
    occupied = np.column_stack([found.site, found.cell])
    assert len(np.unique(occupied, axis=0)) == len(moved)


@pytest.mark.parametrize("height", [22.0, 31.0])
@pytest.mark.parametrize("moved", ["supercell", "primitive", "both"])
def test_layer_that_is_cut_by_the_end_of_the_cell(height, moved):
    """Its atoms written between 0 and 1 along the vacuum: the lower sulphur at the top of the cell."""

    def cut(structure):
        fractions = (structure.frac_coords + np.array([0, 0, 0.5])) % 1.0
        return Structure(structure.lattice, structure.species, fractions)

    perfect = supercell(LAYER, np.diag([3, 2, 1]))
    vectors = perfect.lattice.matrix.copy()
    vectors[2, 2] = height
    other = Structure(Lattice(vectors), perfect.species, perfect.cart_coords, coords_are_cartesian=True)
    other = other if moved == "primitive" else cut(other)
    found = map_supercell(other, LAYER if moved == "supercell" else cut(LAYER), 0.1)
    assert (found.num_cells, found.vacancies, found.strangers) == (6, 0, 0)
    assert found.displacement.max() < 1e-6
    heights = other.frac_coords[:, 2] - found.cell[:, 2]
    assert np.ptp(heights) * height < 4.0  # the cell tells which image of the layer an atom is of


def test_molecules_have_no_lattice_to_turn():
    box = Lattice.cubic(20.0)
    water = Structure(box, ["O", "H", "H"], [[0.5, 0.5, 0.5], [0.54, 0.53, 0.5], [0.46, 0.53, 0.5]])
    found = map_supercell(Structure(Lattice.cubic(15.0), ["H"], [[0.1, 0.1, 0.1]]), water, 0.5)
    assert (found.num_cells, found.vacancies, found.strangers) == (1, 2, 0)
    with pytest.raises(MismatchError, match="no atom"):
        map_supercell(Structure(box, ["Xe"], [[0.1, 0.1, 0.1]]), Structure(box, ["O", "H"], water.frac_coords[:2]), 0.1)


def test_turned_crystal():
    perfect = supercell(CRYSTAL, [[2, 0, 0], [0, 2, 0], [0, 0, 3]])
    turn = rotation([1, 2, 3], 1.1)
    moved = Structure(Lattice(perfect.lattice.matrix @ turn.T), perfect.species, perfect.frac_coords)
    found = map_supercell(moved, CRYSTAL, 0.3)
    assert (found.num_cells, found.vacancies, found.strangers) == (12, 0, 0)
    assert found.displacement.max() < 1e-6


@pytest.mark.parametrize(("m", "n"), [(2, 1), (4, 3)])
def test_layer_of_a_twisted_bilayer(m, n):
    """Of two equal layers the lower is found, and the upper one is left out."""
    bilayer = twisted_bilayer(graphene(), Twist.of(m, n))
    found = map_supercell(bilayer, graphene(), 0.3)
    assert found.num_cells == len(bilayer) // 4
    assert (found.vacancies, found.strangers) == (0, len(bilayer) // 2)
    heights = bilayer.cart_coords[found.site >= 0, 2]
    assert np.ptp(heights) < 1e-6
    assert np.nanmax(found.displacement) < 1e-6


def test_cells_that_do_not_fit_are_refused():
    with pytest.raises(MismatchError, match=r"no supercell.*--primitive"):
        map_supercell(supercell(LAYER, np.diag([3, 3, 1])), graphene(), 0.5)
    others = Structure(CRYSTAL.lattice, ["Ge", "Sn"], CRYSTAL.frac_coords + 0.1)
    with pytest.raises(MismatchError, match="no atom"):
        map_supercell(supercell(CRYSTAL, np.diag([2, 2, 2])), others, 0.1)
