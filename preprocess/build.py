"""From DFT runs to a graph dataset: in parallel, resumable, one bad run never costs the others."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from deeph_tracegrad.console import count, say, warn
from deeph_tracegrad.dataset import INDEX, IndexEntry, basis_from_json, index_content, write_index
from deeph_tracegrad.edges import Reach, material_reach, merged_reach, radii_reach
from deeph_tracegrad.errors import Failure, MismatchError, ReadError, TracegradError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess.complete import ShardTask, completed, may_lack_edges
from deeph_tracegrad.preprocess.defects import Kind, defects_as_label
from deeph_tracegrad.preprocess.processes import performed
from deeph_tracegrad.preprocess.runs import Run, find_runs, read_material
from deeph_tracegrad.preprocess.sources import Source, divided, shard_name, sources_of
from deeph_tracegrad.samples import Sample, build_sample
from deeph_tracegrad.shards import Shard, write_shard


@dataclass(frozen=True)
class BuildReport:
    """What became of the runs. kept: samples that were in the dataset before."""

    built: int
    kept: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Task:
    sources: tuple[Source, ...]
    folder: Path
    strict: bool
    allow_unconverged: bool


@dataclass(frozen=True)
class _Union:
    """What all samples have in common, and their reach. sources: a run with each element, for messages."""

    basis: Basis
    spin: SpinMode
    reach: Reach
    sources: Mapping[str, str]

    @classmethod
    def of(cls, basis: Basis, spin: SpinMode, reach: Reach, source: str) -> "_Union":
        """That of one run, whose path is `source`."""
        return cls(basis, spin, reach, dict.fromkeys(basis, source))

    def index(self, entries: Sequence[IndexEntry]) -> dict[str, Any]:
        """The index of samples that have this in common."""
        return index_content(self.basis, self.spin, self.reach, entries)

    def joined(self, earlier: "_Union | None") -> "_Union":
        """The union with what came before.

        Raises:
            MismatchError: they do not fit together; names a run of each.
        """
        if earlier is None:
            return self
        if earlier.spin != self.spin:
            one, other = (next(iter(union.sources.values())) for union in (earlier, self))
            raise _misfit(one, other, f"spin is {earlier.spin} in one and {self.spin} in the other")
        for element in self.basis.keys() & earlier.basis.keys():
            if difference := earlier.basis[element].difference(self.basis[element]):
                what, one, two = difference
                reason = f"{element} has the {what} {one} in one and {two} in the other"
                raise _misfit(earlier.sources[element], self.sources[element], reason)
        reach = merged_reach(earlier.reach, self.reach)
        return _Union(earlier.basis.merged(self.basis), self.spin, reach, {**self.sources, **earlier.sources})


def _misfit(one: str, other: str, reason: str) -> MismatchError:
    return MismatchError(f"{one} and {other} cannot share a dataset: {reason}")


@dataclass(frozen=True)
class _Part:
    """What one task made."""

    entries: tuple[IndexEntry, ...]
    failures: tuple[Failure, ...]
    union: _Union | None
    unknown_convergence: int


def build_dataset(
    patterns: Sequence[str],
    out: Path,
    *,
    workers: int | None = None,
    strict: bool = False,
    allow_unconverged: bool = False,
) -> BuildReport:
    """Read runs and write (or complete) the dataset folder `out`.

    patterns: run folders, folders that hold some, globs. workers: processes; under mpirun the ranks share the work.

    Raises:
        ReadError: no run found, none usable, or, if `strict`, the first that is not.
        MismatchError: two runs do not fit together; both are named.
    """
    start = time.perf_counter()
    # found once: a rank that looked later would see what the first has written since, and share the work differently
    sources, kept, union = world().broadcast(_found(patterns, out) if world().is_main else None)
    known = {entry.source for entry in kept}
    todo = [source for source in sources if source.path not in known]
    say(f"{count(len(sources), 'run')} found, {len(sources) - len(todo)} of them in {out} already")
    sharing = max(world().size, workers or os.cpu_count() or 1)
    tasks = [_Task(part, out, strict, allow_unconverged) for part in divided(todo, sharing)]
    parts = list(performed(_build_shard, tasks, workers, "reading runs"))
    failures = [failure for part in parts for failure in part.failures]
    unknown = sum(part.unknown_convergence for part in parts)
    entries = kept + [entry for part in parts for entry in part.entries]
    union = _joined(union, parts, out)
    for failure in failures if world().is_main else ():
        warn(f"skipped {failure.path}: {failure.reason}")
    if union is None:
        raise ReadError(out, f"not written: of {count(len(sources), 'run')} none can be used")
    entries = _completed(entries, union, out, workers)
    if world().is_main:
        write_index(out, union.index(_named(entries, sources)))
    world().barrier()
    if unknown:
        say(f"of {count(unknown, 'run')} it is not known whether self-consistency was reached")
    edges = sum(entry.edges for entry in entries)
    say(
        f"{out}: {count(len(entries), 'sample')} ({len(entries) - len(kept)} new), {edges} edges, "
        f"{union.basis.describe()}, spin {union.spin}; {count(len(failures), 'run')} skipped; "
        f"{time.perf_counter() - start:.1f} s"
    )
    return BuildReport(len(entries) - len(kept), len(kept), tuple(failures))


def _found(patterns: Sequence[str], out: Path) -> tuple[list[Source], list[IndexEntry], _Union | None]:
    """The runs, the samples that `out` has already, and what these have in common."""
    sources = sources_of(find_runs(patterns))
    return sources, *_existing(out, sources)


def _joined(union: _Union | None, parts: Sequence[_Part], out: Path) -> _Union | None:
    """What all samples have in common; where they do not fit together, the new shards go."""
    try:
        for part in parts:
            union = part.union.joined(union) if part.union else union
    except MismatchError:
        if world().is_main:
            for shard in {entry.shard for part in parts for entry in part.entries}:
                (out / "shards" / shard).unlink(missing_ok=True)
        raise
    return union


def _existing(out: Path, sources: Sequence[Source]) -> tuple[list[IndexEntry], _Union | None]:
    """The samples in the shards of `out`, also of an interrupted command, without those whose run changed since."""
    if out.exists() and (not out.is_dir() or {child.name for child in out.glob("[!.]*")} - {INDEX, "shards"}):
        raise ReadError(out, "exists and is no dataset; give another --out")
    for leftover in out.glob("shards/.*.part.h5"):  # of a killed command
        leftover.unlink(missing_ok=True)
    modified = {source.path: source.modified for source in sources}
    newest: dict[str, IndexEntry] = {}
    unions: dict[str, _Union] = {}
    for path in sorted(out.glob("shards/[!.]*.h5")):
        with closing(Shard(path)) as file:
            index = file.index
        source = index["samples"][0]["source"]
        basis, spin = basis_from_json(index["basis"]), SpinMode(index["spin"])
        # format version 1 had the longest edges there, whatever the radii
        unions[path.name] = _Union.of(basis, spin, merged_reach(index["reach"], radii_reach(basis)), source)
        for entry in (IndexEntry(**fields) for fields in index["samples"]):
            if entry.source not in newest or newest[entry.source].modified < entry.modified:
                newest[entry.source] = entry
    current = [entry for entry in newest.values() if modified.get(entry.source, entry.modified) == entry.modified]
    if len(current) < len(newest):
        say(f"{count(len(newest) - len(current), 'run')} changed since it was read; what changed is read again")
    union = None
    for shard in sorted({entry.shard for entry in current}):  # what outdated shards held does not count
        union = unions[shard].joined(union)
    return current, union


def _named(entries: Sequence[IndexEntry], sources: Sequence[Source]) -> list[IndexEntry]:
    """The entries in the order of the runs, each with a name of its own."""
    order = {source.path: place for place, source in enumerate(sources)}
    names: Counter[str] = Counter()
    named = []
    for entry in sorted(entries, key=lambda entry: order.get(entry.source, -1)):
        names[entry.label] += 1
        again = names[entry.label]
        named.append(replace(entry, label=entry.label if again == 1 else f"{entry.label}~{again}"))
    return named


def _completed(entries: Sequence[IndexEntry], union: _Union, out: Path, workers: int | None) -> list[IndexEntry]:
    """The entries, once every sample has the edges within the reach of the whole dataset."""
    shards = sorted({entry.shard for entry in entries})
    tasks = [ShardTask(out / "shards" / shard, union.basis, union.spin, union.reach) for shard in shards]
    # found once, before any rank rewrites a shard
    tasks = world().broadcast(list(filter(may_lack_edges, tasks)) if world().is_main else None)
    parts = performed(completed, tasks, workers, "completing edges")
    new = {(entry.shard, entry.place): entry for part in parts for entry in part}
    whole = [new.get((entry.shard, entry.place), entry) for entry in entries]
    added = [now.edges - before.edges for now, before in zip(whole, entries, strict=True)]
    if any(added):
        samples = count(sum(map(bool, added)), "sample")
        say(f"{samples} got {sum(added)} more edges, with blocks of zeros: all have those within the longest reach")
    return whole


def _build_shard(task: _Task) -> _Part:
    """Read the task's runs into one shard; memory is bounded by one run."""
    entries: list[IndexEntry] = []
    failures: list[Failure] = []
    union: _Union | None = None
    unknown = 0
    complete: dict[str, float] = {}
    shard = task.folder / "shards" / f"{shard_name(task.sources)}.h5"
    with ExitStack() as stack:
        writer = None
        for source in task.sources:
            run = source.run
            try:
                material = _usable(run, task.allow_unconverged)
                sample = build_sample(material, run.label)
            except TracegradError as error:
                if task.strict:
                    raise
                failures.append(Failure.of(run.path, error))
                continue
            reach = material_reach(material)
            complete = {name: min(length, complete.get(name, length)) for name, length in (complete | reach).items()}
            union = _Union.of(material.basis, material.spin, reach, str(run.path)).joined(union)
            writer = writer or stack.enter_context(write_shard(shard, material.spin))
            writer.append(sample)
            entries.append(_entry(source, shard.name, len(entries), sample, material))
            unknown += material.converged is None
        if writer is not None and union is not None:
            writer.describe(union.index(entries) | {"complete_within": complete})
    return _Part(tuple(entries), tuple(failures), union, unknown)


def _usable(run: Run, allow_unconverged: bool) -> Material:
    """The run's material, if it can serve as a label."""
    material = read_material(run)
    for defect in defects_as_label(material):
        if defect.kind is not Kind.UNCONVERGED:
            raise ReadError(run.path, defect.message)
        if not allow_unconverged:
            raise ReadError(run.path, f"{defect.message}; --allow-unconverged uses it all the same")
    return material


def _entry(source: Source, shard: str, place: int, sample: Sample, material: Material) -> IndexEntry:
    return IndexEntry(
        label=source.run.label,
        shard=shard,
        place=place,
        atoms=len(sample.positions),
        edges=len(sample.pairs),
        digest=_digest(material),
        source=source.path,
        modified=source.modified,
    )


def _digest(material: Material) -> str:
    """A fingerprint of what a network learns from.

    Of H as it was read, and of positions to 1e-6 Å: the last bits of products of matrices depend on the machine.
    """
    hasher = sha256(" ".join(material.elements).encode())
    arrays = [material.structure.lattice.matrix, np.round(material.structure.cart_coords, 6) + 0.0]
    for matrix in material.hamiltonian:
        arrays += [matrix.pairs, matrix.entries]
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()[:32]
