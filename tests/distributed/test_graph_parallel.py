"""Ranks that share each structure train as one rank does."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.config import Config, ParallelSettings
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.parallel import World
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.training import distributed
from launching import MPIRUN, TRAININGS, finish, mpirun, start
from materials import random_material, without_atom
from training_file import assert_same_training, write_training

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "graph_parallel.py"
PAPER = "model.tracegrad.preset=paper model.tracegrad.width=8 model.tracegrad.decoder_width=8"
CASES = {
    "compact": "",
    # the lone atom is a batch, in which one rank of each group has no edge and the other groups have nothing
    "one_a_batch": "data.max_edges=1",
    "paper": f"training.recompute=true {PAPER}",
    "local": "model.norm=local model.smooth_cutoff=true data.max_edges=1",
    "fitted": "model.two_centre_baseline=true model.target_scaling=true model.tracegrad.enabled=false",
}
# the cases of each number of ranks, which are in groups of two; those of "torch" without the compiled kernels
OF_TORCH = ["torch_one_a_batch", "torch_paper"]
OF_SIZE = {1: [*CASES, *OF_TORCH], 2: [*CASES, *OF_TORCH], 4: ["compact", "one_a_batch", "torch_one_a_batch"]}


def lone_atom() -> Material:
    """With one edge, the on-site one."""
    material = without_atom(without_atom(random_material(SpinMode.NONCOLLINEAR, seed=5), 2), 1)
    structure = Structure(Lattice.cubic(20.0), ["Mo"], [[0.0, 0.0, 0.0]])
    pairs = material.overlap.pairs
    pairs = pairs[(pairs[:, :3] == 0).all(axis=1)]
    hamiltonian = tuple(matrix.on_pairs(pairs) for matrix in material.hamiltonian)
    return replace(material, structure=structure, overlap=material.overlap.on_pairs(pairs), hamiltonian=hamiltonian)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spinors: structures of three atoms, of two, and of one without neighbours."""
    folder = tmp_path_factory.mktemp("graph_parallel")
    whole = [random_material(SpinMode.NONCOLLINEAR, seed=seed) for seed in range(5)]
    materials = {"train_0": whole[0], "train_1": whole[1], "train_2": without_atom(whole[2], 1)}
    materials |= {"train_3": lone_atom(), "held_0": whole[3], "held_1": without_atom(whole[4], 2)}
    for name, material in materials.items():
        write_deeph(material, folder / "runs" / name)
    build_dataset([str(folder / "runs")], folder / "dataset", workers=1)
    return folder / "dataset"


@pytest.fixture(scope="module")
def config(dataset: Path) -> Path:
    """Batches of two structures, a constant rate, which does not depend on where the training ends."""
    data = f'dataset = "{dataset}"\ntrain = ["train_*"]\nvalidation = ["held_*"]\ntest = 0.0\nmax_edges = 160'
    return write_training(dataset.parent, data)


@pytest.fixture(scope="module")
def runs(config: Path) -> Path:
    """A folder of the run folders <ranks>/<case>."""
    fixed = "training.schedule.kind=constant training.optimizer.ema_decay=0.9"
    for size, cases in OF_SIZE.items():
        shared = f"{fixed} parallel.graph={min(size, 2)}"
        names = [f"{case} {shared} {CASES[case.removeprefix('torch_')]}" for case in cases]
        names.insert(sum(case in CASES for case in cases), "torch")
        if size == 2:
            names.insert(0, f"stopped {shared} training.epochs=2")
        done = finish(start(mpirun(size), config, config.parent / str(size), *names, program=TRAININGS))
        assert done.returncode == 0, done.stderr
        assert ("1 rank;" if size == 1 else f"{size} ranks in groups of 2;") in done.stdout
    return config.parent


needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")


@pytest.mark.mpi
@pytest.mark.slow
@needs_mpirun
@pytest.mark.parametrize(("size", "case"), [(size, case) for size in (2, 4) for case in OF_SIZE[size]])
def test_groups_train_as_one_rank(runs: Path, size: int, case: str) -> None:
    assert_same_training(runs / "1" / case, runs / str(size) / case)


@pytest.mark.mpi
@pytest.mark.slow
@needs_mpirun
def test_a_training_of_groups_goes_on_on_one_rank(runs: Path, config: Path, command: Callable[..., int]) -> None:
    settings = ["training.schedule.kind=constant", "training.optimizer.ema_decay=0.9"]
    settings.append(f"training.run={runs / '2' / 'stopped'}")
    options = [word for setting in settings for word in ("--set", setting)]
    assert command("train", config, "--resume", *options) == 0
    assert_same_training(runs / "1" / "compact", runs / "2" / "stopped")


@pytest.mark.mpi
@pytest.mark.slow
@needs_mpirun
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the memory of a process in /proc")
def test_a_rank_of_two_needs_half_the_memory() -> None:
    """By the benchmark, on the bilayer of 28 atoms; weights and atoms are on both ranks."""
    done = finish(start((), "--twist", 1, 2, "--rounds", 1, program=(sys.executable, str(BENCHMARK))))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    memory = {row[0]: float(row[2]) for row in rows if row[0] in ("1", "2") and len(row) == 6}
    assert memory["2"] < 0.6 * memory["1"]


@pytest.mark.parametrize(("ranks", "told"), [(1, "there is 1: start 2, or"), (3, "there are 3: start 4, or")])
def test_ranks_that_make_no_whole_groups(ranks: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: World(0, ranks))
    refused = pytest.raises(ConfigError, match=rf"parallel.graph = 2 needs a multiple of 2 ranks, and {told}")
    with refused, distributed.joined_ranks(Config(parallel=ParallelSettings(graph=2))):
        pass


def test_structures_are_of_many_sizes(dataset: Path) -> None:
    """One has a single edge, which leaves nothing for the second rank of a group."""
    assert {1, 77} < set(GraphDataset(dataset).edge_counts.tolist())
