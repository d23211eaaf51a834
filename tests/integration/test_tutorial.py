"""The commands of the tutorial on twisted bilayers, one after another, on a small cell, after a short training."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.inference.export import read_bands
from documents import CHECKOUT, DEEPH, commands, run

EXAMPLE = CHECKOUT / "examples" / "twisted_bilayer"
# what the test runs in place of what the tutorial has
SMALLER = {
    "twist 2 3": "twist 1 2",  # 28 atoms in the place of 76
    "twisted_bilayer/config.toml": "twisted_bilayer/config.toml --set training.epochs=2 --set training.threads=1",
    "--density 60": "--density 10",
}
# what each folder holds at the end
WRITTEN = {
    "dataset": {"dataset.json", "shards"},
    "training": {
        *("config.toml", "split.json", "versions.json", "train.log", "metrics.csv", "events.csv", "tensorboard"),
        *("logs", "best.pt", "last.pt"),
    },
    "overlaps/bilayer": DEEPH,
    "predicted": {"bilayer", "bilayer_1_2"},
    "predicted/bilayer": DEEPH | {"hamiltonian_pred.h5"},
}
PICTURES = ("known", "bands", "unfolded")


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "twisted_bilayer")
    printed = {}
    for words in commands("docs/tutorial.md"):
        line = shlex.join(words)
        for ours, small in SMALLER.items():
            line = line.replace(ours, small)
        printed[words[1]] = run(shlex.split(line), tmp_path)
    results = tmp_path / "tutorial"
    assert {folder: {path.name for path in (results / folder).iterdir()} for folder in WRITTEN} == WRITTEN
    for name in PICTURES:
        assert (results / f"{name}.png").stat().st_size > 10_000
    assert "7 primitive cells" in printed["unfold"]  # one layer's own, turned
    assert "14 of 28 on sites, 0.000 Å away at most; 0 empty sites" in printed["unfold"]
    assert read_deeph(results / "predicted" / "bilayer", "hamiltonian_pred.h5").electrons == 4 * 28
    assert len(read_bands(results / "bands.h5").path.ticks) == 4


def test_the_basis_file_makes_the_overlaps_of_the_runs(command: Callable[..., int], tmp_path: Path) -> None:
    options = ["--basis-dir", EXAMPLE, "--basis", "C=C6.0-s2p2d1", "--out", tmp_path]
    for name in ("bilayer_1_2", "layer_4"):
        assert command("overlap", EXAMPLE / "runs" / name / "POSCAR", *options) == 0
        made, run = read_deeph(tmp_path / "POSCAR"), read_deeph(EXAMPLE / "runs" / name)
        assert made.overlap is not None
        assert run.overlap is not None
        assert np.abs(made.overlap.on_pairs(run.overlap.pairs).entries - run.overlap.entries).max() < 1e-7
