"""Run the accuracy study: train every row of `study.py`, measure it, and write what was found.

    OMP_NUM_THREADS=1 python benchmarks/accuracy/run.py DATA --out RESULTS [--rows NAME ...] [--sets NAME ...]
        [--seeds S ...] [--budgets epochs time] [--epochs N] [--jobs 2]

DATA: the folder that holds the sets of `study.py`. RESULTS gets datasets/, costs/, runs/ with one folder a training,
results/ with one JSON file a training, and results.csv, all of them in one table. What is complete there counts as it
is, what was interrupted is taken up again: the same command goes on. Rows that are not named are run as `study.py`
plans them; a row that is named is run with at least one seed.

Every training has one thread; with --jobs 2 there are two at a time, each in a process of its own.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import active_children, get_context
from pathlib import Path

from costs import effort, step_cost
from results import write_json, write_table
from study import ROWS, SETS, Study
from tasks import Task

from deeph_tracegrad.errors import TracegradError
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.training.loop import train


def main() -> None:
    arguments = parsed_arguments()
    study = Study(arguments.data, arguments.out, arguments.epochs, arguments.device, tuple(arguments.set))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    try:
        failures = run(planned(study, arguments), arguments.jobs)
    except TracegradError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    sys.exit("\n".join(failures))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS])
    parser.add_argument("--sets", nargs="+", choices=[chosen.name for chosen in SETS])
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those that the rows have")
    parser.add_argument("--budgets", nargs="+", choices=["epochs", "time"], default=["epochs", "time"])
    parser.add_argument("--epochs", type=int, help="of faithful DeepH-E3, instead of those that the sets have")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all rows, for trials")
    return parser.parse_args()


def planned(study: Study, arguments: argparse.Namespace) -> list[Task]:
    """The trainings that are asked for; the first seed and equal epochs come first."""
    tasks = [
        Task(study, chosen, row, budget, seed)
        for chosen in SETS
        if arguments.sets is None or chosen.name in arguments.sets
        for row in ROWS
        if arguments.rows is None or row.name in arguments.rows
        for budget in row.budgets
        if budget in arguments.budgets
        for seed in arguments.seeds or range(1, max(row.seeds, arguments.rows is not None) + 1)
        if row.seeds or arguments.rows
    ]
    return sorted(tasks, key=lambda task: (task.seed, task.budget == "time"))


def run(tasks: Sequence[Task], jobs: int) -> list[str]:
    """Do what is not done yet; a sentence for each that failed.

    Raises:
        TracegradError: a set cannot be read, a setting is wrong, or RESULTS holds trainings with other settings.
    """
    for task in {task.chosen.name: task for task in tasks}.values():
        build_dataset([str(task.study.data / task.chosen.runs)], task.study.dataset(task.chosen), workers=1)
    for task in tasks:
        task.check_same()
        step_cost(task.study, task.row, task.chosen)  # before the trainings, which would be in its way
    waiting = [task for task in tasks if not task.result.is_file()]
    print(f"{len(tasks)} trainings, {len(tasks) - len(waiting)} of them complete", flush=True)
    failures = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(perform, task): task for task in waiting}
        try:
            for done in as_completed(running):
                task = running[done]
                try:
                    print(f"{task.name}: {done.result()}", flush=True)
                except Exception as error:  # noqa: BLE001  whatever it is, the others go on
                    failures.append(f"{task.name}: {error}")
                    print(failures[-1], flush=True)
                write_table(task.study.out)
        except KeyboardInterrupt:
            for child in active_children():
                child.terminate()  # a training keeps its state at that
            pool.shutdown(cancel_futures=True)
            raise
    write_table(tasks[0].study.out)
    return failures


def perform(task: Task) -> str:
    """Train, measure, write the result; what to say of it."""
    config = task.config()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        with effort(task.folder):
            train(config, resume="auto")
        record = task.record()
    write_json(task.result, record)
    return f"{record['epochs']} epochs, MAE of H {record['errors']['validation']['hamiltonian']:.3f} meV"


if __name__ == "__main__":
    main()
