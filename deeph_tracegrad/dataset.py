"""A folder of labelled crystals: `dataset.json`, the index, and `shards/*.h5`, the arrays."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.edges import Reach
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import Sample
from deeph_tracegrad.shards import check_format, open_shard, read_sample

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

    Raises:
        ReadError: the folder is no dataset, damaged, or of a newer format.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        index = read_index(self.path)
        self.basis = basis_from_json(index["basis"])
        self.spin = SpinMode(index["spin"])
        self.reach: Reach = index["reach"]
        self.entries = [IndexEntry(**entry) for entry in index["samples"]]
        self._layout: TargetLayout | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.entries)

    def __getitem__(self, place: int) -> "HamiltonianGraph":
        """One sample as a graph with targets, float64."""
        from deeph_tracegrad.graph import HamiltonianGraph
        from deeph_tracegrad.targets import TargetLayout

        if self._layout is None:
            self._layout = TargetLayout(self.basis, self.spin)
        return HamiltonianGraph.from_sample(self.sample(place), self.basis, self._layout)

    def sample(self, place: int) -> Sample:
        """One sample as it is stored."""
        entry = self.entries[place]
        with open_shard(self.path / "shards" / entry.shard) as file:
            return read_sample(file, entry.place)

    @property
    def labels(self) -> list[str]:
        """Name of each sample."""
        return [entry.label for entry in self.entries]

    @property
    def edge_counts(self) -> np.ndarray:
        """Edges of each sample, (n,) int64."""
        return np.array([entry.edges for entry in self.entries], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """Changes when any sample, the basis or the spin mode does."""
        parts = [json.dumps(basis_to_json(self.basis)), str(self.spin), *(entry.digest for entry in self.entries)]
        return sha256("\n".join(parts).encode()).hexdigest()[:32]

    def summary(self) -> list[tuple[str, str]]:
        """What a user wants to see at a glance."""
        atoms = np.array([entry.atoms for entry in self.entries])
        return [
            ("samples", str(len(self))),
            ("basis", self.basis.describe()),
            ("spin", str(self.spin)),
            ("atoms a sample", f"{atoms.min()} to {atoms.max()}"),
            ("edges within", ", ".join(f"{name} {length:.3f} Å" for name, length in self.reach.items())),
            ("edges", f"{self.edge_counts.sum()}, {self.edge_counts.min()} to {self.edge_counts.max()} a sample"),
            ("shards", str(len({entry.shard for entry in self.entries}))),
            ("fingerprint", self.fingerprint),
        ]


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a dataset folder.

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
        entries = [IndexEntry(**entry) for entry in index["samples"]]
    except ReadError:
        raise
    except MismatchError as error:
        raise ReadError(path, str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(path, f"damaged index ({error}); run preprocess again with the same --out") from error
    if not entries:
        raise ReadError(path, "the dataset holds no sample")
    return index


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
