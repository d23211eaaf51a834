"""The command `deeph-tracegrad`: one thin function a subcommand.

Imports that take time stand inside the functions, so that `--help` is immediate.
"""

import io
import sys
import time
import traceback
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from deeph_tracegrad import __version__
from deeph_tracegrad.cli_options import (
    BASIS_HELP,
    BandWindowOption,
    BasisDir,
    DirectOption,
    FermiOption,
    FormatOption,
    LargeMatrix,
    NumBandsOption,
    RunFolder,
    SolverOption,
    WindowOption,
)
from deeph_tracegrad.errors import InterruptionError, LaunchError, PreemptionError, TracegradError

app = typer.Typer(
    name="deeph-tracegrad",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_SOME_FAILED = 1
EXIT_ERROR = 2
EXIT_CRASH = 3
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: come again
EXIT_INTERRUPTED = 130

RESUME_CHOICES = ("never", "auto", "always")

MAIN_RANK_SECONDS = 2.0
OUTPUT_SECONDS = 0.5


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deeph-tracegrad {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    """From DFT runs to the electronic structure of materials too large for DFT.

    preprocess -> train -> predict -> bands; each command has its own --help.
    """


@app.command()
def preprocess(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders (OpenMX, ABACUS, DeepH), folders that hold some, or globs.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The dataset folder to write, or to complete.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core. Under mpirun the ranks share the runs.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first run that cannot be used.")] = False,
    allow_unconverged: Annotated[
        bool, typer.Option("--allow-unconverged", help="Use runs whose self-consistency was not reached.")
    ] = False,
) -> None:
    """Turn DFT runs into a graph dataset for training."""
    from deeph_tracegrad.preprocess.build import build_dataset

    report = build_dataset(runs, out, workers=workers, strict=strict, allow_unconverged=allow_unconverged)
    if report.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="One run: an OpenMX, ABACUS, SIESTA or DeepH folder.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    to: Annotated[
        Literal["deeph", "deeph-legacy", "abacus"],
        typer.Option("--to", help="Format to write. abacus: H(R) for `init_chg hr`, of a run or prediction of ABACUS."),
    ] = "deeph",
    local_coordinates: Annotated[
        bool,
        typer.Option("--local-coordinates", help="Also write rc.h5 and rh.h5, as DeepH v1 needs (deeph-legacy only)."),
    ] = False,
    matrices: Annotated[
        list[LargeMatrix] | None,
        typer.Option("--with", help="Carry over the density or the position matrix too. Repeatable."),
    ] = None,
) -> None:
    """Write a run in the current or the legacy DeepH format, or as what ABACUS starts from.

    For ABACUS the orbitals are taken to be its own, in the order and with the signs of the format that is read; a
    DeepH folder of another program does not tell whose they are.
    """
    from deeph_tracegrad.preprocess.convert import convert as convert_run

    convert_run(source, destination, to, local_coordinates=local_coordinates, matrices=matrices or ())


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A run, a DeepH folder, a dataset, a run folder of `train` or a checkpoint.")
    ],
) -> None:
    """Show what a run, a DeepH folder, a dataset, a training or a checkpoint holds, and what is suspicious in it.

    The loss curves of a training are drawn into its folder, as losses.png.
    """
    from deeph_tracegrad.preprocess.inspection import inspect as inspect_path

    inspect_path(path)


@app.command()
def check(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders (OpenMX, ABACUS, DeepH), folders that hold some, or globs.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core. Under mpirun the ranks share the runs.")
    ] = None,
) -> None:
    """Find what is wrong with runs, each alone and beside the others, before a training; 1 if any must be fixed."""
    from deeph_tracegrad.preprocess.check.report import show
    from deeph_tracegrad.preprocess.check.survey import check_runs
    from deeph_tracegrad.preprocess.defects import Severity

    survey = check_runs(runs, workers)
    show(survey, as_json=as_json)
    if survey.number(Severity.FIX):
        raise typer.Exit(EXIT_SOME_FAILED)


class _TrainCommand(TyperCommand):
    """Lets `--resume` stand alone, for `--resume always`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every `--resume` a value."""
        complete = []
        for argument, following in zip_longest(args, args[1:], fillvalue=""):
            complete.append(argument)
            if argument == "--resume" and following not in RESUME_CHOICES:
                complete.append("always")
        return super().parse_args(ctx, complete)


