"""The commands `dos` and `unfold`, and fat bands, pictures and exports of `bands`, on real runs."""

import csv
import json
import re

import h5py
import numpy as np
import pytest
from PIL import Image

from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.inference import bands, solvers, window
from deeph_tracegrad.inference.bands import BandOptions, compute_bands
from deeph_tracegrad.inference.kpath import path_through
from deeph_tracegrad.inference.spectra import counts
from deeph_tracegrad.poscar import write_poscar
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.testing import repeated
from materials import without_atom

KINDS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "html": b"<!doctype html>"}


def colours(file):
    with Image.open(file) as picture:
        assert min(picture.size) > 500
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 22)}


def check_pictures(prefix, formats):
    for name in formats:
        content = prefix.with_suffix(f".{name}").read_bytes()
        assert content.startswith(KINDS[name]), name
        assert len(content) > 5000
    if "html" in formats:
        assert b"https://cdn" not in re.sub(rb"<script[^>]*>.*?</script>", b"", content, flags=re.DOTALL)
        assert not re.search(rb"<script[^>]+src=", content)  # nothing is fetched


@pytest.fixture(scope="module")
def vacancy(unpacked, tmp_path_factory):
    """A DeepH folder of graphene with one of 8 atoms missing, as a prediction would be."""
    material = without_atom(repeated(read_material(unpacked("openmx/graphene")), (2, 2, 1)), 3)
    folder = tmp_path_factory.mktemp("vacancy") / "cell"
    write_deeph(material, folder)
    return folder


def test_dos_of_an_insulator(unpacked, command, tmp_path, capfd):
    arguments = ("--density", 20, "--format", "png,pdf,svg,html", "-o", tmp_path / "deep" / "mos2")
    assert command("dos", unpacked("openmx/mos2"), *arguments) == 0
    told = capfd.readouterr().out
    assert "linear tetrahedra, k-mesh 9x9x1" in told
    assert "26.0000 of 26 below the Fermi level" in told
    assert re.search(r"at E_F +0\.0000 electrons/eV", told)
    check_pictures(tmp_path / "deep" / "mos2", KINDS)
    with h5py.File(tmp_path / "deep" / "mos2.h5") as file:
        labels = [label.decode() for label in file["labels"]]
        assert labels == ["Mo s", "Mo p", "Mo d", "S s", "S p", "S d"]
        np.testing.assert_allclose(file["groups"][()].sum(axis=1), file["total"][()], atol=1e-9)
        assert file["electrons_below_fermi_level"][()].sum() == pytest.approx(26, abs=1e-9)
        assert file.attrs["format"] == "deeph-tracegrad density of states"
        assert "total_error" not in file
        total, level, energies = file["total"][0], file["fermi_level_eV"][()], file["energies_eV"][()]
    with (tmp_path / "deep" / "mos2.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["energy_eV", "total", "integrated", *labels]
    table = np.array(rows[1:], dtype=float)
    np.testing.assert_allclose(table[:, 0], energies - level, atol=1e-6)
    np.testing.assert_allclose(table[:, 1], total, rtol=1e-6, atol=1e-9)
    assert table[np.argmin(abs(table[:, 0])), 2] == pytest.approx(26, abs=1e-6)


def test_dos_with_two_spins_by_kernel_polynomials(unpacked, command, tmp_path, capfd):
    """Iron's majority spin has the more electrons, by its magnetic moment of about 2.3 an atom."""
    options = ("--method", "kpm", "--density", 6, "--broadening", 0.5, "--vectors", 20, "--project", "element")
    assert command("dos", unpacked("openmx/fe_bcc_spin"), *options, "-o", tmp_path / "fe") == 0
    told = capfd.readouterr().out
    assert re.search(r"at E_F +\S+ ± \S+ electrons/eV", told)
    up, down = map(float, told.split("Fe  ")[-1].split()[:2])
    assert up - down == pytest.approx(4.6, abs=1.0)
    with h5py.File(tmp_path / "fe.h5") as file:
        assert file["total_error"].shape == file["total"].shape == (2, 1000)
        assert file["groups_error"].shape == file["groups"].shape
    with (tmp_path / "fe.csv").open(newline="") as stream:
        assert next(csv.reader(stream))[1:] == [f"{name} {spin}" for spin in ("up", "down") for name in NAMES]
    assert {(0x33, 0x22, 0x88), (0, 0, 0)} <= colours(tmp_path / "fe.png")


NAMES = ("total", "integrated", "Fe")


def test_fat_bands_and_exports(unpacked, command, tmp_path):
    folder = unpacked("openmx/fe_bcc_spin")
    arguments = ("--kpath", "G 0 0 0, X 1/2 0 0", "--density", 30, "--project", "orbital", "--fermi", -4.77)
    formats = ("--format", "png,html", "--export", "openmx,gnuplot,csv,pymatgen")
    assert command("bands", folder, *arguments, *formats, "-o", tmp_path / "fe") == 0
    check_pictures(tmp_path / "fe", ("png", "html"))
    assert {path.suffix for path in tmp_path.iterdir()} == {
        *(".h5", ".png", ".html", ".Band", ".gnuplot", ".csv", ".json")
    }
    with h5py.File(tmp_path / "fe.h5") as file:
        assert file["band_projections"].shape == (*file["band_data"].shape, len(file["projection_labels"]))
        np.testing.assert_allclose(file["band_projections"][()].sum(axis=2), 1, atol=1e-9)
        energies = file["band_data"][()] - 4.77
    printed = read_openmx_band(tmp_path / "fe.Band")
    np.testing.assert_allclose(printed.energies.transpose(0, 2, 1).reshape(energies.shape), energies, atol=1e-9)
    assert json.loads((tmp_path / "fe.json").read_text())["@class"] == "BandStructureSymmLine"


def test_exported_bands_serve_as_a_reference(unpacked, command, tmp_path, capfd):
    folder = unpacked("openmx/graphene")
    options = ("--density", 20, "--export", "openmx", "-o", tmp_path / "g")
    assert command("bands", folder, *options) == 0
    assert command("bands", folder, "--compare", tmp_path / "g.Band", "--format", "html", "-o", tmp_path / "again") == 0
    row = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("-2 to +2 eV"))
    assert float(row.split()[5]) < 1e-6  # largest difference in meV
    assert not (tmp_path / "again.png").exists()
    check_pictures(tmp_path / "again", ("html",))


