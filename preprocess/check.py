"""What a run, a DeepH folder, a dataset or a checkpoint holds, and what is suspicious in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text
from scipy.linalg import eigvalsh

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k, union_pairs
from deeph_tracegrad.console import out
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.runs import read_material

CHECKPOINT_SUFFIXES = (".pt", ".pkl")
MAX_DENSE_ORBITALS = 3000
CHECKED_K = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.5, 0.5))

# From where on a figure is suspicious
HERMITICITY_LIMIT = 1e-5  # eV, and 1 for S; text formats break it at 1e-9
OVERLAP_EIGENVALUE_LIMIT = 1e-5
BEYOND_OVERLAP_LIMIT = 1e-3  # eV
REACH_TOLERANCE = 0.01  # Å
SHORTEST_BOND = 0.6  # Å, below H2's 0.74


@dataclass(frozen=True)
class Finding:
    """One row of the report. warning: what is suspicious about it, as a sentence; None where nothing is."""

    name: str
    value: str
    warning: str | None = None


def inspect(path: Path) -> None:
    """Print what `path` holds as a table; suspicious rows are coloured and explained.

    Raises:
        ReadError: it is neither a run, a DeepH folder, a dataset nor a checkpoint, or is damaged.
    """
    if not path.exists():
        raise ReadError(path, "does not exist")
    # models of DeepH-E3 are refused there, with advice
    if (path.is_file() and path.suffix in CHECKPOINT_SUFFIXES) or (path / "best_model.pkl").is_file():
        findings = checkpoint_findings(path)
    elif (path / "dataset.json").is_file():
        findings = dataset_findings(path)
    else:
        findings = material_findings(read_material(path))
    out.print(report(str(path), findings))


def report(title: str, findings: Sequence[Finding]) -> Table:
    """The findings as a table to print."""
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = finding.value if finding.warning is None else f"{finding.value}\n{finding.warning}"
        table.add_row(Text(finding.name), Text(text), style=None if finding.warning is None else "yellow")
    return table


def dataset_findings(path: Path) -> list[Finding]:
    """What a dataset folder holds."""
    from deeph_tracegrad.dataset import GraphDataset

    return [Finding(name, str(value)) for name, value in GraphDataset(path).summary()]


def checkpoint_findings(path: Path) -> list[Finding]:
    """What a checkpoint holds."""
    from deeph_tracegrad.training.checkpoint import load_checkpoint

    return [Finding(name, str(value)) for name, value in load_checkpoint(path).summary()]


def material_findings(material: Material) -> list[Finding]:
    """What a calculation holds."""
    return [
        *_structure_findings(material),
        *_electron_findings(material),
        *_block_findings(material),
        *_hermiticity_findings(material),
        *_overlap_findings(material),
        *_beyond_overlap_findings(material),
    ]


def pair_counts(material: Material) -> str:
    """How many atom pairs each matrix has."""
    counts = [("S", material.overlap), *(("H", matrix) for matrix in material.hamiltonian[:1])]
    return ", ".join(f"{name} {len(matrix)} pairs" for name, matrix in counts if matrix is not None) or "no matrix"


def _structure_findings(material: Material) -> Iterator[Finding]:
    structure, provenance = material.structure, material.provenance
    version = provenance.get("code_version")
    yield Finding("source", str(provenance.get("code", "unknown")) + (f" {version}" if version else ""))
    origin = {**provenance, **provenance.get("origin", {})}
    if "predicted by" in origin:
        yield Finding("Hamiltonian", f"predicted by {origin['predicted by']}")
    for remark in provenance.get("remarks", ()):
        yield Finding("remark", str(remark))
    yield Finding("atoms", f"{len(structure)}, {structure.composition.formula}")
    lattice = structure.lattice
    yield Finding(
        "lattice",
        "a, b, c = " + ", ".join(f"{length:.4f}" for length in lattice.abc) + " Å; "
        "α, β, γ = " + ", ".join(f"{angle:.2f}" for angle in lattice.angles) + "°",
    )
    yield Finding("basis", f"{material.basis.describe()}; {material.num_orbitals} orbitals")
    yield Finding("spin", str(material.spin))


def _electron_findings(material: Material) -> Iterator[Finding]:
    warning = None
    if material.fermi_level is None:
        warning = (
            "There is no electron count either: bands need --fermi."
            if material.electrons is None
            else "Bands get it from the electron count."
        )
    level = "unknown" if material.fermi_level is None else f"{material.fermi_level:.6f} eV"
    yield Finding("Fermi level", level, warning)
    electrons, warning = "unknown", None
    if material.electrons is not None:
        electrons = f"{material.electrons:g}"
        if not 0 < material.electrons <= 2 * material.num_orbitals:
            warning = f"{material.num_orbitals} orbitals have room for {2 * material.num_orbitals} electrons at most."
    yield Finding("electrons", electrons, warning)
    if material.converged is False:
        yield Finding("self-consistency", "not reached", "H is not that of the ground state; do not train on it.")
    else:
        yield Finding("self-consistency", "reached" if material.converged else "unknown")


def _block_findings(material: Material) -> Iterator[Finding]:
    """Pairs, how far they reach, and the closest atoms."""
    overlap, hamiltonian = material.overlap, material.hamiltonian
    warning = None
    if overlap is None or not hamiltonian:
        missing = "overlap" if overlap is None else "Hamiltonian"
        warning = f"There is no {missing}."
        if overlap is not None:
            warning += " Enough for a prediction, not for training."
    yield Finding("blocks", pair_counts(material), warning)
    matrices = [("S", overlap)] if overlap is not None else []
    matrices += [("H", _merged(hamiltonian))] if hamiltonian else []
    shortest = np.inf
    for name, matrix in matrices:
        distance = np.linalg.norm(material.pair_vectors(matrix.pairs), axis=1)
        same = (matrix.pairs[:, :3] == 0).all(axis=1) & (matrix.pairs[:, 3] == matrix.pairs[:, 4])
        shortest = min(shortest, float(distance[~same].min(initial=np.inf)))
        yield Finding(
            f"longest pair of {name}", f"{distance.max(initial=0.0):.3f} Å", _reach_warning(material, name, matrix)
        )
        lacking = len(material.structure) - same.sum()
        if lacking:
            yield Finding(
                f"on-site blocks of {name}", f"{lacking} missing", "Every atom needs one; the file is not complete."
            )
    if np.isfinite(shortest):
        warning = "No two atoms come that close; is the lattice in other units?" if shortest < SHORTEST_BOND else None
        yield Finding("closest atoms", f"{shortest:.4f} Å", warning)


def _reach_warning(material: Material, name: str, matrix: BlockMatrix) -> str | None:
    """S must vanish where the orbitals of two atoms do not touch."""
    radii = [material.basis[element].cutoff_radius for element in material.elements]
    if name != "S" or None in radii:
        return None
    reach = np.array(radii, dtype=float)
    distance = np.linalg.norm(material.pair_vectors(matrix.pairs), axis=1)
    excess = distance - reach[matrix.pairs[:, 3]] - reach[matrix.pairs[:, 4]]
    beyond = (excess > REACH_TOLERANCE) & (_largest(matrix) > 0)
    if not beyond.any():
        return None
    return (
        f"{beyond.sum()} blocks of S join atoms whose orbitals do not touch, by up to {excess[beyond].max():.3f} Å; "
        "the positions do not belong to this matrix."
    )


def _hermiticity_findings(material: Material) -> Iterator[Finding]:
    """What the reader found before it symmetrised."""
    violations = material.provenance.get("hermiticity_violation", {})
    for name, unit in [("overlap", ""), ("hamiltonian", " eV")]:
        if name in violations:
            violation = float(violations[name])
            warning = None
            if violation > HERMITICITY_LIMIT:
                warning = "More than rounding: a prediction that is not Hermitian by construction, or a damaged file."
            yield Finding(f"{name}, largest |A - A†|", f"{violation:.2e}{unit}", warning)


def _overlap_findings(material: Material) -> Iterator[Finding]:
    """The smallest eigenvalue of S(k) at a few k."""
    if material.overlap is None:
        return
    name = "smallest eigenvalue of S(k)"
    if material.num_orbitals > MAX_DENSE_ORBITALS:
        yield Finding(name, f"skipped, more than {MAX_DENSE_ORBITALS} orbitals")
        return
    lowest = [eigvalsh(dense_at_k(material.overlap, np.array(k)), subset_by_index=[0, 0])[0] for k in CHECKED_K]
    place = int(np.argmin(lowest))
    warning = None
    if lowest[place] <= 0:
        warning = "S is not positive definite: it has no bands. Is it cut off, or does it belong to other positions?"
    elif lowest[place] < OVERLAP_EIGENVALUE_LIMIT:
        warning = "The basis is nearly dependent: small errors of H become ghost bands."
    k = " ".join(f"{component:g}" for component in CHECKED_K[place])
    yield Finding(name, f"{lowest[place]:.3e} at k = {k} (of {len(CHECKED_K)} k)", warning)


def _beyond_overlap_findings(material: Material) -> Iterator[Finding]:
    """Blocks of H where S has none or only zeros."""
    if material.overlap is None or not material.hamiltonian:
        return
    hamiltonian = _merged(material.hamiltonian)
    size = _largest(hamiltonian)
    overlap = _largest(material.overlap.on_pairs(hamiltonian.pairs))
    beyond = (overlap == 0) & (size > 0)
    largest = float(size[beyond].max(initial=0.0))
    warning = None
    if largest > BEYOND_OVERLAP_LIMIT:
        warning = "Programs that keep only the pairs of S lose these; bands change."
    value = f"{beyond.sum()} blocks, largest |H| {largest:.2e} eV" if beyond.any() else "none"
    yield Finding("H beyond S", value, warning)


def _merged(hamiltonian: Sequence[BlockMatrix]) -> BlockMatrix:
    """One matrix with, entry by entry, the larger magnitude of the channels."""
    pairs = union_pairs(*(matrix.pairs for matrix in hamiltonian))
    entries = [abs(matrix.on_pairs(pairs).entries) for matrix in hamiltonian]
    return BlockMatrix.of(pairs, np.max(entries, axis=0), hamiltonian[0].sizes)


def _largest(matrix: BlockMatrix) -> np.ndarray:
    """The largest |entry| of each block, (E,)."""
    if not len(matrix):
        return np.zeros(0)
    return np.maximum.reduceat(abs(matrix.entries), matrix.offsets[:-1])