@app.command(cls=_TrainCommand)
def train(
    config: Annotated[Path, typer.Argument(help="TOML file; see the annotated ones in configs/.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override one key: section.key=value. Repeatable.")
    ] = None,
    resume: Annotated[
        Literal["never", "auto", "always"],
        typer.Option(
            help="Go on from the last checkpoint in the config's run folder: auto if there is one, always (or --resume "
            "alone) or end with an error."
        ),
    ] = "never",
) -> None:
    """Train a network on a dataset; `mpirun -n N deeph-tracegrad train ...` for N ranks, or srun, or torchrun.

    SIGTERM (a queue that takes the machine back) and Ctrl-C end it after the step under way; last.pt is written.

    Exit codes: 0 done; 2 a mistake, or a training that cannot go on; 3 a crash; 75 stopped by SIGTERM; 130 stopped by
    Ctrl-C. After 75 the same command with --resume auto goes on.
    """
    from deeph_tracegrad.config import load_config
    from deeph_tracegrad.training.loop import train as run_training

    run_training(load_config(config, settings or []), resume=resume)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of `train`.")],
    dataset: Annotated[Path, typer.Argument(help="A dataset of `preprocess`.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Prefix of the table and picture files; none by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
) -> None:
    """Errors of a checkpoint on a labelled dataset, by element pair and orbital pair."""
    from deeph_tracegrad.training.evaluate import evaluate as run_evaluation

    run_evaluation(checkpoint, dataset, out, device)


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of `train`.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="With --basis-dir structure files (POSCAR, CIF, ...), else runs or DeepH folders with an overlap; "
            "folders of either, or globs."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write one DeepH folder a structure into.")],
    basis_dir: BasisDir | None = None,
    basis: Annotated[
        list[str] | None, typer.Option(help=f"{BASIS_HELP} By default the one that the network was trained with.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
) -> None:
    """Predict H(R) for structures; with --basis-dir no DFT run is needed."""
    from deeph_tracegrad.inference.predict import predict as predict_hamiltonians
    from deeph_tracegrad.inference.predict import reader_of_structures
    from deeph_tracegrad.integrals.basis_files import parse_labels
    from deeph_tracegrad.preprocess.runs import find_runs, read_material
    from deeph_tracegrad.structures.files import find_structures

    if basis_dir is not None:
        read_structure = reader_of_structures(basis_dir, parse_labels(basis or []))
        failures = predict_hamiltonians(checkpoint, find_structures(inputs), read_structure, out, device)
    else:
        failures = predict_hamiltonians(checkpoint, find_runs(inputs), lambda run, *_: read_material(run), out, device)
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def overlap(
    structures: Annotated[list[str], typer.Argument(help="Structure files: POSCAR, CIF, ...; folders of them, globs.")],
    basis_dir: BasisDir,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write one DeepH folder a structure into.")],
    basis: Annotated[list[str] | None, typer.Option(help=BASIS_HELP)] = None,
) -> None:
    """Calculate the overlap S(R) of structures from basis files, without a DFT run."""
    from deeph_tracegrad.inference.overlap import write_overlaps
    from deeph_tracegrad.integrals.basis_files import parse_labels
    from deeph_tracegrad.structures.files import find_structures

    if write_overlaps(find_structures(structures), basis_dir, parse_labels(basis or []), out):
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def twist(
    m: Annotated[int, typer.Argument(min=0, max=100_000, help="First number of the twist.")],
    n: Annotated[
        int, typer.Argument(min=0, max=100_000, help="Second number of the twist; (m, m + 1) gives small angles.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: POSCAR, or NAME.vasp.")],
    monolayer: Annotated[
        Path | None, typer.Option(help="Structure of one layer with a hexagonal lattice; graphene by default.")
    ] = None,
    distance: Annotated[
        float, typer.Option(min=0.5, max=100.0, help="Between the nearest atoms of the layers along z, in Å.")
    ] = 3.35,
    vacuum: Annotated[
        float, typer.Option(min=0.5, max=1000.0, help="Empty space between the bilayer and its image, in Å.")
    ] = 20.0,
) -> None:
    """Write the structure of a twisted bilayer, commensurate by (m, n): 1 2 is 21.79°, 31 32 is 1.05°."""
    from deeph_tracegrad.structures.moire import write_twisted_bilayer

    write_twisted_bilayer(m, n, out, monolayer, distance, vacuum)


@app.command("import-deeph-e3")
def import_deeph_e3(
    folder: Annotated[Path, typer.Argument(help="A model folder of DeepH-E3, with best_model.pkl and src.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint to write, such as model.pt.")],
) -> None:
    """Make a checkpoint of a model that the official DeepH-E3 trained; `predict`, `evaluate`, `inspect` take it."""
    from deeph_tracegrad.deeph_e3.importer import import_model

    import_model(folder, out)


@app.command()
def bands(
    folder: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Prefix of the files to write: PREFIX.h5, PREFIX.png, ...; by default FOLDER_bands, here.",
        ),
    ] = None,
    kpath: Annotated[
        str,
        typer.Option(
            help="'auto'; corners such as 'G 0 0 0, K 1/3 1/3 0, M 1/2 0 0'; or a file: K_PATH of DeepH-dock, "
            "openmx.dat with a Band.kpath, or one 'label x y z' a line."
        ),
    ] = "auto",
    window: BandWindowOption = None,
    num_bands: NumBandsOption = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Reference to draw and measure against: a folder, an openmx.Band or an ABACUS BANDS_1.dat."),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            max=1e5,
            help="k-points for each 1/Å of path (without 2π); by default 200, and of a large cell 12 a segment.",
        ),
    ] = None,
    solver: SolverOption = "auto",
    direct: DirectOption = "auto",
    fermi: FermiOption = None,
    project: Annotated[
        Literal["element", "shell", "orbital", "atom"] | None,
        typer.Option(help="Fat bands: the shares of these groups of orbitals, drawn and written."),
    ] = None,
    picture_formats: FormatOption = "png",
    export: Annotated[
        str, typer.Option(help="More files, separated by commas: openmx (.Band), gnuplot, csv, pymatgen (.json).")
    ] = "",
) -> None:
    """Band structure of H(R), S(R) along a path, with the Fermi level, as HDF5 and picture.

    What was finished before an interruption is kept: the same command goes on from there.
    """
    from deeph_tracegrad.inference.band_run import BandFiles, run_bands
    from deeph_tracegrad.inference.bands import BandOptions
    from deeph_tracegrad.inference.export import EXPORTS
    from deeph_tracegrad.inference.figure import parse_formats, parse_names
    from deeph_tracegrad.inference.spectra.projections import Grouping
    from deeph_tracegrad.preprocess.printed_bands import read_printed_bands
    from deeph_tracegrad.preprocess.runs import read_material

    options = BandOptions(kpath, window, num_bands, density, fermi, solver, direct)
    files = BandFiles(
        parse_formats(picture_formats),
        parse_names(export, tuple(EXPORTS), "--export"),
        None if project is None else Grouping(project),
    )
    prefix = Path(f"{folder.resolve().name}_bands") if out is None else out
    run_bands(folder, prefix, options, compare, files, read_material=read_material, read_printed=read_printed_bands)


