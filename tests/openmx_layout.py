"""Files of OpenMX rewritten for tests: a `.scfout` taken apart by its layout, and the output of overlap-only runs."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from deeph_tracegrad.preprocess.openmx.scfout import ScfOut, read_scfout

RECORD = 256
HEADER = "\n  This calculation was performed by OpenMX Ver. 3.9.9\n  using 2 MPI processes and 1 OpenMP threads.\n\n"
STARS = 2 * ("*" * 59 + "\n")


def places(path: Path) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Byte offset and shape of each field of doubles of a little-endian version 3 file; vectors have 4 numbers."""
    scfout = read_scfout(path)
    num_atoms, word, *_, last_cell = struct.unpack_from("<6i", path.read_bytes())
    spin, entries = word % 4, len(scfout.overlap)
    offset = 28 + 48 * (last_cell + 1) + 8 * num_atoms + 8 * len(scfout.pairs)
    found = {}
    for name, shape in [
        ("lattice", (3, 4)),
        ("reciprocal", (3, 4)),
        ("positions", (num_atoms, 4)),
        ("hamiltonian", (spin + 1, entries)),
        ("hamiltonian_imaginary", (3 if spin == 3 else 0, entries)),
        ("overlap", (entries,)),
        ("position", (3, entries)),
        ("momentum", (3, entries)),
        ("density", (spin + 1, entries)),
        ("density_imaginary", (2, entries)),
    ]:
        found[name] = (offset, shape)
        offset += 8 * int(np.prod(shape))
    return found


def change(path: Path, **fields: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite fields of doubles of a little-endian version 3 file, each by a function of what it holds."""
    data, where = bytearray(path.read_bytes()), places(path)
    for name, function in fields.items():
        offset, shape = where[name]
        old = np.frombuffer(data, "<f8", int(np.prod(shape)), offset).reshape(shape)
        new = np.ascontiguousarray(function(old.copy()), dtype="<f8").tobytes()
        data[offset : offset + len(new)] = new
    path.write_bytes(data)


def change_input(path: Path, edit: Callable[[str], str]) -> None:
    """Rewrite the input file that stands at the end of a `.scfout` to which no text was appended."""
    text = read_scfout(path).input_text
    data = path.read_bytes()
    begin = len(data) - RECORD * len(text.splitlines()) - 4
    path.write_bytes(data[:begin] + input_records(edit(text)))


def rewritten(data, version=3, order="<", position_order=1):
    """A little-endian version 3 file in another version, byte order and order of the position moments."""
    place, out = 0, []

    def take(kind, count, times=1):
        nonlocal place
        values = struct.unpack_from(f"<{count}{kind}", data, place)
        place += struct.calcsize(f"<{count}{kind}")
        out.extend([struct.pack(f"{order}{count}{kind}", *values)] * times)
        return values

    num_atoms, word, *_, last_cell = take("i", 6)
    spin = word % 4
    out[-1] = struct.pack(f"{order}6i", num_atoms, spin + 4 * version, 0, 0, 0, last_cell)
    assert take("i", 1) == (1,)
    out[-1] = struct.pack(f"{order}i", position_order) if version == 3 else b""
    take("d", 4 * (last_cell + 1))
    take("i", 4 * (last_cell + 1))
    orbitals, counts = take("i", num_atoms), [count + 1 for count in take("i", num_atoms)]
    neighbours = [take("i", count) for count in counts]
    for count in counts:
        take("i", count)
    take("d", 12 + 12 + 4 * num_atoms)
    size = sum(orbitals[i] * orbitals[j - 1] for i, near in enumerate(neighbours) for j in near)
    for _ in range(spin + 1 + 3 * (spin == 3) + 1):  # H, its imaginary part, S
        take("d", size)
    for _ in range(3):  # position
        take("d", size, position_order)
    for _ in range(3):  # momentum
        take("d", size, int(version == 3))
    for _ in range(spin + 1):  # density matrix
        take("d", size)
    for _ in range(2):  # its imaginary part
        take("d", size, int(version == 3))
    take("i", 1)
    take("d", 10)
    (lines,) = take("i", 1)
    out.append(data[place:])
    assert len(data) - place == 256 * lines
    return b"".join(out)


def input_records(text: str) -> bytes:
    """An input file as OpenMX writes it: as C's fgets read it, 255 characters at most, and left-over memory."""
    lines = text.splitlines(keepends=True)
    pieces = [line[start : start + RECORD - 1] for line in lines for start in range(0, len(line), RECORD - 1)]
    records = [piece.encode() + b"\0" for piece in pieces]
    return struct.pack("<i", len(pieces)) + b"".join(record + b"x" * (RECORD - len(record)) for record in records)


def write_overlap_only(folder: Path, scfout: Path, cells: np.ndarray | None = None, ranks: int = 2) -> np.ndarray:
    """The S of a `.scfout` as the overlap-only patch would have written it; returns the atoms' positions, (N, 3) bohr.

    cells: (N, 3) int, to which each atom is moved beforehand, as an input with atoms outside the cell would have it.
    """
    source = read_scfout(scfout)
    cells = np.zeros_like(source.positions, dtype=int) if cells is None else cells
    pairs = source.pairs.copy()
    pairs[:, :3] -= (cells[pairs[:, 4]] - cells[pairs[:, 3]]).astype(np.int32)
    lengths = source.num_orbitals[pairs[:, 3]] * source.num_orbitals[pairs[:, 4]]
    blocks = np.split(source.overlap, np.cumsum(lengths)[:-1])
    (folder / "output").mkdir(parents=True)
    for rank in range(ranks):
        with h5py.File(folder / "output" / f"overlaps_{rank}.h5", "w") as file:
            for (*cell, i, j), block in zip(pairs.tolist(), blocks, strict=True):
                if i % ranks == rank:
                    shape = (source.num_orbitals[i], source.num_orbitals[j])
                    file[str([*cell, i + 1, j + 1])] = block.reshape(shape)
    (folder / "openmx.out").write_text(text_output(source))
    return source.positions + cells @ source.lattice


def text_output(source: ScfOut) -> str:
    """NAME.out of an overlap-only run: the input, and the fractions wrapped into the cell."""
    block = re.search(r"<Atoms.SpeciesAndCoordinates\n(.*?)\nAtoms", source.input_text, re.DOTALL)
    names = [line.split()[1] for line in block[1].splitlines()]
    fractions = (source.positions @ np.linalg.inv(source.lattice)) % 1.0
    table = "".join(
        f"{number:6d}   {name:>4s}   {a:18.14f} {b:18.14f} {c:18.14f}\n"
        for number, (name, (a, b, c)) in enumerate(zip(names, fractions, strict=True), start=1)
    )
    heading = f"{STARS}       Fractional coordinates of the final structure       \n{STARS}\n"
    return f"{STARS}{HEADER}{STARS}\n{source.input_text}\n\n{heading}{table}\n{STARS}"
