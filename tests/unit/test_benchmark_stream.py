"""The benchmark of streaming, on few graphs."""

import sys
from pathlib import Path

from deeph_tracegrad.dataset import GraphDataset

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from stream_dataset import batches, make


def test_a_made_dataset_holds_what_it_says(tmp_path: Path) -> None:
    edges = make(tmp_path / "dataset", 40, 16)
    dataset = GraphDataset(tmp_path / "dataset")
    assert len(set(dataset.labels)) == 40
    assert [dataset[place].num_edges for place in range(40)] == dataset.edge_counts.tolist()
    assert (dataset.atom_counts == 8).sum() == 10
    assert sum(batch.num_edges for batch in batches(dataset, epoch=0)) == edges == dataset.edge_counts.sum()
