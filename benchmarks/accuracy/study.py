"""The accuracy study: which networks are trained, on what data. To add a network, add a `Row`.

A row is `configs/deeph-e3.toml` with settings as `deeph-tracegrad train --set` takes them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deeph_tracegrad.config import Config, load_config

FAITHFUL = Path(__file__).parents[2] / "configs" / "deeph-e3.toml"

Budget = Literal["epochs", "time"]
"""What a row has in common with faithful DeepH-E3: the number of epochs, or the processor time of all steps."""


@dataclass(frozen=True)
class DataSet:
    """A set of DFT calculations and how it is divided.

    runs: folder of the structures, below the data folder. Those that validate have overlaps.
    valence: electrons of each element. epochs: of faithful DeepH-E3.
    extrapolation: folders of cells that are predicted but never trained on; their overlaps are known.
    """

    name: str
    title: str
    description: str
    runs: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    valence: dict[str, float]
    epochs: int
    extrapolation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One network and its training.

    reference: the row that tells what its last change is worth.
    seeds: how many by default, 1, 2, ...; none for a row that is only run by name.
    """

    name: str
    title: str
    settings: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ("epochs",)
    reference: str = "deeph-e3"
    seeds: int = 1


SETS = (
    DataSet(
        name="graphene",
        title="Graphene",
        description="OpenMX, cells of 18 atoms",
        runs="graphene_openmx/train",
        train=tuple(f"p3_{number:02}" for number in range(10, 50)),
        validation=tuple(f"p3_{number:02}" for number in range(10)),
        valence={"C": 4.0},
        epochs=300,
        extrapolation=tuple(f"graphene_openmx/extrapolate/{name}" for name in ("p5_0", "p5_1", "tbg_1_2")),
    ),
    DataSet(
        name="mos2",
        title="MoS₂",
        description="ABACUS, cells of 12 atoms, orbitals up to f",
        runs="mos2_abacus/train",
        train=tuple(f"m2_{number:02}" for number in range(6, 34)),
        validation=tuple(f"m2_{number:02}" for number in range(6)),
        valence={"Mo": 14.0, "S": 6.0},
        epochs=300,
    ),
    DataSet(
        name="bismuth",
        title="Bismuth bilayer",
        description="OpenMX, cells of 2 atoms, spin-orbit coupling",
        runs="bi_soc_openmx/train",
        train=tuple(f"bi_{number:02}" for number in range(16)),
        validation=tuple(f"bi_{number:02}" for number in range(16, 24)),
        valence={"Bi": 15.0},
        epochs=600,
    ),
)

BOTH: tuple[Budget, ...] = ("epochs", "time")
PUBLISHED = ("model.tracegrad.enabled=true", "model.tracegrad.loss_weight=0.3")
COMPACT = (*PUBLISHED, "model.tracegrad.preset=compact")
PAPER = (*PUBLISHED, "model.tracegrad.preset=paper")
NARROW_PAPER = (*PAPER, "model.tracegrad.width=128", "model.tracegrad.decoder_width=128")
SCHEDULE = (
    "training.optimizer.name=adamw",
    "training.optimizer.gradient_clip=1.0",
    "training.optimizer.ema_decay=0.999",
    "training.schedule.kind=cosine",
    "training.schedule.warmup_epochs=5",
    "training.optimizer.learning_rate=5e-3",
)
HERMITIAN = ("model.hermitian=true",)
LOCAL_NORM = ("model.norm=local",)
BASELINE = ("model.two_centre_baseline=true",)
SCALING = ("model.target_scaling=true",)
ABSOLUTE = ("training.loss=mae",)
CHOICES = (*SCHEDULE, *HERMITIAN, *BASELINE, *SCALING, *ABSOLUTE)
BEST = (*CHOICES, *COMPACT)