@pytest.mark.parametrize("as_folder", [True, False])
def test_unfolding_of_a_vacancy(unpacked, vacancy, command, tmp_path, capfd, as_folder):
    source = unpacked("openmx/graphene")
    primitive = source
    if not as_folder:
        primitive = tmp_path / "POSCAR"
        write_poscar(read_material(source).structure, primitive)
    options = ("--density", 20, "--window", -8, 4, "--format", "png,html", "-o", tmp_path / "out" / "vacancy")
    assert command("unfold", vacancy, "--primitive", primitive, *options) == 0
    told = capfd.readouterr().out
    assert "4 primitive cells, matrix 2 0 0; 0 2 0; 0 0 1" in told
    assert "7 of 7 on sites" in told
    assert "1 empty site" in told
    assert ("overlap most" in told) is as_folder
    check_pictures(tmp_path / "out" / "vacancy", ("png", "html"))
    reference = {colour for colour in colours(tmp_path / "out" / "vacancy.png") if colour[0] > 180 and colour[2] < 90}
    assert bool(reference) is as_folder
    with h5py.File(tmp_path / "out" / "vacancy.h5") as file:
        assert file["weights"].shape == file["energies_eV"].shape
        assert file["supercell_matrix"][()].tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
        assert sorted(np.bincount(file["atom_sites"][()])) == [3, 4]
        assert file["weights"][()].min() > -1e-6
        assert file["weights"][()].max() < 1 + 1e-6


