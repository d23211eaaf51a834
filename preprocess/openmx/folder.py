"""Where the files of an OpenMX run are; told by names alone.

A run leaves NAME.scfout (with HS.fileout) and NAME.out. Molecular dynamics and relaxations write one NAME.scfout, at
their end; several in a folder are copies that the user kept, each a run of its own. The overlap-only patch of OpenMX
writes NAME.out and output/overlaps_<rank>.h5 instead.
"""

import re
from pathlib import Path


def is_scfout(path: Path) -> bool:
    """Whether this is a `.scfout` file."""
    return path.suffix == ".scfout" and path.is_file()


def scfout_files(folder: Path) -> list[Path]:
    """The `.scfout` files right in a folder, sorted; none where it is no folder."""
    return sorted(path for path in folder.glob("*.scfout") if path.is_file())


def overlap_files(folder: Path) -> list[Path]:
    """The overlaps_<rank>.h5 files of a folder, in `output` or right in it, by rank; none where it is no folder."""
    for place in (folder / "output", folder):
        ranks = {path: re.fullmatch(r"overlaps_(\d{1,6})\.h5", path.name) for path in place.glob("overlaps_*.h5")}
        found = {path: int(rank[1]) for path, rank in ranks.items() if rank and path.is_file()}
        if found:
            return sorted(found, key=found.__getitem__)
    return []


def overlap_text(folder: Path) -> Path | None:
    """The text output of an overlap-only run: openmx.out, or the folder's only *.out."""
    usual = folder / "openmx.out"
    return usual if usual.is_file() else _only_text(folder)


def scfout_text(scfout: Path) -> Path | None:
    """The text output of the run that wrote a `.scfout`: NAME.out or NAME.std.

    Where the folder has no other `.scfout`, also openmx.std or its only *.out.
    """
    candidates = [scfout.with_suffix(".out"), scfout.with_suffix(".std")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is not None or len(scfout_files(scfout.parent)) > 1:
        return found
    standard_output = scfout.with_name("openmx.std")
    return standard_output if standard_output.is_file() else _only_text(scfout.parent)


def _only_text(folder: Path) -> Path | None:
    found = sorted(path for path in folder.glob("*.out") if path.is_file())
    return found[0] if len(found) == 1 else None
