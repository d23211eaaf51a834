"""The commands of the user guide, one after another as a reader types them, and those of the README.

What is not to be run stands in ```text blocks.
"""

import shutil

import pytest
import typer

from deeph_tracegrad.cli import app
from documents import CHECKOUT, DEEPH, PATH, commands, run

LEGACY = {"element.dat", "lat.dat", "rlat.dat", "site_positions.dat", "orbital_types.dat", "info.json"}
# what each folder holds at the end
WRITTEN = {
    "dataset": {"dataset.json", "shards"},
    "guide": {
        *(f"{name}{suffix}" for name in ("bands", "bands_dft", "unfolded") for suffix in (".h5", ".png")),
        *(f"fat{suffix}" for suffix in (".h5", ".png", ".html", ".Band", ".gnuplot", ".csv", ".json")),
        *(f"dos{suffix}" for suffix in (".h5", ".csv", ".png")),
        *(f"errors{suffix}" for suffix in (".csv", ".json", ".png")),
        *("training", "predicted", "c_00", "c_00_legacy", "twisted"),
    },
    "guide/training": {
        *("config.toml", "split.json", "versions.json", "train.log", "metrics.csv", "events.csv", "tensorboard"),
        *("logs", "best.pt", "last.pt"),
    },
    "guide/predicted": {"c_00"},
    "guide/predicted/c_00": DEEPH | {"hamiltonian_pred.h5"},
    "guide/twisted": {"POSCAR"},
    "guide/c_00": DEEPH | {"hamiltonian.h5"},
    "guide/c_00_legacy": LEGACY | {"overlaps.h5", "hamiltonians.h5", "rc.h5", "rh.h5"},
}


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.skipif(shutil.which("mpirun", path=PATH) is None, reason="needs mpirun")
def test_the_guide(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "runs").symlink_to(CHECKOUT / "demo" / "runs")
    shutil.copy(CHECKOUT / "demo" / "config.toml", tmp_path / "demo")
    for words in commands("docs/guide.md"):
        run(words, tmp_path)
    results = tmp_path / "demo" / "results"
    assert {folder: {path.name for path in (results / folder).iterdir()} for folder in WRITTEN} == WRITTEN


def test_the_readme_names_commands_and_options_that_exist():
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    ours = [words for words in commands("README.md") if any(word.endswith("deeph-tracegrad") for word in words)]
    assert ours
    for words in ours:
        place = next(place for place, word in enumerate(words) if word.endswith("deeph-tracegrad"))
        command, *arguments = words[place + 1 :]
        assert {argument for argument in arguments if argument.startswith("--")} <= known[command]
