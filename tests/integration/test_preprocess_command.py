"""`deeph-tracegrad preprocess` on real runs, good and bad."""

import json
import shutil
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deeph_tracegrad.cli import app
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.errors import MismatchError, ReadError, WorkerError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess import processes
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.testing import check_dataset
from materials import random_material

RUNS = Path(__file__).parents[2] / "demo" / "runs"
EXECUTABLES = Path(sys.executable).parent


@pytest.fixture
def runs(tmp_path):
    for name in ("a_00", "a_01", "b_00"):
        shutil.copytree(RUNS / name, tmp_path / "runs" / name)
    return tmp_path / "runs"


def command(*arguments):
    return CliRunner().invoke(app, ["preprocess", *map(str, arguments), "--workers", "1"])


def test_a_folder_of_runs_becomes_a_dataset_with_exact_blocks(runs, tmp_path):
    result = command(runs, "--out", tmp_path / "dataset")
    assert result.exit_code == 0, result.output
    assert "3 samples (3 new)" in result.output
    dataset = GraphDataset(tmp_path / "dataset")
    assert dataset.labels == ["a_00", "a_01", "b_00"]
    assert dataset.spin is SpinMode.NONE
    for place, name in enumerate(dataset.labels):
        material, sample = read_material(runs / name), dataset.sample(place)
        assert dataset.edge_counts[place] == len(material.hamiltonian[0])
        assert sample.metadata["fermi_level_eV"] == material.fermi_level
    assert all(result.value < 1e-12 for result in check_dataset(dataset, read_material).values())


@pytest.mark.parametrize("spin", SpinMode)
def test_deeph_folders_of_every_spin_mode_count_as_runs(spin, tmp_path):
    material = random_material(spin)
    write_deeph(material, tmp_path / "runs" / "one")
    build_dataset([str(tmp_path / "runs")], tmp_path / "dataset", workers=1)
    graph = GraphDataset(tmp_path / "dataset")[0]
    assert graph.num_edges == len(material.hamiltonian[0])
    assert graph.target.shape[0] == graph.num_edges


@pytest.mark.parametrize("case", ["openmx/bi_soc", "abacus/si2", "abacus/fe_nspin2"])
def test_runs_of_every_code_become_samples(case, unpacked, tmp_path):
    report = build_dataset([str(unpacked(case))], tmp_path / "dataset", workers=1)
    dataset = GraphDataset(tmp_path / "dataset")
    assert report.built == 1
    assert dataset[0].target.isfinite().all()


def test_processes_and_ranks_make_the_same_dataset(runs, tmp_path):
    command(runs, "--out", tmp_path / "one")
    program = [EXECUTABLES / "deeph-tracegrad", "preprocess", runs]
    subprocess.run([*program, "--out", tmp_path / "two", "--workers", "2"], check=True, capture_output=True)
    mpirun = [EXECUTABLES / "mpirun", "-n", "2", *program, "--out", tmp_path / "ranks"]
    subprocess.run(mpirun, check=True, capture_output=True)
    fingerprints = {GraphDataset(tmp_path / name).fingerprint for name in ("one", "two", "ranks")}
    assert len(fingerprints) == 1


def test_only_new_and_changed_runs_are_read_again(runs, tmp_path):
    out = tmp_path / "dataset"
    command(runs / "a_00", "--out", out)
    assert "2 new" in command(runs, "--out", out).output
    assert "0 new" in command(runs, "--out", out).output
    before = GraphDataset(out).entries
    (runs / "a_01" / "openmx.scfout").touch()
    result = command(runs, "--out", out)
    assert "1 run changed" in result.output
    assert "1 new" in result.output
    assert [entry.digest for entry in GraphDataset(out).entries] == [entry.digest for entry in before]


def test_an_interrupted_command_goes_on_from_its_shards(runs, tmp_path):
    out = tmp_path / "dataset"
    command(runs, "--out", out)
    (out / "dataset.json").unlink()
    result = command(runs, "--out", out)
    assert "3 of them in" in result.output
    assert len(GraphDataset(out)) == 3


def test_files_of_a_killed_command_are_passed_over(runs, tmp_path):
    out = tmp_path / "dataset"
    command(runs / "a_00", "--out", out)
    (out / "shards" / ".0123456789abcdef.99.part.h5").write_bytes(b"half a shard")
    (out / ".dataset.99.part.json").write_text("{")
    result = command(runs, "--out", out)
    assert result.exit_code == 0, result.output
    assert "3 samples (2 new)" in result.output


def test_a_run_done_again_with_another_basis_replaces_the_earlier(tmp_path):
    run, out = tmp_path / "runs" / "one", tmp_path / "dataset"
    write_deeph(random_material(SpinMode.NONE), run)
    build_dataset([str(run)], out, workers=1)
    write_deeph(random_material(SpinMode.COLLINEAR, max_degree=3), run)
    assert build_dataset([str(run)], out, workers=1).built == 1
    assert GraphDataset(out).spin is SpinMode.COLLINEAR


