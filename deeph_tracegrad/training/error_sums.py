"""Errors of H, added up by element pair and orbital pair.

Shape letters: E edges, S species, T targets (pairs of shells), P padded elements of an H block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.orbitals import SHELL_LETTERS
from deeph_tracegrad.targets import Target, TargetLayout

ON_SITE, OFF_SITE = 0, 1

# Bins of |error| in decades of eV.
HISTOGRAM_EDGES = np.linspace(-10.0, 2.0, 121)


class Statistics(NamedTuple):
    """Errors of a set of matrix elements in meV."""

    elements: int
    mae: float
    rmse: float
    largest: float


@dataclass(frozen=True, eq=False)
class ErrorSums:
    """Sums over matrix elements, by (on-site or off-site, element i, element j, target).

    count, absolute (eV), squared (eV²), largest (eV): (2, S, S, T) float64.
    histogram: (2, bins) elements by |error|, for on-site and off-site; bins as in HISTOGRAM_EDGES.
    """

    count: np.ndarray
    absolute: np.ndarray
    squared: np.ndarray
    largest: np.ndarray
    histogram: np.ndarray

    @classmethod
    def of(cls, difference: Tensor, graph: HamiltonianGraph, layout: TargetLayout) -> "ErrorSums":
        """Those of one graph.

        difference: (E, D) predicted minus true coefficients.
        """
        mask = layout.element_mask(graph)
        errors = layout.element_errors(difference, graph).double() * mask
        species = len(layout.basis)
        site = (~graph.on_site).long()
        kinds = (site * species + graph.species[graph.edge_index[0]]) * species + graph.species[graph.edge_index[1]]
        shape = (2, species, species, layout.num_targets)

        def added(values: Tensor) -> np.ndarray:
            by_target = values.new_zeros(len(values), layout.num_targets).index_add_(1, layout.element_target, values)
            by_kind = values.new_zeros(2 * species**2, layout.num_targets).index_add_(0, kinds, by_target)
            return by_kind.view(shape).cpu().numpy()

        places = kinds[:, None] * layout.num_targets + layout.element_target
        largest = errors.new_zeros(int(np.prod(shape))).scatter_reduce(0, places.flatten(), errors.flatten(), "amax")
        histogram = np.stack([_histogram(errors[site == place][mask[site == place]]) for place in (ON_SITE, OFF_SITE)])
        return cls(added(mask.double()), added(errors), added(errors**2), largest.view(shape).cpu().numpy(), histogram)

    @classmethod
    def total(cls, parts: Sequence["ErrorSums"]) -> "ErrorSums":
        """Those of several graphs together."""
        stacks = {field.name: np.stack([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        return cls(**{name: stack.max(0) if name == "largest" else stack.sum(0) for name, stack in stacks.items()})

    def over(self, selection: tuple[int | slice | list[int], ...] = ()) -> Statistics | None:
        """Statistics of a part of the (2, S, S, T) arrays; None if there is nothing in it."""
        count = float(self.count[selection].sum())
        if count == 0.0:
            return None
        return Statistics(
            elements=int(count),
            mae=1e3 * float(self.absolute[selection].sum()) / count,
            rmse=1e3 * float(np.sqrt(self.squared[selection].sum() / count)),
            largest=1e3 * float(self.largest[selection].max()),
        )

    def kinds(self) -> Iterator[tuple[int, int, int, int]]:
        """The (site, element i, element j, target) of which there is something."""
        for site, left, right, target in np.argwhere(self.count > 0):
            yield int(site), int(left), int(right), int(target)


def shell_names(target: Target) -> tuple[str, str]:
    """The two shells of a target; p2 is the second p shell."""
    return f"{SHELL_LETTERS[target.l1]}{target.k1 + 1}", f"{SHELL_LETTERS[target.l2]}{target.k2 + 1}"


def orbital_maes(errors: ErrorSums, layout: TargetLayout, left: int, right: int) -> dict[tuple[str, str], float]:
    """MAE in meV for each pair of shells of two species, both spins together; empty if there is no such block."""
    members: dict[tuple[str, str], list[int]] = {}
    for number in layout.target_mask[left, right].nonzero().flatten().tolist():
        members.setdefault(shell_names(layout.targets[number]), []).append(number)
    found = {shells: errors.over((slice(None), left, right, numbers)) for shells, numbers in members.items()}
    return {shells: statistics.mae for shells, statistics in found.items() if statistics is not None}


def _histogram(errors: Tensor) -> np.ndarray:
    decades = torch.log10(errors.clamp(min=10.0 ** HISTOGRAM_EDGES[0], max=10.0 ** HISTOGRAM_EDGES[-1]))
    return np.histogram(decades.cpu().numpy(), HISTOGRAM_EDGES)[0]
