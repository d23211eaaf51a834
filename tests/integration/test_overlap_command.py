"""`overlap` and `predict --basis-dir`: from a POSCAR and basis files to S, H and bands, without a DFT run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.inference.export import read_bands
from deeph_tracegrad.poscar import write_poscar
from deeph_tracegrad.preprocess.runs import read_material
from training_file import write_training

BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"


@pytest.fixture
def graphene(unpacked, tmp_path):
    """The POSCAR of a real run, and the run."""
    run = unpacked("openmx/graphene")
    write_poscar(read_material(run).structure, tmp_path / "graphene.vasp")
    return tmp_path / "graphene.vasp", run


@pytest.fixture
def checkpoint(graphene, command, tmp_path):
    """A network trained for an epoch on the run."""
    assert command("preprocess", graphene[1], "--out", tmp_path / "dataset", "--workers", 1) == 0
    data = f'dataset = "{tmp_path / "dataset"}"\ntrain = ["*"]\nvalidation = 0.0\ntest = 0.0'
    settings = ("training.epochs=1", "model.harmonics_degree=4")
    options = [word for setting in settings for word in ("--set", setting)]
    assert command("train", write_training(tmp_path, data), *options) == 0
    return tmp_path / "run" / "last.pt"


def test_a_poscar_and_a_basis_file_give_the_overlap_of_the_run(graphene, unpacked, command, capsys, tmp_path):
    poscar, run = graphene
    options = ["--basis-dir", unpacked("openmx/pao"), "--basis", "C=C6.0-s2p2d1"]
    assert command("overlap", poscar, *options, "--out", tmp_path / "out") == 0
    assert "graphene: 2 atoms, 26 orbitals, 8 electrons" in capsys.readouterr().out
    made, theirs = read_deeph(tmp_path / "out" / "graphene"), read_material(run)
    assert np.abs(made.overlap.on_pairs(theirs.overlap.pairs).entries - theirs.overlap.entries).max() < 1e-10
    assert made.electrons == 8
    assert made.basis["C"].label == "C6.0-s2p2d1"
    assert command("overlap", poscar, *options, "--out", tmp_path / "out") == 0  # once more replaces it


@pytest.mark.mpi
@pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")
def test_ranks_share_a_structure(graphene, unpacked, command, tmp_path):
    options = ["--basis-dir", unpacked("openmx/pao"), "--basis", "C=C6.0-s2p2d1"]
    assert command("overlap", graphene[0], *options, "--out", tmp_path / "one") == 0
    arguments = [MPIRUN, "-n", 2, COMMAND, "overlap", graphene[0], *options, "--out", tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        map(str, arguments), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("graphene: 2 atoms") == 1
    one, two = (read_deeph(tmp_path / name / "graphene").overlap for name in ("one", "two"))
    assert np.array_equal(one.entries, two.entries)


def test_prediction_needs_no_run_and_no_labels(graphene, checkpoint, unpacked, command, tmp_path):
    poscar, run = graphene
    out = tmp_path / "predicted"
    assert command("predict", checkpoint, run, "--out", out, "--device", "cpu") == 0
    basis = ["--basis-dir", unpacked("openmx/pao")]
    assert command("predict", checkpoint, poscar, *basis, "--out", out / "poscar", "--device", "cpu") == 0
    with_run, without = read_deeph(out / "graphene"), read_deeph(out / "poscar" / "graphene")
    for one, other in zip(
        (with_run.overlap, *with_run.hamiltonian), (without.overlap, *without.hamiltonian), strict=True
    ):
        assert len(one) == len(other)
        assert np.abs(other.on_pairs(one.pairs).entries - one.entries).max() < 1e-9
    assert command("bands", out / "poscar" / "graphene", "--density", 20, "-o", tmp_path / "bands") == 0
    assert np.isfinite(read_bands(tmp_path / "bands.h5").fermi.level)


def test_one_bad_structure_does_not_cost_the_others(graphene, unpacked, command, capsys, tmp_path):
    poscar, _ = graphene
    (tmp_path / "broken.vasp").write_text("nothing\n")
    hydrogen = Structure(10 * np.eye(3), ["H"], [[0, 0, 0]])
    write_poscar(hydrogen, tmp_path / "hydrogen.vasp")
    (tmp_path / "out" / "taken").mkdir(parents=True)
    (tmp_path / "out" / "taken" / "thesis.tex").touch()
    (tmp_path / "taken.vasp").write_bytes(poscar.read_bytes())
    options = ["--basis-dir", unpacked("openmx/pao"), "--basis", "C=C6.0-s2p2d1", "--out", tmp_path / "out"]
    assert command("overlap", tmp_path / "*.vasp", *options) == 1
    errors = capsys.readouterr().err.replace("\n", " ")
    assert "a POSCAR has at least 8 lines" in errors
    assert "which basis H has is not known: say it by --basis H=LABEL" in errors
    assert "exists and is more than an overlap; give another --out" in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["graphene", "taken"]


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        ("C6.0-s2p2d1", "expected ELEMENT=LABEL, such as C=C6.0-s2p2d1"),
        ("Q=C6.0-s1", "expected ELEMENT=LABEL"),
    ],
)
def test_a_basis_that_cannot_be_understood(graphene, basis, message, unpacked, command, capsys, tmp_path):
    options = ["--basis-dir", unpacked("openmx/pao"), "--basis", basis, "--out", tmp_path / "out"]
    assert command("overlap", graphene[0], *options) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_predict_without_basis_files_says_what_to_do(graphene, checkpoint, command, capsys, tmp_path):
    assert command("predict", checkpoint, graphene[0], "--out", tmp_path / "out") == 2
    assert "--basis-dir" in capsys.readouterr().err