def test_a_killed_worker_is_told(runs, tmp_path, monkeypatch):
    def killed(*arguments):
        raise BrokenProcessPool

    monkeypatch.setattr(processes.ProcessPoolExecutor, "map", killed)
    with pytest.raises(WorkerError, match="fewer --workers"):
        build_dataset([str(runs)], tmp_path / "dataset", workers=2)


def test_a_bad_run_is_named_skipped_and_counted(runs, tmp_path):
    scfout = runs / "a_01" / "openmx.scfout"
    scfout.write_bytes(scfout.read_bytes()[:5000])
    result = command(runs, "--out", tmp_path / "dataset")
    assert result.exit_code == 1
    assert f"skipped {runs / 'a_01'}" in result.stderr
    assert "1 run skipped" in result.output
    assert GraphDataset(tmp_path / "dataset").labels == ["a_00", "b_00"]


def test_strict_stops_at_a_bad_run(runs, tmp_path):
    (runs / "a_01" / "openmx.scfout").write_bytes(b"")
    with pytest.raises(ReadError, match="a_01"):
        build_dataset([str(runs)], tmp_path / "dataset", workers=1, strict=True)
    assert not (tmp_path / "dataset" / "dataset.json").exists()


def test_nothing_usable_is_an_error_and_writes_nothing(tmp_path):
    write_deeph(random_material(SpinMode.NONE).with_hamiltonian(()), tmp_path / "runs" / "overlap_only")
    with pytest.raises(ReadError, match="of 1 run none"):
        build_dataset([str(tmp_path / "runs")], tmp_path / "dataset", workers=1)
    assert not list((tmp_path / "dataset").rglob("*.h5"))


def test_predictions_are_no_labels(tmp_path):
    write_deeph(random_material(SpinMode.NONE), tmp_path / "runs" / "one", "hamiltonian_pred.h5")
    write_deeph(random_material(SpinMode.NONE), tmp_path / "runs" / "two")
    report = build_dataset([str(tmp_path / "runs")], tmp_path / "dataset", workers=1)
    assert [failure.path.name for failure in report.failures] == ["one"]
    assert "prediction" in report.failures[0].reason


def test_unconverged_runs_are_refused_unless_allowed(tmp_path):
    write_deeph(replace(random_material(SpinMode.NONE), converged=False), tmp_path / "runs" / "one")
    write_deeph(random_material(SpinMode.NONE), tmp_path / "runs" / "two")
    arguments = ([str(tmp_path / "runs")], tmp_path / "dataset")
    report = build_dataset(*arguments, workers=1)
    assert "--allow-unconverged" in report.failures[0].reason
    assert build_dataset(*arguments, workers=1, allow_unconverged=True).built == 1


def test_runs_that_do_not_fit_are_both_named_and_leave_nothing(tmp_path):
    write_deeph(random_material(SpinMode.NONE), tmp_path / "runs" / "plain")
    write_deeph(random_material(SpinMode.COLLINEAR), tmp_path / "runs" / "magnetic")
    with pytest.raises(MismatchError, match=r"(?s)magnetic.*plain|plain.*magnetic"):
        build_dataset([str(tmp_path / "runs")], tmp_path / "dataset", workers=1)
    assert not list((tmp_path / "dataset").rglob("*.h5"))
    other_basis = random_material(SpinMode.NONE, max_degree=3)
    write_deeph(other_basis, tmp_path / "bases" / "larger")
    write_deeph(random_material(SpinMode.NONE), tmp_path / "bases" / "smaller")
    with pytest.raises(MismatchError, match="Mo has the shells"):
        build_dataset([str(tmp_path / "bases")], tmp_path / "dataset", workers=1)


def test_the_runs_named_are_those_whose_bases_differ(runs, unpacked, tmp_path):
    patterns = [str(unpacked("abacus/si2")), str(runs / "a_00"), str(unpacked("openmx/graphene"))]
    with pytest.raises(MismatchError, match=r"a_00 and .*graphene cannot share a dataset: C has the shells"):
        build_dataset(patterns, tmp_path / "dataset", workers=1)


def test_a_folder_that_is_no_dataset_is_not_touched(runs, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").touch()
    with pytest.raises(ReadError, match="is no dataset"):
        build_dataset([str(runs)], tmp_path / "precious", workers=1)


def test_damaged_datasets_say_so(runs, tmp_path):
    out = tmp_path / "dataset"
    command(runs, "--out", out)
    index = out / "dataset.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(ReadError, match="update it"):
        GraphDataset(out)
    index.write_text(index.read_text()[:200])
    with pytest.raises(ReadError, match="damaged index"):
        GraphDataset(out)
    index.write_text(json.dumps(content))
    shard = next(out.glob("shards/*.h5"))
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(ReadError, match=shard.name):
        [GraphDataset(out)[place] for place in range(3)]
    with pytest.raises(ReadError, match="no dataset here"):
        GraphDataset(tmp_path / "nowhere")
