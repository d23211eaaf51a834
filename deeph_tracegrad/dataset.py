"""A folder of labelled crystals: `dataset.json`, the index, and `shards/*.h5`, the arrays."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.edges import Reach
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import Sample
from deeph_tracegrad.shards import OpenShards, check_format

if TYPE_CHECKING:
    from deeph_tracegrad.graph import HamiltonianGraph
    from deeph_tracegrad.targets import TargetLayout

FORMAT = "deeph-tracegrad dataset"
FORMAT_VERSION = 2
INDEX = "dataset.json"


@dataclass(frozen=True)
class IndexEntry:
    """Where one sample stands and what it came from.

    shard, place: file under shards/ and position in it. source: the run's path when it was read.
    modified: newest modification time of the run's files, ns; a run that changed is read again.
    """

    label: str
    shard: str
    place: int
    atoms: int
    edges: int
    digest: str
    source: str
    modified: int


class GraphDataset:
    """The samples of a dataset folder, in the order of its index, as graphs for a network.

    labels: name of each sample. edge_counts, atom_counts: of each sample, (n,) int64.
    fingerprint: changes when any sample, the basis or the spin mode does.

    Raises:
        ReadError: the folder is no dataset, damaged, or of a newer format.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        index, columns = _read(self.path)
        self.basis = basis_from_json(index["basis"])
        self.spin = SpinMode(index["spin"])
        self.reach: Reach = index["reach"]
        self.labels: list[str] = columns["label"]
        self.edge_counts = np.array(columns["edges"], dtype=np.int64)
        self.atom_counts = np.array(columns["atoms"], dtype=np.int64)
        parts = [json.dumps(basis_to_json(self.basis)), str(self.spin), *columns["digest"]]
        self.fingerprint = sha256("\n".join(parts).encode()).hexdigest()[:32]
        # numbers in arrays: a hundred thousand samples should not be as many objects on every rank
        numbers = {name: number for number, name in enumerate(dict.fromkeys(columns["shard"]))}
        self._shard_names = list(numbers)
        self._shard = np.array([numbers[name] for name in columns["shard"]], dtype=np.int32)
        self._place = np.array(columns["place"], dtype=np.int64)
        self._shards = OpenShards(self.path / "shards")
        self._layout: TargetLayout | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def __getitem__(self, place: int) -> "HamiltonianGraph":
        """One sample as a graph with targets, float64."""
        from deeph_tracegrad.graph import HamiltonianGraph
        from deeph_tracegrad.targets import TargetLayout

        if self._layout is None:
            self._layout = TargetLayout(self.basis, self.spin)
        return HamiltonianGraph.from_sample(self._sample(place, described=False), self.basis, self._layout)

    def sample(self, place: int) -> Sample:
        """One sample as it is stored.

        Raises:
            ReadError: its shard is damaged or missing.
        """
        return self._sample(place, described=True)

    def _sample(self, place: int, *, described: bool) -> Sample:
        shard = self._shard_names[self._shard[place]]
        return self._shards.sample(shard, int(self._place[place]), described=described)

    @property
    def entries(self) -> list[IndexEntry]:
        """All that the index tells of each sample, read anew."""
        return [IndexEntry(*values) for values in zip(*_read(self.path)[1].values(), strict=True)]

    def summary(self) -> list[tuple[str, str]]:
        """What a user wants to see at a glance."""
        atoms, edges = self.atom_counts, self.edge_counts
        return [
            ("samples", str(len(self))),
            ("basis", self.basis.describe()),
            ("spin", str(self.spin)),
            ("atoms a sample", f"{atoms.min()} to {atoms.max()}"),
            ("edges within", ", ".join(f"{name} {length:.3f} Å" for name, length in self.reach.items())),
            ("edges", f"{edges.sum()}, {edges.min()} to {edges.max()} a sample"),
            ("shards", str(len(self._shard_names))),
            ("fingerprint", self.fingerprint),
        ]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The index of a dataset folder, and what it tells of the samples as a list for each field of `IndexEntry`.

    Raises:
        ReadError: it is missing, damaged, empty, or of a newer format.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ReadError(folder, f"no dataset here: {INDEX} is missing; deeph-tracegrad preprocess makes one")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        check_format(path, index.get("format"), index.get("format_version"), FORMAT, FORMAT_VERSION)
        _require_edge_rule(path, index["format_version"])
        basis_from_json(index["basis"])
        SpinMode(index["spin"])
        dict(index["reach"])
        columns = {field.name: _column(index["samples"], field.name, field.type) for field in fields(IndexEntry)}
    except ReadError:
        raise
    except MismatchError as error:
        raise ReadError(path, str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(path, f"damaged index ({error}); run preprocess again with the same --out") from error
    if not index["samples"]:
        raise ReadError(path, "the dataset holds no sample")
    return index, columns


def _column(samples: Sequence[dict[str, Any]], name: str, kind: Any) -> list[Any]:
    column = [sample[name] for sample in samples]
    if not set(map(type, column)) <= {kind}:
        raise TypeError(f"{name} is not always {kind.__name__}")
    if kind is int and column and not 0 <= min(column) <= max(column) < 1 << 63:
        raise ValueError(f"{name} is out of range")
    return column


def _require_edge_rule(path: Path, version: int) -> None:
    """Refuse an index of the first format, whose samples do not have all edges that a prediction would have."""
    if version < 2:
        raise ReadError(
            path,
            "an earlier version wrote it, in which a sample's edges ended at its own longest block; "
            "run preprocess again with the same --out, which adds the edges that are missing",
        )


def index_content(basis: Basis, spin: SpinMode, reach: Reach, entries: Sequence[IndexEntry]) -> dict[str, Any]:
    """What `dataset.json` holds; a shard carries the same for its own samples.

    reach: every two atoms within it share an edge, Å by element pair.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spin": str(spin),
        "basis": basis_to_json(basis),
        "reach": dict(reach),
        "samples": [asdict(entry) for entry in entries],
    }


def write_index(folder: Path, content: dict[str, Any]) -> None:
    """Write `dataset.json`."""
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def basis_to_json(basis: Basis) -> dict[str, Any]:
    """A basis as JSON; the order of the elements is kept."""
    return {element: asdict(shells) for element, shells in basis.items()}


def basis_from_json(content: dict[str, Any]) -> Basis:
    """The inverse of `basis_to_json`."""
    return Basis.of(
        {element: ElementBasis(**fields | {"shells": tuple(fields["shells"])}) for element, fields in content.items()}
    )