def test_unfolded_perfect_supercell_has_the_bands_that_openmx_printed(unpacked, command, tmp_path):
    """The whole way, against numbers of OpenMX: one state of weight one at each of its energies."""
    source = unpacked("openmx/graphene")
    primitive, printed = read_material(source), read_openmx_band(source / "openmx.Band")
    write_deeph(repeated(primitive, (2, 2, 1)), tmp_path / "cell")
    corners = "G 0 0 0, K 1/3 1/3 0"
    options = ("--kpath", corners, "--density", 75, "--window", -25, 12, "-o", tmp_path / "u")
    assert command("unfold", tmp_path / "cell", "--primitive", source, *options) == 0
    with h5py.File(tmp_path / "u.h5") as file:
        k, energies, weights = file["kpoints_frac"][()], file["energies_eV"][0], file["weights"][0]
    path, order = path_through(printed.k[:20], primitive.structure)
    exact = compute_bands(primitive, path, BandOptions(fermi_level=0.0)).energies[0]
    np.testing.assert_allclose(exact, printed.energies[0, order], atol=1e-6)
    for end, place in ((0, 0), (-1, -1)):  # Γ and K are on both paths
        np.testing.assert_allclose(k[end], path.k[place], atol=1e-9)
        for energy in printed.energies[0, order[place], :5]:
            near = abs(energies[end] - energy) < 1e-4
            level = abs(printed.energies[0, order[place]] - energy) < 1e-4
            assert weights[end, near].sum() == pytest.approx(level.sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dos", "--window", 1, -1], "LO below HI"),
        (["dos", "--broadening", 0], "above 0"),
        (["dos", "--fermi", "nan"], "not a number"),
        (["dos", "--format", "png,gif"], "gif is not known; choose from png, pdf, svg, html"),
        (["bands", "--export", "vasp"], "vasp is not known; choose from openmx, gnuplot, csv, pymatgen"),
        (["bands", "--project", "shell", "--compare", "x"], "give one of them"),
        (["unfold", "--primitive", "absent"], "missing"),
        (["unfold", "--primitive", "SELF", "--tolerance", -1], "above 0"),
        (["unfold", "--primitive", "SELF", "--window", 900, 901], "no band lies in the window"),
    ],
)
def test_mistakes_end_with_a_message(unpacked, command, tmp_path, capfd, arguments, message):
    folder = unpacked("openmx/graphene")
    name, *options = [folder if word == "SELF" else word for word in arguments]
    if "--fermi" not in options:
        options += ["--fermi", -3.8]
    assert command(name, folder, *options, "-o", tmp_path / "x") == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_primitive_cell_of_another_crystal_is_refused(unpacked, vacancy, command, tmp_path, capfd):
    assert command("unfold", vacancy, "--primitive", unpacked("openmx/mos2"), "-o", tmp_path / "x") == 2
    assert "no supercell of the primitive one" in capfd.readouterr().err


@pytest.fixture
def large(monkeypatch):
    """Cells of the fixtures' size count as too large for dense matrices."""
    for module, name, value in [
        (solvers, "DENSE_LIMIT", 20),
        (counts, "DENSE_LIMIT", 20),
        (bands, "SMALL_CELL", 20),
        (window, "SMALL_CELL", 20),
        (window, "WINDOW_STATES", 8),
        (bands, "WINDOW_STATES", 8),
    ]:
        monkeypatch.setattr(module, name, value)


def test_unfolding_of_a_large_cell_takes_the_states_around_the_fermi_level(
    unpacked, vacancy, command, tmp_path, capfd, request
):
    options = ("--primitive", unpacked("openmx/graphene"), "--density", 20, "--fermi", -3.8, "-o")
    assert command("unfold", vacancy, *options, tmp_path / "small") == 0
    request.getfixturevalue("large")
    assert command("unfold", vacancy, *options, tmp_path / "large") == 0
    window = re.search(r"window +-\d\S* to (\S+) eV, for the 8 states nearest", capfd.readouterr().out)
    assert window is not None
    check_pictures(tmp_path / "large", ("png",))
    with h5py.File(tmp_path / "large.h5") as large, h5py.File(tmp_path / "small.h5") as small:
        found, every = large["energies_eV"][0], small["energies_eV"][0]
        for near, energies in zip(found, every, strict=True):
            inside = [some[abs(some + 3.8) <= float(window[1])] for some in (near, energies)]  # NaN is not
            assert len(inside[1])
            np.testing.assert_allclose(*inside, atol=1e-8)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(large["weights"][0]))


def test_all_states_of_a_large_cell_are_refused(unpacked, command, tmp_path, capfd, large):
    folder = unpacked("openmx/graphene")
    assert command("dos", folder, "--method", "gaussian", "--fermi", -3.8, "-o", tmp_path / "x") == 2
    assert "up to 20 are solved; take kernel polynomials: --method kpm" in capfd.readouterr().err
