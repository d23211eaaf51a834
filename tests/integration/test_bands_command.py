"""The command `bands` on real runs."""

import re
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from deeph_tracegrad.inference import band_run, bands, solvers, window
from deeph_tracegrad.inference.export import read_bands
from deeph_tracegrad.inference.solvers import pardiso
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band

DOCK_KEYS = {
    "rlv": (3, 3),
    "spinful": (),
    "band_quantity": (),
    "fermi_energy_before_shift_eV": (),
    "fermi_energy_eV": (),
    "k_path_quantity": (),
    "k_path_density_list": (3,),
    "hsk_vector_list": (3, 2, 3),
    "hsk_symbol_list": (3, 2),
    "kpoints_quantity": (),
    "kpoints_frac_list": (50, 3),
    "kpoints_distance_list": (50,),
    "hsk_distance_list": (4,),
    "band_data": (26, 50),
    "band_gap": (),
    "is_metal": (),
}


def test_bands_over_those_that_openmx_printed(unpacked, command, tmp_path, capfd):
    folder = unpacked("openmx/graphene")
    assert command("bands", folder, "--compare", folder / "openmx.Band", "--out", tmp_path / "deep" / "graphene") == 0
    told = capfd.readouterr().out
    assert "Γ - K - M - Γ: 50 k-points" in told
    assert "8 electrons, k-mesh 21x21x1" in told
    row = next(line for line in told.splitlines() if line.startswith("-2 to +2 eV"))
    assert float(row.split()[5]) < 1e-4  # largest difference in meV
    assert "graphene.h5" in told
    with Image.open(tmp_path / "deep" / "graphene.png") as picture:
        assert min(picture.size) > 500

    printed = read_openmx_band(folder / "openmx.Band")
    with h5py.File(tmp_path / "deep" / "graphene.h5") as file:
        assert {key: file[key].shape for key in DOCK_KEYS} == DOCK_KEYS
        assert file["fermi_energy_eV"][()] == 0
        assert not file["spinful"][()]
        assert file["is_metal"][()]
        assert [label.decode() for label in file["hsk_symbol_list"][0]] == ["Gamma", "K"]
        level = file["fermi_energy_before_shift_eV"][()]
        np.testing.assert_allclose(file["band_data"][()].T + level, printed.energies[0], atol=1e-7)
        length = np.linalg.norm(file["hsk_vector_list"][0, 1] @ file["rlv"][()]) / (2 * np.pi)
        assert file["hsk_distance_list"][1] == pytest.approx(length)
        assert file["kpoints_distance_list"][-1] == pytest.approx(file["hsk_distance_list"][-1])


def test_file_is_read_back(unpacked, command, tmp_path):
    folder = unpacked("openmx/fe_bcc_spin")
    corners = "G 0 0 0, X 1/2 0 0 | R 1/2 1/2 1/2, G 0 0 0"
    assert command("bands", folder, "--kpath", corners, "--density", 30, "--fermi", -4.7, "-o", tmp_path / "fe") == 0
    bands = read_bands(tmp_path / "fe.h5")
    assert bands.path.ticks == ["Γ", "X|R", "Γ"]
    assert bands.energies.shape == bands.residuals.shape == (2, len(bands.path.k), 28)
    assert (bands.fermi.level, bands.fermi.source) == (-4.7, "given by the user")
    with h5py.File(tmp_path / "fe.h5") as file:
        assert file["band_quantity"][()] == 56
        assert file["band_spin"][()].tolist() == [0] * 28 + [1] * 28
        np.testing.assert_allclose(file["band_data"][28:].T - 4.7, bands.energies[1], atol=1e-12)


def test_two_folders_are_compared(unpacked, command, tmp_path, capfd):
    """The other converter's folder of the same run; it lacks some blocks of H, which costs up to 0.5 meV."""
    folder = unpacked("abacus/si2")
    options = ("--window", -4, 3, "--density", 20)
    assert command("bands", folder, "--compare", folder / "deeph_dock", *options, "-o", tmp_path / "si") == 0
    told = capfd.readouterr().out
    rows = {line[:12].strip(): line.split() for line in told.splitlines() if " eV  " in line}
    assert set(rows) == {"-2 to +2 eV", "-4 to +3 eV"}
    assert 1e-3 < float(rows["-2 to +2 eV"][5]) < 0.6
    assert "indirect, valence top Γ" in told
    assert told.count("8 electrons, ") == 2  # that folder does not know its electrons; the run does


