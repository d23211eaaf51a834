"""Files of every kind, and what is refused in any of them."""

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.poscar import write_poscar
from deeph_tracegrad.structures import checks, reader
from deeph_tracegrad.structures.reader import read_structure
from structure_files import MIXED, XSF, XYZ

DATA = Path(__file__).parents[2] / "data" / "structures"


def elements(structure):
    return [site.specie.symbol for site in structure]


def written(path, text):
    path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        *(("POSCAR", 1e-12), ("CONTCAR", 1e-12), ("mixed.vasp", 1e-12), ("mixed.xsf", 1e-12), ("mixed.json", 1e-12)),
        *(("mixed.cif", 1e-7), ("mixed.cssr", 5e-3), ("mixed.res", 1e-5), ("mixed.pwmat", 1e-5)),
    ],
)
def test_what_pymatgen_writes(tmp_path, name, accuracy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MIXED.to(str(tmp_path / name))
    structure = read_structure(tmp_path / name)
    assert elements(structure) == elements(MIXED)
    np.testing.assert_allclose(structure.frac_coords, MIXED.frac_coords, atol=accuracy)
    np.testing.assert_allclose(structure.lattice.parameters, MIXED.lattice.parameters, atol=accuracy)


@pytest.mark.parametrize(
    "kind", ["abinit-in", "aims", "crystal", "dmol-car", "espresso-in", "gen", "traj", "xsd", "extxyz"]
)
def test_what_ase_writes(tmp_path, kind):
    ase_io = pytest.importorskip("ase.io")
    atoms = pytest.importorskip("ase").Atoms(elements(MIXED), MIXED.cart_coords, cell=MIXED.lattice.matrix, pbc=True)
    suffix = {"crystal": "f34", "dmol-car": "car", "espresso-in": "pwi", "extxyz": "xyz", "aims": "in"}.get(kind, kind)
    options = {"pseudopotentials": {"S": "any", "Mo": "any", "C": "any"}} if kind == "espresso-in" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ase_io.write(tmp_path / f"postgres@1.{suffix}", atoms, format=kind, **options)
    structure = read_structure(tmp_path / f"postgres@1.{suffix}")
    assert elements(structure) == elements(MIXED)
    np.testing.assert_allclose(structure.cart_coords, MIXED.cart_coords, atol=1e-5)
    np.testing.assert_allclose(structure.lattice.matrix, MIXED.lattice.matrix, atol=1e-5)


def test_a_frame_of_ase_with_tags_and_remarks():
    structure = read_structure(DATA / "ase_mos2.xyz")
    assert elements(structure) == ["Mo", "S", "S", "Mo", "S", "S"]
    np.testing.assert_allclose(structure.lattice.matrix, [[6.36, 0, 0], [-1.59, 2.753960784034515, 0], [0, 0, 19.19]])
    np.testing.assert_allclose(structure.cart_coords[4], [4.75387914, 0.89878421, 11.24668847], atol=1e-12)


def test_a_poscar_with_kinds_of_atoms_over_several_lines(tmp_path):
    """As VASP writes them when elements do not stand together; VASP 6 adds the potential and its hash."""
    kinds = ["Fe_pv/474ac0d", "Cr", "Fe1"] * 8
    names = [" ".join(kinds[:20]), " ".join(kinds[20:])]
    counts = [" ".join(["1"] * 20), " ".join(["1"] * 3 + ["2"])]
    rows = [f"{atom / 25} 0 0" for atom in range(25)]
    head = ["many", "1.0", "25 0 0", "0 3 0", "0 0 3"]
    text = "\n".join([*head, *names, *counts, "Selective dynamics", "Direct", *(f"{row} T T F" for row in rows)]) + "\n"
    structure = read_structure(written(tmp_path / "CONTCAR", text))
    assert elements(structure) == ["Fe", "Cr", "Fe"] * 8 + ["Fe"]
    assert structure.labels == [*kinds, "Fe1"]
    np.testing.assert_allclose(structure.frac_coords[:, 0], np.arange(25) / 25)


def test_extended_xyz_keeps_order_names_and_places(tmp_path):
    structure = read_structure(written(tmp_path / "a.xyz", XYZ))
    assert elements(structure) == ["Fe", "C", "H"]
    assert structure.labels == ["Fe1", "C_up", "D"]
    np.testing.assert_allclose(structure.cart_coords[1], [6, -1, 1], atol=1e-14)
    columns = XYZ.replace("species:S:1:pos:R:3", "id:I:1:pos:R:3:species:S:1").replace(
        '"5 0 0 0 5 0 0 0 5"', "{5 0 0 0 5 0 0 0 5}"
    )
    rows = [row.split() for row in columns.splitlines()[2:]]
    moved = columns.splitlines()[:2] + [" ".join(["7", *words[1:], words[0]]) for words in rows]
    again = read_structure(written(tmp_path / "b.extxyz", "\n".join(moved) + "\n"))
    assert again.labels == structure.labels
    np.testing.assert_array_equal(again.cart_coords, structure.cart_coords)


def test_xsf_with_numbers_for_elements(tmp_path):
    structure = read_structure(written(tmp_path / "a.xsf", XSF))
    assert elements(structure) == ["Fe", "C"]
    assert structure.labels == ["Fe", "C_up"]
    np.testing.assert_allclose(structure.cart_coords[1], [6, -1, 1], atol=1e-14)


def test_json_keeps_names_and_imports_nothing(tmp_path):
    content = Structure(Lattice.cubic(4), ["Fe3+", "O2-"], [[0, 0, 0], [0.5, 0.5, 0.5]], labels=["Fe1", "O"]).as_dict()
    content["sites"][0]["properties"] = {"trap": {"@module": "this", "@class": "Zen"}}  # `import this` prints a poem
    structure = read_structure(written(tmp_path / "a.json", json.dumps(content)))
    assert elements(structure) == ["Fe", "O"]
    assert structure.labels == ["Fe1", "O"]
    assert "this" not in sys.modules


SITE = {"species": [{"element": "C", "occu": 1}], "abc": [0, 0, 0]}
CUBE = {"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("POSCAR", b"", "file is empty"),
        ("POSCAR", b"\x00\xff\xfe" * 99, "not a text file"),
        ("a.cif", b"\x00\xff\xfe" * 99, "not a text file"),
        ("a.xyz", b"\x00\xff\xfe" * 99, "not a text file"),
        ("POSCAR", "a\n1\n5 0 0\n0 5 0\n0 0 5\n1\nDirect\n0 0 0\n", "line 6 should name the elements"),
        ("POSCAR", "a\n1\n5 0 0\n0 5 0\n0 0 5\nC X\n1 1\nDirect\n0 0 0\n0 0 0.5\n", "ghost or dummy"),
        ("POSCAR", "a\n1\n1e200 0 0\n0 1e200 0\n0 0 1\nC\n1\nDirect\n0 0 0\n", "span no volume"),
        ("a.cif", XYZ, "begins with data_"),
        ("a.xyz", "POSCAR\n1.0\n", "first line of an XYZ file is the number of atoms"),
        ("a.xyz", "2\nmethane\nC 0 0 0\nH 1 1 1\n", 'has no cell: the second line should hold Lattice="ax'),
        ("a.xyz", XYZ + XYZ, "keep one structure a file"),
        ("a.xyz", XYZ.replace("3\n", "4\n", 1), "announces 4 atoms and only 3"),
        ("a.xyz", XYZ.replace("3\n", "0\n", 1), "more follows"),
        ("a.xyz", XYZ.replace(" 2.0\n", " nan\n"), "3 numbers were expected"),
        ("a.xyz", XYZ.replace(" 2.0\n", " 1e300\n"), "nowhere near the cell"),
        ("a.xyz", XYZ.replace(" 2.0\n", "\n"), "4 columns were expected"),
        ("a.xyz", XYZ.replace("D ", "X "), "ghost or dummy"),
        ("a.xyz", XYZ.replace("D ", "Bq "), "ghost or dummy"),
        ("a.xyz", XYZ.replace("D ", "H_empty "), "ghost or dummy"),
        ("a.xyz", XYZ.replace("D ", "T "), "should begin with the symbol"),
        ("a.xyz", XYZ.replace("D ", "FE "), "should begin with the symbol"),
        ("a.xyz", XYZ.replace("5 0 0 0 5", "0 0 0 0 0"), "no full cell"),
        ("a.xyz", XYZ.replace("5 0 0 0 5", "5 0 0 5 0"), "thin"),
        ("a.xyz", XYZ.replace('"5 ', '"1e9 '), "lattice vectors of less than"),
        ("a.xyz", XYZ.replace('"5 ', '"'), "9 numbers were expected"),
        ("a.xyz", XYZ.replace("pos:R:3", "pos:R:2"), "Properties should name"),
        ("a.xyz", XYZ.replace("2.0 2.0 2.0", "-4.0 4.0 0.99"), r"atoms 2 \(C_up\) and 3 \(D\) are 0.010 Å apart"),
        (
            "a.xyz",
            XYZ.replace("2.0 2.0 2.0", "1.2 4.0 1.2"),
            r"\(C_up\) and 3 \(D\) are 0.283 Å|atoms 3 \(D\) and 2 .* 0.283 Å",
        ),
        ("a.xyz", XYZ.rstrip("\n"), "does not end with a line break"),
        ("a.xsf", XSF.replace("2 1", "9 1"), "9 atoms and ends before them"),
        ("a.xsf", XSF.replace("2 1", "two"), "should follow PRIMCOORD"),
        ("a.xsf", XSF.replace("26", "0"), "ghost"),
        ("a.xsf", XSF.replace("26", "126"), "no atomic number"),
        ("a.xsf", XSF.replace("PRIMVEC", "VEC"), "no PRIMVEC"),
        ("a.xsf", "ANIMSTEPS 3\n" + XSF, "animation"),
        ("a.xsf", "ATOMS\n6 0 0 0\n", "has no PRIMVEC"),
        ("a.json", "[]", "should hold a JSON object"),
        ("a.json", "{}", "is no structure as pymatgen writes it"),
        ("a.json", json.dumps({"lattice": CUBE, "sites": []}), "holds no atoms"),
        ("a.json", json.dumps({"lattice": CUBE, "sites": [{**SITE, "abc": [0, 0]}]}), "is no structure as"),
        ("a.json", json.dumps({"lattice": CUBE, "sites": [{**SITE, "abc": [1e300, 0, 0]}]}), "nowhere near"),
        ("a.json", json.dumps({"lattice": CUBE, "sites": [SITE, SITE]}), "0.000 Å apart"),
        (
            "a.json",
            json.dumps({"lattice": CUBE, "sites": [{**SITE, "species": SITE["species"] * 2}]}),
            "partly occupied",
        ),
        ("a.cssr", "nonsense\n", "cannot be read by pymatgen"),
        ("vasprun.xml", "<modeling>", "cannot be read by pymatgen"),
        ("POSCAR.gz", b"\x1f\x8b", "unpack it first"),
        ("notes.txt", "Lorem ipsum\n", "install deeph-tracegrad|not one that is read here"),
        ("trap.py", "print('run')\n", "install deeph-tracegrad|not one that is read here"),
        ("trap.pckl", b"cos\nsystem\n(S'true'\ntR.", "install deeph-tracegrad|not one that is read here"),
        ("trap.db", b"SQLite format 3\x00", "install deeph-tracegrad|not one that is read here"),
    ],
)
def test_what_is_refused(tmp_path, name, content, reason):
    path = written(tmp_path / name, content)
    with pytest.raises(ReadError, match=reason) as caught:
        read_structure(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_file_and_no_regular_file(tmp_path):
    with pytest.raises(ReadError, match="missing"):
        read_structure(tmp_path / "POSCAR")
    with pytest.raises(ReadError, match="is a folder"):
        read_structure(tmp_path)
    os.mkfifo(tmp_path / "a.cif")  # opening it would wait for ever
    with pytest.raises(ReadError, match="no regular file"):
        read_structure(tmp_path / "a.cif")


def test_a_huge_file(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LARGEST_FILE", 2**20)
    with pytest.raises(ReadError, match="has 3 MiB, where a structure has at most 1"):
        read_structure(written(tmp_path / "POSCAR", b"0" * 3 * 2**20))


@pytest.mark.parametrize("kind", ["molecule", "dummy", "several", "damaged"])
def test_what_ase_reads_and_is_no_crystal(tmp_path, kind):
    ase_io = pytest.importorskip("ase.io")
    atoms = pytest.importorskip("ase").Atoms(
        "XCO" if kind == "dummy" else "CO", np.eye(3)[: 3 if kind == "dummy" else 2]
    )
    atoms.cell = None if kind == "molecule" else np.eye(3) * 5
    path = tmp_path / "a.traj"
    ase_io.write(path, [atoms] * 3 if kind == "several" else atoms)
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:-40])
    reason = {
        "molecule": "no full cell",
        "dummy": "dummy atoms",
        "several": "keep one",
        "damaged": "cannot be read by ASE",
    }
    with pytest.raises(ReadError, match=reason[kind]):
        read_structure(path)