ROWS = (
    Row("deeph-e3", "DeepH-E3 as published", seeds=3),
    Row("compact", "TraceGrad, compact", COMPACT, BOTH, seeds=3),
    Row("best", "improved DeepH-E3 with TraceGrad, compact", BEST, BOTH, seeds=3, reference="choices"),
    Row("trace-loss", "TraceGrad, compact: trace loss only", (*COMPACT, "model.tracegrad.gradient=false")),
    Row("gradient", "TraceGrad, compact: gradient only", (*COMPACT, "model.tracegrad.loss_weight=0")),
    Row("wide", "DeepH-E3, a step as long as compact's", ("model.trunk=80x0e+40x1o+20x2e+10x3o+10x4e",), BOTH),
    Row("schedule", "optimiser and schedule of the default", SCHEDULE),
    Row("hermitian", "Hermitian by construction", HERMITIAN),
    Row("local-norm", "norms of each atom and edge", LOCAL_NORM),
    Row("baseline", "two-centre baseline", BASELINE),
    Row("scaling", "target scaling", SCALING),
    Row("absolute", "loss: absolute error of blocks", ABSOLUTE),
    Row("choices", "improved DeepH-E3, all of these but the norms", CHOICES, BOTH),
    Row("best-local", "…, norms of each atom and edge", (*BEST, *LOCAL_NORM), reference="best"),
    Row("squared", "…, loss: mean square", (*BEST, "training.loss=mse"), reference="best"),
    Row("huber", "…, loss: Huber", (*BEST, "training.loss=huber"), reference="best"),
    Row("block-weights", "…, weights by norm", (*BEST, "training.block_weights=norm"), reference="best"),
    Row("no-average", "…, no average of the weights", (*BEST, "training.optimizer.ema_decay=0"), reference="best"),
    Row("weak-trace", "…, a tenth of the trace loss", (*BEST, "model.tracegrad.loss_weight=0.03"), reference="best"),
    Row("no-trace", "…, gradient only", (*BEST, "model.tracegrad.loss_weight=0"), reference="best"),
    Row("log-labels", "…, labels: logarithms", (*BEST, "model.tracegrad.labels=log"), reference="best"),
    Row("raw-labels", "…, labels: as they are", (*BEST, "model.tracegrad.labels=raw"), reference="best"),
    Row("square", "…, signal: tr((H H†)²)", (*BEST, "model.tracegrad.signal=trace_square"), reference="best"),
    Row("nuclear", "…, signal: singular values", (*BEST, "model.tracegrad.signal=nuclear"), reference="best"),
    Row("paper", "TraceGrad, paper, width 128", NARROW_PAPER, BOTH),
    Row("widest", "DeepH-E3, a step as long as paper's", ("model.trunk=192x0e+96x1o+48x2e+24x3o+24x4e",), BOTH),
    Row("paper-full", "TraceGrad, paper, width 1024", PAPER, BOTH, seeds=0),
)


@dataclass(frozen=True)
class Study:
    """What all trainings have in common.

    data: folder that the sets' paths begin at. out: results. epochs: None for those of each set.
    common: settings of every row, before its own; for trials.
    """

    data: Path
    out: Path
    epochs: int | None = None
    device: str = "cpu"
    common: tuple[str, ...] = field(default=())

    def dataset(self, chosen: DataSet) -> Path:
        """Where the dataset of this set stands."""
        return self.out / "datasets" / chosen.name

    def config(self, row: Row, chosen: DataSet, run: Path, seed: int = 1, epochs: int = 1) -> Config:
        """The configuration of one training into the folder `run`.

        Raises:
            ConfigError: a setting of the row is unknown or of the wrong kind.
        """
        settings = {
            "data.dataset": str(self.dataset(chosen)),
            "data.train": list(chosen.train),
            "data.validation": list(chosen.validation),
            "data.test": [],
            "training.run": str(run),
            "training.epochs": epochs,
            "training.seed": seed,
            "training.device": self.device,
            "training.threads": 1,
        }
        fixed = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        return load_config(FAITHFUL, [*self.common, *row.settings, *fixed])
