"""`deeph-tracegrad check` on real runs, sound ones and ones that are damaged on purpose."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.preprocess.defects import Kind
from deeph_tracegrad.preprocess.runs import read_material

RUNS = Path(__file__).parents[2] / "demo" / "runs"
EXECUTABLES = Path(sys.executable).parent


@pytest.fixture
def check(command, capsys):
    """Run the command: (exit code, standard output, standard error)."""
    return lambda *arguments: (command("check", *arguments, "--workers", 1), *capsys.readouterr())


@pytest.fixture
def check_json(check):
    """Run the command: (exit code, what stood in the JSON, the kinds of defects of each run)."""

    def run(*arguments):
        code, output, errors = check(*arguments, "--json")
        assert not errors
        assert output.isascii()  # in whatever encoding it is written
        report = json.loads(output)
        return code, report, {one["run"]: {defect["kind"] for defect in one["defects"]} for one in report["runs"]}

    return run


def shifted(material, energy):
    """The same with another zero of energy: H + energy * S."""
    overlap = material.overlap.on_pairs(material.hamiltonian[0].pairs)
    moved = tuple(matrix.with_entries(matrix.entries + energy * overlap.entries) for matrix in material.hamiltonian)
    return replace(material, hamiltonian=moved, fermi_level=material.fermi_level + energy)


def moved(material, seed):
    """The same with every atom moved by about 0.003 Å, so that S goes on to fit."""
    structure = material.structure
    positions = structure.cart_coords + np.random.default_rng(seed).normal(scale=0.003, size=(len(structure), 3))
    return replace(
        material, structure=Structure(structure.lattice, structure.species, positions, coords_are_cartesian=True)
    )


@pytest.fixture
def graphene_runs(tmp_path):
    """Thirteen sound runs of two atoms: eight of OpenMX, and five with other positions as DeepH folders."""
    for number in range(8):
        shutil.copytree(RUNS / f"a_{number:02}", tmp_path / "runs" / f"a_{number:02}")
        if number < 5:
            material = moved(read_material(RUNS / f"a_{number:02}"), number)
            write_deeph(material, tmp_path / "runs" / f"moved_{number}")
    return tmp_path / "runs"


def test_sound_runs(check, unpacked):
    code, output, errors = check(unpacked("openmx/mos2"), unpacked("openmx/mos2") / "deeph_dock")
    assert (code, errors) == (0, "")
    assert "duplicate" in output
    assert "2 runs: 1 fine, 1 with warnings, 0 to fix" in output
    for name in (
        "openmx/fe_bcc_spin",
        "openmx/bi_soc",
        "abacus/mos2",
        "abacus/fe_nspin2",
        "abacus/si2",
        "abacus/bi_soc",
    ):
        code, output, errors = check(unpacked(name))
        assert (code, errors) == (0, "")
        assert "1 run: 1 fine" in output


def test_damaged_runs_are_told_apart_from_sound_ones(graphene_runs, unpacked, check, check_json):
    runs = graphene_runs
    shutil.copytree(unpacked("openmx/graphene"), runs / "larger_basis", ignore=shutil.ignore_patterns("deeph_dock"))
    shutil.copytree(unpacked("openmx/fe_bcc_spin"), runs / "iron", ignore=shutil.ignore_patterns("deeph_dock"))
    shutil.copytree(RUNS / "b_00", runs / "cut")
    (runs / "cut" / "openmx.scfout").write_bytes((RUNS / "b_00" / "openmx.scfout").read_bytes()[:5000])
    shutil.copytree(RUNS / "b_01", runs / "ended_early")
    text = (RUNS / "b_01" / "openmx.out").read_text()
    (runs / "ended_early" / "openmx.out").write_text(re.sub(r" +SCF= +(?:[5-9]|\d\d) .*\n", "", text))
    shutil.copytree(RUNS / "a_00", runs / "once_more")
    write_deeph(shifted(moved(read_material(RUNS / "a_02"), 9), 3.0), runs / "other_zero")
    write_deeph(replace(read_material(RUNS / "b_02"), electrons=31.0), runs / "charged")

    code, report, kinds = check_json(runs)
    assert code == 1
    assert {run: found for run, found in kinds.items() if found} == {
        "a_04": {"outlier"},  # the Fermi level of the most distorted cell is 0.4 eV below the others'
        "moved_4": {"outlier"},
        "larger_basis": {"basis"},
        "iron": {"spin"},
        "cut": {"unreadable"},
        "ended_early": {"unconverged"},
        "once_more": {"duplicate"},
        "other_zero": {"outlier"},
        "charged": {"electrons"},
    }
    assert report["summary"].pop("seconds") > 0
    assert report["summary"] == {"runs": 20, "fine": 11, "warning": 5, "fix": 4}
    assert report["common"] == {"spin": "none", "basis": {"C": "s2p1", "Fe": "s3p2d1"}}
    by_name = {run["run"]: run for run in report["runs"]}
    assert by_name["once_more"]["same_structure_as"] == "a_00"
    assert by_name["cut"]["figures"] is None
    assert "where only" in by_name["cut"]["defects"][0]["message"]
    assert "C has the shells s2p2d1 here and s2p1 in" in by_name["larger_basis"]["defects"][0]["message"]
    assert "31 electrons, where the valence electrons of C8 make 32" in by_name["charged"]["defects"][0]["message"]
    assert by_name["a_00"]["severity"] == "fine"
    figures, material = by_name["a_00"]["figures"], read_material(RUNS / "a_00")
    assert figures["fermi_level_eV"] == material.fermi_level
    assert figures["overlap_pairs"] == len(material.overlap)
    assert set(report["energies"]["formulas"]) == {"C2"}

    code, output, errors = check(runs)
    assert (code, errors) == (1, "")
    for line in (
        "fix: unreadable, 1 run.",
        "  once_more: the same structure as a_00; their on-site levels differ by up to 0.0e+00 eV",
        "20 runs: 11 fine, 5 with warnings, 4 to fix or to leave out before training;",
    ):
        assert line in output


def test_an_abacus_run_that_was_not_converged(unpacked, tmp_path, check_json):
    run = shutil.copytree(unpacked("abacus/si2"), tmp_path / "si2")
    log = run / "OUT.ABACUS" / "running_scf.log"
    assert "charge density convergence is achieved" in log.read_text()
    log.write_text(log.read_text().replace("convergence is achieved", "convergence has NOT been achieved"))
    code, _, kinds = check_json(run)
    assert (code, kinds["si2"]) == (1, {"unconverged"})


def test_what_only_prediction_can_use(unpacked, tmp_path, check_json):
    write_deeph(read_material(unpacked("openmx/graphene")), tmp_path / "predicted", "hamiltonian_pred.h5")
    code, _, kinds = check_json(tmp_path / "predicted", unpacked("abacus/mos2_get_S"))
    assert code == 1
    assert kinds == {"predicted": {"prediction"}, "mos2_get_S": {"no_hamiltonian", "convergence_unknown"}}


def test_what_preprocess_refuses_must_be_fixed(graphene_runs, unpacked, command, check_json, tmp_path, capsys):
    """A run that `check` lets pass becomes a sample."""
    shutil.copytree(unpacked("abacus/mos2_get_S"), graphene_runs / "get_S")
    write_deeph(replace(read_material(RUNS / "b_00"), converged=False), graphene_runs / "stopped")
    code, report, _ = check_json(graphene_runs)
    assert code == 1
    assert command("preprocess", graphene_runs, "--out", tmp_path / "dataset", "--workers", 1) == 1
    skipped = set(re.findall(r"skipped \S+/(\w+):", capsys.readouterr().err))
    assert skipped == {run["run"] for run in report["runs"] if run["severity"] == "fix"} == {"get_S", "stopped"}


def test_nothing_to_check(check, tmp_path):
    for arguments in ([tmp_path], [tmp_path / "nowhere"], [], [RUNS, "--colour"]):
        code, output, errors = check(*arguments)
        assert (code, output) == (2, "")
        assert errors


@pytest.mark.mpi
def test_processes_and_ranks_say_the_same(graphene_runs, check_json):
    (graphene_runs / "a_03" / "openmx.scfout").write_bytes(b"")
    _, expected, _ = check_json(graphene_runs)
    program = [EXECUTABLES / "deeph-tracegrad", "check", graphene_runs, "--json"]
    for start in ([*program, "--workers", "2"], [EXECUTABLES / "mpirun", "-n", "2", *program]):
        done = subprocess.run(list(map(str, start)), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1, done.stderr
        report = json.loads(done.stdout)
        assert report["summary"].pop("seconds") > 0
        expected["summary"].pop("seconds", None)
        assert report == expected


def test_the_documentation_names_every_defect_and_key(check_json):
    text = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text(encoding="utf-8")
    section = text[text.index("## What `check` looks for") : text.index("## Pitfalls")]
    assert [kind for kind in Kind if f"| {kind.label} (`{kind.name.lower()}`) |" not in section] == []
    named = set(re.findall(r"`(\w+)`", section))
    _, report, _ = check_json(RUNS / "b_00")
    (run,) = report["runs"]
    for keys in (report, report["summary"], report["common"], report["energies"], run, run["figures"]):
        assert set(keys) <= named
