"""Batches by an edge budget, divided among the ranks, read ahead of their use.

A batch is the same whatever the number of ranks; only who computes which of its samples, or of their edges, differs.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from deeph_tracegrad.config import TraceGradSettings
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.arrangement import Arrangement
from deeph_tracegrad.partition import divided
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.labels import trace_labels


def shuffled(samples: Sequence[int], seed: int, epoch: int) -> list[int]:
    """The samples in the order of one epoch; the same for the same seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(np.asarray(samples, dtype=np.int64)).tolist()


def pack(samples: Sequence[int], edge_counts: np.ndarray, max_edges: int) -> list[list[int]]:
    """Consecutive samples together as long as their edges fit the budget; one that exceeds it stands alone.

    edge_counts: (n,) int, edges of every sample of the dataset.
    """
    batches: list[list[int]] = []
    edges = 0
    for sample in samples:
        edges += int(edge_counts[sample])
        if not batches or edges > max_edges:
            batches.append([])
            edges = int(edge_counts[sample])
        batches[-1].append(sample)
    return batches


def share(batch: Sequence[int], edge_counts: np.ndarray, rank: int, size: int) -> list[int]:
    """The samples of a batch that one rank, or group of ranks, computes; edges are balanced, and one may get none."""
    loads = np.zeros(size, dtype=np.int64)
    mine = []
    for sample in sorted(batch, key=lambda sample: -edge_counts[sample]):  # the largest first, to the least loaded
        lightest = int(loads.argmin())
        loads[lightest] += edge_counts[sample]
        if lightest == rank:
            mine.append(sample)
    return mine


class KeptGraphs:
    """Graphs by their place in the dataset, the first that come, up to a limit in GiB.

    full: whether one was not kept.
    """

    def __init__(self, limit: float) -> None:
        self.graphs: dict[int, HamiltonianGraph] = {}
        self.full = False
        self._free = limit * 2**30

    def keep(self, sample: int, graph: HamiltonianGraph) -> None:
        """If there is room for its arrays, and was for all before."""
        size = sum(value.nbytes for value in graph.to_dict().values() if isinstance(value, Tensor))
        self.full = self.full or size > self._free
        if not self.full:
            self.graphs[sample] = graph
            self._free -= size


class GraphLoader:
    """Reads samples as batches on a device, one batch ahead of the one in use.

    Targets and labels are in `dtype`; the geometry stays in double precision until the network takes it.

    tracegrad: what to add trace labels for. memory_limit: GiB of samples to keep. part, parts: which of so many parts
    of the edges of each sample is read.
    """

    def __init__(
        self,
        dataset: GraphDataset,
        device: torch.device,
        dtype: torch.dtype,
        tracegrad: TraceGradSettings,
        *,
        memory_limit: float,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self._dataset = dataset
        self._layout = TargetLayout(dataset.basis, dataset.spin)
        self._tracegrad = tracegrad
        self._device = device
        self._dtype = dtype
        self._part, self._parts = part, parts
        self.kept = KeptGraphs(memory_limit)

    def batches(self, shares: Sequence[Sequence[int]]) -> Iterator[HamiltonianGraph | None]:
        """One batch for each list of samples; None for an empty list."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead: Future[HamiltonianGraph | None] | None = None
            for samples in shares:
                following = reader.submit(self._batch, samples)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _batch(self, samples: Sequence[int]) -> HamiltonianGraph | None:
        if not samples:
            return None
        batch = Batch.from_data_list([self._graph(sample) for sample in samples])
        batch.arrangement = Arrangement.of(batch, len(self._dataset.basis))
        return batch.to(self._device, non_blocking=True)

    def _graph(self, sample: int) -> HamiltonianGraph:
        if sample in self.kept.graphs:
            return self.kept.graphs[sample]
        graph = self._dataset[sample]
        if self._parts > 1:
            rows = divided(graph.edge_index[0].numpy(), graph.reverse_edge.numpy(), self._parts)[self._part]
            graph = graph.on_edges(torch.from_numpy(rows))
        if self._tracegrad.enabled:
            graph.trace_labels = trace_labels(graph.target, self._layout, self._tracegrad).to(self._dtype)
        graph.target = graph.target.to(self._dtype)
        self.kept.keep(sample, graph)
        return graph
