"""Checkpoints: weights with everything that is needed to use them, or to go on training, and nothing that runs code."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.config import Config, parse_config
from deeph_tracegrad.console import warn
from deeph_tracegrad.dataset import INDEX, basis_from_json, basis_to_json
from deeph_tracegrad.edges import Reach, merged_reach, radii_reach
from deeph_tracegrad.errors import MismatchError, ReadError, TracegradError
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.torch_files import read_torch_file

FORMAT = "deeph-tracegrad checkpoint"
FORMAT_VERSION = 2

_KIND = "checkpoint of deeph-tracegrad"
_DEEPH_E3 = (
    "a model of DeepH-E3, not of deeph-tracegrad; make a checkpoint of it with "
    "deeph-tracegrad import-deeph-e3 {} --out CHECKPOINT"
)

CONVENTIONS = {
    "units": "eV, Angstrom",
    "orbitals": "m = -l..l, real harmonics without Condon-Shortley sign",
    "blocks": "<i in cell 0 | H | j in cell R>",
    "targets": "coefficients of irreps in each edge's local frame, third axis along the bond, second along z x d",
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network.

    reach: every two atoms within it share an edge, Å by element pair.
    fingerprint: of the dataset that it was trained on. split: labels of the samples in each part of it.
    versions: of the libraries. metrics: at the validation before it was written; empty before the first.
    training: state of the training, see `TrainingState.content`; its weights are in there.
    """

    config: Config
    basis: Basis
    spin: SpinMode
    reach: Reach
    fingerprint: str
    split: dict[str, list[str]]
    versions: dict[str, str]
    metrics: dict[str, float]
    training: dict[str, Any]
    path: Path | None = None

    def save(self, path: Path) -> None:
        """Write it; a file that stands there is replaced at once or not at all."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "conventions": CONVENTIONS,
            "config": self.config.model_dump(mode="json"),
            "basis": basis_to_json(self.basis),
            "spin": str(self.spin),
            "reach": dict(self.reach),
            "fingerprint": self.fingerprint,
            "split": self.split,
            "versions": self.versions,
            "metrics": self.metrics,
            "training": self.training,
        }
        # by way of memory: where the disk is full, torch raises errors that do not tell so
        torch.save(content, file := BytesIO())
        with atomic_path(path) as temporary:
            temporary.write_bytes(file.getbuffer())

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to predict with: the running average where there is one."""
        return self.training["average"] or self.training["network"]

    @property
    def dtype(self) -> torch.dtype:
        """Precision that the network was trained in."""
        return getattr(torch, self.config.training.dtype)

    def network(self, device: torch.device) -> HamiltonianNetwork:
        """The network, ready to predict.

        Raises:
            ReadError: the weights do not fit the network that the configuration describes.
        """
        network = HamiltonianNetwork(self.config.model, self.basis, self.spin).to(device, self.dtype)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ReadError(
                self.path or "checkpoint",
                "its weights do not fit the network that this program makes from its settings; it was written with "
                f"deeph-tracegrad {self.versions.get('deeph-tracegrad')}",
            ) from error
        return network.eval().requires_grad_(requires_grad=False)

    def require_fit(self, basis: Basis, spin: SpinMode, elements: Sequence[str]) -> None:
        """Refuse data that the network was not made for.

        basis, spin: of the data. elements: those that occur in it.

        Raises:
            MismatchError: naming what differs.
        """
        for element in dict.fromkeys(elements):
            if element not in self.basis:
                raise MismatchError(
                    f"the network knows {self.basis.describe()}, but not {element}; train it with that element too"
                )
            if difference := basis[element].difference(self.basis[element]):
                what, found, expected = difference
                raise MismatchError(
                    f"{element} has the {what} {found}, but the network was trained for {expected}; "
                    "calculate with that basis"
                )
        if spin != self.spin:
            raise MismatchError(f"spin is {spin}, but the network was trained for spin {self.spin}")

    def summary(self) -> list[tuple[str, str]]:
        """What a user wants to see at a glance."""
        model = self.config.model
        parameters = sum(tensor.numel() for name, tensor in self.weights.items() if not name.startswith("hamiltonian."))
        samples = ", ".join(f"{len(labels)} {part}" for part, labels in self.split.items())
        edges = ", ".join(f"{name} {length:.3f} Å" for name, length in self.reach.items())
        tracegrad = f"TraceGrad, {model.tracegrad.preset}" if model.tracegrad.enabled else "no TraceGrad"
        return [
            ("basis", self.basis.describe()),
            ("spin", str(self.spin)),
            ("edges within", edges or "not known; the edges are the pairs of S"),
            ("network", f"{model.blocks} blocks of {model.trunk}, {tracegrad}"),
            ("weights", f"{parameters} in {self.config.training.dtype}"),
            ("epochs", str(self.training["epoch"])),
            *[_metric(name, value) for name, value in self.metrics.items() if name != "epoch"],
            ("dataset", f"{self.config.data.dataset}, fingerprint {self.fingerprint}{samples and f'; {samples}'}"),
            ("written with", ", ".join(f"{name} {number}" for name, number in self.versions.items())),
        ]


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint. Code that someone might have put into the file is refused, not run.

    Raises:
        ReadError: the file is missing, truncated, no checkpoint, of another program, or of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        raise ReadError(path, _reason_against_folder(path))
    content = read_torch_file(path, _KIND)
    if isinstance(content, dict) and {"state_dict", "val_loss"} <= content.keys():
        raise ReadError(path, _DEEPH_E3.format(path.parent))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ReadError(path, f"no {_KIND}")
    number = content.get("format_version")
    if not isinstance(number, int) or number > FORMAT_VERSION:
        raise ReadError(
            path, f"checkpoint of format version {number}; this program reads up to {FORMAT_VERSION}: update it"
        )
    try:
        return Checkpoint(
            config=_config_of(content["config"], path),
            basis=basis_from_json(content["basis"]),
            spin=SpinMode(content["spin"]),
            reach=_reach_of(content, path),
            fingerprint=content["fingerprint"],
            split=content["split"],
            versions=content["versions"],
            metrics=content["metrics"],
            training=_with_weights(content["training"]),
            path=path,
        )
    except TracegradError as error:
        raise ReadError(path, str(error).removeprefix(f"{path}: ")) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(path, f"damaged checkpoint: {type(error).__name__}: {error}") from error


