"""Arguments and options that several commands of `cli.py` take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

BasisDir = Annotated[
    Path, typer.Option("--basis-dir", help="Folder with the basis files: .pao of OpenMX or .orb of ABACUS.")
]
BASIS_HELP = "Basis of an element: C=C6.0-s2p2d1, or the name of an .orb file. Repeatable."

RunFolder = Annotated[Path, typer.Argument(help="A run or a DeepH folder, labelled or predicted.")]
WindowOption = Annotated[tuple[float, float], typer.Option(help="Energies LO HI around the Fermi level, in eV.")]
BandWindowOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        help="Energies LO HI around the Fermi level, in eV; by default all bands of a small cell, and in a large one "
        "what holds 40 states."
    ),
]
NumBandsOption = Annotated[
    int | None, typer.Option("--num-bands", min=1, help="Only this many bands, nearest to the Fermi level.")
]
FermiOption = Annotated[
    float | None, typer.Option("--fermi", help="Fermi level in eV; by default from the electron count.")
]
SolverOption = Annotated[
    Literal["auto", "dense", "shift-invert", "slepc"],
    typer.Option(
        help="Eigensolver: dense gives all states, shift-invert those of a window; slepc (optional) shares each "
        "factorisation among all MPI ranks; auto is one of the first two, by the size."
    ),
]
DirectOption = Annotated[
    Literal["auto", "pardiso", "superlu"],
    typer.Option("--direct-solver", help="What factorises for shift-invert; auto is pardiso where MKL is installed."),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="Pictures to make, separated by commas: png, pdf, svg, html (interactive).")
]


class LargeMatrix(StrEnum):
    """What a run may hold and only a conversion needs; an enumeration, since typer takes no list of literals."""

    DENSITY = "density"
    POSITION = "position"
