"""What a run, a DeepH folder, a dataset, a training or a checkpoint holds, and what is suspicious in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from deeph_tracegrad.console import out
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.defects import HERMITICITY_LIMIT, Defect, Kind, defects_as_label, defects_of
from deeph_tracegrad.preprocess.figures import CHECKED_K, MAX_DENSE_ORBITALS, Figures, measure
from deeph_tracegrad.preprocess.runs import read_material

CHECKPOINT_SUFFIXES = (".pt", ".pkl")
BEYOND_OVERLAP_LIMIT = 1e-3  # eV


@dataclass(frozen=True)
class Finding:
    """One row of the report. warning: what is suspicious about it, as a sentence; None where nothing is."""

    name: str
    value: str
    warning: str | None = None


def inspect(path: Path) -> None:
    """Print what `path` holds as a table; suspicious rows are coloured and explained.

    Raises:
        ReadError: it is neither a run, a DeepH folder, a dataset, a training nor a checkpoint, or is damaged.
    """
    # models of DeepH-E3 are refused there, with advice
    if (path.is_file() and path.suffix in CHECKPOINT_SUFFIXES) or (path / "best_model.pkl").is_file():
        findings = checkpoint_findings(path)
    elif (path / "dataset.json").is_file():
        findings = dataset_findings(path)
    elif (path / "config.toml").is_file() and (path / "split.json").is_file():
        findings = training_findings(path)
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


def training_findings(path: Path) -> list[Finding]:
    """What became of a training; its loss curves are drawn into its folder."""
    from deeph_tracegrad.training.run_report import RunReport

    report = RunReport.read(path)
    return [*(Finding(*row) for row in report.findings()), Finding("loss curves", report.draw())]


def checkpoint_findings(path: Path) -> list[Finding]:
    """What a checkpoint holds."""
    from deeph_tracegrad.training.checkpoint import load_checkpoint

    return [Finding(name, str(value)) for name, value in load_checkpoint(path).summary()]


def material_findings(material: Material) -> list[Finding]:
    """What a calculation holds."""
    figures = measure(material)
    found = {defect.kind: defect for defect in (*defects_as_label(material), *defects_of(figures))}
    return [
        *_structure_findings(material),
        *_electron_findings(figures, found),
        *_block_findings(material, figures, found),
        *_hermiticity_findings(figures),
        *_overlap_findings(figures, found),
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


def _electron_findings(figures: Figures, found: Mapping[Kind, Defect]) -> Iterator[Finding]:
    warning = None
    if figures.fermi_level is None:
        warning = (
            "There is no electron count either: bands need --fermi."
            if figures.electrons is None
            else "Bands get it from the electron count."
        )
    level = "unknown" if figures.fermi_level is None else f"{figures.fermi_level:.6f} eV"
    yield Finding("Fermi level", level, warning)
    electrons = "unknown" if figures.electrons is None else f"{figures.electrons:g}"
    yield Finding("electrons", electrons, _advice(found, Kind.TOO_MANY_ELECTRONS))
    convergence = {True: "reached", False: "not reached", None: "unknown"}[figures.converged]
    yield Finding("self-consistency", convergence, _advice(found, Kind.UNCONVERGED))


def _block_findings(material: Material, figures: Figures, found: Mapping[Kind, Defect]) -> Iterator[Finding]:
    """Pairs, how far they reach, and the closest atoms."""
    missing = [
        f"There is no {name}. {kind.advice}"
        for kind, name in [(Kind.NO_HAMILTONIAN, "Hamiltonian"), (Kind.NO_OVERLAP, "overlap")]
        if kind in found
    ]
    yield Finding("blocks", pair_counts(material), " ".join(missing) or None)
    for name, matrix in [("S", figures.overlap), ("H", figures.hamiltonian)]:
        if matrix is None:
            continue
        warning = None
        if name == "S" and figures.untouched:
            warning = f"{found[Kind.UNTOUCHED].message}. {Kind.UNTOUCHED.advice}"
        yield Finding(f"longest pair of {name}", f"{matrix.longest:.3f} Å", warning)
        if matrix.missing_on_site:
            yield Finding(f"on-site blocks of {name}", f"{matrix.missing_on_site} missing", Kind.INCOMPLETE.advice)
    if figures.shortest is not None:
        yield Finding("closest atoms", f"{figures.shortest:.4f} Å", _advice(found, Kind.TOO_CLOSE))


def _hermiticity_findings(figures: Figures) -> Iterator[Finding]:
    """What the reader found before it symmetrised."""
    for name, unit in [("overlap", ""), ("hamiltonian", " eV")]:
        if name in figures.violations:
            violation = figures.violations[name]
            warning = None
            if violation > HERMITICITY_LIMIT:
                warning = "More than rounding: a prediction that is not Hermitian by construction, or a damaged file."
            yield Finding(f"{name}, largest |A - A†|", f"{violation:.2e}{unit}", warning)


def _overlap_findings(figures: Figures, found: Mapping[Kind, Defect]) -> Iterator[Finding]:
    """The smallest eigenvalue of S(k), and where H goes beyond S."""
    if figures.overlap is None:
        return
    name = "smallest eigenvalue of S(k)"
    if figures.lowest_overlap is None or figures.lowest_overlap_k is None:
        yield Finding(name, f"skipped, more than {MAX_DENSE_ORBITALS} orbitals")
    else:
        k = " ".join(f"{component:g}" for component in figures.lowest_overlap_k)
        value = f"{figures.lowest_overlap:.3e} at k = {k} (of {len(CHECKED_K)} k)"
        yield Finding(name, value, _advice(found, Kind.NOT_POSITIVE, Kind.NEARLY_DEPENDENT))
    if figures.hamiltonian is not None:
        largest, warning = figures.beyond_overlap_largest, None
        if largest > BEYOND_OVERLAP_LIMIT:
            warning = "Programs that keep only the pairs of S lose these; bands change."
        value = f"{figures.beyond_overlap} blocks, largest |H| {largest:.2e} eV" if figures.beyond_overlap else "none"
        yield Finding("H beyond S", value, warning)


def _advice(found: Mapping[Kind, Defect], *kinds: Kind) -> str | None:
    """What to do about the first of these kinds that was found."""
    return next((kind.advice for kind in kinds if kind in found), None)
