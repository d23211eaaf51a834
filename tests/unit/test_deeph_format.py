"""The current DeepH format: against DeepH-dock's files and OpenMX's bands, round trips, damage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.linalg import eigvalsh

from damage import cut, flipped, outcome
from deeph_tracegrad.blocks import BlockMatrix, dense_at_k, union_pairs
from deeph_tracegrad.deeph_format import read_deeph, write_deeph
from deeph_tracegrad.deeph_spin import join_spins
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.poscar import read_poscar, write_poscar
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band

CASES = ["graphene", "mos2", "fe_bcc_spin", "bi_soc"]
SPIN = dict(zip(CASES, [SpinMode.NONE, SpinMode.NONE, SpinMode.COLLINEAR, SpinMode.NONCOLLINEAR], strict=True))


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def dock(unpacked, case):
    return unpacked(f"openmx/{case}") / "deeph_dock"


@pytest.fixture
def graphene(unpacked, tmp_path):
    """A copy to damage."""
    return shutil.copytree(unpacked("openmx/graphene") / "deeph_dock", tmp_path / "graphene")


def test_bands_are_those_that_openmx_printed(unpacked, case, dock):
    material, printed = read_deeph(dock), read_openmx_band(unpacked(f"openmx/{case}") / "openmx.Band")
    overlap = material.overlap
    if material.spin is SpinMode.NONCOLLINEAR:
        overlap = join_spins(overlap, overlap)
    for channel, energies in zip(material.hamiltonian, printed.energies, strict=True):
        for k, levels in list(zip(printed.k, energies, strict=True))[::6]:
            computed = eigvalsh(dense_at_k(channel, k), dense_at_k(overlap, k))
            np.testing.assert_allclose(computed, levels, rtol=0, atol=1e-7)


def test_reads_what_dock_wrote(case, dock):
    material = read_deeph(dock)
    info = json.loads((dock / "info.json").read_text())
    assert material.spin is SPIN[case]
    assert material.fermi_level == info["fermi_energy_eV"]
    assert material.electrons is None
    assert list(material.basis) == list(info["elements_orbital_map"])
    assert material.num_orbitals == info["orbits_quantity"]
    violations = material.provenance["hermiticity_violation"]
    with h5py.File(dock / "hamiltonian.h5") as file:
        pairs, entries = file["atom_pairs"][:], file["entries"][:]
        bounds, shapes = file["chunk_boundaries"][:], file["chunk_shapes"][:]
    for place in range(0, len(pairs), 7):
        block = entries[bounds[place] : bounds[place + 1]].reshape(shapes[place])
        if material.spin is SpinMode.COLLINEAR:
            rows, columns = shapes[place] // 2
            parts = [block[:rows, :columns], block[rows:, columns:]]
        else:
            parts = [block]
        for part, matrix in zip(parts, material.hamiltonian, strict=True):
            np.testing.assert_array_equal(matrix.pairs[place], pairs[place])
            np.testing.assert_allclose(matrix.block(place), part, rtol=0, atol=violations["hamiltonian"])
    assert 0 < violations["hamiltonian"] < 1e-7


def assert_same(one, other):
    """Equal to the last bit, but for the provenance."""
    assert one.elements == other.elements
    np.testing.assert_array_equal(one.structure.lattice.matrix, other.structure.lattice.matrix)
    np.testing.assert_array_equal(one.structure.frac_coords, other.structure.frac_coords)
    assert one.basis == other.basis
    for name in ("spin", "fermi_level", "electrons", "converged"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.overlap is None) == (other.overlap is None)
    matrices = list(zip(one.hamiltonian, other.hamiltonian, strict=True))
    for left, right in matrices + ([(one.overlap, other.overlap)] if one.overlap is not None else []):
        assert left.entries.dtype == right.entries.dtype
        np.testing.assert_array_equal(left.pairs, right.pairs)
        np.testing.assert_array_equal(left.entries, right.entries)


def described(material):
    """With everything set that a format may lose."""
    bases = {
        element: replace(basis, cutoff_radius=3.7042407, label=f"{element}7.0-{basis.name}")
        for element, basis in material.basis.items()
    }
    provenance = {"code": "OpenMX", "constant": np.float64(27.2), "path": Path("a/b"), "list": np.arange(2)}
    return replace(material, basis=Basis.of(bases), electrons=8.25, converged=True, provenance=provenance)


def test_round_trip_is_exact(dock, tmp_path):
    material = described(read_deeph(dock))
    write_deeph(material, tmp_path / "out")
    again = read_deeph(tmp_path / "out")
    assert_same(material, again)
    assert again.provenance["origin"] == {"code": "OpenMX", "constant": 27.2, "path": "a/b", "list": [0, 1]}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "POSCAR",
        "hamiltonian.h5",
        "info.json",
        "overlap.h5",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_are_laid_out_as_dock_lays_them_out(case, dock, tmp_path):
    write_deeph(read_deeph(dock), tmp_path / "out")
    ours, theirs = (json.loads((folder / "info.json").read_text()) for folder in (tmp_path / "out", dock))
    assert {key: ours[key] for key in theirs} == theirs
    for name in ("hamiltonian.h5", "overlap.h5"):
        with h5py.File(tmp_path / "out" / name) as mine, h5py.File(dock / name) as reference:
            assert set(mine) == set(reference)
            for key in ("atom_pairs", "chunk_shapes", "chunk_boundaries"):
                assert mine[key].dtype == reference[key].dtype
                np.testing.assert_array_equal(mine[key][:], reference[key][:])
            assert mine["entries"].dtype == reference["entries"].dtype
            np.testing.assert_allclose(mine["entries"][:], reference["entries"][:], rtol=0, atol=1e-7)


def interleaved(material):
    """MoS2 with its atoms as S Mo S."""
    order = np.array([1, 0, 2])
    rank = np.argsort(order)

    def moved(matrix):
        pairs = np.concatenate([matrix.pairs[:, :3], rank[matrix.pairs[:, 3:]]], axis=1)
        return type(matrix).of(pairs, matrix.entries, matrix.sizes[order])

    return replace(
        material,
        structure=Structure.from_sites([material.structure[int(atom)] for atom in order]),
        overlap=moved(material.overlap),
        hamiltonian=tuple(map(moved, material.hamiltonian)),
    )


def test_interleaved_elements_are_grouped_in_the_file_and_restored(unpacked, tmp_path):
    material = interleaved(read_deeph(unpacked("openmx/mos2") / "deeph_dock"))
    assert material.elements == ["S", "Mo", "S"]
    write_deeph(material, tmp_path / "out")
    assert (tmp_path / "out" / "POSCAR").read_text().split("\n")[5:7] == ["S Mo", "2 1"]
    assert_same(material, read_deeph(tmp_path / "out"))
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    del info["deeph_tracegrad"]  # as another program sees it
    (tmp_path / "out" / "info.json").write_text(json.dumps(info))
    grouped = read_deeph(tmp_path / "out")
    assert grouped.elements == ["S", "S", "Mo"]
    for k in ([0.1, 0.2, 0.0], [1 / 3, 1 / 3, 0.0]):
        levels = [eigvalsh(dense_at_k(m.hamiltonian[0], k), dense_at_k(m.overlap, k)) for m in (material, grouped)]
        np.testing.assert_allclose(levels[0], levels[1], rtol=0, atol=1e-10)


def test_pairs_that_one_matrix_lacks_become_zeros(unpacked, tmp_path):
    material = read_deeph(unpacked("openmx/graphene") / "deeph_dock")
    distance = np.linalg.norm(material.pair_vectors(material.overlap.pairs), axis=1)
    fewer = replace(material, overlap=material.overlap.on_pairs(material.overlap.pairs[distance < 4]))
    write_deeph(fewer, tmp_path / "out")
    again = read_deeph(tmp_path / "out")
    pairs = union_pairs(fewer.overlap.pairs, material.hamiltonian[0].pairs)
    for matrix, original in [(again.overlap, fewer.overlap), (again.hamiltonian[0], material.hamiltonian[0])]:
        np.testing.assert_array_equal(matrix.pairs, pairs)
        np.testing.assert_array_equal(matrix.entries, original.on_pairs(pairs).entries)


def test_which_hamiltonian_is_read(graphene):
    material = read_deeph(graphene)
    doubled = [replace(matrix, entries=2 * matrix.entries) for matrix in material.hamiltonian]
    write_deeph(material.with_hamiltonian(tuple(doubled)), graphene.parent / "pred", "hamiltonian_pred.h5")
    shutil.copy(graphene.parent / "pred" / "hamiltonian_pred.h5", graphene)
    assert read_deeph(graphene).provenance["files"]["hamiltonian"] == "hamiltonian.h5"
    forced = read_deeph(graphene, "hamiltonian_pred.h5")
    np.testing.assert_array_equal(forced.hamiltonian[0].entries, doubled[0].entries)
    (graphene / "hamiltonian.h5").unlink()
    assert read_deeph(graphene).provenance["files"]["hamiltonian"] == "hamiltonian_pred.h5"
    (graphene / "hamiltonian_pred.h5").unlink()
    assert read_deeph(graphene).hamiltonian == ()
    with pytest.raises(ReadError, match=r"hamiltonian\.h5: the file is missing"):
        read_deeph(graphene, "hamiltonian.h5")


def test_spin_of_a_folder_without_hamiltonian(unpacked, tmp_path):
    material = read_deeph(unpacked("openmx/fe_bcc_spin") / "deeph_dock")
    write_deeph(replace(material, hamiltonian=()), tmp_path / "out")
    assert read_deeph(tmp_path / "out").spin is SpinMode.COLLINEAR


def test_without_matrices_there_is_nothing_to_write(unpacked, tmp_path):
    material = read_deeph(unpacked("openmx/graphene") / "deeph_dock")
    with pytest.raises(MismatchError, match="neither"):
        write_deeph(replace(material, hamiltonian=(), overlap=None), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_single_precision_is_accepted(graphene):
    before = read_deeph(graphene)
    change(graphene / "hamiltonian.h5", "entries", lambda entries: entries.astype(np.float32))
    after = read_deeph(graphene)
    assert after.hamiltonian[0].entries.dtype == np.float64
    np.testing.assert_allclose(after.hamiltonian[0].entries, before.hamiltonian[0].entries, rtol=1e-6, atol=1e-9)


def change(path, name, new):
    """Replace a dataset by a function of itself; by nothing where that is None."""
    with h5py.File(path, "r+") as file:
        data = new(file[name][()])
        del file[name]
        if data is not None:
            file[name] = data


def edited(array, place, value):
    array[place] = value
    return array


H5_DAMAGE = {
    "pairs missing": ("atom_pairs", lambda pairs: None, "atom_pairs"),
    "entries missing": ("entries", lambda entries: None, "entries"),
    "boundaries missing": ("chunk_boundaries", lambda bounds: None, "chunk_boundaries"),
    "pairs of four columns": ("atom_pairs", lambda pairs: pairs[:, :4], "any x 5"),
    "pairs of floats": ("atom_pairs", lambda pairs: pairs.astype(float), "float64"),
    "atom out of range": ("atom_pairs", lambda pairs: edited(pairs, (3, 4), 2), "with 2 atoms"),
    "negative atom": ("atom_pairs", lambda pairs: edited(pairs, (3, 3), -1), "with 2 atoms"),
    "cell far away": ("atom_pairs", lambda pairs: edited(pairs, (3, 0), 70000), "not possible"),
    "a pair twice": ("atom_pairs", lambda pairs: edited(pairs, 3, pairs[4]), "twice"),
    "pairs shuffled": ("atom_pairs", lambda pairs: np.roll(pairs, 1, axis=0), "not Hermitian"),
    "a pair too few": ("atom_pairs", lambda pairs: pairs[:-1], "chunk_shapes"),
    "other shapes": ("chunk_shapes", lambda shapes: shapes + 1, "chunk_shapes do not follow"),
    "other boundaries": ("chunk_boundaries", lambda bounds: edited(bounds, 1, 3), "chunk_boundaries do not follow"),
    "entries too short": ("entries", lambda entries: entries[:-1], "entries"),
    "entries of integers": ("entries", lambda entries: entries.astype(int), "int64"),
    "entries complex": ("entries", lambda entries: entries.astype(complex), "no spin"),
    "not a number": ("entries", lambda entries: edited(entries, 7, np.nan), "not finite"),
    "infinite": ("entries", lambda entries: edited(entries, 7, np.inf), "not finite"),
    "not Hermitian": ("entries", lambda entries: edited(entries, 1, 50.0), "not Hermitian"),
}


@pytest.mark.parametrize("damage", H5_DAMAGE)
def test_inconsistent_matrix_files_are_refused(graphene, damage):
    name, new, message = H5_DAMAGE[damage]
    change(graphene / "hamiltonian.h5", name, new)
    with pytest.raises(ReadError, match=message) as error:
        read_deeph(graphene)
    assert str(graphene / "hamiltonian.h5") in str(error.value)


INFO_DAMAGE = {
    "spinful missing": ("spinful", None, "lacks the key spinful"),
    "spinful a number": ("spinful", 1, "true or false"),
    "spinful wrong": ("spinful", True, "chunk_shapes"),
    "atoms": ("atoms_quantity", 3, "atoms_quantity is 3"),
    "orbitals": ("orbits_quantity", 52, "orbits_quantity is 52"),
    "orbitals missing": ("orbits_quantity", None, "lacks the key orbits_quantity"),
    "no shells": ("elements_orbital_map", None, "elements_orbital_map"),
    "other element": ("elements_orbital_map", {"Si": [0, 0, 1, 1, 2]}, "lacks C"),
    "no element": ("elements_orbital_map", {"Zz": [0]}, "elements_orbital_map"),
    "shells of text": ("elements_orbital_map", {"C": "00112"}, "list of degrees"),
    "shells in disorder": ("elements_orbital_map", {"C": [0, 1, 0, 1, 2]}, "ascending"),
    "h shells": ("elements_orbital_map", {"C": [5]}, "supported degrees"),
    "Fermi level of text": ("fermi_energy_eV", "-3.8", "should be a number"),
    "Fermi level beyond floats": ("fermi_energy_eV", int("9" * 500), "should be a number"),
    "split Hamiltonian": ("split_hkb", True, "split over several files"),
    "own key damaged": ("deeph_tracegrad", {"version": 1}, "damaged"),
    "own key newer": ("deeph_tracegrad", {"version": 99}, "newer"),
    "own key of text": ("deeph_tracegrad", "x", "damaged"),
}


@pytest.mark.parametrize("damage", INFO_DAMAGE)
def test_inconsistent_info_is_refused(graphene, damage):
    key, value, message = INFO_DAMAGE[damage]
    info = json.loads((graphene / "info.json").read_text())
    info[key] = value
    (graphene / "info.json").write_text(json.dumps({key: value for key, value in info.items() if value is not None}))
    with pytest.raises(ReadError, match=message) as error:
        read_deeph(graphene)
    assert str(graphene) in str(error.value)


def test_missing_fermi_level_and_occupation(graphene):
    info = json.loads((graphene / "info.json").read_text())
    info["fermi_energy_eV"] = None
    info["occupation"] = 8
    (graphene / "info.json").write_text(json.dumps(info))
    material = read_deeph(graphene)
    assert material.fermi_level is None
    assert material.electrons == 8.0
    del info["fermi_energy_eV"]
    (graphene / "info.json").write_text(json.dumps(info))
    assert read_deeph(graphene).fermi_level is None


def test_spin_that_is_not_collinear_though_real(unpacked, tmp_path):
    folder = shutil.copytree(unpacked("openmx/fe_bcc_spin") / "deeph_dock", tmp_path / "iron")

    def tilted(entries):
        entries[14] = 0.5  # up-down part of the first, on-site, block of 28 x 28
        entries[14 * 28] = 0.5
        return entries

    change(folder / "hamiltonian.h5", "entries", tilted)
    with pytest.raises(ReadError, match="should be collinear"):
        read_deeph(folder)


def test_a_prediction_need_not_be_hermitian(graphene):
    (graphene / "hamiltonian.h5").rename(graphene / "hamiltonian_pred.h5")
    change(graphene / "hamiltonian_pred.h5", "entries", lambda entries: edited(entries, 1, 50.0))
    material = read_deeph(graphene)
    assert material.provenance["hermiticity_violation"]["hamiltonian"] > 40
    assert material.hamiltonian[0].symmetrised()[1] == 0


def test_one_orbital_without_overlap(tmp_path):
    pairs = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]])
    matrix = BlockMatrix.of(pairs, np.array([1.0, 2.0, 2.0]), np.array([1]))
    basis = Basis.of({"H": ElementBasis((0,))})
    structure = Structure(Lattice.cubic(5), ["H"], [[0.25, 1.75, -3.0]])
    material = Material(structure, basis, SpinMode.NONE, hamiltonian=(matrix,))
    write_deeph(material, tmp_path / "out")
    assert_same(material, read_deeph(tmp_path / "out"))


# POSCAR


POSCAR = """cubic
{scale}
  2.0 0.0 0.0
  0.0 4.0 0.0
  0.0 0.0 5.0
{symbols}
{counts}
{kind}
  0.25 0.5 -0.75 {tail}
  1.5 0.0 0.0
