import torch

from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.norm import GraphNorm, Rows


def test_means_of_each_graph_vanish_in_double_precision():
    """Numbers of channels whose inverse is no binary fraction."""
    layout = Layout.parse("3x0e+5x1o+7x2e")
    graph_of = torch.tensor([0, 0, 0, 1, 1])
    features = torch.randn(5, layout.dim, dtype=torch.float64)
    normed = GraphNorm(layout).double()(features, torch.zeros_like(features), Rows.of(graph_of, 2))
    for part in layout.by_irrep(normed):
        for graph in range(2):
            assert part[graph_of == graph].mean(dim=(0, 2)).abs().max() < 1e-15
    scalars = normed[:3, :3]
    assert (scalars.square().mean().sqrt() - 1).abs() < 1e-4  # epsilon