@app.command()
def dos(
    folder: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Prefix of the files to write: PREFIX.h5, .csv, .png.")],
    method: Annotated[
        Literal["tetrahedron", "gaussian", "kpm"] | None,
        typer.Option(help="By default tetrahedra; Gaussians where there is one k-point; kpm for large cells."),
    ] = None,
    project: Annotated[
        Literal["element", "shell", "orbital", "atom"], typer.Option(help="Groups of orbitals to split it into.")
    ] = "shell",
    window: WindowOption = (-10, 10),
    density: Annotated[
        float | None,
        typer.Option(
            min=1.0, max=1e4, help="k-points for each 1/Å (without 2π); by default 40, of layers 160, of kpm 20."
        ),
    ] = None,
    broadening: Annotated[
        float, typer.Option(help="Standard deviation of Gaussians and of kernel polynomials (kpm), in eV.")
    ] = 0.1,
    vectors: Annotated[int, typer.Option(min=2, help="Random vectors of kpm; their scatter gives the error.")] = 16,
    fermi: FermiOption = None,
    picture_formats: FormatOption = "png",
) -> None:
    """Density of states, in all and by groups of orbitals, as HDF5, CSV and picture."""
    from deeph_tracegrad.inference.figure import parse_formats
    from deeph_tracegrad.inference.spectra.dos import DosOptions, Method
    from deeph_tracegrad.inference.spectra.dos_run import run_dos
    from deeph_tracegrad.inference.spectra.projections import Grouping
    from deeph_tracegrad.preprocess.runs import read_material

    options = DosOptions(
        method=None if method is None else Method(method),
        grouping=Grouping(project),
        window=window,
        density=density,
        broadening=broadening,
        vectors=vectors,
        fermi_level=fermi,
    )
    run_dos(folder, out, options, parse_formats(picture_formats), read_material=read_material)


