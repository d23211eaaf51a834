"""The parts of `_e3nn_network.py`: convolution, layer norm, skip connection, radial functions, with official names.

Shape letters: R rows (atoms or edges), E edges, F features of a row, G graphs, K radial functions.
"""

from itertools import product

import torch
from e3nn import o3
from e3nn.nn import Gate
from torch import Tensor, nn

RADIAL_FUNCTIONS = 128
HIDDEN = 64


class Convolution(nn.Module):
    """Features times Y(bond), gated, every irrep scaled by a function of the length."""

    def __init__(self, source: o3.Irreps, harmonics: o3.Irreps, wanted: o3.Irreps) -> None:
        super().__init__()
        reached = {out for first, second in product(source, harmonics) for out in first.ir * second.ir}
        wanted = o3.Irreps([(count, irrep) for count, irrep in wanted if irrep in reached])
        scalars = o3.Irreps([(count, irrep) for count, irrep in wanted if irrep.l == 0])
        gated = o3.Irreps([(count, irrep) for count, irrep in wanted if irrep.l > 0])
        gates = o3.Irreps([(gated.num_irreps, "0e")] if gated else [])
        activations = [nn.functional.silu if irrep.p == 1 else torch.tanh for _, irrep in scalars]
        self.nonlin = Gate(scalars, activations, gates, [torch.sigmoid] * len(gates), gated)
        self.tp = SeparateWeightTensorProduct(source, harmonics, self.nonlin.irreps_in)
        self.irreps_out = self.nonlin.irreps_out.simplify()
        self.fc = nn.Sequential(
            nn.Linear(RADIAL_FUNCTIONS, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, self.irreps_out.num_irreps),
        )

    def forward(self, features: Tensor, harmonics: Tensor, radial: Tensor) -> Tensor:
        """(E, F in), (E, F of Y), (E, K) -> (E, F out)."""
        gated = self.nonlin(self.tp(features, harmonics))
        weights = self.fc(radial).split([count for count, _ in self.irreps_out], dim=1)
        parts = gated.split([count * irrep.dim for count, irrep in self.irreps_out], dim=1)
        return torch.cat(
            [
                (part.unflatten(1, (count, -1)) * weight[:, :, None]).flatten(1)
                for (count, _), part, weight in zip(self.irreps_out, parts, weights, strict=True)
            ],
            dim=1,
        )


class SeparateWeightTensorProduct(nn.Module):
    """All paths, with weights W_uvw = a_uw b_vw shared by all edges."""

    def __init__(self, source: o3.Irreps, harmonics: o3.Irreps, target: o3.Irreps) -> None:
        super().__init__()
        paths = [
            (first, second, out)
            for first, second, out in product(range(len(source)), range(len(harmonics)), range(len(target)))
            if target[out].ir in source[first].ir * harmonics[second].ir
        ]
        self.tp = o3.TensorProduct(
            source,
            harmonics,
            target,
            [(*path, "uvw", True) for path in paths],
            internal_weights=False,
            shared_weights=True,
        )
        self.weights1 = nn.ParameterList(torch.randn(source[u].mul, target[w].mul) for u, _, w in paths)
        self.weights2 = nn.ParameterList(torch.randn(harmonics[v].mul, target[w].mul) for _, v, w in paths)

    def forward(self, features: Tensor, harmonics: Tensor) -> Tensor:
        """(E, F in), (E, F of Y) -> (E, F out)."""
        factors = zip(self.weights1, self.weights2, strict=True)
        return self.tp(features, harmonics, torch.cat([(a[:, None] * b).flatten() for a, b in factors]))


class LayerNorm(nn.Module):
    """Every irrep's mean over graph and channels is subtracted, scalars are divided by their root mean square."""

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.irreps = irreps
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps))
        self.bias = nn.Parameter(torch.zeros(irreps.count("0e")))

    def forward(self, features: Tensor, graph_of: Tensor) -> Tensor:
        """(R, F) -> (R, F); graph_of: (R,), the graph of each row."""
        graphs = int(graph_of.max()) + 1
        parts, channel, scalar = [], 0, 0
        for (count, irrep), part in zip(
            self.irreps, features.split([count * irrep.dim for count, irrep in self.irreps], dim=1), strict=True
        ):
            field = part.unflatten(1, (count, irrep.dim))
            field = field - _graph_mean(field.mean(dim=1), graph_of, graphs)[graph_of][:, None]
            if irrep.l == 0:
                size = _graph_mean(field.square().mean(dim=(1, 2))[:, None], graph_of, graphs).sqrt() + 1e-5
                field = field / size[graph_of][:, None]
            field = field * self.weight[channel : channel + count, None]
            if irrep == o3.Irrep("0e"):
                field = field + self.bias[scalar : scalar + count, None]
                scalar += count
            channel += count
            parts.append(field.flatten(1))
        return torch.cat(parts, dim=1)


class SkipConnection(nn.Module):
    """The old features, through a linear map where their irreps differ from the new ones'."""

    def __init__(self, own: o3.Irreps, out: o3.Irreps) -> None:
        super().__init__()
        self.sc = None if own == out else o3.Linear(own, out)

    def forward(self, features: Tensor) -> Tensor:
        """(R, F) -> (R, F)."""
        return features if self.sc is None else self.sc(features)


class GaussianBasis(nn.Module):
    """Gaussians on an even grid from 0 to `end` (Å), as wide as their spacing."""

    def __init__(self, count: int, end: float) -> None:
        super().__init__()
        self.register_buffer("width", torch.full((count,), end / (count - 1)))
        self.register_buffer("offsets", torch.linspace(0.0, end, count))

    def forward(self, length: Tensor) -> Tensor:
        """(E,) Å -> (E, count)."""
        return torch.exp(-0.5 * ((length[:, None] - self.offsets) / self.width) ** 2)


def _graph_mean(values: Tensor, graph_of: Tensor, graphs: int) -> Tensor:
    """(R, x) -> (G, x)."""
    total = values.new_zeros(graphs, values.shape[1]).index_add(0, graph_of, values)
    return total / torch.bincount(graph_of, minlength=graphs)[:, None]
