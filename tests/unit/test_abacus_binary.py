"""Binary matrices of `out_hsr 2` and of earlier versions: the same numbers as the text that ABACUS wrote."""

import struct

import numpy as np
import pytest

from abacus_writer import binary, dense, older_text
from damage import cut, flipped, outcome
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.csr import read_csr, read_position_csr, sections
from deeph_tracegrad.preprocess.abacus.reader import read_abacus

# Row pointers of 4 bytes came with none for empty cells; of 8 bytes first without, now with.
LAYOUTS = [("<i4", False), ("<i8", False), ("<i8", True)]


@pytest.fixture(params=["si2", "bi_soc"])
def overlap_file(request, unpacked):
    """S of a run, real or complex; a third of its cells are empty."""
    return unpacked(f"abacus/{request.param}") / "OUT.ABACUS" / "data-SR-sparse_SPIN0.csr"


def assert_same(found, expected):
    assert found.header.dimension == expected.header.dimension
    order = np.lexsort(expected.cells.T[::-1])
    np.testing.assert_array_equal(found.cells, expected.cells[order])
    for name in ("row", "column", "values"):
        own = [getattr(expected, name)[expected.cell == cell] for cell in order]
        np.testing.assert_array_equal(getattr(found, name), np.concatenate(own))


@pytest.mark.parametrize(("pointer", "empty_pointers"), LAYOUTS)
def test_every_layout_gives_the_numbers_of_the_text(overlap_file, tmp_path, pointer, empty_pointers):
    path = tmp_path / "sr_nao.dat"
    path.write_bytes(binary(dense(overlap_file), pointer=pointer, empty_pointers=empty_pointers))
    assert_same(read_csr(path, "S"), read_csr(overlap_file, "S"))


@pytest.mark.parametrize(("pointer", "empty_pointers"), LAYOUTS)
def test_steps_one_after_the_other(unpacked, tmp_path, pointer, empty_pointers):
    matrix = dense(unpacked("abacus/si2") / "OUT.ABACUS" / "data-HR-sparse_SPIN0.csr")
    path = tmp_path / "hrs1_nao.dat"
    steps = [{cell: (step + 1) * array for cell, array in matrix.items()} for step in range(3)]
    parts = [binary(own, 2 * step, pointer=pointer, empty_pointers=empty_pointers) for step, own in enumerate(steps)]
    path.write_bytes(b"".join(parts))
    assert [section.step for section in sections(path, "H")] == [0, 2, 4]
    once = read_csr(path, "H", 0)
    for step in range(3):
        np.testing.assert_allclose(read_csr(path, "H", 2 * step).values, (step + 1) * once.values, rtol=1e-14)
    np.testing.assert_array_equal(read_csr(path, "H").values, read_csr(path, "H", 4).values)
    with pytest.raises(ReadError, match="does not hold step 1"):
        read_csr(path, "H", 1)


def test_a_step_that_was_cut_short_costs_no_other(unpacked, tmp_path):
    matrix = dense(unpacked("abacus/si2") / "OUT.ABACUS" / "data-HR-sparse_SPIN0.csr")
    path = tmp_path / "hrs1_nao.dat"
    path.write_bytes(binary(matrix, 0) + binary(matrix, 1)[:-100])
    assert read_csr(path, "H", 0).values.size
    with pytest.raises(ReadError, match="cut short"):
        read_csr(path, "H", 1)


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("si2", ("hrs1_nao.dat", "sr_nao.dat")),
        ("bi_soc", ("hrs1g1_nao.dat", "srg1_nao.dat")),
        ("fe_nspin2", ("hrs1_nao.dat", "hrs2_nao.dat", "sr_nao.dat")),
        ("si2", ("data-HR-sparse_SPIN0.csr", "data-SR-sparse_SPIN0.csr")),
    ],
)
def test_a_run_with_binary_matrices(unpacked, copy_of, case, names):
    run = copy_of(f"abacus/{case}")
    output = run / "OUT.ABACUS"
    for old, new in zip(sorted(output.glob("data-*.csr")), names, strict=True):
        content = binary(dense(old))
        old.unlink()
        (output / new).write_bytes(content)
    found, expected = read_abacus(run), read_abacus(unpacked(f"abacus/{case}"))
    for own, its in zip((found.overlap, *found.hamiltonian), (expected.overlap, *expected.hamiltonian), strict=True):
        # of numbers below 1e-14 the text is read to the last bit but one
        np.testing.assert_allclose(own.on_pairs(its.pairs).entries, its.entries, rtol=0, atol=1e-27)
    np.testing.assert_array_equal(found.structure.cart_coords, expected.structure.cart_coords)

    with (run / "INPUT").open("a") as file:
        file.write("gamma_only 1\n")
    with pytest.raises(ReadError, match="folded to the Γ point"):
        read_abacus(run)


