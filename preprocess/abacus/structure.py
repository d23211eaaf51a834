"""Which structure the matrices of an ABACUS run belong to, with as many digits as any of its files has."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.folder import RunFolder
from deeph_tracegrad.preprocess.abacus.geometry import Geometry
from deeph_tracegrad.preprocess.abacus.log import Log
from deeph_tracegrad.preprocess.abacus.md_dump import read_md_dump
from deeph_tracegrad.preprocess.abacus.stru import read_stru


def geometry_of_input(folder: RunFolder, log: Log, header: Geometry | None, remarks: list[str]) -> Geometry:
    """Of a run that moves no atoms: that of STRU, each atom in the periodic image that the matrices count from.

    header: the unit cell of a newer matrix file. remarks: takes what the user should know.

    Raises:
        ReadError: STRU is not the structure of the run, or nothing tells the structure.
    """
    as_run = header or log.whole.geometry
    stru = _stru(folder)
    if stru is not None:
        return stru.placed_like(as_run) if as_run is not None else stru.wrapped()
    if as_run is None:
        raise ReadError(folder.inputs, "holds no STRU, and the log does not give the structure either")
    remarks.append(f"without STRU the structure comes from {as_run.path.name}, which has few digits")
    return as_run


def geometry_of_step(folder: RunFolder, log: Log, step: int, header: Geometry | None, remarks: list[str]) -> Geometry:
    """Of one ionic step of a relaxation or molecular dynamics; arguments as for `geometry_of_input`.

    Raises:
        ReadError: a file is damaged, or nothing tells the structure of this step.
    """
    told, written = log.at(step), list(_written(folder, log, step))
    dynamics = folder.calculation == "md"
    # Should a version count STRU_ION*_D otherwise, the lattice that the log prints is another one.
    reliable = [own for own in written if dynamics or (told.lattice is not None and own.same_lattice(told.lattice))]
    tables = [] if told.geometry is None else [told.geometry]
    files_and_tables = reliable + tables if dynamics else tables + reliable
    known = files_and_tables if header is None else [header, *files_and_tables]
    if not known:
        raise ReadError(
            folder.output,
            f"nothing tells the structure of step {step}; it stands in the newer text form of the matrices, "
            + ("in MD_dump with md_dumpfreq 1" if dynamics else f"in STRU_ION{step}_D with out_stru 1"),
        )
    shown = known[0]
    stru = _stru(folder)
    further = [*written, *(() if stru is None else (stru,))]
    exact = [own.lattice for own in further if shown.same_lattice(own.lattice)]
    remarks.append(
        f"the structure of step {step} comes from {shown.path.name}"
        + ("" if exact else ", whose lattice has few digits")
    )
    orbital_files: Mapping[str, str] = next((own.orbital_files for own in further if own.orbital_files), {})
    return replace(shown, lattice=exact[0] if exact else shown.lattice, orbital_files=orbital_files)


def _stru(folder: RunFolder) -> Geometry | None:
    path = folder.input_file(folder.parameters.get("stru_file", "STRU"))
    return read_stru(path, folder.parameters.get("latname", "none")) if path else None


def _written(folder: RunFolder, log: Log, step: int) -> Iterator[Geometry]:
    """What ABACUS has written of this step's structure into files of its own."""
    if folder.calculation == "md":
        number = step + log.first_dynamics_step
        dump = folder.output / "MD_dump"
        if dump.is_file() and (found := read_md_dump(dump, number)):
            yield found
        files = [folder.output / "STRU" / f"STRU_MD_{number}"]
    else:
        # STRU_ION1_D is the structure after the first move, which is that of the second step
        files = [folder.output / f"STRU_ION{step}_D"] if step else []
    for path in files:
        if path.is_file():
            yield read_stru(path)
