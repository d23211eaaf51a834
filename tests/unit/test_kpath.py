import itertools

import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad.errors import ConfigError, ReadError
from deeph_tracegrad.inference.brillouin import automatic_corners, plane_corners
from deeph_tracegrad.inference.kpath import choose_path, parse_corners, path_between, path_through, star
from deeph_tracegrad.structures.moire import Twist, graphene, twisted_bilayer

CUBIC = Structure(Lattice.cubic(4.0), ["Po"], [[0, 0, 0]])
FCC = 2.715 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
HEXAGONAL = {
    "120 degrees": [[2.46, 0], [-1.23, 1.23 * 3**0.5]],
    "60 degrees": [[2.46, 0], [1.23, 1.23 * 3**0.5]],
    "skew": [[2.46, 0], [2.46 * 2 + 1.23, 1.23 * 3**0.5]],
}
PLANE_LATTICES = {
    **{f"hexagonal, {name}": (vectors, "Γ K M Γ") for name, vectors in HEXAGONAL.items()},
    "square": ([[3, 0], [0, 3]], "Γ X M Γ"),
    "rectangular": ([[4, 0], [0, 3]], "Γ X S Y Γ"),
    "centred, flat": ([[3, 1], [3, -1]], "Γ X S X1 Y Γ"),
    "centred, steep": ([[1, 2.2], [-1, 2.2]], "Γ X S X1 Y Γ"),
    "centred, skew": ([[4, 0], [2, 0.9]], "Γ X S X1 Y Γ"),
    "oblique": ([[3, 0], [0.8, 4]], "Γ Y H C H1 X Γ"),
    "oblique, obtuse": ([[3, 0], [-0.8, 4]], "Γ Y H C H1 X Γ"),
}
CORNERS = {"K", "H", "H1", "X1"}  # of the zone, in every plane lattice


def rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("name", PLANE_LATTICES)
def test_points_of_plane_lattices_lie_on_the_boundary_of_the_zone(name):
    vectors, route = PLANE_LATTICES[name]
    vectors = np.array(vectors) @ rotation(0.3)
    reciprocal = np.linalg.inv(vectors).T
    shifts = np.array([shift for shift in itertools.product(range(-9, 10), repeat=2) if any(shift)]) @ reciprocal
    found = plane_corners(vectors)
    assert " ".join(label for label, _ in found) == route
    for label, k in found:
        excess = shifts @ (k @ reciprocal) - (shifts**2).sum(axis=1) / 2  # 0 on a face, positive outside
        if label == "Γ":
            assert not k.any()
            continue
        if np.abs(excess).min() > 1e-9:  # equivalent to a point of the zone, which it is told from by a shift
            moved = min((k @ reciprocal - shift for shift in shifts), key=np.linalg.norm)
            excess = shifts @ moved - (shifts**2).sum(axis=1) / 2
        assert excess.max() < 1e-9
        faces = (abs(excess) < 1e-9).sum()
        assert faces >= (2 if label in CORNERS else 1)


@pytest.mark.parametrize("name", HEXAGONAL)
def test_hexagonal_corner_from_the_metric(name):
    vectors = np.array(HEXAGONAL[name])
    reciprocal = np.linalg.inv(vectors).T
    points = dict(plane_corners(vectors))
    to_corner = points["K"] @ reciprocal
    lengths = np.linalg.norm(
        to_corner + np.array(list(itertools.product(range(-9, 10), repeat=2))) @ reciprocal, axis=1
    )
    assert np.sort(lengths)[:3] == pytest.approx([2 / (3 * 2.46)] * 3)
    assert np.linalg.norm((points["M"] - points["K"]) @ reciprocal) == pytest.approx(1 / (3 * 2.46))


def test_usual_hexagonal_cells_have_the_usual_coordinates():
    assert dict(plane_corners(np.array(HEXAGONAL["120 degrees"])))["K"] == pytest.approx([1 / 3, 1 / 3])
    assert dict(plane_corners(np.array(HEXAGONAL["60 degrees"])))["K"] == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("axis", range(3))
def test_slab_path_lies_in_the_plane(axis):
    axes = [other for other in range(3) if other != axis]
    lattice = np.zeros((3, 3))
    lattice[np.ix_(axes, axes)] = HEXAGONAL["120 degrees"]
    lattice[axis, axis] = 20.0
    (corners,) = automatic_corners(Structure(Lattice(lattice), ["C"], [[0.3, 0.3, 0.3]]))
    assert [label for label, _ in corners] == ["Γ", "K", "M", "Γ"]
    assert all(k[axis] == 0 for _, k in corners)


def test_chains_and_molecules():
    (chain,) = automatic_corners(Structure(Lattice(np.diag([12.0, 2.5, 14.0])), ["C"], [[0, 0, 0]]))
    assert [(label, k.tolist()) for label, k in chain] == [("Γ", [0, 0, 0]), ("X", [0, 0.5, 0])]
    molecule = choose_path("auto", Structure(Lattice.cubic(15.0), ["C"], [[0, 0, 0]]), 100.0)
    assert molecule.k.tolist() == [[0, 0, 0]]
    assert molecule.ticks == ["Γ", "Γ"]


