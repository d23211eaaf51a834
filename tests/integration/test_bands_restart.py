"""The command `bands`, interrupted and started again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeph_tracegrad.inference import bands as bands_module
from deeph_tracegrad.inference import counted_fermi, fermi, kept_results
from deeph_tracegrad.inference.export import read_bands
from deeph_tracegrad.inference.solvers import Solver, Spectrum
from slow_bands import SLOW_BANDS, wait_for_results

Command = Callable[..., int]

OPTIONS = ("--window", -3, 4, "--density", 15)


@pytest.fixture
def folder(unpacked: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked("openmx/mos2") / "deeph_dock", tmp_path / "mos2"))


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result is worth a file."""
    monkeypatch.setattr(kept_results, "KEEP_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Watch:
    """Counts the k-points that are solved; `signal`, if given, comes with the sixth of them."""

    solved = 0
    signal: int | None = None


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    seen, choose = Watch(), bands_module.choose_solver

    def watched(*arguments: object) -> Solver:
        solver = choose(*arguments)

        def solve(*matrices: object) -> Spectrum:
            seen.solved += 1
            if seen.solved == 6 and seen.signal is not None:
                os.kill(os.getpid(), seen.signal)
            return solver(*matrices)

        return solve

    monkeypatch.setattr(bands_module, "choose_solver", watched)
    return seen


def assert_same(first: Path, second: Path) -> None:
    """Bands that are equal to the last bit."""
    one, two = read_bands(first), read_bands(second)
    np.testing.assert_array_equal(one.energies, two.energies)
    np.testing.assert_array_equal(one.residuals, two.residuals)
    np.testing.assert_array_equal(one.path.k, two.path.k)
    assert (one.fermi, one.first_band, dict(one.provenance)) == (two.fermi, two.first_band, dict(two.provenance))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("solver", ["dense", "shift-invert"])
def test_an_interrupted_command_goes_on(
    command: Command,
    folder: Path,
    tmp_path: Path,
    watch: Watch,
    capfd: pytest.CaptureFixture[str],
    number: int,
    solver: str,
) -> None:
    run = ("bands", folder, *OPTIONS, "--solver", solver, "-o")
    assert command(*run, tmp_path / "whole") == 0
    points, watch.solved, watch.signal = watch.solved, 0, number
    assert command(*run, tmp_path / "x") == 130
    told = capfd.readouterr().err
    assert f"what was finished is kept in {tmp_path / 'x.unfinished'}, and the same command goes on" in told
    assert not (tmp_path / "x.h5").exists()
    watch.solved, watch.signal = 0, None
    assert command(*run, tmp_path / "x") == 0
    told = capfd.readouterr().out
    assert "the Fermi level of a calculation that was interrupted" in told
    assert f"5 of {points} k-points of a calculation that was interrupted" in told
    assert watch.solved == points - 5
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")
    assert not (tmp_path / "x.unfinished").exists()


def test_a_killed_command_goes_on(
    command: Command, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bands", str(folder), *map(str, OPTIONS), "-o", str(tmp_path / "x")]
    with subprocess.Popen([sys.executable, str(SLOW_BANDS), *arguments]) as process:
        wait_for_results(tmp_path / "x.unfinished", 4)
        process.kill()
    assert not (tmp_path / "x.h5").exists()
    capfd.readouterr()
    assert command(*arguments) == 0
    assert "k-points of a calculation that was interrupted" in capfd.readouterr().out
    assert command(*arguments[:-1], tmp_path / "whole") == 0
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")


@pytest.fixture
def unfinished(command: Command, folder: Path, tmp_path: Path, watch: Watch) -> Path:
    """What a command left that was interrupted after five k-points."""
    watch.signal = signal.SIGTERM
    assert command("bands", folder, *OPTIONS, "-o", tmp_path / "x") == 130
    watch.solved, watch.signal = 0, None
    return tmp_path / "x.unfinished"


@pytest.mark.usefixtures("unfinished")
def test_another_input_starts_afresh(
    command: Command, folder: Path, tmp_path: Path, watch: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(folder / "hamiltonian.h5", "r+") as file:
        file["entries"][...] = 1.01 * file["entries"][...]
    assert command("bands", folder, *OPTIONS, "-o", tmp_path / "x") == 0
    told = capfd.readouterr().out
    assert f"5 k-points in {tmp_path / 'x.unfinished'}: another input" in told
    solved = watch.solved
    assert command("bands", folder, *OPTIONS, "-o", tmp_path / "whole") == 0
    assert watch.solved == 2 * solved
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")


@pytest.mark.usefixtures("unfinished")
def test_another_choice_of_bands_keeps_the_fermi_level(
    command: Command, folder: Path, tmp_path: Path, watch: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ("bands", folder, "--num-bands", 8, "--density", 15, "-o")
    assert command(*run, tmp_path / "x") == 0
    told = capfd.readouterr().out
    assert "the Fermi level of a calculation that was interrupted" in told
    assert "k-points in" in told
    assert "another choice of bands\n" in told
    solved = watch.solved
    assert command(*run, tmp_path / "whole") == 0
    assert watch.solved == 2 * solved
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")


@pytest.mark.usefixtures("unfinished")
def test_another_path_keeps_the_k_points_that_it_shares(
    command: Command, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ("bands", folder, "--window", -3, 4, "--kpath", "G 0 0 0, M 1/2 0 0", "--density", 60, "-o")
    assert command(*run, tmp_path / "x") == 0
    assert " 1 of 12 k-points of a calculation that was interrupted" in capfd.readouterr().out  # Γ
    assert command(*run, tmp_path / "whole") == 0
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")


def test_a_damaged_file_is_computed_again(
    command: Command, folder: Path, tmp_path: Path, unfinished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in unfinished.iterdir():
        if "k-point" in file.read_text():
            file.write_bytes(file.read_bytes()[:-7])
            break
    assert command("bands", folder, *OPTIONS, "-o", tmp_path / "x") == 0
    told = capfd.readouterr()
    assert f"{file}: is damaged" in " ".join(told.err.split())
    assert "4 of " in told.out
    assert command("bands", folder, *OPTIONS, "-o", tmp_path / "whole") == 0
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")


def test_a_reference_goes_on_too(
    command: Command, folder: Path, tmp_path: Path, watch: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The sixth k-point is one of the reference."""
    run = ("bands", folder, "--compare", folder.parent / "other", "--density", 5, "--fermi", -4, "-o", tmp_path / "x")
    shutil.copytree(folder, folder.parent / "other")
    with h5py.File(folder.parent / "other" / "hamiltonian.h5", "r+") as file:
        file["entries"][...] = 1.01 * file["entries"][...]
    watch.signal = signal.SIGTERM
    assert command(*run) == 130
    watch.signal = None
    assert command(*run) == 0
    told = capfd.readouterr().out
    assert "not used" not in told
    assert told.count("of a calculation that was interrupted") == 2


def test_seconds_of_work_leave_nothing(
    command: Command,
    folder: Path,
    tmp_path: Path,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(kept_results, "KEEP_SECONDS", 10.0)
    watch.signal = signal.SIGINT
    assert command("bands", folder, *OPTIONS, "-o", tmp_path / "x") == 130
    assert "nothing was finished that is worth keeping" in capfd.readouterr().err
    assert not list(tmp_path.glob("x*"))


def test_the_search_for_the_fermi_level_goes_on(
    command: Command,
    unpacked: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Counts of states at many energies and k-points, as in a large cell; the signal comes with the 15th."""
    count_below, counts = counted_fermi.count_below, [0]

    def counted(*arguments: object) -> int:
        counts[0] += 1
        if counts[0] == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return count_below(*arguments)

    monkeypatch.setattr(counted_fermi, "count_below", counted)
    monkeypatch.setattr(fermi, "DENSE_LIMIT", 0)
    monkeypatch.setattr(fermi, "MESH_DENSITY", 15.0)
    run = ("bands", unpacked("openmx/mos2"), "--density", 5, "-o")
    assert command(*run, tmp_path / "x") == 130
    assert command(*run, tmp_path / "x") == 0
    once, counts[0] = counts[0], 15
    assert "of a calculation" not in capfd.readouterr().out
    assert command(*run, tmp_path / "whole") == 0
    assert counts[0] - 15 == once - 1  # the one that the signal cut off was made twice
    assert_same(tmp_path / "x.h5", tmp_path / "whole.h5")
