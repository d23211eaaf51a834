"""`overlap` and `predict --basis-dir`: from a POSCAR and basis files to S, H and bands, without a DFT run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from deeph_tracegrad.blocks import find_pairs
from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.inference.export import read_bands
from deeph_tracegrad.poscar import write_poscar
from deeph_tracegrad.preprocess.runs import read_material
from training_file import write_training

SI_ORB = "Si_gga_6au_100Ry_2s2p1d.orb"
BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"


@pytest.fixture
def graphene(unpacked, tmp_path):
    """The POSCAR of a real run, and the run."""
    run = unpacked("openmx/graphene")
    write_poscar(read_material(run).structure, tmp_path / "graphene.vasp")
    return tmp_path / "graphene.vasp", run


@pytest.fixture
def trained_on(command, tmp_path):
    """Trains a network for an epoch on a run, and returns its checkpoint."""

    def train(run):
        assert command("preprocess", run, "--out", tmp_path / "dataset", "--workers", 1) == 0
        data = f'dataset = "{tmp_path / "dataset"}"\ntrain = ["*"]\nvalidation = 0.0\ntest = 0.0'
        settings = ("training.epochs=1", "model.harmonics_degree=4")
        options = [word for setting in settings for word in ("--set", setting)]
        assert command("train", write_training(tmp_path, data), *options) == 0
        return tmp_path / "run" / "last.pt"

    return train


@pytest.fixture
def checkpoint(graphene, trained_on):
    return trained_on(graphene[1])


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


def test_prediction_with_orb_files(unpacked, trained_on, command, tmp_path):
    """They do not tell the electrons, which the checkpoint knows; ABACUS' H reaches farther than the orbitals."""
    run = unpacked("abacus/si2")
    checkpoint, labelled = trained_on(run), read_material(run)
    write_poscar(labelled.structure, tmp_path / "silicon.vasp")
    out = tmp_path / "predicted"
    basis = ["--basis-dir", run]
    assert command("predict", checkpoint, run, "--out", out, "--device", "cpu") == 0
    assert command("predict", checkpoint, tmp_path / "silicon.vasp", *basis, "--out", out, "--device", "cpu") == 0
    assert command("overlap", tmp_path / "silicon.vasp", *basis, "--basis", f"Si={SI_ORB}", "--out", tmp_path) == 0
    with_run, without = read_deeph(out / "si2"), read_deeph(out / "silicon")
    assert read_deeph(tmp_path / "silicon").electrons is None
    assert without.electrons == with_run.electrons == labelled.electrons == 8
    assert without.basis["Si"].label == SI_ORB
    (own,), (theirs,), (label,) = without.hamiltonian, with_run.hamiltonian, labelled.hamiltonian
    beyond = label.pairs[find_pairs(labelled.overlap.pairs, label.pairs) < 0]
    assert len(beyond) > 100
    assert (find_pairs(own.pairs, label.pairs) >= 0).all()
    assert np.abs(own.on_pairs(beyond).entries).min() > 0
    assert len(own) == len(theirs)
    assert np.abs(own.on_pairs(theirs.pairs).entries - theirs.entries).max() < 1e-6
    assert command("bands", out / "silicon", "--density", 20, "-o", tmp_path / "bands") == 0
    assert np.isfinite(read_bands(tmp_path / "bands.h5").fermi.level)


@pytest.mark.parametrize("kinds", ["S Mo S", "S_1 Mo_x S_1", "S_2 Mo S_1"])
def test_elements_that_are_not_together(kinds, unpacked, trained_on, command, tmp_path):
    """The same atoms in another order give the same matrices in that order, and keep their names."""
    run, basis_dir = unpacked("openmx/mos2"), unpacked("openmx/pao")
    grouped = read_material(run).structure.copy()
    grouped.perturb(0.1, seed=0)
    write_poscar(grouped, tmp_path / "grouped.vasp")
    lines, order = (tmp_path / "grouped.vasp").read_text().splitlines(), [2, 0, 1]
    assert lines[5].split() == ["Mo", "S"]
    atoms = [lines[8 + atom] for atom in order]
    (tmp_path / "mixed.vasp").write_text("\n".join([*lines[:5], kinds, "1 1 1", lines[7], *atoms, ""]))
    files, options = [tmp_path / "grouped.vasp", tmp_path / "mixed.vasp"], ["--basis-dir", basis_dir]
    labels = ["--basis", "S=S7.0-s2p2d1", "--basis", "Mo=Mo7.0-s3p2d2"]
    assert command("overlap", *files, *options, *labels, "--out", tmp_path / "overlap") == 0
    assert (
        command("predict", trained_on(run), *files, *options, "--out", tmp_path / "predicted", "--device", "cpu") == 0
    )
    for out in (tmp_path / "overlap", tmp_path / "predicted"):
        expected, found = read_deeph(out / "grouped").permuted(np.array(order)), read_deeph(out / "mixed")
        assert found.elements == ["S", "Mo", "S"]
        assert [site.label for site in found.structure] == kinds.split()
        assert np.array_equal(found.structure.frac_coords, grouped.frac_coords[order])
        assert found.basis == expected.basis
        assert found.electrons == expected.electrons
        matrices = [(own.overlap, *own.hamiltonian) for own in (found, expected)]
        assert len(matrices[0]) == (1 if out.name == "overlap" else 2)
        for own, theirs in zip(*matrices, strict=True):
            assert len(own) == len(theirs)
            assert np.abs(own.on_pairs(theirs.pairs).entries - theirs.entries).max() < 1e-9


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
