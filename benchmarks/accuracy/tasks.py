"""One training of the study, and what is kept of it."""

import platform
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from costs import read_effort, step_cost
from measure import measure
from study import Budget, DataSet, Row, Study

from deeph_tracegrad.config import Config, differing_keys, load_config
from deeph_tracegrad.devices import select_device
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.metrics import read_metrics
from deeph_tracegrad.training.run_folder import RunFolder


@dataclass(frozen=True)
class Task:
    """One training and what is measured of it."""

    study: Study
    chosen: DataSet
    row: Row
    budget: Budget
    seed: int

    @property
    def name(self) -> str:
        """One that no other task has."""
        return f"{self.chosen.name}-{self.row.name}-{self.budget}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Of the training."""
        return self.study.out / "runs" / self.name

    @property
    def result(self) -> Path:
        """Where what was measured is written."""
        return self.study.out / "results" / f"{self.name}.json"

    def config(self) -> Config:
        """Its configuration; the number of epochs follows from the budget."""
        epochs = self.study.epochs or self.chosen.epochs
        if self.budget == "time":
            epochs = max(1, round(epochs / step_cost(self.study, self.row, self.chosen).ratio))
        return self.study.config(self.row, self.chosen, self.folder, self.seed, epochs)

    def check_same(self) -> None:
        """Refuse to mix trainings of different settings.

        Raises:
            MismatchError: the folder holds another training than this one.
        """
        written = self.folder / "config.toml"
        if not written.is_file():
            return
        moved = {"data.dataset", "training.run"}
        differing = [key for key in differing_keys(load_config(written), self.config()) if key not in moved]
        if differing:
            raise MismatchError(f"{self.folder} was trained with another {', '.join(differing)}; give another --out")

    def record(self) -> dict[str, Any]:
        """All that is kept of the complete training, with the errors of its best checkpoint."""
        folder = RunFolder(self.folder)
        trained, metrics = load_checkpoint(folder.best), read_metrics(folder.metrics)
        cost = step_cost(self.study, self.row, self.chosen)
        device = select_device(self.study.device)
        cells = {"validation": [self._material(f"{self.chosen.runs}/{label}") for label in self.chosen.validation]}
        cells |= {Path(cell).name: [self._material(cell)] for cell in self.chosen.extrapolation}
        return {
            "set": self.chosen.name,
            "row": self.row.name,
            "budget": self.budget,
            "seed": self.seed,
            "epochs": int(metrics[-1]["epoch"]),
            "best_epoch": trained.training["epoch"],
            "weights": sum(weight.numel() for weight in trained.network(device).parameters()),
            "step_seconds": cost.seconds,
            "step_ratio": cost.ratio,
            "training_seconds": read_effort(self.folder),
            "edges_per_second": median(float(row["edges_per_second"]) for row in metrics),
            "errors": {name: measure(materials, trained, device) for name, materials in cells.items()},
            "curve": [[int(row["epoch"]), float(row["validation_mae_mev"])] for row in metrics],
            "config": trained.config.model_dump(mode="json"),
            "split": trained.split,
            "fingerprint": trained.fingerprint,
            "versions": trained.versions,
            "revision": revision(),
            "machine": f"{platform.machine()}, {torch.cuda.get_device_name(device)}"
            if device.type == "cuda"
            else f"{platform.machine()}, one thread",
        }

    def _material(self, folder: str) -> Material:
        """A structure with its number of electrons."""
        material = read_material(self.study.data / folder)
        electrons = sum(self.chosen.valence[element] for element in material.elements)
        return replace(material, electrons=electrons)


def revision() -> str:
    """Of the code, by git; with + where files differ from it."""
    command = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