"""


def poscar(tmp_path, *, scale="1.0", symbols="C H", counts="1 1", kind="Direct", tail=""):
    path = tmp_path / "POSCAR"
    path.write_text(POSCAR.format(scale=scale, symbols=symbols, counts=counts, kind=kind, tail=tail))
    return path


@pytest.mark.parametrize("kind", ["Direct", "direct", "D", "Selective dynamics\nDirect"])
def test_direct_coordinates_are_kept_as_they_are(tmp_path, kind):
    structure = read_poscar(poscar(tmp_path, kind=kind, tail="T F T" if "S" in kind else "C1"))
    np.testing.assert_array_equal(structure.frac_coords, [[0.25, 0.5, -0.75], [1.5, 0, 0]])
    assert [site.specie.symbol for site in structure] == ["C", "H"]


@pytest.mark.parametrize("kind", ["Cartesian", "cart", "k"])
@pytest.mark.parametrize(("scale", "factor"), [("2.0", [2, 2, 2]), ("-320", [2, 2, 2]), ("1 2 3", [1, 2, 3])])
def test_scale_multiplies_lattice_and_cartesian_coordinates(tmp_path, kind, scale, factor):
    structure = read_poscar(poscar(tmp_path, kind=kind, scale=scale))
    np.testing.assert_allclose(structure.lattice.matrix, np.diag([2.0, 4, 5]) * factor, atol=1e-14)
    np.testing.assert_allclose(structure.cart_coords, np.array([[0.25, 0.5, -0.75], [1.5, 0, 0]]) * factor, atol=1e-14)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": "0"},
        {"scale": "1 2"},
        {"scale": "1 -2 3"},
        {"scale": "nan"},
        {"symbols": "1 1"},
        {"symbols": "C Hx"},
        {"symbols": ""},
        {"counts": "1"},
        {"counts": "1 -1"},
        {"counts": "1 2"},
        {"counts": "1 99999999999999999999"},
        {"kind": "Angstrom"},
        {"kind": ""},
        {"tail": "0.5"},
    ],
)
def test_impossible_poscars_are_refused(tmp_path, wrong):
    with pytest.raises(ReadError, match="POSCAR"):
        read_poscar(poscar(tmp_path, **wrong))


def test_flat_cells_and_cut_files_are_refused(tmp_path):
    path = poscar(tmp_path)
    whole = path.read_text()
    path.write_text(whole.replace("0.0 4.0 0.0", "4.0 0.0 0.0"))
    with pytest.raises(ReadError, match="no volume"):
        read_poscar(path)
    path.write_text(whole.rstrip())
    with pytest.raises(ReadError, match="cut off"):
        read_poscar(path)


def test_poscar_round_trip_keeps_every_bit(tmp_path):
    rng = np.random.default_rng(0)
    structure = Structure(Lattice(rng.normal(size=(3, 3)) * 7), ["Mo", "S", "S"], rng.normal(size=(3, 3)) * 2)
    write_poscar(structure, tmp_path / "POSCAR")
    again = read_poscar(tmp_path / "POSCAR")
    np.testing.assert_array_equal(again.frac_coords, structure.frac_coords)
    np.testing.assert_array_equal(again.lattice.matrix, structure.lattice.matrix)
    with pytest.raises(MismatchError, match="together"):
        write_poscar(Structure(Lattice.cubic(4), ["S", "Mo", "S"], np.zeros((3, 3))), tmp_path / "POSCAR")


# damage


def changed_entries(one, other):
    """How many stored numbers differ, and the largest difference."""
    count, largest = 0, 0.0
    for left, right in zip([one.overlap, *one.hamiltonian], [other.overlap, *other.hamiltonian], strict=True):
        np.testing.assert_array_equal(left.pairs, right.pairs)
        count += (left.entries != right.entries).sum()
        largest = max(largest, abs(left.entries - right.entries).max())
    return count, largest


FILES = ["POSCAR", "info.json", "hamiltonian.h5", "overlap.h5"]


@pytest.mark.parametrize("name", FILES)
def test_cut_files_are_refused(graphene, name):
    whole = (graphene / name).read_bytes()
    for content in cut(whole, seed=1):
        (graphene / name).write_bytes(content)
        assert outcome(read_deeph, graphene) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("ours", [False, True], ids=["dock", "ours"])
def test_flipped_bits_are_refused_or_change_one_number(graphene, name, ours):
    if ours:
        write_deeph(read_deeph(graphene), graphene)
    good = read_deeph(graphene)
    for content in flipped((graphene / name).read_bytes(), seed=2):
        (graphene / name).write_bytes(content)
        material = outcome(read_deeph, graphene)
        if material is None:
            continue
        count, largest = changed_entries(good, material)
        assert count <= (0 if ours else 2)  # checksums; or one entry and its partner, and then its size is reported
        violations = material.provenance["hermiticity_violation"].values()
        assert largest < 1e-6 or max(violations) >= largest


@pytest.mark.parametrize("name", FILES)
def test_wrong_files_are_refused(graphene, name, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["atom_pairs/x"] = 1
    other = [tmp_path / "other.h5", graphene / "POSCAR", graphene / "info.json", graphene / "overlap.h5"]
    contents = [path.read_bytes() for path in other if path.name != name]
    if name == "hamiltonian.h5":
        contents.pop()  # an overlap is, in form, a Hamiltonian
    contents += [b"", b"\0" * 5000, np.random.default_rng(3).bytes(5000), b"[" * 100000, b"{}\n", b"\n" * 50]
    for content in contents:
        (graphene / name).write_bytes(content)
        assert outcome(read_deeph, graphene) is None
    (graphene / name).unlink()
    (graphene / name).mkdir()
    assert outcome(read_deeph, graphene) is None