@pytest.mark.parametrize("seed", range(6))
def test_fcc_in_any_primitive_cell(seed):
    """|k| and mutual angles of the points do not depend on the choice and orientation of the lattice vectors."""
    rng = np.random.default_rng(seed)
    transform = np.eye(3, dtype=int)
    for _ in range(4):
        first, second = rng.choice(3, size=2, replace=False)
        transform[first] += rng.integers(-1, 2) * transform[second]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    lattice = Lattice(transform @ FCC @ turn)
    structure = Structure(lattice, ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    parts = automatic_corners(structure)
    assert "".join(label for part in parts for label, _ in part) == "ΓXWKΓLUWLKUX"

    reciprocal = lattice.reciprocal_lattice_crystallographic.matrix
    points = {label: k @ reciprocal * 5.43 for part in parts for label, k in part}
    assert {label: round(np.linalg.norm(k) ** 2, 6) for label, k in points.items()} == {
        "Γ": 0,
        "X": 1,
        "W": 1.25,
        "K": 1.125,
        "U": 1.125,
        "L": 0.75,
    }
    assert points["X"] @ points["L"] == pytest.approx(0.5)
    assert points["X"] @ points["W"] == pytest.approx(1.0)
    assert points["U"] @ points["X"] == pytest.approx(1.0)
    assert np.linalg.norm(points["W"] - points["K"]) ** 2 == pytest.approx(0.125)


@pytest.mark.parametrize(
    "lattice",
    [
        Lattice.cubic(4.0),
        Lattice([[-2, 2, 2], [2, -2, 2], [2, 2, -2]]),
        Lattice.tetragonal(3, 5),
        Lattice.hexagonal(3, 5),
        Lattice.rhombohedral(4, 50),
        Lattice.rhombohedral(4, 100),
        Lattice.orthorhombic(3, 4, 5),
        Lattice([[2, 3, 0], [2, -3, 0], [0, 0, 5]]),
        Lattice([[0, 2, 3], [3.5, 0, 3], [3.5, 2, 0]]),
        Lattice.monoclinic(3, 4, 5, 80),
        Lattice.from_parameters(3, 4, 5, 80, 85, 95),
    ],
)
def test_every_crystal_lattice_has_a_path_along_its_zone(lattice):
    parts = automatic_corners(Structure(lattice, ["H"], [[0, 0, 0]]))
    assert all(len(part) >= 2 for part in parts)
    reciprocal = lattice.reciprocal_lattice.matrix
    shifts = np.array(list(itertools.product(range(-3, 4), repeat=3))) @ reciprocal
    for label, k in (corner for part in parts for corner in part):
        lengths = np.sort(np.linalg.norm(k @ reciprocal - shifts, axis=1))
        # A point other than Γ has another reciprocal vector as near as Γ, or lies inside (a few of lower symmetry).
        assert lengths[0] < 1e-9 if label == "Γ" else lengths[1] < 2 * lengths[0]


def test_supercell_has_the_path_of_its_own_lattice():
    supercell = Structure(Lattice(FCC), ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]]).make_supercell([2, 2, 2])
    supercell.perturb(0.05)
    labels = dict(automatic_corners(supercell)[0])
    assert np.linalg.norm(labels["X"] @ supercell.lattice.reciprocal_lattice_crystallographic.matrix) == pytest.approx(
        1 / 10.86
    )


def test_explicit_corners_with_fractions_and_a_break():
    path = choose_path("G 0 0 0, X 1/2 0 0, M 0.5 1/2 0 | R 1/2 1/2 1/2, \\Gamma 0 0 0", CUBIC, 80.0)
    assert path.labels == (("Γ", "X"), ("X", "M"), ("R", "Γ"))
    assert path.ticks == ["Γ", "X", "M|R", "Γ"]
    assert path.counts.tolist() == [11, 11, 18]
    np.testing.assert_allclose(path.corner_distance, [0, 0.125, 0.25, 0.25 + 3**0.5 / 8])
    np.testing.assert_allclose(
        path.k[[0, 10, 11, 21, 22, -1]],
        np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]) / 2,
    )
    assert (np.diff(path.distance) >= -1e-12).all()
    assert path.name(0) == "Γ"
    assert path.name(5) == "between Γ and X"
    assert path.name(22) == "R"


def test_every_segment_has_its_two_ends():
    path = path_between(parse_corners("A 0 0 0, B 1/100 0 0"), CUBIC.lattice, 1.0)
    assert path.counts.tolist() == [2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "G 0 0 0",
        "G 0 0, X 1 0 0",
        "G 0 0 0, X a b c",
        "G 0 0 0, X 1/0 0 0",
        "G __import__('os') 0 0, X 0 0 0",
        "x" * 5000,
    ],
)
def test_nonsense_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"K 1/3 1/3 0"):
        choose_path(text, CUBIC, 100.0)


