"""The files of results: one JSON a training, and a table of all."""

import csv
import json
from pathlib import Path
from typing import Any

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.errors import ReadError

TABLE = "results.csv"
_TRAINING = ("set", "row", "budget", "seed", "epochs", "best_epoch", "weights", "step_seconds", "step_ratio")


def write_json(path: Path, content: Any) -> None:
    """Write a file at once or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_results(out: Path) -> list[dict[str, Any]]:
    """The record of each complete training.

    Raises:
        ReadError: one is damaged.
    """
    return [_record(path) for path in sorted(out.glob("results/[!.]*.json"))]


def _record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReadError(path, f"damaged result ({error}); remove it, and run.py measures again") from error


def write_table(out: Path) -> None:
    """All records as one table, a row for each training and set of structures."""
    records = read_results(out)
    names = list(dict.fromkeys(name for record in records for errors in record["errors"].values() for name in errors))
    seconds = ("processor", "wall")
    with atomic_path(out / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_TRAINING, *(f"{name}_seconds" for name in seconds), "edges_per_second", "cell", *names])
        for record in records:
            training = [record[name] for name in _TRAINING]
            training += [record["training_seconds"][name] for name in seconds] + [record["edges_per_second"]]
            for cell, errors in record["errors"].items():
                writer.writerow([*training, cell, *(errors[name] for name in names)])