def test_without_ase_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(ReadError, match=r"install deeph-tracegrad\[ase\]"):
        read_structure(written(tmp_path / "a.gen", "2 S\n"))


def test_atoms_in_one_place_are_found_in_a_sheared_cell_and_quickly_among_many():
    rng = np.random.default_rng(0)
    cell = np.array([[6.0, 0, 0], [5.0, 2.0, 0], [4.0, 1.5, 2.0]])
    for _ in range(100):
        base, step = rng.random(3), rng.normal(size=3)
        near = step / np.linalg.norm(step) * rng.uniform(0.2, 0.4)
        other = base + near @ np.linalg.inv(cell) + rng.integers(-3, 4, size=3)
        found = checks._too_close(np.array([base, other]), cell)
        assert (found is not None) == (np.linalg.norm(near) < checks.CLOSEST_ATOMS)
    assert checks._too_close(np.zeros((100_000, 3)), cell)[2] == 0


def test_ten_thousand_atoms_are_read_within_seconds(tmp_path):
    side = np.arange(22) / 22
    positions = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    large = Structure(Lattice.cubic(66), ["C"] * len(positions), positions)
    large.to(str(tmp_path / "a.cif"))
    write_poscar(large, tmp_path / "POSCAR")
    for name in ("a.cif", "POSCAR"):
        assert len(read_structure(tmp_path / name)) == 22**3
