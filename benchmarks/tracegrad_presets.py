"""TraceGrad's presets against plain DeepH-E3: what a training step costs, and the error after equal epochs.

    OMP_NUM_THREADS=1 python benchmarks/tracegrad_presets.py [RUNS] [--out FOLDER] [--epochs N] [--seeds S ...]

RUNS: a folder of DFT runs or DeepH folders; the first 70 % by label are trained on, the others validate. Every preset
is trained with the default settings, one structure a batch, once for each seed; the error is the last validation's.
A run folder that is complete counts as it is, one that was interrupted is taken up again. Without RUNS only the step is
timed, on an 18-atom supercell of the graphene fixture: forward, loss, backward and optimiser, median processor time of
interleaved steps.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from _fixtures import read_fixture
from torch.nn.utils import clip_grad_norm_

from deeph_tracegrad.config import (
    Config,
    DataSettings,
    ModelSettings,
    TraceGradSettings,
    TrainingSettings,
)
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.testing import repeated
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.loop import train
from deeph_tracegrad.training.losses import error_sums, training_loss
from deeph_tracegrad.training.metrics import read_metrics
from deeph_tracegrad.training.run_folder import RunFolder
from deeph_tracegrad.training.state import TrainingState

PRESETS = {
    "off": TraceGradSettings(enabled=False),
    "compact": TraceGradSettings(preset="compact"),
    "paper": TraceGradSettings(preset="paper"),
}
STEPS = 15
TRAIN_FRACTION = 0.7


def main() -> None:
    arguments = parsed_arguments()
    material = repeated(read_fixture("graphene"), (3, 3, 1))
    seconds = step_times(material)
    errors: dict[str, list[float]] = {name: [] for name in PRESETS}
    if arguments.runs:
        dataset = arguments.out / "dataset"
        build_dataset([str(arguments.runs)], dataset, workers=1)
        for seed in arguments.seeds:
            for name in PRESETS:
                errors[name].append(validation_error(configuration(name, dataset, arguments, seed)))
    print(f"{'preset':<8} {'weights':>9} {'ms a step':>10} {'ratio':>6} {'validation MAE, meV, by seed'}")
    for name in PRESETS:
        cells = "  ".join(f"{error:.3f}" for error in errors[name]) or "-"
        print(
            f"{name:<8} {num_weights(name, material):9} {1e3 * seconds[name]:10.1f} "
            f"{seconds[name] / seconds['off']:5.2f}x {cells}"
        )


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("tracegrad_presets"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    return parser.parse_args()


def step_times(material: Material) -> dict[str, float]:
    """Processor seconds of a training step; the presets take turns, so that a busy machine slows all alike."""
    layout = TargetLayout(material.basis, material.spin)
    graph = HamiltonianGraph.from_sample(build_sample(material, "graphene"), material.basis, layout)
    graph.trace_labels = trace_labels(graph.target, layout, TraceGradSettings()).float()
    graph.target = graph.target.float()
    states = {name: new_state(name, material) for name in PRESETS}
    times: dict[str, list[float]] = {name: [] for name in PRESETS}
    for _ in range(STEPS):
        for name, state in states.items():
            start = time.process_time()
            training_step(state, graph, PRESETS[name].form.loss_weight)
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def new_state(name: str, material: Material) -> TrainingState:
    config = Config(model=model_settings(name))
    return TrainingState(config, material.basis, material.spin, torch.device("cpu"))


def num_weights(name: str, material: Material) -> int:
    return sum(parameter.numel() for parameter in new_state(name, material).network.parameters())


def training_step(state: TrainingState, graph: HamiltonianGraph, trace_weight: float) -> None:
    errors = error_sums(state.network(graph), graph, state.network.layout)
    state.optimizer.zero_grad()
    training_loss(errors, errors.detach(), trace_weight).backward()
    clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    state.average.update(state.network)


def configuration(name: str, dataset: Path, arguments: argparse.Namespace, seed: int) -> Config:
    labels = sorted(GraphDataset(dataset).labels)
    cut = round(TRAIN_FRACTION * len(labels))
    return Config(
        data=DataSettings(dataset=dataset, train=labels[:cut], validation=labels[cut:], test=[], max_edges=1),
        model=model_settings(name),
        training=TrainingSettings(
            run=arguments.out / f"{name}-{seed}",
            epochs=arguments.epochs,
            validation_interval=5,
            seed=seed,
            device="cpu",
            threads=1,
        ),
    )


def model_settings(name: str) -> ModelSettings:
    return ModelSettings(tracegrad=PRESETS[name])


def validation_error(config: Config) -> float:
    """The mean absolute error after the last epoch, in meV; trains what is missing."""
    folder = RunFolder(config.training.run)
    if last_epoch(folder) < config.training.epochs:
        train(config, resume="auto")
    return float(read_metrics(folder.metrics)[-1]["validation_mae_mev"])


def last_epoch(folder: RunFolder) -> int:
    return int(read_metrics(folder.metrics)[-1]["epoch"]) if folder.last.is_file() else 0


if __name__ == "__main__":
    main()
