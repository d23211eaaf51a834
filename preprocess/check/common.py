"""The spin mode and the basis that most runs have, and the runs that have others."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.preprocess.defects import Defect, Kind
from deeph_tracegrad.preprocess.figures import Figures


@dataclass(frozen=True)
class Common:
    """What most runs have; of equally many, what came first.

    basis: shells, and the label if there is one. shares: by element and for "spin", how many runs, as text.
    """

    spin: SpinMode
    basis: Basis
    shares: Mapping[str, str]

    @classmethod
    def of(cls, runs: Sequence[Figures]) -> "Common":
        """Of one run or more."""
        spin, spins = Counter(run.spin for run in runs).most_common(1)[0]
        shares = {"spin": f"{spins} of {len(runs)} runs"}
        found: dict[str, Counter[ElementBasis]] = {}
        for run in runs:
            for element, basis in run.basis.items():
                found.setdefault(element, Counter())[ElementBasis(basis.shells, label=basis.label)] += 1
        bases = {}
        for element, kinds in found.items():
            bases[element] = _usual(kinds)
            fitting = sum(number for basis, number in kinds.items() if not basis.difference(bases[element]))
            shares[element] = f"{fitting} of {kinds.total()} runs"
        return cls(spin, Basis.of(bases), shares)

    def misfits(self, run: Figures) -> Iterator[Defect]:
        """In what a run differs, so that it cannot share a dataset with the others."""
        if run.spin is not self.spin:
            yield Defect(Kind.SPIN, f"spin is {run.spin} here and {self.spin} in {self.shares['spin']}")
        for element, basis in run.basis.items():
            if difference := basis.difference(self.basis[element]):
                what, own, usual = difference
                share = self.shares[element]
                yield Defect(Kind.BASIS, f"{element} has the {what} {own} here and {usual} in {share}")


def _usual(kinds: Counter[ElementBasis]) -> ElementBasis:
    """The shells of most runs, and the label of most that have these and one."""
    shells: Counter[tuple[int, ...]] = Counter()
    for basis, number in kinds.items():
        shells[basis.shells] += number
    usual = shells.most_common(1)[0][0]
    return max(
        (basis for basis in kinds if basis.shells == usual), key=lambda basis: (basis.label is not None, kinds[basis])
    )
