import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad.inference.kpoints import mesh_divisions, mesh_points, over_k_points, periodic_axes


def structure(lattice, places):
    return Structure(Lattice(lattice), ["C"] * len(places), places)


@pytest.mark.parametrize("origin", [0.0, 0.47, -0.3])
def test_vacuum_is_found_wherever_the_slab_stands(origin):
    slab = structure(np.diag([3.0, 4.0, 15.0]), [[0, 0, origin], [0.5, 0.5, origin + 0.1]])
    assert periodic_axes(slab).tolist() == [True, True, False]


def test_large_cells_without_vacuum_are_periodic():
    places = np.stack(np.meshgrid(*[np.arange(4) / 4] * 3), axis=-1).reshape(-1, 3)
    assert periodic_axes(structure(np.eye(3) * 20.0, places)).all()


def test_vacuum_counts_along_the_normal_not_along_a_tilted_vector():
    assert periodic_axes(structure([[3, 0, 0], [0, 3, 0], [9, 0, 6]], [[0, 0, 0]])).all()


def test_mesh_of_a_hexagonal_layer_has_its_corner_and_one_plane():
    layer = Structure(Lattice.hexagonal(2.46, 20.0), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    divisions = mesh_divisions(layer, 40.0)
    assert divisions == (21, 21, 1)
    k, _ = mesh_points(divisions, time_reversal=False)
    assert (abs(k - [1 / 3, 1 / 3, 0]).max(axis=1) < 1e-12).any()


@pytest.mark.parametrize("divisions", [(3, 3, 3), (4, 2, 1), (1, 1, 1), (6, 5, 2)])
def test_time_reversal_keeps_one_of_each_pair(divisions):
    whole, weights = mesh_points(divisions, time_reversal=False)
    half, half_weights = mesh_points(divisions, time_reversal=True)
    assert len(whole) == np.prod(divisions)
    assert weights.sum() == pytest.approx(1)
    assert half_weights.sum() == pytest.approx(1)
    phases = np.array([1, 2, 3])
    even = np.cos(2 * np.pi * whole @ phases) + np.cos(2 * np.pi * whole @ [1, 0, -1]) ** 2
    even_half = np.cos(2 * np.pi * half @ phases) + np.cos(2 * np.pi * half @ [1, 0, -1]) ** 2
    assert even @ weights == pytest.approx(even_half @ half_weights)
    assert len(half) <= len(whole) // 2 + 4


def test_results_come_in_the_order_of_the_k_points():
    k = np.arange(15.0).reshape(5, 3)
    assert over_k_points(lambda point: float(point[0]), k, 10, "test") == k[:, 0].tolist()
