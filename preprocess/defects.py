"""What can be wrong with a calculation, how bad it is, and what to do about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.figures import Figures

HERMITICITY_LIMIT = 1e-5  # eV, and 1 for S; text formats break it at 1e-9
DAMAGE_LIMIT = 1e-3  # the same; what codes write is Hermitian to 1e-7
OVERLAP_EIGENVALUE_LIMIT = 1e-5
LARGEST_ENTRY = {"S": 10.0, "H": 1e6}  # eV for H; core levels of heavy atoms are 1e5 eV deep
SHORTEST_BOND = 0.6  # Å, below H2's 0.74


class Severity(StrEnum):
    """What a defect asks for."""

    FIX = "fix"  # before training: `preprocess` refuses the run, or a network would learn nonsense from it
    WARNING = "warning"  # a look


class Kind(Enum):
    """The kinds of defects: name in the table (JSON has the member's name in small letters), severity, what to do."""

    UNREADABLE = "unreadable", Severity.FIX, "Copy or calculate it again."
    UNCONVERGED = "unconverged", Severity.FIX, "H is not that of the ground state: run it with more steps."
    NO_HAMILTONIAN = "no H", Severity.FIX, "Enough for a prediction, not for training."
    PREDICTION = "prediction", Severity.FIX, "A network must not learn from a network; leave it out."
    NOT_HERMITIAN = "not Hermitian", Severity.FIX, "Copy or calculate it again."
    INCOMPLETE = "blocks missing", Severity.FIX, "Every atom needs its on-site block; the file is not complete."
    TOO_CLOSE = "atoms too close", Severity.FIX, "No two atoms come that close; is the lattice in other units?"
    NOT_POSITIVE = (
        "S not positive",
        Severity.FIX,
        "It has no bands. Is S cut off, or does it belong to other positions?",
    )
    SPIN = "other spin", Severity.FIX, "A dataset has one spin mode: run it again, or make a dataset of its own."
    BASIS = "other basis", Severity.FIX, "A dataset has one basis an element: run it again, or leave it out."
    CONVERGENCE_UNKNOWN = (
        "convergence ?",
        Severity.WARNING,
        "Keep the code's text output beside the matrices; a DeepH folder of another program never tells.",
    )
    NO_OVERLAP = "no S", Severity.WARNING, "Enough for training; bands of the run itself need S."
    OFF_HERMITIAN = "asymmetric", Severity.WARNING, "More than rounding; errors of H stay above that."
    UNTOUCHED = "S too long", Severity.WARNING, "The positions do not belong to this matrix."
    NEARLY_DEPENDENT = (
        "S near singular",
        Severity.WARNING,
        "Small errors of H become ghost bands; a smaller basis would help.",
    )
    NO_ELECTRONS = "electrons ?", Severity.WARNING, "Bands of the run then need --fermi, or its Fermi level."
    TOO_MANY_ELECTRONS = "too many electrons", Severity.WARNING, "The orbitals have no room for that number."
    ELECTRONS = "other electrons", Severity.WARNING, "Is the cell charged, or a pseudopotential another one?"
    OUTLIER = "outlier", Severity.WARNING, "Look in its output for another state, other settings, other units."
    DUPLICATE = (
        "duplicate",
        Severity.WARNING,
        "Leave one out: it counts twice, and may stand in both training and test set.",
    )

    def __init__(self, label: str, severity: Severity, advice: str) -> None:
        self.label = label
        self.severity = severity
        self.advice = advice


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong with one run. message: the figures, as a clause."""

    kind: Kind
    message: str


def defects_as_label(material: Material) -> Iterator[Defect]:
    """Why a network cannot learn from this calculation; `preprocess` refuses it for these."""
    if not material.hamiltonian:
        yield Defect(Kind.NO_HAMILTONIAN, "it holds no Hamiltonian; only predict can use it")
    if _is_prediction(material):
        yield Defect(Kind.PREDICTION, "its Hamiltonian is a prediction, not one to learn from")
    violation = material.provenance.get("hermiticity_violation", {}).get("hamiltonian", 0.0)
    if violation > DAMAGE_LIMIT:
        yield Defect(
            Kind.NOT_HERMITIAN, f"H is not Hermitian, |H - H†| is up to {violation:.1e} eV; the file is damaged"
        )
    if material.converged is False:
        yield Defect(Kind.UNCONVERGED, "its self-consistency was not reached")


def impossible_entries(material: Material) -> str | None:
    """What makes it pointless to measure anything: entries that no matrix of orbitals can have."""
    overlap = [("S", material.overlap)] if material.overlap is not None else []
    for name, matrix in [*overlap, *(("H", matrix) for matrix in material.hamiltonian)]:
        largest = float(abs(matrix.entries).max(initial=0.0))
        if not largest <= LARGEST_ENTRY[name]:
            return f"{name} has entries as large as {largest:.1e}, which none can have; the file is damaged"
    return None


def defects_of(figures: Figures) -> Iterator[Defect]:
    """What else is wrong with a calculation, by its figures."""
    if figures.converged is None:
        yield Defect(Kind.CONVERGENCE_UNKNOWN, "nothing tells whether its self-consistency was reached")
    if figures.overlap is None:
        yield Defect(Kind.NO_OVERLAP, "it holds no overlap")
    yield from _matrix_defects(figures)
    if figures.shortest is not None and figures.shortest < SHORTEST_BOND:
        yield Defect(Kind.TOO_CLOSE, f"two atoms are {figures.shortest:.4f} Å apart")
    lowest = figures.lowest_overlap
    if lowest is not None and lowest < OVERLAP_EIGENVALUE_LIMIT:
        kind = Kind.NEARLY_DEPENDENT if lowest > 0 else Kind.NOT_POSITIVE
        yield Defect(kind, f"the smallest eigenvalue of S(k) is {lowest:.3e}")
    if figures.untouched:
        yield Defect(
            Kind.UNTOUCHED,
            f"{figures.untouched} blocks of S join atoms whose orbitals do not touch, by up to "
            f"{figures.untouched_by:.3f} Å",
        )
    if figures.electrons is None:
        yield Defect(Kind.NO_ELECTRONS, "the number of electrons is unknown")
    elif not 0 < figures.electrons <= 2 * figures.num_orbitals:
        yield Defect(
            Kind.TOO_MANY_ELECTRONS,
            f"{figures.electrons:g} electrons, where {figures.num_orbitals} orbitals have room for "
            f"{2 * figures.num_orbitals}",
        )


def _matrix_defects(figures: Figures) -> Iterator[Defect]:
    """Missing blocks, and S and H that are not Hermitian, as far as `defects_as_label` does not tell."""
    for name, matrix in [("S", figures.overlap), ("H", figures.hamiltonian)]:
        if matrix is not None and matrix.missing_on_site:
            yield Defect(Kind.INCOMPLETE, f"{matrix.missing_on_site} on-site blocks of {name} are missing")
    overlap, hamiltonian = (figures.violations.get(name, 0.0) for name in ("overlap", "hamiltonian"))
    if overlap > DAMAGE_LIMIT:
        yield Defect(Kind.NOT_HERMITIAN, f"S is not symmetric, |S - S†| is up to {overlap:.1e}; the file is damaged")
    elif overlap > HERMITICITY_LIMIT:
        yield Defect(Kind.OFF_HERMITIAN, f"|S - S†| is up to {overlap:.1e}")
    if HERMITICITY_LIMIT < hamiltonian <= DAMAGE_LIMIT:
        yield Defect(Kind.OFF_HERMITIAN, f"|H - H†| is up to {hamiltonian:.1e} eV")


def _is_prediction(material: Material) -> bool:
    files = material.provenance.get("files")
    return isinstance(files, Mapping) and str(files.get("hamiltonian", "")).endswith("_pred.h5")
