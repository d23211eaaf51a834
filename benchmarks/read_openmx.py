"""How fast OpenMX's .scfout is read, and how much faster than with struct.unpack.

    python benchmarks/read_openmx.py [FILE.scfout ...]

Without arguments: the real runs among the test fixtures, and a graphene supercell of about 90 MB made from one of
them. Every figure is the best of several reads of a file that the operating system holds in memory (warm cache), in
megabytes of file a second, on one core.

read_scfout  the fields, H and S as arrays
read_openmx  the whole way to a Material: structure, orbitals reordered, H and S symmetrised, all checks
struct       baseline: every field through struct.unpack into a tuple of Python numbers, and that into an array
"""

import lzma
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeph_tracegrad.preprocess.openmx.reader import read_openmx
from deeph_tracegrad.preprocess.openmx.scfout import read_scfout

FIXTURES = Path(__file__).parents[1] / "tests" / "data" / "openmx"
CASES = ("graphene", "mos2", "fe_bcc_spin", "bi_soc")
SUPERCELL = 8
RECORD = 256


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(name) for name in sys.argv[1:]] or default_files(Path(folder))
        print(f"{'MB of file a second':>24} {'MB':>6} {'read_scfout':>12} {'read_openmx':>12} {'struct':>7}   ratios")
        for path in files:
            report(path)


def default_files(folder: Path) -> list[Path]:
    """The fixtures, unpacked into `folder`, and the supercell."""
    files = []
    for case in CASES:
        files.append(folder / f"{case}.scfout")
        with lzma.open(FIXTURES / case / "openmx.scfout.xz") as packed, files[-1].open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    files.append(folder / f"graphene_{SUPERCELL}x{SUPERCELL}.scfout")
    write_supercell(files[0], files[-1], SUPERCELL)
    return files


def report(path: Path) -> None:
    size = path.stat().st_size / 1e6
    scfout, openmx, baseline = (size / best_time(read, path) for read in (read_scfout, read_openmx, read_with_struct))
    print(
        f"{path.name:>24} {size:6.1f} {scfout:12.0f} {openmx:12.0f} {baseline:7.0f}   "
        f"{scfout / baseline:.1f}x {openmx / baseline:.1f}x"
    )


def best_time(reader: Callable[[Path], object], path: Path) -> float:
    """Seconds of the fastest read: at least three, for about a second."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1 and len(times) < 50):
        start = time.perf_counter()
        reader(path)
        times.append(time.perf_counter() - start)
    return min(times)


def read_with_struct(path: Path) -> list[np.ndarray]:
    """Every field of a version 3 file."""
    data = path.read_bytes()
    num_atoms, word, *_, last_cell, order = struct.unpack_from("<7i", data)
    spin, place = word % 4, 28

    def take(kind: str, count: int) -> np.ndarray:
        nonlocal place
        values = struct.unpack_from(f"<{count}{kind}", data, place)
        place += struct.calcsize(f"<{count}{kind}")
        return np.array(values)

    fields = [take("d", 4 * (last_cell + 1)), take("i", 4 * (last_cell + 1))]
    orbitals, num_neighbours = take("i", num_atoms), take("i", num_atoms) + 1
    neighbours = [take("i", count) - 1 for count in num_neighbours]
    fields += [take("i", count) for count in num_neighbours]
    fields += [take("d", count) for count in (12, 12, 4 * num_atoms)]
    entries = sum(orbitals[atom] * orbitals[near].sum() for atom, near in enumerate(neighbours))
    num_matrices = 2 * (spin + 1) + (3 if spin == 3 else 0) + 1 + 3 * order + 3 + 2
    return fields + [take("d", entries) for _ in range(num_matrices)]


def matrices_start(data: bytes) -> int:
    """Where the matrices of a version 3 file begin."""
    num_atoms, _, _, _, _, last_cell = struct.unpack_from("<6i", data)
    lists = 28 + 48 * (last_cell + 1) + 4 * num_atoms
    num_pairs = sum(struct.unpack_from(f"<{num_atoms}i", data, lists)) + num_atoms
    return lists + 4 * num_atoms + 8 * num_pairs + 2 * 96 + 32 * num_atoms


def write_supercell(source: Path, target: Path, repeat: int) -> None:
    """Write `repeat` x `repeat` x 1 cells of a version 3 run without spin: the same physics in a larger file.

    With the atoms of one cell after those of another, every matrix is the old one repeated.
    """
    data, old = source.read_bytes(), read_scfout(source)
    multiples = np.array([repeat, repeat, 1])
    origins = np.stack(np.meshgrid(*map(np.arange, multiples), indexing="ij"), axis=-1).reshape(-1, 3)
    num_atoms, copies = len(old.positions), len(origins)
    cell, inside = np.divmod(origins[:, None] + old.pairs[:, :3], multiples)
    origin_number = inside @ [repeat, 1, 1]
    neighbours = origin_number * num_atoms + old.pairs[:, 4] + 1
    cells = np.unique(cell.reshape(-1, 3), axis=0)
    cells = cells[np.argsort(np.abs(cells).sum(axis=1), kind="stable")]  # the origin comes first
    cell_number = np.argmax((cell[:, :, None] == cells).all(axis=-1), axis=-1)
    lattice = old.lattice * multiples[:, None]
    positions = (old.positions + (origins @ old.lattice)[:, None]).reshape(-1, 3)

    def padded(rows: np.ndarray, kind: str) -> bytes:
        return np.hstack([np.zeros((len(rows), 1)), rows]).astype(kind).tobytes()

    begin = matrices_start(data)
    matrices = np.frombuffer(data, "<f8", 11 * len(old.overlap), begin).reshape(11, -1)
    end = begin + matrices.nbytes
    numbers = np.frombuffer(data, "<f8", 10, end + 4).copy()
    numbers[8] *= copies
    text = supercell_input(old.input_text, copies)
    counts = np.bincount(old.pairs[:, 3])
    with target.open("wb") as stream:
        stream.write(struct.pack("<7i", num_atoms * copies, 12, 0, 0, 0, len(cells) - 1, 1))
        stream.write(padded(cells @ lattice, "<f8") + padded(cells, "<i4"))
        stream.write(np.tile(old.num_orbitals, copies).astype("<i4").tobytes())
        stream.write(np.tile(counts - 1, copies).astype("<i4").tobytes())
        stream.write(neighbours.astype("<i4").tobytes() + cell_number.astype("<i4").tobytes())
        stream.write(padded(lattice, "<f8") + padded(2 * np.pi * np.linalg.inv(lattice).T, "<f8"))
        stream.write(padded(positions, "<f8"))
        for matrix in matrices:
            stream.write(np.tile(matrix, copies).tobytes())
        stream.write(data[end : end + 4] + numbers.tobytes() + struct.pack("<i", len(text)))
        stream.writelines(line.encode().ljust(RECORD, b"\0") for line in text)


def supercell_input(text: str, copies: int) -> list[str]:
    """The input's lines with the table of atoms repeated; its coordinates are not used by readers."""
    lines = text.splitlines(keepends=True)
    begin, end = (
        next(number for number, line in enumerate(lines) if line.startswith(mark))
        for mark in ("<Atoms.SpeciesAndCoordinates", "Atoms.SpeciesAndCoordinates>")
    )
    return lines[: begin + 1] + lines[begin + 1 : end] * copies + lines[end:]


if __name__ == "__main__":
    main()