def test_file_of_deeph_dock(tmp_path):
    file = tmp_path / "K_PATH"
    file.write_text("5 0 0 0 0.5 0 0 Gamma X\n3 0.5 0 0 0.5 0.5 0 X M\n\n")
    path = choose_path(str(file), CUBIC, 100.0)
    assert path.labels == (("Γ", "X"), ("X", "M"))
    assert path.counts.tolist() == [5, 3]
    np.testing.assert_allclose(path.k[:5, 0], [0, 0.125, 0.25, 0.375, 0.5])


def test_openmx_input(unpacked):
    structure = Structure(Lattice.hexagonal(2.46, 20), ["C"], [[0, 0, 0]])
    path = choose_path(str(unpacked("openmx/graphene") / "openmx.dat"), structure, 100.0)
    assert path.ticks == ["Γ", "K", "M", "Γ"]
    assert path.counts.tolist() == [20, 12, 18]


def test_openmx_input_with_a_path_in_another_cell(tmp_path):
    """Corners in units of the conventional reciprocal vectors, for a primitive cell."""
    file = tmp_path / "openmx.dat"
    file.write_text(
        "Atoms.UnitVectors.Unit Ang\n<Band.KPath.UnitCell\n5.43 0 0\n0 5.43 0\n0 0 5.43\nBand.KPath.UnitCell>\n"
        "<Band.kpath\n 9 0 0 0  1 0 0  G X\nBand.kpath>\n"
    )
    lattice = Lattice(FCC)
    path = choose_path(str(file), Structure(lattice, ["Si"], [[0, 0, 0]]), 100.0)
    np.testing.assert_allclose(
        path.k[-1] @ lattice.reciprocal_lattice_crystallographic.matrix, [1 / 5.43, 0, 0], atol=1e-12
    )


def test_file_with_a_corner_a_line(tmp_path):
    file = tmp_path / "path.txt"
    file.write_text("# my path\nG 0 0 0\nX 1/2 0 0\n\nM 1/2 1/2 0\nG 0 0 0\n")
    assert choose_path(str(file), CUBIC, 100.0).ticks == ["Γ", "X|M", "Γ"]


@pytest.mark.parametrize(
    "content", ["", "hello\nworld", "5 0 0 0 1 0 0 A", "1 0 0 0 1 0 0 A B", "<Band.kpath\n1 2 3\nBand.kpath>"]
)
def test_files_without_a_path_are_named(tmp_path, content):
    file = tmp_path / "K_PATH"
    file.write_text(content)
    with pytest.raises(ReadError, match="K_PATH"):
        choose_path(str(file), CUBIC, 100.0)


@pytest.mark.parametrize("repeated", [True, False])
def test_path_through_a_list_of_points(repeated):
    wanted = choose_path("G 0 0 0, X 1/2 0 0, M 1/2 1/2 0, G 0 0 0", CUBIC, 60.0)
    listed = wanted.k if repeated else np.delete(wanted.k, np.cumsum(wanted.counts)[:-1], axis=0)
    found, source = path_through(listed, CUBIC)
    np.testing.assert_allclose(found.k, wanted.k, atol=1e-12)
    np.testing.assert_allclose(found.k, listed[source])
    assert found.counts.tolist() == wanted.counts.tolist()
    assert found.ticks == ["Γ", "X", "M", "Γ"]
    assert path_through(listed, CUBIC, [("G", "A"), ("A", "B"), ("B", "G")])[0].ticks == ["Γ", "A", "B", "Γ"]


def test_unknown_corners_are_named_by_their_coordinates():
    k = np.linspace([0, 0, 0], [0.25, 0, 0], 5)
    assert path_through(k, CUBIC)[0].ticks == ["Γ", "1/4 0 0"]


def test_a_large_cell_has_so_many_steps_a_segment():
    """Its zone may be tiny: a density would give a moiré cell a handful of k-points."""
    layers = twisted_bilayer(graphene(), Twist.of(10, 11))
    path = choose_path("auto", layers, None)
    assert path.ticks == ["Γ", "K", "M", "Γ"]
    assert path.counts.sum() == 39
    steps = path.counts - 1
    np.testing.assert_allclose(steps / np.diff(path.corner_distance), 36 / path.corner_distance[-1], rtol=0.06)
    corner = path.k[path.counts[0] - 1]  # where the Dirac points of both layers fold to
    reciprocal = layers.lattice.reciprocal_lattice.matrix
    lengths = star(corner, reciprocal)
    np.testing.assert_allclose(lengths[:3], lengths[0])
    assert lengths[3] > 1.5 * lengths[0]


def test_a_single_point_is_a_path_without_a_density():
    assert len(choose_path("auto", Structure(Lattice.cubic(15.0), ["C"], [[0, 0, 0]]), None).k) == 1
