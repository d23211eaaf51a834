"""Batches by an edge budget, and how ranks divide them."""

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeph_tracegrad.config import TraceGradSettings
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.batches import GraphLoader, pack, share, shuffled
from deeph_tracegrad.training.labels import trace_labels

SMALL = 100_000  # bytes: holds two of the samples of two atoms, and not that of eight

COUNTS = st.lists(st.integers(1, 500), min_size=1, max_size=30)


@given(COUNTS, st.integers(1, 1000))
def test_batches_fit_the_budget_and_hold_every_sample_once(counts: list[int], budget: int) -> None:
    edge_counts = np.array(counts)
    batches = pack(range(len(counts)), edge_counts, budget)
    assert [sample for batch in batches for sample in batch] == list(range(len(counts)))
    for batch, following in zip(batches, [*batches[1:], []], strict=True):
        assert edge_counts[batch].sum() <= budget or len(batch) == 1
        if following:
            assert edge_counts[[*batch, following[0]]].sum() > budget


@given(COUNTS, st.integers(1, 6))
def test_ranks_share_a_batch_evenly(counts: list[int], size: int) -> None:
    edge_counts, batch = np.array(counts), list(range(len(counts)))
    shares = [share(batch, edge_counts, rank, size) for rank in range(size)]
    assert sorted(sample for part in shares for sample in part) == batch
    loads = [edge_counts[part].sum() for part in shares]
    assert max(loads) - min(loads) <= max(counts)
    assert shares[0]  # the main rank always has edges


@given(st.lists(st.integers(1, 500), min_size=1, max_size=9))
def test_two_ranks_share_a_batch_almost_as_well_as_can_be(counts: list[int]) -> None:
    """Graham, SIAM J. Appl. Math. 17, 416 (1969): the largest first is within 7/6 of the best division in two."""
    loads = [sum(counts[sample] for sample in share(range(len(counts)), np.array(counts), rank, 2)) for rank in (0, 1)]
    parts = chain.from_iterable(combinations(counts, number) for number in range(len(counts)))
    best = min(max(sum(part), sum(counts) - sum(part)) for part in parts)
    assert max(loads) <= 7 / 6 * best


def test_order_depends_on_seed_and_epoch_only() -> None:
    samples = list(range(5, 25))
    assert shuffled(samples, 1, 2) == shuffled(samples, 1, 2)
    assert sorted(shuffled(samples, 1, 2)) == samples
    assert len({tuple(shuffled(samples, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("memory_limit", [2.0, SMALL / 2**30, 0.0])
def test_loader_gives_the_samples_in_order(graphene_dataset: Path, memory_limit: float) -> None:
    dataset = GraphDataset(graphene_dataset)
    tracegrad = TraceGradSettings(signal="nuclear")
    loader = GraphLoader(dataset, torch.device("cpu"), torch.float32, tracegrad, memory_limit=memory_limit)
    layout = TargetLayout(dataset.basis, dataset.spin)
    for _ in range(3):
        first, nothing, second = loader.batches([[2, 0], [], [3]])
        assert nothing is None
        assert torch.equal(first.target, torch.cat([dataset[2].target, dataset[0].target]).float())
        assert torch.equal(second.target, dataset[3].target.float())
        labels = [trace_labels(dataset[place].target, layout, tracegrad) for place in (2, 0)]
        assert torch.equal(first.trace_labels, torch.cat(labels).float())
        assert second.edge_vec.dtype == torch.float64
        assert first.num_graphs == 2


@pytest.mark.parametrize(("memory_limit", "kept"), [(2.0, [2, 0, 3]), (SMALL / 2**30, [2, 0]), (0.0, [])])
def test_loader_keeps_the_first_samples_up_to_the_limit(
    graphene_dataset: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: float, kept: list[int]
) -> None:
    dataset = GraphDataset(graphene_dataset)
    loader = GraphLoader(dataset, torch.device("cpu"), torch.float64, TraceGradSettings(), memory_limit=memory_limit)
    read: list[int] = []
    original = GraphDataset.__getitem__
    monkeypatch.setattr(GraphDataset, "__getitem__", lambda self, place: read.append(place) or original(self, place))
    for _ in range(3):
        list(loader.batches([[2, 0], [3]]))
    assert list(loader.kept.graphs) == kept
    assert loader.kept.full == (kept != [2, 0, 3])
    assert read == [2, 0, 3] + 2 * [place for place in (2, 0, 3) if place not in kept]


def test_loader_passes_errors_on(graphene_dataset: Path) -> None:
    plain = TraceGradSettings(enabled=False)
    loader = GraphLoader(GraphDataset(graphene_dataset), torch.device("cpu"), torch.float32, plain, memory_limit=2.0)
    with pytest.raises(IndexError):
        list(loader.batches([[0], [99]]))