def _reason_against_folder(path: Path) -> str:
    if (path / "best_model.pkl").is_file():
        return _DEEPH_E3.format(path)
    if (path / INDEX).is_file():
        return "a dataset; a checkpoint is a file such as best.pt in the folder of a training"
    return "a folder; name the checkpoint in it, such as best.pt"


def _config_of(content: dict[str, Any], path: Path) -> Config:
    """The configuration. Version 0.1.0 did not name what it had no choice of, nor all that later became a default."""
    content["model"].get("tracegrad", {}).setdefault("preset", "paper")
    for name, value in (("two_centre_baseline", False), ("target_scaling", False)):
        content["model"].setdefault(name, value)
    content.get("training", {}).setdefault("loss", "mse")
    return parse_config(content, str(path))


def _reach_of(content: dict[str, Any], path: Path) -> dict[str, float]:
    """Where edges end; in the first version they ended at the longest of the training data, however far orbitals go."""
    reach = {name: float(length) for name, length in content["reach"].items()}
    if content["format_version"] > 1 or not reach:
        return reach
    longer = merged_reach(reach, radii_reach(basis_from_json(content["basis"])))
    changes = [
        f"{name} {reach.get(name, 0.0):.3f} -> {longer[name]:.3f} Å"
        for name in longer
        if longer[name] > reach.get(name, 0.0) + 1e-6
    ]
    if changes:
        warn(
            f"{path}: an earlier version wrote it; its edges reach as far as orbitals overlap now: {', '.join(changes)}"
        )
    return longer


def _with_weights(training: dict[str, Any]) -> dict[str, Any]:
    """The training's state, if it holds the weights and epoch that prediction relies on."""
    for weights in (training["network"], training["average"] or {}):
        if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
            raise ValueError("weights are not all tensors")
    int(training["epoch"])
    return training


def _metric(name: str, value: float) -> tuple[str, str]:
    """A metric as a user reads it."""
    unit = {"train_loss": " eV²", "validation_loss": " eV²", "validation_mae_mev": " meV"}.get(name, "")
    words = name.removesuffix("_mev").replace("_mae", "_MAE").replace("_", " ")
    return words, f"{value:.6g}{unit}"


def library_versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    packages = ("deeph-tracegrad", "torch", "torch-geometric", "e3nn", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