@app.command()
def unfold(
    supercell: RunFolder,
    primitive: Annotated[
        Path,
        typer.Option(help="The primitive cell: a structure file, or a run or DeepH folder, whose bands are drawn too."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Prefix of the files to write: PREFIX.h5, PREFIX.png.")],
    kpath: Annotated[str, typer.Option(help="Path in the zone of the primitive cell, as for bands.")] = "auto",
    window: BandWindowOption = None,
    num_bands: NumBandsOption = None,
    density: Annotated[
        float, typer.Option(min=1.0, max=1e5, help="k-points for each 1/Å of path (without 2π).")
    ] = 100.0,
    broadening: Annotated[
        float | None,
        typer.Option(help="Standard deviation of a state in the picture, in eV; by default 1/120 of the window."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far an atom may be from its site, in Å.")] = 0.7,
    fermi: FermiOption = None,
    picture_formats: FormatOption = "png",
) -> None:
    """Bands of a supercell unfolded to the zone of a primitive cell, as HDF5 and picture."""
    from deeph_tracegrad.inference.bands import BandOptions
    from deeph_tracegrad.inference.figure import parse_formats
    from deeph_tracegrad.inference.spectra.unfold_run import PrimitiveCell, UnfoldOptions, run_unfold
    from deeph_tracegrad.preprocess.runs import read_material
    from deeph_tracegrad.structures.reader import read_structure

    wanted = BandOptions(kpath=kpath, window=window, num_bands=num_bands, density=density, fermi_level=fermi)
    options = UnfoldOptions(wanted, broadening, tolerance)
    if primitive.is_dir():
        material = read_material(primitive)
        cell = PrimitiveCell(material.structure, material)
    else:
        cell = PrimitiveCell(read_structure(primitive))
    run_unfold(supercell, cell, out, options, parse_formats(picture_formats), read_material=read_material)


def main() -> None:
    """Run the command; a user's mistake ends with its message and exit code 2, a crash with error.log and 3.

    Ctrl-C ends with 130, here or by typer; SIGTERM ends a training with 75.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # in an encoding that may lack Å, Γ and what files are called
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except PreemptionError:  # on all ranks alike, after the training told it
        sys.exit(EXIT_PREEMPTED)
    except InterruptionError as error:
        _fail(str(error), EXIT_INTERRUPTED)
    except TracegradError as error:
        _fail(f"error: {error}", EXIT_ERROR)
    except OSError as error:  # of the machine, not of the program: no space, no permission, a quota
        _fail(f"error: {error.filename or 'reading or writing failed'}: {error.strerror or error}", EXIT_ERROR)
    except MemoryError as error:
        _fail(
            f"error: the memory of the machine does not suffice ({error or 'nothing is left'}); use one with more",
            EXIT_ERROR,
        )
    except Exception as error:  # noqa: BLE001  the last place that can turn a crash into a message
        log = Path("error.log").resolve()
        try:
            log.write_text(traceback.format_exc(), encoding="utf-8")
            where = f"The traceback is in {log}; please report it."
        except OSError:
            where = f"Please report it, with this traceback:\n{traceback.format_exc()}"
        _fail(f"internal error: {type(error).__name__}: {error}\n{where}", EXIT_CRASH)


def _fail(message: str, code: int) -> None:
    """Say why and exit, and take the other ranks along: one that is left waiting would hang."""
    from deeph_tracegrad.console import clear_bars
    from deeph_tracegrad.parallel import World, world

    clear_bars()
    apart = isinstance(sys.exception(), LaunchError) and not world.cache_info().currsize
    ranks = World() if apart else world()  # a second attempt to find each other would wait for nobody
    if not ranks.is_main:
        time.sleep(MAIN_RANK_SECONDS)  # a mistake that all ranks meet is told once, by the main rank
    if "--debug" in sys.argv[1:]:
        traceback.print_exc()
    typer.secho(message, fg="red", err=True)
    if ranks.size > 1:
        sys.stderr.flush()
        time.sleep(OUTPUT_SECONDS)  # mpirun drops what it has not passed on when a rank aborts
        ranks.abort(code)
    sys.exit(code)