def test_bands_of_predicted_matrices(unpacked, command, tmp_path):
    """A folder of the DeepH format with hamiltonian_pred.h5 alone, as a prediction leaves it."""
    source = unpacked("openmx/mos2") / "deeph_dock"
    folder = tmp_path / "predicted"
    folder.mkdir()
    for name in ("POSCAR", "info.json", "overlap.h5"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "hamiltonian_pred.h5").write_bytes((source / "hamiltonian.h5").read_bytes())
    assert command("bands", folder, "--density", 20, "--num-bands", 12, "-o", tmp_path / "mos2") == 0
    assert read_bands(tmp_path / "mos2.h5").energies.shape[2] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", 1, -1], "LO below HI"),
        (["--window", -1, 1, "--num-bands", 3], "one of them"),
        (["--window", 900, 901], "no band lies in the window"),
        (["--window", "-inf", "inf"], "LO below HI"),
        (["--kpath", "G 0 0 0, K 1e300 0 0"], "nor corners as in"),
        (["--kpath", "G 0 0 0, K 1e999/3 0 0"], "nor corners as in"),
        (["--kpath", "nowhere.txt"], "neither 'auto', nor a file that exists"),
        (["--compare", "absent"], "does not exist"),
    ],
)
def test_mistakes_end_with_a_message(unpacked, command, tmp_path, capfd, arguments, message):
    assert command("bands", unpacked("openmx/graphene"), *arguments, "--fermi", -3.8, "-o", tmp_path / "x") == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told_before_the_work(unpacked, command, tmp_path, capfd):
    (tmp_path / "x.png").mkdir()
    assert command("bands", unpacked("openmx/graphene"), "-o", tmp_path / "x") == 2
    told = capfd.readouterr()
    assert not told.out
    assert f"{tmp_path / 'x.png'}: is a folder" in told.err
    assert not (tmp_path / "x.h5").exists()


def test_a_fermi_level_that_is_no_number(unpacked, command, tmp_path, capfd):
    assert command("bands", unpacked("openmx/graphene"), "--fermi", "nan", "-o", tmp_path / "x") == 2
    assert "not a number" in capfd.readouterr().err


