"""The real OpenMX runs among the test fixtures, as benchmarks read them."""

import lzma
import tempfile
from pathlib import Path

from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.runs import read_material

FIXTURES = Path(__file__).parents[1] / "tests" / "data" / "openmx"


def read_fixture(case: str) -> Material:
    """The run of this name; the files are packed in the repository."""
    with tempfile.TemporaryDirectory() as folder:
        for packed in (FIXTURES / case).glob("openmx.*.xz"):
            (Path(folder) / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
        return read_material(Path(folder))
