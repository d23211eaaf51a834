"""How far a trained network's Hamiltonian, and the states that follow from it, lie from those of DFT.

States are those of H(k) c = E S(k) c with the true S on both sides, at the points of a k-mesh; energies are compared as
they are, without a shift. Occupied are, at every k, as many of the lowest states as the electrons fill. All errors of
energies are in meV.

Shape letters: K k-points, n bands, M orbitals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.fermi import fermi_dirac, fermi_level_of_mesh
from deeph_tracegrad.inference.kpoints import mesh_divisions, mesh_points, over_k_points
from deeph_tracegrad.inference.predict import predict_material
from deeph_tracegrad.inference.solvers import Spectrum, solve_dense
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.training.checkpoint import Checkpoint
from deeph_tracegrad.training.error_sums import ErrorSums
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.losses import error_sums

MESH_DENSITY = 15.0  # k-points for each 1/Å (without 2π): 3x3 for all cells of the study but bismuth's, which gets 6x6
WINDOW = 2.0  # eV on either side of the Fermi level
DEGENERATE = 0.01  # eV; states closer than this to the next are compared together
TEMPERATURE = 300.0  # K, of the Fermi level around which the window lies


@dataclass(frozen=True)
class StateErrors:
    """Errors of the states of one structure; energies in meV.

    occupied, occupied_largest: of the occupied energies: mean over bands and k-points of |E - E_true|, and the largest.
    window, window_largest: the same over the states whose true energy is within 2 eV of the true Fermi level.
    energy_sum: |sum of the occupied energies - that of DFT| for each atom, both spins.
    similarity: of the occupied states, between 0 and 1, see `similarity`.
    """

    occupied: float
    occupied_largest: float
    window: float
    window_largest: float
    energy_sum: float
    similarity: float

    @classmethod
    def over(cls, parts: Sequence["StateErrors"]) -> "StateErrors":
        """Of several structures: means, and the largest of the largest."""
        stacked = {name: [getattr(part, name) for part in parts] for name in cls.__dataclass_fields__}
        return cls(**{name: float((max if "largest" in name else np.mean)(values)) for name, values in stacked.items()})


def measure(materials: Sequence[Material], trained: Checkpoint, device: torch.device) -> dict[str, float | None]:
    """Errors over some structures that have H, S and their number of electrons.

    hamiltonian: mean absolute error over all elements of H in global coordinates, meV. trace: mean absolute error of
    the labels that the network learns beside H, in their own unit; None where it predicts none. The others as in
    `StateErrors`.
    """
    network = trained.network(device)
    elements = [_element_errors(material, trained, network) for material in materials]
    hamiltonian = ErrorSums.total([errors for errors, _ in elements]).over()
    _, _, deviation, labels, _ = torch.stack([sums for _, sums in elements]).sum(dim=0).tolist()
    states = StateErrors.over(
        [state_errors(material, predict_material(material, trained, network)) for material in materials]
    )
    return {
        "hamiltonian": hamiltonian.mae if hamiltonian else None,
        "trace": deviation / labels if labels else None,
        **vars(states),
    }


@torch.inference_mode()
def _element_errors(
    material: Material, trained: Checkpoint, network: HamiltonianNetwork
) -> tuple[ErrorSums, torch.Tensor]:
    """Errors of H's elements, and the loss's sums, on the edges that a prediction has."""
    pairs = edge_pairs(material.with_hamiltonian(()), trained.reach)
    sample = build_sample(material, "structure", pairs)
    device = next(network.parameters()).device
    graph = HamiltonianGraph.from_sample(sample, trained.basis, network.layout).to(device)
    graph.trace_labels = trace_labels(graph.target, network.layout, trained.config.model.tracegrad)
    prediction = network(graph)
    sums = error_sums(prediction, graph, network.layout).cpu()
    return ErrorSums.of(prediction.coefficients.double() - graph.target, graph, network.layout), sums


def state_errors(material: Material, predicted: Material) -> StateErrors:
    """Errors of the predicted states of one structure with one spin channel."""
    true, ours = bloch_operators(material), bloch_operators(predicted)
    per_state = 2 if material.spin is SpinMode.NONE else 1
    occupied = round(material.electrons / per_state)

    def solve(k: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        overlap = true.overlap.at_k(k)
        exact = solve_dense(true.hamiltonian[0].at_k(k), overlap, with_states=True)
        found = solve_dense(ours.hamiltonian[0].at_k(k), overlap, with_states=True)
        return exact.energies, found.energies, similarity(exact, found, overlap, occupied)

    k_points, weights = mesh_points(
        mesh_divisions(material.structure, MESH_DENSITY), time_reversal=true.is_real and ours.is_real
    )
    exact, found, similarities = map(
        np.array, zip(*over_k_points(solve, k_points, true.num_orbitals, "states"), strict=True)
    )
    filling = fermi_dirac(TEMPERATURE)
    level = fermi_level_of_mesh(exact[None], weights, material.electrons, filling, per_state).level
    difference = 1e3 * (found - exact)
    error, lowest = np.abs(difference), slice(occupied)
    inside = np.abs(exact - level) <= WINDOW
    return StateErrors(
        occupied=float(weights @ error[:, lowest].mean(axis=1)),
        occupied_largest=float(error[:, lowest].max()),
        window=float(np.average(error, weights=inside * weights[:, None])),
        window_largest=float(error[inside].max()),
        energy_sum=float(abs(per_state * weights @ difference[:, lowest].sum(axis=1))) / len(material.elements),
        similarity=float(weights @ similarities),
    )


def similarity(true: Spectrum, found: Spectrum, overlap: np.ndarray, occupied: int) -> float:
    """Mean of |<true|S|found>| over the occupied states at one k, paired by their order.

    States that are degenerate in truth are compared as spaces, since their choice is free: by the cosines of the angles
    between both (the singular values of the overlaps). A degenerate group counts as a whole if one of it is occupied.
    """
    products = true.states.conj().T @ (overlap @ found.states)
    starts = np.flatnonzero(np.diff(true.energies, prepend=-np.inf) > DEGENERATE)
    ends = np.append(starts[1:], len(true.energies))
    cosines = [
        np.linalg.svd(products[start:end, start:end], compute_uv=False)
        for start, end in zip(starts, ends, strict=True)
        if start < occupied
    ]
    return float(np.concatenate(cosines).mean())