def test_an_overlap_that_is_not_positive_names_its_folder(unpacked, command, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(unpacked("openmx/graphene") / "deeph_dock", folder)
    with h5py.File(folder / "overlap.h5", "r+") as file:
        file["entries"][...] = -file["entries"][...]
    assert command("bands", folder, "-o", tmp_path / "x") == 2
    assert f"{folder}: S(k) is not positive definite" in capfd.readouterr().err


def test_a_gap_known_along_the_path_alone_says_so(unpacked, command, tmp_path, capfd):
    """The other converter's folder does not know its electrons; and no path makes graphene an insulator."""
    assert command("bands", unpacked("openmx/mos2") / "deeph_dock", "--density", 20, "-o", tmp_path / "x") == 0
    assert "of the states on this path alone" in capfd.readouterr().out
    corners = "G 0 0 0, X 1/8 0 0"
    assert command("bands", unpacked("openmx/graphene"), "--kpath", corners, "-o", tmp_path / "x") == 0
    assert "none: a metal" in capfd.readouterr().out


def test_runs_that_do_not_fit_are_refused(unpacked, command, tmp_path, capfd):
    openmx = unpacked("openmx/mos2")
    assert command("bands", openmx, "--compare", unpacked("abacus/mos2"), "-o", tmp_path / "x") == 2
    assert "53 orbitals" in capfd.readouterr().err
    band_file = unpacked("openmx/fe_bcc_spin") / "openmx.Band"
    assert command("bands", openmx, "--compare", band_file, "-o", tmp_path / "x") == 2
    assert "2 spin channels" in capfd.readouterr().err
    graphene = unpacked("openmx/graphene")
    assert command("bands", graphene, "--compare", openmx / "openmx.Band", "-o", tmp_path / "x") == 2
    assert "has 45 bands, the run only 26" in capfd.readouterr().err
    band_file = unpacked("openmx/demo_a_00") / "openmx.Band"
    assert command("bands", graphene, "--compare", band_file, "-o", tmp_path / "x") == 2
    assert "it is of another cell" in capfd.readouterr().err
    band_file = openmx / "openmx.Band"
    assert (
        command("bands", openmx, "--compare", band_file, "--kpath", "G 0 0 0, K 1/3 1/3 0", "-o", tmp_path / "x") == 2
    )
    assert "its own k-points" in capfd.readouterr().err


def test_other_files_are_not_taken_for_bands(tmp_path, unpacked, command):
    from deeph_tracegrad.errors import ReadError

    assert command("bands", unpacked("openmx/graphene"), "--density", 10, "-o", tmp_path / "g") == 0
    whole = (tmp_path / "g.h5").read_bytes()
    damaged = tmp_path / "damaged.h5"
    for content in (b"", b"text", whole[: len(whole) // 2]):
        damaged.write_bytes(content)
        with pytest.raises(ReadError, match=r"damaged\.h5"):
            read_bands(damaged)
    with h5py.File(damaged, "w") as file:
        file["band_data"] = np.zeros((2, 3))
    with pytest.raises(ReadError, match="format"):
        read_bands(damaged)


def test_a_large_cell_gets_a_window_and_few_k_points(unpacked, command, tmp_path, monkeypatch, capfd):
    """No option but the folder; silicon stands for a large cell."""
    folder = unpacked("abacus/si2")
    monkeypatch.chdir(tmp_path)
    for module in (bands, band_run):
        monkeypatch.setattr(module, "SMALL_CELL", 10)
    monkeypatch.setattr(solvers, "SMALL_CELL", 10)
    monkeypatch.setattr(solvers, "SPARSE_SHARE", 2)
    for module in (bands, window):
        monkeypatch.setattr(module, "WINDOW_STATES", 8)
    assert command("bands", folder) == 0
    told = capfd.readouterr().out
    half = float(re.search(r"window +-([\d.]+) to \1 eV, for the 8 states nearest to the Fermi level at Γ", told)[1])
    assert "12 a segment as the cell is large" in told
    assert "solver        shift-invert, superlu" in told
    found = read_bands(tmp_path / "si2_bands.h5")
    assert found.provenance["solver"] == "shift-invert, superlu"
    assert len(found.path.k) == pytest.approx(13 * len(found.path.counts), abs=len(found.path.counts))

    at_gamma = np.sort(np.abs(found.energies[0, 0] - found.fermi.level))
    assert at_gamma[7] <= half < at_gamma[7] * 1.1

    density = 12 * len(found.path.counts) / found.path.corner_distance[-1]
    whole = ("--solver", "dense", "--density", density, "--fermi", found.fermi.level)
    assert command("bands", folder, *whole, "-o", tmp_path / "whole") == 0
    assert "solver " not in capfd.readouterr().out
    exact = read_bands(tmp_path / "whole.h5")
    assert exact.provenance["solver"] == "dense"
    inside = np.abs(exact.energies - exact.fermi.level) < half  # not one is missed, and each has its number
    columns = slice(found.first_band, found.first_band + found.energies.shape[2])
    assert not inside[..., : columns.start].any()
    assert not inside[..., columns.stop :].any()
    np.testing.assert_allclose(found.energies[inside[..., columns]], exact.energies[inside], atol=1e-8)


def test_solvers_are_chosen_by_name(unpacked, command, tmp_path, capfd):
    folder = unpacked("openmx/mos2")
    options = ("--window", -2, 2, "--density", 20, "--fermi", -4)
    named = ("--solver", "shift-invert", "--direct-solver", "superlu")
    assert command("bands", folder, *options, "-o", tmp_path / "dense") == 0
    assert command("bands", folder, *options, *named, "-o", tmp_path / "sparse") == 0
    dense, sparse = read_bands(tmp_path / "dense.h5"), read_bands(tmp_path / "sparse.h5")
    assert [one.provenance["solver"] for one in (dense, sparse)] == ["dense", "shift-invert, superlu"]
    assert dense.first_band == sparse.first_band
    known = ~np.isnan(sparse.energies)
    np.testing.assert_allclose(sparse.energies[known], dense.energies[known], atol=1e-8)
    capfd.readouterr()
    assert command("bands", folder, "--solver", "lanczos", "-o", tmp_path / "x") == 2
    if pardiso.library() is None:
        assert command("bands", folder, "--direct-solver", "pardiso", "-o", tmp_path / "x") == 2
        assert "PARDISO is not installed" in capfd.readouterr().err
