"""Runs whose energies are far from those of the same formula.

The total energy is not among what the codes write beside H, so these energies stand for it: the mean diagonal element
of the on-site blocks of each element, the Fermi level, and with spin the exchange splitting of the on-site blocks. They
move when the zero of the potential, the unit, the functional, the pseudopotential or the magnetic state is another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deeph_tracegrad.preprocess.defects import Defect, Kind
from deeph_tracegrad.preprocess.figures import Figures

MIN_COMPARED = 10  # runs; the scatter of fewer is not known well enough
OUTLIER_DEVIATIONS = 6.0
LEAST_DEVIATION = 0.005  # eV; nothing nearer than 0.03 eV is an outlier, even where the others are all but equal

# From a median absolute deviation to the standard deviation of a normal distribution.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class Scatter:
    """Of one energy over the runs of one formula: median and robust standard deviation, eV."""

    median: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Scatter":
        """From the energies, eV."""
        median = float(np.median(values))
        return cls(median, _MAD_TO_DEVIATION * float(np.median(abs(np.array(values) - median))))

    def deviations(self, energy: float) -> float:
        """How many standard deviations an energy is off the median."""
        return abs(energy - self.median) / max(self.deviation, LEAST_DEVIATION)


Scatters = Mapping[str, Mapping[str, Scatter]]
"""By formula, then by name of the energy."""


def energies(run: Figures) -> dict[str, float]:
    """The energies of a run that are compared, eV, by name."""
    found = {f"on-site level of {element}": level for element, level in run.on_site_levels.items()}
    if run.exchange_splitting is not None:
        found["exchange splitting"] = run.exchange_splitting
    if run.fermi_level is not None:
        found["Fermi level"] = run.fermi_level
    return found


def scatters(runs: Sequence[Figures]) -> Scatters:
    """The scatter of each energy in each formula that enough runs have."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for name, energy in energies(run).items():
            values.setdefault(run.formula, {}).setdefault(name, []).append(energy)
    return {
        formula: {name: Scatter.of(found) for name, found in by_name.items() if len(found) >= MIN_COMPARED}
        for formula, by_name in values.items()
    }


def outliers(run: Figures, known: Scatters) -> Iterator[Defect]:
    """The energies of a run that are far from those of its formula."""
    usual = known.get(run.formula, {})
    for name, energy in energies(run).items():
        if name in usual and (deviations := usual[name].deviations(energy)) > OUTLIER_DEVIATIONS:
            median = usual[name].median
            side = "above" if energy > median else "below"
            yield Defect(
                Kind.OUTLIER,
                f"its {name}, {energy:.4f} eV, is {abs(energy - median):.4f} eV {side} the median of {run.formula}, "
                f"{deviations:.1f} standard deviations",
            )
