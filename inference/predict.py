"""H(R) for structures with a known overlap."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch

from deeph_tracegrad.console import count, say, warn
from deeph_tracegrad.console import out as terminal
from deeph_tracegrad.deeph_format import PREDICTION, write_deeph
from deeph_tracegrad.devices import device_name, enough_memory, select_device
from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.errors import MismatchError, ReadError, TracegradError
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.checkpoint import Checkpoint, load_checkpoint


class Source(Protocol):
    """Where a structure comes from."""

    @property
    def path(self) -> Path:
        """What is read."""

    @property
    def label(self) -> str:
        """A name that no other source has, perhaps with folders."""


AnySource = TypeVar("AnySource", bound=Source)


@dataclass(frozen=True)
class Failure:
    """A structure without prediction, and why."""

    path: Path
    reason: str


def predict(
    checkpoint: Path,
    runs: Sequence[AnySource],
    read_material: Callable[[AnySource], Material],
    out: Path,
    device: str,
) -> list[Failure]:
    """Write a DeepH folder with overlap and predicted Hamiltonian for each run, `out`/label.

    A run that fails is reported and left out. Where a run has a Hamiltonian of its own, the error against it is
    printed. Under mpirun the ranks share the runs.

    Raises:
        ReadError: the checkpoint cannot be read.
        ConfigError: there is no such device.
        WriteError: a prediction cannot be written; those before it stay.
    """
    trained = load_checkpoint(checkpoint)
    target = select_device(device)
    network = trained.network(target)
    say(f"{checkpoint}: {trained.basis.describe()}, spin {trained.spin}; predicting on {device_name(target)}")
    failures = []
    for run in world().share(runs):
        try:
            material = read_material(run)
            destination = _destination(run, out)
            start = time.perf_counter()
            predicted = predict_material(material, trained, network)
            seconds = time.perf_counter() - start
        except TracegradError as error:
            failures.append(Failure(run.path, str(error).removeprefix(f"{run.path}: ")))
            warn(f"skipped {run.path}: {failures[-1].reason}")
            continue
        write_deeph(predicted, destination, hamiltonian_name=PREDICTION)
        size = f"{count(len(material.elements), 'atom')}, {count(len(predicted.hamiltonian[0]), 'block')}"
        line = [f"{run.label}: {size}, {seconds:.2f} s", *_comparison(material, predicted), str(destination)]
        terminal.print("; ".join(line), markup=False)
    return [failure for found in world().gather(failures) for failure in found]


def checkpoint_model(trained: Checkpoint) -> Callable[[Material], Material]:
    """A trained network as a model for `deeph_tracegrad.testing`, in float64, so that rounding hides nothing.

    Raises:
        ReadError: the weights do not fit the network that the configuration describes.
    """
    return partial(predict_material, trained=trained, network=trained.network(torch.device("cpu")).double())


def predict_material(material: Material, trained: Checkpoint, network: HamiltonianNetwork) -> Material:
    """The material with a predicted Hamiltonian, instead of any that it has.

    Its blocks are on the atom pairs of the overlap, and on those that H reached in the training data.

    Fermi level, convergence and hermiticity are left out: they belong to another Hamiltonian.

    Raises:
        MismatchError: the material has no overlap, or the network is not for its elements, basis or spin.
        DeviceError: it needs more memory than there is.
    """
    if material.overlap is None:
        raise MismatchError("it holds no overlap, which prediction needs for its atom pairs and the bands")
    # an overlap says nothing of spin: one calculated without serves a network with
    spinless = not material.hamiltonian and material.spin is SpinMode.NONE
    trained.require_fit(material.basis, trained.spin if spinless else material.spin, material.elements)
    unlabelled = material.with_hamiltonian(())
    graph = build_graph(unlabelled, edge_pairs(unlabelled, trained.reach), trained.basis)
    graph = graph.to(next(network.parameters()).device)
    with torch.inference_mode(), enough_memory(f"{graph.num_edges} edges at once need a device with more"):
        coefficients = network(graph).coefficients
        hamiltonian = network.layout.blocks(coefficients, graph)
    return replace(
        material,
        spin=trained.spin,
        hamiltonian=hamiltonian,
        fermi_level=None,
        converged=None,
        provenance={
            **{key: value for key, value in material.provenance.items() if key != "hermiticity_violation"},
            "predicted by": str(trained.path),
            "trained on": f"dataset {trained.fingerprint}",
        },
    )


def _comparison(material: Material, predicted: Material) -> list[str]:
    """How far the prediction is from the material's own Hamiltonian, if it has one."""
    if not material.hamiltonian:
        return []
    errors = [
        np.abs(new.entries - own.on_pairs(new.pairs).entries)
        for own, new in zip(material.hamiltonian, predicted.hamiltonian, strict=True)
    ]
    return [f"MAE of H {1e3 * np.concatenate(errors).mean():.4f} meV"]


def _destination(run: Source, out: Path) -> Path:
    """The folder to write, which must not be one with anything but an earlier prediction.

    Raises:
        ReadError: it holds something else.
    """
    destination = out / run.label
    if destination.exists() and not (destination / PREDICTION).is_file():
        raise ReadError(destination, "exists and is no prediction; give another --out")
    if destination.resolve() == run.path.resolve():
        raise ReadError(destination, "is what is read; give another --out")
    return destination
