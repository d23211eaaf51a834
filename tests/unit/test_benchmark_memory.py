"""The benchmarks of many elements and of memory, on one cell."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from many_elements import by_index, by_one_hot, step_line, task
from memory_per_edge import WORKS, peaks

from deeph_tracegrad.nn.layout import Layout

TRUNK = "4x0e+3x1o+2x2e"


def test_both_self_connections_are_the_same_map():
    small = task(3, 1)
    small = replace(small, case=replace(small.case, trunk=TRUNK))
    (ours, our_kinds), (theirs, their_kinds) = by_index(small), by_one_hot(small)
    blocks = [block.transpose(0, 1).flatten(1) for block in theirs.weight_views()]  # (u, kind, w) of each irrep
    ours.weight.data = torch.cat(blocks, dim=1).detach()
    layout = Layout.parse(TRUNK)
    places = [
        layout.position(irrep, channel, order)
        for irrep, count in layout.groups.items()
        for channel in range(count)
        for order in range(-irrep.degree, irrep.degree + 1)
    ]
    features = torch.randn(small.graph.num_edges, layout.dim)
    expected = theirs(features[:, places], *their_kinds(small))
    found = ours(features, *our_kinds(small))[:, places]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_line_of_many_elements():
    species, met, *numbers = map(float, step_line(task(3, 1)).split())
    assert (species, met) == (3, 4)
    assert len(numbers) == 7
    assert min(numbers[:5]) > 0


@pytest.mark.parametrize("work", WORKS)
def test_memory_grows_with_the_edges(work):
    small, large = peaks("compact", work, [2, 4])
    assert large > small
