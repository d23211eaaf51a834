import re

import numpy as np
import pytest

from abacus_layout import BI_CELL, SI2_CELL, keep_cells, newer_layout, older_layout, read_blocks
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.csr import read_csr, sections

TINY = older_layout(
    "H",
    3,
    {
        ("0", "0", "0"): [["1.5e+00", "-2.0e+00", "3.0e+00"], ["0", "2", "2"], ["0", "2", "2", "3"]],
        ("-1", "0", "0"): [["4.0e+00"], ["1"], ["0", "1", "1", "1"]],
        ("1", "0", "0"): [["4.0e+00"], ["0"], ["0", "0", "1", "1"]],
        ("0", "1", "0"): [],
        ("0", "-1", "0"): [],
    },
)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "data-HR-sparse_SPIN0.csr"
    path.write_text(TINY)
    return path


def dense(matrix) -> dict[tuple[int, ...], np.ndarray]:
    cells = {}
    for place, cell in enumerate(matrix.cells.tolist()):
        block = np.zeros((matrix.header.dimension, matrix.header.dimension), dtype=matrix.values.dtype)
        own = matrix.cell == place
        block[matrix.row[own], matrix.column[own]] = matrix.values[own]
        cells[tuple(cell)] = block
    return cells


def assert_same(one, other):
    one, other = dense(one), dense(other)
    assert one.keys() == other.keys()
    for cell, block in one.items():
        np.testing.assert_array_equal(block, other[cell])


def test_entries_stand_where_the_row_pointers_put_them(tiny):
    cells = dense(read_csr(tiny, "H"))
    np.testing.assert_array_equal(cells[0, 0, 0], [[1.5, 0, -2], [0, 0, 0], [0, 0, 3]])
    np.testing.assert_array_equal(cells[-1, 0, 0], [[0, 4, 0], [0, 0, 0], [0, 0, 0]])
    assert set(cells) == {(0, 0, 0), (-1, 0, 0), (1, 0, 0)}


def test_blocks_hold_every_pair_with_an_entry_and_zeros_where_it_has_none(tiny):
    blocks = read_csr(tiny, "H").to_blocks(np.array([1, 2]))
    found = {tuple(pair): blocks.block(place).tolist() for place, pair in enumerate(blocks.pairs.tolist())}
    assert found == {
        (0, 0, 0, 0, 0): [[1.5]],
        (0, 0, 0, 0, 1): [[0, -2]],
        (0, 0, 0, 1, 1): [[0, 0], [0, 3]],
        (-1, 0, 0, 0, 1): [[4, 0]],
        (1, 0, 0, 1, 0): [[4], [0]],
    }


def test_the_step_line_of_early_versions_may_be_missing(tiny):
    whole = read_csr(tiny, "H")
    tiny.write_text(TINY.removeprefix("STEP: 0\n"))
    assert_same(read_csr(tiny, "H"), whole)


def test_line_breaks_do_not_matter(tiny):
    whole = read_csr(tiny, "H")
    head, body = TINY.split("(R): 5\n")
    tiny.write_text(f"{head}(R): 5\n" + re.sub(r"\s+", "\n", body))
    assert_same(read_csr(tiny, "H"), whole)


def test_of_several_steps_the_last_is_read(tiny):
    whole = read_csr(tiny, "H")
    tiny.write_text(TINY.replace("4.0e+00", "5.0e+00") + TINY)
    assert len(sections(tiny, "H")) == 2
    assert_same(read_csr(tiny, "H"), whole)


@pytest.mark.parametrize("empty", ["written", "left out"])
@pytest.mark.parametrize("case", [("si2", "HR", SI2_CELL), ("si2", "SR", SI2_CELL), ("bi_soc", "SR", BI_CELL)])
def test_the_newer_layout_gives_the_same_matrix(unpacked, tmp_path, case, empty):
    run, matrix, cell = case
    older = unpacked(f"abacus/{run}") / "OUT.ABACUS" / f"data-{matrix}-sparse_SPIN0.csr"
    newer = tmp_path / "newer.csr"
    newer.write_text(newer_layout(*read_blocks(older), cell, empty=empty))
    expected, found = read_csr(older, matrix[0]), read_csr(newer, matrix[0])
    assert "Direct" in found.header.structure
    assert_same(found, expected)


