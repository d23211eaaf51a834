"""How much of H the bond lengths alone explain, and what baseline and scaling do to a training.

    OMP_NUM_THREADS=1 python benchmarks/two_centre_baseline.py [--train EPOCHS] [RUNS ...]

RUNS: folders of DFT runs or DeepH folders, each folder one set; by default the demo's runs. docs/performance.md tells
what sets its figures are of.

The fit takes 80 % of a set. The table shows the rest: the root mean square of H's elements, what is left of it after
the constants that `model.target_scaling` takes off by itself and after `model.two_centre_baseline`, and the share of
the mean square that each explains.

--train: instead, train a small network on 16 samples of each set with each combination of the two switches, and print
the MAE of 8 others.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch

from deeph_tracegrad.config import parse_config
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.errors import TracegradError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.baseline import SPLINES, TwoCentreBaseline
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.batches import shuffled
from deeph_tracegrad.training.loop import train
from deeph_tracegrad.training.metrics import read_metrics

DEMO = Path(__file__).parents[1] / "demo" / "runs"
TRAINED, VALIDATED = 16, 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="*", type=Path, default=[DEMO])
    parser.add_argument("--train", type=int, metavar="EPOCHS")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, runs in enumerate(arguments.runs):
            dataset = Path(folder) / f"{number}"
            build_dataset([str(runs)], dataset, workers=1)
            if arguments.train:
                compare_trainings(dataset, arguments.train)
            else:
                explain(dataset)


def explain(folder: Path) -> None:
    dataset = GraphDataset(folder)
    order = shuffled(range(len(dataset)), seed=0, epoch=0)
    fitted, held_out = order[: 4 * len(order) // 5], order[4 * len(order) // 5 :]
    layout = TargetLayout(dataset.basis, dataset.spin)
    baselines = [TwoCentreBaseline(layout, functions) for functions in (1, SPLINES)]
    for baseline in baselines:
        baseline.fit((dataset[place] for place in fitted), dataset.reach, lambda tensor: tensor)
    print(f"{len(fitted)} samples fitted, {len(held_out)} held out; rms of H in meV and what is left of it by")
    print(f"{'':<16} {'rms':>8} {'constant':>9} {'baseline':>9} {'explained':>10} {'explained':>10}")
    rows: dict[str, torch.Tensor] = {}
    for place in held_out:
        graph = dataset[place]
        for name, sums in squares(graph, layout, baselines, list(dataset.basis)):
            rows[name] = rows.get(name, torch.zeros_like(sums)) + sums
    for name in sorted(rows):
        elements, whole, *left = rows[name].tolist()
        rms = "".join(f" {1e3 * (square / elements) ** 0.5:9.1f}" for square in (whole, *left))
        print(f"{name:<15} {rms}" + "".join(f" {100 * (1 - square / whole):9.2f}%" for square in left))


def squares(
    graph: HamiltonianGraph, layout: TargetLayout, baselines: list[TwoCentreBaseline], elements: list[str]
) -> list[tuple[str, torch.Tensor]]:
    """For each kind of edge: number of elements, sum of |H|², and of what each baseline leaves of it."""
    mask = layout.edge_mask(graph)
    columns = [layout.target_sizes.expand(len(mask), -1)]
    columns += [layout.traces(graph.target - shift) for shift in (0.0, *(baseline(graph) for baseline in baselines))]
    sums = torch.stack([(column * mask).sum(dim=1) for column in columns], dim=1)
    species, on_site = graph.species[graph.edge_index], graph.on_site
    kinds = {"off-site": ~on_site, "on-site": on_site}
    for (row, left), (column, right) in product(enumerate(elements), repeat=2):
        pair = (species[0] == row) & (species[1] == column)
        kinds[f"off-site {left}-{right}"] = pair & ~on_site
        if row == column:
            kinds[f"on-site {left}"] = pair & on_site
    return [(name, sums[edges].sum(dim=0)) for name, edges in kinds.items() if edges.any()]


def compare_trainings(folder: Path, epochs: int) -> None:
    order = shuffled(range(len(labels := GraphDataset(folder).labels)), seed=0, epoch=0)
    reported = [max(1, epochs // part) for part in (8, 4, 2, 1)]
    table = [f"{'MAE in meV after':<22}" + "".join(f"{epoch:>7} epochs" for epoch in reported)]
    for baseline, scaling in product((False, True), repeat=2):
        config = {
            "data": {
                "dataset": str(folder),
                "train": [labels[place] for place in order[:TRAINED]],
                "validation": [labels[place] for place in order[TRAINED : TRAINED + VALIDATED]],
                "test": 0.0,
                "max_edges": 1,
            },
            "model": {
                "blocks": 2,
                "trunk": "16x0e+8x1o+8x2e+4x3o+4x4e",
                "node_channels": 16,
                "edge_channels": 32,
                "radial_basis": 32,
                "two_centre_baseline": baseline,
                "target_scaling": scaling,
                "tracegrad": {"enabled": False},
            },
            "training": {
                "run": str(folder / f"run_{baseline}_{scaling}"),
                "epochs": epochs,
                "threads": 1,
                "device": "cpu",
                "optimizer": {"ema_decay": 0.99},
                "schedule": {"warmup_epochs": 1},
            },
        }
        train(parse_config(config, "benchmark"), resume="never")
        rows = read_metrics(folder / f"run_{baseline}_{scaling}" / "metrics.csv")
        name = " and ".join(name for name, on in (("baseline", baseline), ("scaling", scaling)) if on) or "neither"
        table.append(f"{name:<22}" + "".join(f"{float(rows[at - 1]['validation_mae_mev']):14.2f}" for at in reported))
    print("\n".join(table))


if __name__ == "__main__":
    try:
        main()
    except TracegradError as error:
        sys.exit(str(error))
