"""From what the network's last layer says to H: the choices of [model] that DeepH-E3 does not have.

Shape letters: E edges, D target coefficients.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.edges import Reach
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.baseline import SPLINES, TwoCentreBaseline
from deeph_tracegrad.nn.cutoff import SmoothCutoff
from deeph_tracegrad.nn.scaling import TargetScaling
from deeph_tracegrad.targets import TargetLayout


class Output(nn.Module):
    """Scaled, added to a baseline, cut off smoothly, and made Hermitian, as far as the settings say."""

    def __init__(self, settings: ModelSettings, layout: TargetLayout) -> None:
        super().__init__()
        functions = SPLINES if settings.two_centre_baseline else 1
        shifted = settings.two_centre_baseline or settings.target_scaling
        self.baseline = TwoCentreBaseline(layout, functions) if shifted else None
        self.scaling = TargetScaling(layout) if settings.target_scaling else None
        self.cutoff = SmoothCutoff(layout.basis, settings.cutoff_radius) if settings.smooth_cutoff else None
        self._layout, self._hermitian = layout, settings.hermitian

    def forward(self, raw: Tensor, graph: HamiltonianGraph, envelope: Tensor | None) -> Tensor:
        """(E, D) of order one -> (E, D) eV.

        envelope: (E, 1), that of the cutoff; None for 1.
        """
        coefficients = raw if self.scaling is None else self.scaling(raw, graph)
        if self.baseline is not None:
            coefficients = coefficients + self.baseline(graph).to(raw)
        if envelope is not None:
            coefficients = coefficients * envelope
        if self._hermitian:  # after the baseline, which is so only to rounding
            coefficients = self._layout.hermitian(coefficients, graph.reverse_edge, graph.on_site)
        return coefficients

    def envelope(self, graph: HamiltonianGraph) -> Tensor | None:
        """What messages and H are multiplied by towards the end of the bonds, (E, 1); None for 1."""
        return None if self.cutoff is None else self.cutoff(graph)

    @torch.no_grad()
    def fit(
        self, graphs: Callable[[], Iterable[HamiltonianGraph]], reach: Reach, total: Callable[[Tensor], Tensor]
    ) -> None:
        """Take from the training samples what is not learnt by steps; before the first of them.

        graphs: this rank's labelled samples, once more with each call. reach: of the dataset. total: sums over ranks.
        """
        if self.cutoff is not None:
            self.cutoff.extend(reach)
        if self.baseline is not None:
            self.baseline.fit(graphs(), reach, total, self.envelope)
        if self.scaling is not None:
            self.scaling.fit(graphs(), self._start, total)

    def _start(self, graph: HamiltonianGraph) -> Tensor:
        """What H is without the network, (E, D) eV."""
        nothing = graph.target.new_zeros(graph.target.shape, dtype=torch.float64)
        return self(nothing, graph, self.envelope(graph))