def test_spaces_within_complex_numbers_do_not_matter(unpacked, tmp_path):
    older = unpacked("abacus/bi_soc") / "OUT.ABACUS" / "data-SR-sparse_SPIN0.csr"
    spaced = tmp_path / "spaced.csr"
    head, body = older.read_text().split("S(R): 19\n")
    spaced.write_text(f"{head}S(R): 19\n" + body.replace("(", "( ").replace(",", " , ").replace(")", " )"))
    assert_same(read_csr(spaced, "S"), read_csr(older, "S"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("H(R): 3", "H(R): 4", "damaged or cut short"),
        ("number of H(R): 5", "number of H(R): 6", "6 cells are announced and 5 found"),
        ("number of H(R): 5", "number of H(R): 4", "4 cells are announced"),
        ("1 0 0 1\n", "1 0 1 1\n", "-R is not"),
        ("\n0 1 0 0\n", "\n0 -1 0 0\n", "occurs twice"),
        ("-1 0 0 1\n", "-1 0 0 2\n", "damaged"),
        ("0 0 0 3\n", "0 0 0 99\n", "99 entries"),
        ("-1 0 0 1\n", "-99999999999999999999 0 0 1\n", "a block begins with"),
        (" 0 2 2\n", " 2 0 2\n", "do not ascend"),
        (" 0 2 2\n", " 0 3 2\n", "reach beyond 3"),
        (" 0 2 2 3\n", " 0 2 1 3\n", "row pointers"),
        (" 0 2 2 3\n", " 0 2 2 2\n", "row pointers"),
        (" 0 2 2 3\n", " 1 2 2 3\n", "row pointers"),
        ("1.5e+00", "1.5e+0o", "unexpected character"),
        ("Matrix number", "Matrix numer", "no complete header"),
        ("Matrix Dimension of H", "Matrix Dimension of S", "holds the matrix S"),
        ("H(R): 3", "H(R): 3333333333", "impossible size"),
        ("Matrix Dimension", "Matrix dimension", "is no CSR file"),
    ],
)
def test_damage_is_told(tiny, old, new, reason):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new, 1))
    with pytest.raises(ReadError, match=re.escape(reason)) as caught:
        read_csr(tiny, "H")
    assert caught.value.path == tiny


def test_a_newer_file_that_lost_its_last_blocks_is_noticed(unpacked, tmp_path):
    matrix, dimension, blocks = read_blocks(unpacked("abacus/si2") / "OUT.ABACUS" / "data-HR-sparse_SPIN0.csr")
    kept = keep_cells(blocks, [("0", "0", "0"), ("-1", "0", "0"), ("1", "0", "0")])
    path = tmp_path / "hrs1_nao.csr"
    text = newer_layout(matrix, dimension, kept, SI2_CELL)
    path.write_text(text[: text.rindex(" 1 0 0 ")])
    with pytest.raises(ReadError, match="-R is not"):
        read_csr(path, "H")


def test_a_gamma_only_matrix_is_refused(unpacked, tmp_path):
    blocks = read_blocks(unpacked("abacus/si2") / "OUT.ABACUS" / "data-HR-sparse_SPIN0.csr")
    path = tmp_path / "hrs1_nao.csr"
    path.write_text(newer_layout(*blocks, SI2_CELL + "# representation: gamma-only folded matrix\n"))
    with pytest.raises(ReadError, match="gamma_only 0"):
        read_csr(path, "H")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ReadError, match="No such file"):
        read_csr(tmp_path / "none.csr", "H")
