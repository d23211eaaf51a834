"""One rule for the edges of all samples: a run that was read before a longer reach was met gets the edges it lacks.

Their blocks are zero: the run's H ended before them.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import union_pairs
from deeph_tracegrad.dataset import IndexEntry, index_content
from deeph_tracegrad.edges import Reach, onsite_pairs, pairs_within
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.samples import Sample
from deeph_tracegrad.shards import Shard, write_shard


@dataclass(frozen=True)
class ShardTask:
    """A shard, and what all samples of its dataset have in common."""

    path: Path
    basis: Basis
    spin: SpinMode
    reach: Reach


def may_lack_edges(task: ShardTask) -> bool:
    """Whether the samples of a shard were made with a shorter reach."""
    with closing(Shard(task.path)) as shard:
        index = shard.index
    complete = index.get("complete_within", {})  # the first format did not tell
    return any(length > complete.get(name, 0.0) for name, length in task.reach.items() if name in index["reach"])


def completed(task: ShardTask) -> list[IndexEntry]:
    """Rewrite a shard with all edges within the reach, and return its entries."""
    with closing(Shard(task.path)) as shard:
        entries = [IndexEntry(**fields) for fields in shard.index["samples"]]
        with write_shard(task.path, task.spin) as writer:
            for place, entry in enumerate(entries):
                sample = _with_all_edges(shard.sample(entry.place), task)
                writer.append(sample)
                entries[place] = replace(entry, place=place, edges=len(sample.pairs))
            content = index_content(task.basis, task.spin, task.reach, entries)
            writer.describe(content | {"complete_within": dict(task.reach)})
    return entries


def _with_all_edges(sample: Sample, task: ShardTask) -> Sample:
    structure = Structure(Lattice(sample.cell), sample.elements, sample.positions, coords_are_cartesian=True)
    geometric = np.concatenate([onsite_pairs(len(structure)), pairs_within(structure, task.reach)])
    if len(pairs := union_pairs(sample.pairs, geometric)) == len(sample.pairs):
        return sample
    return sample.with_edges(pairs, task.basis.num_orbitals(sample.elements) * task.spin.components)
