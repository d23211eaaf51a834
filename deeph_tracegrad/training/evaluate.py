"""Errors of a trained network on a dataset: overall, by element pair and by orbital pair."""

import csv
import json
from pathlib import Path

import torch
from rich.table import Table

from deeph_tracegrad.atomic import atomic_path, check_writable
from deeph_tracegrad.console import out as terminal
from deeph_tracegrad.console import progress, say
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.devices import enough_memory, select_device
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.parallel import world
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.checkpoint import Checkpoint, load_checkpoint
from deeph_tracegrad.training.error_sums import (
    OFF_SITE,
    ON_SITE,
    ErrorSums,
    Statistics,
    orbital_maes,
    shell_names,
)

SITES = {"all": (), "on-site": (ON_SITE,), "off-site": (OFF_SITE,)}


def evaluate(checkpoint: Path, dataset: Path, out: Path | None, device: str) -> None:
    """Print MAE, RMSE and largest error of H in meV, in global coordinates; under mpirun the ranks share the samples.

    On the dataset that the network was trained on, the samples that it was trained on, validated on and tested on are
    told apart, and the details are those of the samples it knows least.

    out: prefix of the files .csv (each kind of block), .json (overall) and .png to write; none if None.

    Raises:
        ReadError: the checkpoint or the dataset cannot be read.
        MismatchError: they do not fit together.
        DeviceError: a sample needs more memory than there is.
        WriteError: the files cannot be written.
    """
    for path in _files(out) if out is not None else ():
        check_writable(path)
    trained = load_checkpoint(checkpoint)
    samples = GraphDataset(dataset)
    try:
        trained.require_fit(samples.basis, samples.spin, samples.basis.elements)
    except MismatchError as error:
        raise MismatchError(f"{dataset} does not fit {checkpoint}: {error}") from error
    with enough_memory("take a device with more"):
        sums = _errors_by_part(trained, samples, select_device(device))
    if not world().is_main:
        return
    details = list(sums)[-1]
    layout = TargetLayout(trained.basis, trained.spin)
    tables = [_overall_table(sums), _element_table(sums[details], layout, details)]
    for table in [*tables, *_orbital_tables(sums[details], layout, details)]:
        # as wide as it needs: a narrow terminal breaks lines, but cuts no numbers off
        wide = terminal.options.update(width=10_000)
        terminal.print(table, width=terminal.measure(table, options=wide).maximum, crop=False)
    if out is not None:
        _write_files(sums, layout, out, f"{checkpoint} on {dataset}, {details} samples")


@torch.inference_mode()
def _errors_by_part(trained: Checkpoint, samples: GraphDataset, device: torch.device) -> dict[str, ErrorSums]:
    """Error sums of each part of the dataset, least known samples last."""
    network = trained.network(device)
    part_of = {}
    if samples.fingerprint == trained.fingerprint:
        part_of = {label: part for part, labels in trained.split.items() for label in labels}
    parts: dict[str, list[ErrorSums]] = {}
    mine = world().share(range(len(samples)))
    for place in progress(mine, len(mine), "evaluating"):
        sample = samples.sample(place)
        graph = HamiltonianGraph.from_sample(sample, trained.basis, network.layout).to(device)
        difference = network(graph).coefficients.double() - graph.target
        part = part_of.get(sample.label, "unused" if part_of else "all")
        parts.setdefault(part, []).append(ErrorSums.of(difference, graph, network.layout))
    gathered = world().gather({part: ErrorSums.total(sums) for part, sums in parts.items()})
    order = ("all", "train", "validation", "unused", "test")
    return {
        part: ErrorSums.total([sums[part] for sums in gathered if part in sums])
        for part in order
        if any(part in sums for sums in gathered)
    }


def _overall_table(sums: dict[str, ErrorSums]) -> Table:
    table = _table("Errors of H in meV", "samples", "blocks")
    for part, errors in sums.items():
        for site, selection in SITES.items():
            statistics = errors.over(selection)
            if statistics is not None:
                table.add_row(part, site, *_cells(statistics))
        table.add_section()
    return table


def _element_table(errors: ErrorSums, layout: TargetLayout, part: str) -> Table:
    """Rows for i-j and j-i together: H is Hermitian."""
    table = _table(f"By element pair, {part} samples", "elements", "blocks")
    elements = layout.basis.elements
    for left in range(len(elements)):
        for right in range(left, len(elements)):
            for site, where in (("on-site", ON_SITE), ("off-site", OFF_SITE)):
                rows, columns = zip(*{(left, right), (right, left)}, strict=True)
                statistics = errors.over((where, list(rows), list(columns)))
                if statistics is not None:
                    table.add_row(f"{elements[left]}-{elements[right]}", site, *_cells(statistics))
    return table


def _orbital_tables(errors: ErrorSums, layout: TargetLayout, part: str) -> list[Table]:
    """One table an element pair, the MAE of each pair of shells."""
    tables = []
    elements = layout.basis.elements
    for left, first in enumerate(elements):
        for right, second in enumerate(elements):
            cells = orbital_maes(errors, layout, left, right)
            if not cells:
                continue
            columns = dict.fromkeys(column for _, column in cells)
            table = Table(title=f"MAE in meV, {first} (rows) to {second} (columns), {part} samples")
            table.add_column("")
            for column in columns:
                table.add_column(column, justify="right")
            for row in dict.fromkeys(row for row, _ in cells):
                table.add_row(row, *(f"{cells[row, column]:.3f}" for column in columns))
            tables.append(table)
    return tables


def _write_files(sums: dict[str, ErrorSums], layout: TargetLayout, prefix: Path, title: str) -> None:
    from deeph_tracegrad.training.error_plot import draw

    paths = _files(prefix)
    with atomic_path(paths[0]) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        shells = ["shell_i", "shell_j", *(["spin"] if layout.spin is SpinMode.COLLINEAR else [])]
        header = ["samples", "blocks", "element_i", "element_j", *shells]
        writer.writerow([*header, "elements", "mae_mev", "rmse_mev", "max_mev"])
        for part, errors in sums.items():
            for site, left, right, number in errors.kinds():
                target = layout.targets[number]
                spin = [("up", "down")[target.channel]] if layout.spin is SpinMode.COLLINEAR else []
                elements = layout.basis.elements[left], layout.basis.elements[right]
                where = "on-site" if site == ON_SITE else "off-site"
                statistics = errors.over((site, left, right, number))
                writer.writerow([part, where, *elements, *shell_names(target), *spin, *(statistics or ())])
    overall = {
        part: {site: errors.over(selection) for site, selection in SITES.items()} for part, errors in sums.items()
    }
    named = {
        part: {site: statistics and statistics._asdict() for site, statistics in sites.items()}
        for part, sites in overall.items()
    }
    with atomic_path(paths[1]) as temporary:
        temporary.write_text(json.dumps({"unit": "meV", "errors": named}, indent=1), encoding="utf-8")
    with atomic_path(paths[2]) as temporary:
        draw(sums[list(sums)[-1]], layout, temporary, title)
    say(f"written: {', '.join(map(str, paths))}")


def _files(prefix: Path) -> list[Path]:
    return [prefix.with_name(f"{prefix.name}{suffix}") for suffix in (".csv", ".json", ".png")]


def _table(title: str, *names: str) -> Table:
    table = Table(title=title)
    for name in names:
        table.add_column(name)
    for name in ("elements of H", "MAE", "RMSE", "largest"):
        table.add_column(name, justify="right")
    return table


def _cells(statistics: Statistics) -> list[str]:
    return [str(statistics.elements), *(f"{value:.4f}" for value in statistics[1:])]
