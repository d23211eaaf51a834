"""Density and position matrices, labels of atoms and overlap-only folders in both DeepH formats."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from pymatgen.core import Structure

from damage import cut, flipped, outcome
from deeph_tracegrad.deeph_format import read_deeph, write_deeph
from deeph_tracegrad.deeph_legacy import read_deeph_legacy, write_deeph_legacy
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.poscar import read_poscar
from materials import assert_same_matrices, random_material, with_density_and_position

EXTRA = ("density", "position")
FORMATS = {"deeph": (read_deeph, write_deeph), "deeph-legacy": (read_deeph_legacy, write_deeph_legacy)}
FILES = {
    "deeph": {"density": "density_matrix.h5", "position": "position_matrix.h5"},
    "deeph-legacy": {"density": "density_matrixs.h5", "position": "positions.h5"},
}


@pytest.fixture
def dock(unpacked, tmp_path):
    """A folder of DeepH-dock with density and position matrices, to damage."""
    return shutil.copytree(unpacked("deeph_dock/demo_a_00"), tmp_path / "dock")


def full(spin):
    """With every matrix, atoms of one element apart, and names of kinds of atoms."""
    material = with_density_and_position(random_material(spin)).permuted(np.array([1, 0, 2]))
    structure = material.structure
    labelled = Structure(structure.lattice, structure.species, structure.frac_coords, labels=["S_up", "Mo", "S2"])
    return replace(material, structure=labelled, provenance={"code": "OpenMX", "list": [1, 2]})


def test_density_and_position_that_dock_wrote(dock):
    material = read_deeph(dock, matrices=EXTRA)
    pairs, overlap = material.overlap.pairs, material.overlap
    with h5py.File(dock / "density_matrix.h5") as density, h5py.File(dock / "position_matrix.h5") as position:
        assert position["entries"].shape == (3, len(density["entries"]))
        np.testing.assert_array_equal(pairs, density["atom_pairs"])
        np.testing.assert_allclose(material.density[0].entries, density["entries"], rtol=0, atol=1e-15)
        for direction, matrix in enumerate(material.position):
            np.testing.assert_array_equal(matrix.entries, position["entries"][direction])
    # OpenMX keeps the density of one of two equal spins; graphene's cell has 8 valence electrons
    assert 2 * material.density[0].entries @ overlap.entries == pytest.approx(8, abs=1e-9)
    assert 1e-5 < material.provenance["hermiticity_violation"]["position"] < 1e-4  # Å, of OpenMX's grid
    assert max(matrix.symmetrised()[1] for matrix in material.position) > 1
    for atom, place in enumerate(material.structure.cart_coords):
        on_site = [matrix.on_pairs(np.array([[0, 0, 0, atom, atom]])).entries[0] for matrix in material.position]
        np.testing.assert_allclose(on_site, place, rtol=0, atol=1e-5)  # <s|r|s> of an s orbital is its centre


def test_they_are_only_read_when_asked_for(dock):
    material = read_deeph(dock)
    assert material.density == material.position == ()
    assert "density" not in material.provenance["files"]
    assert read_deeph(dock, matrices=["density"]).position == ()
    (dock / "density_matrix.h5").unlink()
    assert read_deeph(dock, matrices=EXTRA).density == ()


@pytest.mark.parametrize("spin", SpinMode)
def test_every_matrix_and_label_survives_both_formats(tmp_path, spin):
    material = previous = full(spin)
    for step, name in enumerate(["deeph", "deeph-legacy", "deeph", "deeph-legacy"]):
        read, write = FORMATS[name]
        write(previous, tmp_path / str(step))
        previous = read(tmp_path / str(step), matrices=EXTRA)
        assert_same_matrices(previous, material)
        assert [site.label for site in previous.structure] == ["S_up", "Mo", "S2"]
        assert previous.elements == ["S", "Mo", "S"]
        for quantity in ("basis", "fermi_level", "electrons", "converged"):
            assert getattr(previous, quantity) == getattr(material, quantity)
        np.testing.assert_allclose(previous.structure.cart_coords, material.structure.cart_coords, rtol=0, atol=1e-14)
        origin = previous.provenance
        for _ in range(step + 1):
            origin = origin["origin"]
        assert origin == material.provenance


def test_the_current_format_keeps_every_bit_of_the_structure(tmp_path):
    material = full(SpinMode.NONE)
    write_deeph(material, tmp_path / "one")
    again = read_deeph(tmp_path / "one", matrices=EXTRA)
    np.testing.assert_array_equal(again.structure.frac_coords, material.structure.frac_coords)
    np.testing.assert_array_equal(again.structure.lattice.matrix, material.structure.lattice.matrix)
    write_deeph(again, tmp_path / "two")
    for file in FILES["deeph"].values():
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_all_files_of_a_folder_list_the_same_pairs(tmp_path):
    material = full(SpinMode.COLLINEAR)
    assert len(material.density[0]) < len(material.overlap)
    write_deeph(material, tmp_path / "out")
    lists = []
    for name in ("overlap", "hamiltonian", "density_matrix", "position_matrix"):
        with h5py.File(tmp_path / "out" / f"{name}.h5") as file:
            lists.append(file["atom_pairs"][:])
    assert all(np.array_equal(pairs, lists[0]) for pairs in lists)


def test_legacy_blocks_have_the_order_of_openmx(tmp_path):
    material = full(SpinMode.NONE)
    write_deeph_legacy(material, tmp_path / "out")
    sulphur = [0, 3, 1, 2, 6, 4, 5]  # s p p: y z x becomes x y z
    place = material.position[1].pairs.tolist().index([0, 0, 0, 0, 2])
    with h5py.File(tmp_path / "out" / "positions.h5") as file:
        assert len(file) == 3 * len(material.overlap)
        block = file["[0, 0, 0, 1, 3, 2]"][:]
    np.testing.assert_array_equal(block, material.position[1].block(place)[sulphur][:, sulphur])
    (tmp_path / "out" / "density_matrixs.h5").rename(tmp_path / "out" / "density_matrices.h5")
    assert_same_matrices(read_deeph_legacy(tmp_path / "out", matrices=EXTRA), material)


def test_a_density_tells_the_spin_where_there_is_no_hamiltonian(tmp_path):
    material = full(SpinMode.COLLINEAR)
    write_deeph(replace(material, hamiltonian=()), tmp_path / "out")
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    del info["deeph_tracegrad"]  # as DeepH-dock would have written it
    (tmp_path / "out" / "info.json").write_text(json.dumps(info))
    assert read_deeph(tmp_path / "out", matrices=["density"]).spin is SpinMode.COLLINEAR


# overlap alone


def test_the_overlap_alone_goes_from_format_to_format(tmp_path):
    material = replace(full(SpinMode.NONE), hamiltonian=(), density=(), position=(), fermi_level=None)
    write_deeph(material, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["POSCAR", "info.json", "overlap.h5"]
    write_deeph_legacy(read_deeph(tmp_path / "new"), tmp_path / "old")
    # what openmx_parse_overlap of DeepH-pack writes has no info.json
    (tmp_path / "old" / "info.json").unlink()
    assert {path.name for path in (tmp_path / "old").iterdir()} == {
        *("element.dat", "lat.dat", "rlat.dat", "site_positions.dat", "orbital_types.dat", "overlaps.h5"),
    }
    legacy = read_deeph_legacy(tmp_path / "old", matrices=EXTRA)
    assert legacy.basis.describe() == "S s1p2, Mo s2p1d1"
    assert legacy.fermi_level is None
    write_deeph(legacy, tmp_path / "again")
    for found in (legacy, read_deeph(tmp_path / "again")):
        assert found.elements == ["S", "Mo", "S"]
        assert_same_matrices(found, material)


# POSCAR


def test_elements_that_are_not_together_stay_where_they_are(tmp_path):
    path = tmp_path / "POSCAR"
    path.write_text("x\n1.0\n9 0 0\n0 9 0\n0 0 9\nC H C\n1 2 1\nDirect\n0 0 0\n.1 0 0\n.2 0 0\n.3 0 0\n")
    structure = read_poscar(path)
    assert [site.specie.symbol for site in structure] == ["C", "H", "H", "C"]
    np.testing.assert_array_equal(structure.frac_coords[:, 0], [0, 0.1, 0.2, 0.3])


def test_names_of_kinds_of_atoms_are_kept(tmp_path):
    path = tmp_path / "POSCAR"
    text = "x\n1.0\n9 0 0\n0 9 0\n0 0 9\n{}\n1 2 1\nDirect\n0 0 0\n.1 0 0\n.2 0 0\n.3 0 0\n"
    path.write_text(text.format("Fe1 Fe_dn C/a1b2"))
    structure = read_poscar(path)
    assert [site.specie.symbol for site in structure] == ["Fe", "Fe", "Fe", "C"]
    assert [site.label for site in structure] == ["Fe1", "Fe_dn", "Fe_dn", "C/a1b2"]
    for wrong in ("Fe1 up C", "Fe1 Xx_1 C", "fe1 Fe C", "Feup Fe C"):
        path.write_text(text.format(wrong))
        with pytest.raises(ReadError, match="line 6"):
            read_poscar(path)


# damage


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replaced(name, new):
    def change(file):
        data = new(file[name][()])
        del file[name]
        file[name] = data

    return change


def moved(pairs):
    """All pairs with R1 > 0 ten cells away."""
    return pairs + np.where(pairs[:, :1] > 0, [10, 0, 0, 0, 0], 0)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("position_matrix.h5", replaced("entries", np.ravel), "expected 3 x"),
        ("position_matrix.h5", replaced("entries", lambda entries: entries[:2]), "expected 3 x"),
        ("position_matrix.h5", replaced("entries", lambda entries: entries + 0j), "complex128"),
        ("position_matrix.h5", replaced("entries", lambda entries: entries * np.inf), "not finite"),
        ("position_matrix.h5", replaced("entries", lambda entries: np.roll(entries, 1, axis=0)), "Å more than R asks"),
        ("position_matrix.h5", replaced("atom_pairs", moved), "has no partner"),
        ("density_matrix.h5", replaced("entries", lambda entries: entries + 0j), "is complex"),
        ("density_matrix.h5", replaced("entries", lambda entries: entries + np.arange(len(entries))), "not Hermitian"),
        ("density_matrix.h5", replaced("chunk_shapes", lambda shapes: 2 * shapes), "chunk_shapes"),
    ],
)
def test_inconsistent_files_are_refused(dock, file, change, message):
    edit(dock / file, change)
    with pytest.raises(ReadError, match=message) as error:
        read_deeph(dock, matrices=EXTRA)
    assert error.value.path == dock / file
    read_deeph(dock)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0, 0, 0, 1, 1, 3]", None, "lack one of the three directions"),
        ("[0, 0, 0, 1, 1, 3]", "[9, 0, 0, 1, 1, 3]", "lack one of the three directions"),
        ("[0, 0, 0, 1, 1, 3]", "[0, 0, 0, 1, 1, 4]", "should be 1 to 3"),
        ("[0, 0, 0, 1, 1, 3]", "[0, 0, 0, 1, 1, 0]", "should be 1 to 3"),
        ("[0, 0, 0, 1, 1, 3]", "[0, 0, 0, 1, 1]", "should look like"),
        ("[0, 0, 0, 1, 1, 3]", "[0,0,0,1,1,2]", "lack one of the three directions"),
        ("[0, 0, 0, 1, 1, 3]", "[0, 0, 0, 9, 1, 3]", "with 3 atoms"),
    ],
)
def test_impossible_position_blocks_are_refused(tmp_path, old, new, message):
    write_deeph_legacy(full(SpinMode.NONE), tmp_path / "out")

    def change(file):
        if new is not None:
            file[new] = file[old][()]
        del file[old]

    edit(tmp_path / "out" / "positions.h5", change)
    with pytest.raises(ReadError, match=message) as error:
        read_deeph_legacy(tmp_path / "out", matrices=EXTRA)
    assert error.value.path == tmp_path / "out" / "positions.h5"


@pytest.mark.parametrize("labels", [["S"], ["S", "Mo", 3], "SM", {"S": 1}, 3])
def test_damaged_labels_are_refused(tmp_path, labels):
    write_deeph(full(SpinMode.NONE), tmp_path / "out")
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    info["deeph_tracegrad"]["labels"] = labels
    (tmp_path / "out" / "info.json").write_text(json.dumps(info))
    with pytest.raises(ReadError, match="labels"):
        read_deeph(tmp_path / "out")


def changed(one, other):
    """How many numbers of the density and position matrices differ."""
    assert len(one.density + one.position) == len(other.density + other.position)
    count = 0
    for left, right in zip(one.density + one.position, other.density + other.position, strict=True):
        assert len(left) == len(right)
        count += int((left.entries != right.on_pairs(left.pairs).entries).sum())
    return count


@pytest.fixture(params=["dock", "deeph", "deeph-legacy"])
def folder(request, tmp_path):
    """Format and path of a folder to damage."""
    if request.param == "dock":
        return "deeph", request.getfixturevalue("dock")
    material = random_material(SpinMode.NONE)
    near = np.linalg.norm(material.pair_vectors(material.overlap.pairs), axis=1) < 2.5
    overlap, hamiltonian = (m.on_pairs(m.pairs[near]) for m in (material.overlap, *material.hamiltonian))
    small = replace(material, overlap=overlap, hamiltonian=(hamiltonian,))
    FORMATS[request.param][1](with_density_and_position(small), tmp_path / "out")
    return request.param, tmp_path / "out"


@pytest.mark.parametrize("matrix", EXTRA)
def test_damaged_files(folder, matrix, tmp_path):
    name, path = folder
    file = path / FILES[name][matrix]
    whole = file.read_bytes()

    def read(path: Path):
        return FORMATS[name][0](path, matrices=[matrix])

    good = read(path)
    for damaged in cut(whole, seed=1, count=50):
        file.write_bytes(damaged)
        assert outcome(read, path) is None
    for damaged in flipped(whole, seed=2, count=120):
        file.write_bytes(damaged)
        material = outcome(read, path)
        if material is not None:
            assert changed(good, material) <= 2  # an entry and its partner; none where there are checksums
    for damaged in [b"", bytes(5000), np.random.default_rng(3).bytes(5000), (path / "info.json").read_bytes()]:
        file.write_bytes(damaged)
        assert outcome(read, path) is None
    file.unlink()
    file.mkdir()
    assert outcome(read, path) is None
