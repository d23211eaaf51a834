"""What lower precision in training costs in accuracy: one training in each precision.

    python benchmarks/train_precision.py RUNS [--out FOLDER] [--epochs COUNT] [--seed SEED] [--device NAME] [NAME ...]

RUNS: DFT runs or DeepH folders named p3_<number>, such as the 3 × 3 supercells of graphene_openmx; those up to 9
validate, the others are trained on, one structure a batch, with the default settings and one thread. NAME: those of
PRECISIONS, by default all that the device knows. A run folder that is complete counts as it is.

The time is that of a training step in the fastest epoch of a run, as it lasted. The MAE is that of H on the validation
samples after the last epoch, computed without rounded products.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from deeph_tracegrad.config import Config, load_config
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.training.loop import train
from deeph_tracegrad.training.metrics import read_metrics
from deeph_tracegrad.training.run_folder import RunFolder

PRECISIONS: Mapping[str, list[str]] = {
    "float64": ["training.dtype=float64"],
    "float32": [],
    "tf32": ["training.matrix_products=tf32"],
    "bf16": ["training.matrix_products=bf16"],
}
DEFAULT = Path(__file__).parents[1] / "configs" / "default.toml"


def main() -> None:
    arguments = parsed_arguments()
    dataset = arguments.out / "dataset"
    build_dataset([str(arguments.runs / "p3_*")], dataset, workers=1)
    rows = [row(name, dataset, arguments) for name in arguments.precisions or known(arguments.device)]
    print("precision  validation MAE, meV  train loss, eV²  ms a step", *rows, sep="\n")


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("precisions", nargs="*", choices=[*PRECISIONS, []])
    parser.add_argument("--out", type=Path, default=Path("train_precision"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def known(device: str) -> list[str]:
    """The precisions that differ on a device."""
    return [name for name in PRECISIONS if name != "tf32" or device != "cpu"]


def row(name: str, dataset: Path, arguments: argparse.Namespace) -> str:
    """Train, or take what an earlier call has trained."""
    config = configuration(name, dataset, arguments)
    train(config, resume="auto")
    metrics = read_metrics(RunFolder(config.training.run).metrics)
    edges = GraphDataset(dataset).edge_counts.mean()
    step = edges / max(float(each["edges_per_second"]) for each in metrics)
    last = metrics[-1]
    loss, error = (float(last[key]) for key in ("train_loss", "validation_mae_mev"))
    return f"{name:<10} {error:19.3f} {loss:16.3e} {1e3 * step:10.1f}"


def configuration(name: str, dataset: Path, arguments: argparse.Namespace) -> Config:
    settings = {
        "data.dataset": dataset,
        "data.train": '["p3_1*", "p3_2*", "p3_3*", "p3_4*"]',
        "data.validation": '["p3_0*"]',
        "data.test": 0.0,
        "data.max_edges": 1,
        "training.run": arguments.out / name,
        "training.epochs": arguments.epochs,
        "training.seed": arguments.seed,
        "training.device": arguments.device,
        "training.threads": 1,
    }
    return load_config(DEFAULT, [*(f"{key}={value}" for key, value in settings.items()), *PRECISIONS[name]])


if __name__ == "__main__":
    main()
