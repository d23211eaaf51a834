"""`deeph-tracegrad convert` and `inspect`, through the command line."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeph_tracegrad.deeph_format import PREDICTION, read_deeph, write_deeph
from deeph_tracegrad.deeph_legacy import read_deeph_legacy
from deeph_tracegrad.preprocess.runs import read_material
from materials import assert_same_matrices

DATA = Path(__file__).parents[1] / "data"
READERS = {"deeph": read_deeph, "deeph-legacy": read_deeph_legacy}
RUNS = [
    *("openmx/graphene", "openmx/mos2", "openmx/fe_bcc_spin", "openmx/bi_soc"),
    *("abacus/si2", "abacus/fe_nspin2", "abacus/bi_soc", "abacus/mos2_get_S"),
    *("siesta/graphene", "siesta/water"),
]


@pytest.fixture
def run(command, capsys):
    """Run the command: (exit code, standard output, standard error)."""
    return lambda *arguments: (command(*arguments), *capsys.readouterr())


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("to", READERS)
def test_a_run_survives_the_conversion(run, unpacked, tmp_path, name, to):
    code, output, errors = run("convert", unpacked(name), tmp_path / "out", "--to", to)
    assert (code, errors) == (0, "")
    assert "read in" in output
    assert "info.json" in output
    original, written = read_material(unpacked(name)), READERS[to](tmp_path / "out")
    assert_same_matrices(original, written)
    for field in ("basis", "fermi_level", "electrons", "converged"):
        assert getattr(written, field) == getattr(original, field)
    assert written.provenance["origin"]["code"] == original.provenance["code"]
    np.testing.assert_allclose(written.structure.cart_coords, original.structure.cart_coords, rtol=0, atol=1e-14)
    assert_same_matrices(written, read_material(tmp_path / "out"))


def test_as_dock_converts_it(run, unpacked, tmp_path):
    source = unpacked("openmx/mos2")
    assert run("convert", source, tmp_path / "out")[0] == 0
    with (
        h5py.File(tmp_path / "out" / "hamiltonian.h5") as ours,
        h5py.File(source / "deeph_dock" / "hamiltonian.h5") as theirs,
    ):
        order = {tuple(pair): place for place, pair in enumerate(ours["atom_pairs"][:].tolist())}
        for place, pair in enumerate(theirs["atom_pairs"][:].tolist()):
            blocks = []
            for file, number in [(ours, order[tuple(pair)]), (theirs, place)]:
                start, stop = file["chunk_boundaries"][number : number + 2]
                blocks.append(file["entries"][start:stop])
            np.testing.assert_allclose(*blocks, rtol=0, atol=1e-8)  # dock keeps the run's violation of hermiticity


def test_upgrade_and_downgrade(run, tmp_path):
    assert run("convert", DATA / "deeph_legacy" / "graphene", tmp_path / "new")[0] == 0
    assert run("convert", tmp_path / "new", tmp_path / "old", "--to", "deeph-legacy", "--local-coordinates")[0] == 0
    assert (tmp_path / "old" / "rc.h5").is_file()
    assert_same_matrices(read_deeph_legacy(DATA / "deeph_legacy" / "graphene"), read_deeph_legacy(tmp_path / "old"))


@pytest.mark.parametrize("to", READERS)
def test_density_and_position_are_carried_over_when_asked_for(run, unpacked, tmp_path, to):
    source, out = unpacked("deeph_dock/demo_a_00"), tmp_path / "out"
    for names in ({"density", "position"}, {"position"}, set()):
        options = [word for name in sorted(names) for word in ("--with", name)]
        code, _, errors = run("convert", source, out, "--to", to, *options)
        assert (code, errors) == (0, "")
        written = READERS[to](out, matrices=("density", "position"))
        assert_same_matrices(written, read_deeph(source, matrices=names))


def test_the_density_of_a_siesta_run(run, unpacked, tmp_path):
    source = unpacked("siesta/graphene")
    assert run("convert", source, tmp_path / "out", "--with", "density")[0] == 0
    written = read_deeph(tmp_path / "out", matrices=["density"])
    assert_same_matrices(written, read_material(source, matrices=["density"]))
    code, _, errors = run("convert", source, tmp_path / "out", "--with", "position")
    assert code == 2
    assert "SIESTA never" in errors


@pytest.mark.parametrize("name", ["mos2", "fe_nspin2", "bi_soc"])
def test_what_abacus_starts_from(run, unpacked, copy_of, tmp_path, name):
    """From a run, and from a folder such as `predict` leaves, the same to the last bit."""
    source = unpacked(f"abacus/{name}")
    material = read_material(source)
    write_deeph(material, tmp_path / "predicted", hamiltonian_name=PREDICTION)
    for origin, out in [(source, "from_run"), (tmp_path / "predicted", "from_prediction")]:
        code, output, errors = run("convert", origin, tmp_path / out, "--to", "abacus")
        assert (code, errors) == (0, "")
        assert "hrs1_nao.csr" in output
    names = sorted(path.name for path in (tmp_path / "from_run").iterdir())
    channels = ["hrs1_nao.csr", "hrs2_nao.csr"][: material.spin.channels]
    assert names == ["STRU", *channels, "sr_nao.csr"]
    for file in names:
        assert (tmp_path / "from_run" / file).read_bytes() == (tmp_path / "from_prediction" / file).read_bytes()
    again = copy_of(f"abacus/{name}")
    for path in (again / "OUT.ABACUS").glob("data-*"):
        path.unlink()
    for file in names[1:]:
        shutil.copy(tmp_path / "from_prediction" / file, again / "OUT.ABACUS")
    assert_same_matrices(material, read_material(again))


def test_what_abacus_cannot_start_from(run, unpacked, tmp_path):
    out = tmp_path / "out"
    for source, options, message in [
        (unpacked("abacus/mos2_get_S"), [], "holds no Hamiltonian"),
        (unpacked("openmx/graphene"), [], "orbitals of OpenMX, which ABACUS does not have"),
        (unpacked("siesta/water"), [], "orbitals of SIESTA, which ABACUS does not have"),
        (unpacked("abacus/si2"), ["--with", "density"], "ABACUS starts from H alone"),
        (unpacked("abacus/si2"), ["--local-coordinates"], "--to deeph-legacy"),
    ]:
        code, _, errors = run("convert", source, out, "--to", "abacus", *options)
        assert code == 2
        assert message in errors
    assert list(tmp_path.iterdir()) == []
    assert run("convert", unpacked("openmx/graphene"), tmp_path / "deeph")[0] == 0
    code, _, errors = run("convert", tmp_path / "deeph", out, "--to", "abacus")
    assert code == 2
    assert "orbitals of OpenMX" in errors
    # Without what this program adds, a folder does not tell whose orbitals it has.
    assert run("convert", unpacked("openmx/graphene") / "deeph_dock", out, "--to", "abacus")[0] == 0


def test_an_abacus_folder_is_replaced_and_its_inputs_are_not(run, unpacked, tmp_path):
    source, out = unpacked("abacus/si2"), tmp_path / "out"
    for _ in range(2):
        assert run("convert", source, out, "--to", "abacus")[0] == 0
    (out / "INPUT").write_text("INPUT_PARAMETERS\n")
    code, _, errors = run("convert", source, out, "--to", "abacus")
    assert code == 2
    assert "holds INPUT" in errors
    assert (out / "hrs1_nao.csr").is_file()


def test_a_matrix_that_the_run_lacks_is_refused_with_the_reason(run, tmp_path):
    source = DATA / "deeph_legacy" / "graphene"
    code, _, errors = run("convert", source, tmp_path / "out", "--with", "position")
    assert code == 2
    assert f"{source}: holds no position matrix; " in errors
    assert "out_mat_r 1" in errors
    assert run("convert", source, tmp_path / "out", "--with", "overlap")[0] == 2
    assert not (tmp_path / "out").exists()


def test_an_overlap_alone_is_converted(run, tmp_path):
    """As after overlap-only OpenMX, whose parser in DeepH-pack writes no info.json."""
    source = shutil.copytree(DATA / "deeph_legacy" / "graphene", tmp_path / "source")
    (source / "info.json").unlink()
    assert run("convert", source, tmp_path / "new")[0] == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["POSCAR", "info.json", "overlap.h5"]
    assert run("convert", tmp_path / "new", tmp_path / "old", "--to", "deeph-legacy")[0] == 0
    for name in ("element.dat", "orbital_types.dat", "lat.dat", "site_positions.dat"):
        one, other = (np.loadtxt(folder / name) for folder in (source, tmp_path / "old"))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
    assert_same_matrices(read_material(source), read_material(tmp_path / "old"))


def test_an_earlier_conversion_is_replaced_and_nothing_else(run, unpacked, tmp_path):
    source, out = unpacked("openmx/graphene") / "deeph_dock", tmp_path / "out"
    for to in ("deeph", "deeph"):
        assert run("convert", source, out, "--to", to)[0] == 0
    code, _, errors = run("convert", source, out, "--to", "deeph-legacy")
    assert code == 2
    assert f"{out}: holds POSCAR" in errors
    (out / "thesis.tex").touch()
    code, _, errors = run("convert", source, out)
    assert code == 2
    assert "thesis.tex" in errors
    assert (out / "hamiltonian.h5").is_file()


def test_refusals_leave_everything_as_it_was(run, unpacked, tmp_path):
    source = shutil.copytree(unpacked("openmx/graphene") / "deeph_dock", tmp_path / "run")
    before = {path: path.read_bytes() for path in source.iterdir()}
    (tmp_path / "file").write_text("x")
    (source / "info.json.bak").touch()
    for destination, message in [(source, "is the run itself"), (tmp_path / "file", "is a file")]:
        code, _, errors = run("convert", source, destination)
        assert code == 2
        assert message in errors
    code, _, errors = run("convert", source, tmp_path / "out", "--local-coordinates")
    assert code == 2
    assert "--to deeph-legacy" in errors
    code, _, errors = run("convert", tmp_path / "nothing", tmp_path / "out")
    assert code == 2
    assert "nothing" in errors
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "out").exists()


def test_inspect_a_run_and_a_folder(run, unpacked, tmp_path):
    source = unpacked("openmx/fe_bcc_spin")
    code, output, _ = run("inspect", source)
    assert code == 0
    for text in ("Fe2", "Fe s3p2d1", "collinear", "Fermi level", "smallest eigenvalue of S(k)", "H beyond S", "OpenMX"):
        assert text in output
    material = read_deeph(source / "deeph_dock")
    write_deeph(material.with_hamiltonian(()), tmp_path / "out")
    code, output, _ = run("inspect", tmp_path / "out")
    assert code == 0
    assert "There is no Hamiltonian." in output
    code, _, errors = run("inspect", tmp_path)
    assert code == 2
    assert str(tmp_path) in errors


def test_inspect_a_dataset(run, graphene_dataset):
    code, output, _ = run("inspect", graphene_dataset)
    assert code == 0
    for text in ("samples", "C s2p1", "fingerprint"):
        assert text in output


def test_in_a_process_of_its_own(unpacked, tmp_path):
    script = Path(sys.executable).with_name("deeph-tracegrad")
    source = unpacked("openmx/graphene") / "deeph_dock"
    done = subprocess.run(
        [script, "convert", source, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_matrices(read_deeph(source), read_deeph(tmp_path / "out"))
