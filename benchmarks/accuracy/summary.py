"""Means and spreads over the seeds of a study's records."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study import ROWS, SETS, Budget, DataSet, Row

from deeph_tracegrad.errors import MismatchError

FAITHFUL = ROWS[0]
VALIDATION = "validation"


@dataclass(frozen=True)
class Value:
    """Mean over seeds, with their standard deviation where there are several."""

    mean: float
    spread: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Value":
        """From the values of the seeds."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, decimals: int | None = None) -> str:
        """With the spread; by default to three digits."""
        if decimals is None:
            decimals = sum(abs(self.mean) < limit for limit in (100, 10, 1))
        spread = "" if self.spread is None else f" ± {self.spread:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


class Summary:
    """The records of a study by set, row and budget.

    Raises:
        MismatchError: a row or set is unknown to `study.py`, or epochs that should be equal are not.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.records = records
        known = {(chosen.name, row.name) for chosen in SETS for row in ROWS}
        for record in records:
            if (record["set"], record["row"]) not in known:
                raise MismatchError(
                    f"a result is of the set {record['set']} and the row {record['row']}, which study.py does not have"
                )
        for chosen in SETS:
            equal = [one for one in records if (one["set"], one["budget"]) == (chosen.name, "epochs")]
            epochs = sorted({record["config"]["training"]["epochs"] for record in equal})
            if len(epochs) > 1:
                raise MismatchError(
                    f"trainings on {chosen.name} that should have equal epochs have {' and '.join(map(str, epochs))}; "
                    "give each number an --out of its own"
                )

    @property
    def sets(self) -> list[DataSet]:
        """Those with faithful DeepH-E3, to which the others are compared."""
        return [chosen for chosen in SETS if self.of(chosen, FAITHFUL, "epochs")]

    def rows(self, chosen: DataSet, budget: Budget) -> list[Row]:
        """Those that were trained so; the faithful one always, its budget is both."""
        return [row for row in ROWS if self.of(chosen, row, budget)]

    def of(self, chosen: DataSet, row: Row, budget: Budget) -> list[Mapping[str, Any]]:
        """The records of all seeds."""
        wanted = (chosen.name, row.name, "epochs" if row is FAITHFUL else budget)
        return [record for record in self.records if (record["set"], record["row"], record["budget"]) == wanted]

    def error(self, chosen: DataSet, row: Row, budget: Budget, column: str, cell: str = VALIDATION) -> Value | None:
        """An error over the seeds; None where the row has no such error."""
        values = [record["errors"][cell][column] for record in self.of(chosen, row, budget)]
        return Value.of(values) if values and None not in values else None

    def ratio(
        self,
        chosen: DataSet,
        row: Row,
        budget: Budget,
        column: str,
        cell: str = VALIDATION,
        reference: Row = FAITHFUL,
    ) -> float | None:
        """Of the mean error to that of another row."""
        error = self.error(chosen, row, budget, column, cell)
        other = self.error(chosen, reference, budget, column, cell)
        return error.mean / other.mean if error and other else None

    def growth(self, chosen: DataSet, row: Row, budget: Budget, column: str, cell: str) -> float | None:
        """Of the mean error from the validation structures to another cell."""
        there, here = self.error(chosen, row, budget, column, cell), self.error(chosen, row, budget, column)
        return there.mean / here.mean if there and here else None


def change(ratio: float | None) -> str:
    """A ratio as a difference in per cent; a dash where there is none."""
    return "–" if ratio is None else f"{100 * (ratio - 1):+.0f} %".replace("-", "−")
