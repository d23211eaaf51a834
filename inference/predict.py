"""H(R) for structures whose overlap is known or made of basis files."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from deeph_tracegrad.errors import Failure, MismatchError, ReadError, TracegradError
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.inference.overlap import material_of
from deeph_tracegrad.inference.parts import PART_EDGES, hamiltonian_in_parts
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.parallel import ALONE, World, world
from deeph_tracegrad.structures.files import StructureFile
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


def predict(
    checkpoint: Path,
    sources: Sequence[AnySource],
    read: Callable[[AnySource, Basis, World], Material],
    out: Path,
    device: str,
) -> list[Failure]:
    """Write a DeepH folder with overlap and predicted Hamiltonian for each source, `out`/label.

    A source that fails is reported and left out. Where one has a Hamiltonian of its own, the error against it is
    printed. Under mpirun the ranks share the sources; where there are fewer sources, all work on one after the other.

    read: from a source, the network's basis and the ranks that share it to a material with an overlap.

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
    together = len(sources) < world().size
    team = world() if together else ALONE
    for source in sources if together else world().share(sources):
        try:
            material = read(source, trained.basis, team)
            destination = _destination(source, out)
            start = time.perf_counter()
            predicted = predict_material(material, trained, network, team)
            seconds = time.perf_counter() - start
        except TracegradError as error:
            if team.is_main:
                failures.append(Failure.of(source.path, error))
                warn(f"skipped {source.path}: {failures[-1].reason}")
            continue
        if team.is_main:
            write_deeph(predicted, destination, hamiltonian_name=PREDICTION)
            size = f"{count(len(material.elements), 'atom')}, {count(len(predicted.hamiltonian[0]), 'block')}"
            line = [f"{source.label}: {size}, {seconds:.2f} s", *_comparison(material, predicted), str(destination)]
            terminal.print("; ".join(line), markup=False)
    return [failure for found in world().gather(failures) for failure in found]


def reader_of_structures(
    basis_dir: Path, labels: Mapping[str, str]
) -> Callable[[StructureFile, Basis, World], Material]:
    """What reads a structure file and makes its overlap, with the network's bases where no other label is given."""

    def read(structure: StructureFile, basis: Basis, ranks: World) -> Material:
        known = {element: one.label for element, one in basis.items()}
        return material_of(structure, basis_dir, {**known, **labels}, ranks)

    return read


def checkpoint_model(trained: Checkpoint) -> Callable[[Material], Material]:
    """A trained network as a model for `deeph_tracegrad.testing`, in float64, so that rounding hides nothing.

    Raises:
        ReadError: the weights do not fit the network that the configuration describes.
    """
    return partial(predict_material, trained=trained, network=trained.network(torch.device("cpu")).double())


def predict_material(
    material: Material, trained: Checkpoint, network: HamiltonianNetwork, ranks: World = ALONE
) -> Material:
    """The material with a predicted Hamiltonian, instead of any that it has.

    Its blocks are on the atom pairs of the overlap, and on those that H reached in the training data. Fermi level,
    convergence and hermiticity are left out: they belong to another Hamiltonian.

    ranks: share the work on this material; only the main one gets the Hamiltonian.

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
    pairs = edge_pairs(unlabelled, trained.reach)
    with torch.inference_mode(), enough_memory(f"{len(pairs)} edges need a device with more, or more ranks"):
        if ranks.size > 1 or len(pairs) > PART_EDGES:
            hamiltonian = hamiltonian_in_parts(network, unlabelled, pairs, ranks)
        else:
            graph = build_graph(unlabelled, pairs, trained.basis).to(next(network.parameters()).device)
            hamiltonian = network.layout.blocks(network(graph).coefficients, graph)
    return replace(
        material,
        spin=trained.spin,
        hamiltonian=hamiltonian,
        electrons=_electrons(material, trained.basis),
        fermi_level=None,
        converged=None,
        provenance={
            **{key: value for key, value in material.provenance.items() if key != "hermiticity_violation"},
            "predicted by": str(trained.path),
            "trained on": f"dataset {trained.fingerprint}",
        },
    )


def _electrons(material: Material, basis: Basis) -> float | None:
    """The material's own number, or that of neutral atoms with the pseudopotentials of the training data."""
    counts = [basis[element].valence_electrons for element in material.elements]
    if material.electrons is not None or None in counts:
        return material.electrons
    return float(sum(count for count in counts if count is not None))


def _comparison(material: Material, predicted: Material) -> list[str]:
    """How far the prediction is from the material's own Hamiltonian, if it has one."""
    if not material.hamiltonian:
        return []
    errors = [
        np.abs(new.entries - own.on_pairs(new.pairs).entries)
        for own, new in zip(material.hamiltonian, predicted.hamiltonian, strict=True)
    ]
    return [f"MAE of H {1e3 * np.concatenate(errors).mean():.4f} meV"]


def _destination(source: Source, out: Path) -> Path:
    """The folder to write, which must not be one with anything but an earlier prediction.

    Raises:
        ReadError: it holds something else.
    """
    destination = out / source.label
    if destination.exists() and not (destination / PREDICTION).is_file():
        raise ReadError(destination, "exists and is no prediction; give another --out")
    if destination.resolve() == source.path.resolve():
        raise ReadError(destination, "is what is read; give another --out")
    return destination
