"""A full disk, too little memory, half-written folders: a sentence, an exit code, no half output."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.inference.export import read_bands

Command = Callable[..., int]

EXAMPLE = Path(__file__).parents[2] / "examples" / "twisted_bilayer"
BILAYER = EXAMPLE / "runs" / "bilayer_1_2"
LAYER = EXAMPLE / "runs" / "layer_0"
BASIS = ("--basis-dir", EXAMPLE, "--basis", "C=C6.0-s2p2d1")
FERMI = ("--fermi", -3.65)

# The command with so many bytes in a file, or MB of memory beyond what the program itself takes, at most.
LIMITED = """
import resource, sys
from pathlib import Path

import h5py, matplotlib.pyplot, pymatgen.core, scipy.sparse.linalg, torch
from deeph_tracegrad import cli
from deeph_tracegrad.inference import band_run, overlap, predict
from deeph_tracegrad.inference.spectra import dos_run
from deeph_tracegrad.parallel import world

world()
kind, limit = sys.argv.pop(1), int(sys.argv.pop(1))
if kind == "file":
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
else:
    status = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) for line in status if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (taken * 1024 + limit * 2**20,) * 2)
cli.main()
"""


def limited(folder: Path, kind: str, limit: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in this folder, with at most so much."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED, kind, str(limit), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def left(folder: Path) -> list[str]:
    """The files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("out/POSCAR", ("overlap", BILAYER / "POSCAR", *BASIS, "--out", "out")),
        ("b.h5", ("bands", LAYER, "--density", 10, *FERMI, "--out", "b")),
        ("d.h5", ("dos", LAYER, "--density", 1, *FERMI, "--method", "gaussian", "--out", "d")),
        ("dataset/shards", ("preprocess", EXAMPLE / "runs" / "layer_0", "--workers", 1, "--out", "dataset")),
    ],
)
def test_a_full_disk(name: str, arguments: tuple[object, ...], tmp_path: Path) -> None:
    done = limited(tmp_path, "file", 3000, *arguments)
    assert done.returncode == 2, done.stderr
    assert f"error: {name}" in done.stderr
    assert "cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(tmp_path) == []


@pytest.mark.slow
def test_a_full_disk_keeps_the_prediction_before(command: Command, example_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("predict", example_checkpoint, BILAYER, "--device", "cpu", "--out", tmp_path / "out")
    assert command(*arguments) == 0
    before = read_deeph(tmp_path / "out" / "bilayer_1_2", "hamiltonian_pred.h5").hamiltonian[0]
    files = left(tmp_path / "out")
    done = limited(tmp_path, "file", 100_000, *arguments)
    assert done.returncode == 2, done.stderr
    assert "out/bilayer_1_2: cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(tmp_path / "out") == files
    after = read_deeph(tmp_path / "out" / "bilayer_1_2", "hamiltonian_pred.h5").hamiltonian[0]
    np.testing.assert_array_equal(after.entries, before.entries)


@pytest.mark.slow
def test_too_little_memory(command: Command, example_checkpoint: Path, tmp_path: Path) -> None:
    assert command("twist", 6, 7, "--out", tmp_path / "large.vasp") == 0
    predict = ("predict", example_checkpoint, tmp_path / "large.vasp", "--device", "cpu", *BASIS[:2])
    assert command(*predict, "--out", tmp_path) == 0
    work = tmp_path / "work"
    work.mkdir()
    for megabytes, arguments in (
        (40, ("overlap", tmp_path / "large.vasp", *BASIS, "--out", "out")),
        (100, (*predict, "--out", "out")),
        (60, ("bands", tmp_path / "large", *FERMI, "--out", "b")),
        (60, ("dos", tmp_path / "large", *FERMI, "--out", "d")),
    ):
        done = limited(work, "memory", megabytes, *arguments)
        assert done.returncode in (1, 2), done.stdout + done.stderr  # 1: a structure of several was left out
        assert re.search("memory of the (machine|device) does not suffice", done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        assert left(work) == []


@pytest.mark.parametrize(
    ("file", "damage"),
    [("overlap.h5", "cut"), ("hamiltonian.h5", "cut"), ("hamiltonian.h5", "empty"), ("POSCAR", "empty")]
    + [(name, "missing") for name in ("overlap.h5", "POSCAR", "info.json")],
)
def test_a_half_written_folder_is_named(
    file: str, damage: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(BILAYER, folder)
    content = (folder / file).read_bytes()
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    for name in ("bands", "dos"):
        assert command(name, folder, *FERMI, "--out", tmp_path / "out") == 2
        told = capsys.readouterr().err
        assert str(folder) in told
        assert "Traceback" not in told
    assert left(tmp_path) == sorted(f"half/{path.name}" for path in folder.iterdir())


def test_what_a_killed_run_left_is_in_nobodys_way(command: Command, tmp_path: Path) -> None:
    """A folder and a file under the temporary names that a killed process leaves behind."""
    out = tmp_path / "out"
    (out / ".POSCAR.123.part").mkdir(parents=True)
    (out / ".POSCAR.123.part" / "overlap.h5").write_bytes(b"half")
    (out / ".b.123.part.h5").write_bytes(b"half")
    assert command("overlap", BILAYER / "POSCAR", *BASIS, "--out", out) == 0
    assert read_deeph(out / "POSCAR").overlap is not None
    for _ in range(2):  # the second run replaces what the first has written
        assert command("bands", BILAYER, "--density", 10, *FERMI, "--out", out / "b") == 0
    assert read_bands(out / "b.h5").fermi.level == pytest.approx(-3.65)
    assert command("preprocess", BILAYER, out, "--workers", 1, "--out", tmp_path / "dataset") in (0, 1)