def test_matrices_as_archives_are_refused_with_advice(copy_of):
    run = copy_of("abacus/si2")
    for path in (run / "OUT.ABACUS").glob("data-*.csr"):
        path.unlink()
    (run / "OUT.ABACUS" / "sr_nao.npz").write_bytes(b"PK")
    with pytest.raises(ReadError, match=r"as \.npz, which is not read; run ABACUS with out_hsr 1 or 2"):
        read_abacus(run)


def position(seed: int) -> dict:
    """r(R) of two cells and their partners, of which one has no z."""
    rng = np.random.default_rng(seed)
    cells = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 2, -1), (0, -2, 1)]
    matrix = {cell: rng.normal(size=(3, 4, 4)) for cell in cells}
    matrix[1, 0, 0][2] = 0
    return matrix


@pytest.mark.parametrize(("pointer", "empty_pointers"), LAYOUTS)
def test_the_three_components_of_the_position(tmp_path, pointer, empty_pointers):
    path = tmp_path / "rr.csr"
    matrix = position(0)
    path.write_bytes(binary(matrix, pointer=pointer, empty_pointers=empty_pointers))
    found = read_position_csr(path)
    for axis, component in enumerate(found):
        array = {cell: np.zeros((4, 4)) for cell in matrix}
        for place, row, column, value in zip(
            component.cell, component.row, component.column, component.values, strict=True
        ):
            array[tuple(component.cells[place].tolist())][row, column] = value
        for cell, expected in matrix.items():
            np.testing.assert_array_equal(array[cell], expected[axis])


def damaged(content: bytes, place: int, number: int) -> bytes:
    return content[:place] + struct.pack("<i", number) + content[place + 4 :]


@pytest.mark.parametrize(
    ("place", "number", "reason"),
    [
        (0, -1, "announces step -1"),
        (4, 5, "damaged"),
        (4, 0, "0 rows"),
        (8, 6, "damaged or cut short"),
        (8, 4, "4 cells are announced|damaged"),
        (12, 20_000, "a block begins with R = "),
        (24, 17, "17 entries"),
        (28 + 16 * 8, 7, "reach beyond 4"),
        (28 + 16 * 12, 1, "row pointers"),
    ],
)
def test_damage_is_told(tmp_path, place, number, reason):
    path = tmp_path / "hrs1_nao.dat"
    whole = binary({cell: arrays[0] for cell, arrays in position(0).items()})
    path.write_bytes(whole)
    read_csr(path, "H")
    path.write_bytes(damaged(whole, place, number))
    with pytest.raises(ReadError, match=reason) as caught:
        read_csr(path, "H")
    assert caught.value.path == path


def test_an_empty_file_is_told(tmp_path):
    path = tmp_path / "hrs1_nao.dat"
    path.touch()
    with pytest.raises(ReadError, match="is empty"):
        read_csr(path, "H")


@pytest.mark.parametrize("kind", ["binary", "text"])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_files_are_refused_or_still_make_sense(tmp_path, kind, damage):
    path = tmp_path / "hrs1_nao.dat"
    steps = [{cell: arrays[axis] for cell, arrays in position(axis).items()} for axis in range(2)]
    whole = [
        binary(own, step) if kind == "binary" else older_text("H", own, step).encode() for step, own in enumerate(steps)
    ]
    path.write_bytes(b"".join(whole))
    expected = read_csr(path, "H")
    for content in damage(b"".join(whole), seed=3):
        path.write_bytes(content)
        found = outcome(lambda own: read_csr(own, "H"), path)
        if found is not None:
            assert np.isfinite(found.values).all()
            assert found.values.shape == found.row.shape == found.column.shape
            assert found.header.dimension == expected.header.dimension or damage is flipped


@pytest.mark.parametrize("kind", ["binary", "text"])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_position_files(tmp_path, kind, damage):
    from abacus_writer import position_text

    path = tmp_path / "rr.csr"
    whole = binary(position(0)) if kind == "binary" else position_text(position(0)).encode()
    path.write_bytes(whole)
    assert len(read_position_csr(path)) == 3
    refused = 0
    for content in damage(whole, seed=4):
        path.write_bytes(content)
        found = outcome(read_position_csr, path)
        refused += found is None
        assert found is None or np.isfinite(np.concatenate([own.values for own in found])).all()
    assert refused > 150 or damage is flipped
