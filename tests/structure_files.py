"""Small structures for tests, and how files have them."""

from pymatgen.core import Lattice, Structure

# elements not grouped, atoms outside the cell
MIXED = Structure(
    Lattice([[5, 0, 0], [1, 6, 0], [0.5, 0.3, 7]]),
    ["S", "Mo", "S", "C"],
    [[0, 0, 0], [0.3, 0.2, 0.1], [-0.4, 1.7, 0.5], [0.8, 0.8, 0.8]],
)

XYZ = """3
Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 pbc="T T T"
Fe1 0.0 0.0 0.0
C_up 6.0 -1.0 1.0
D 2.0 2.0 2.0
"""
XSF = """# a slab
SLAB
PRIMVEC
5 0 0
0 5 0
0 0 5
PRIMCOORD
2 1
26 0.0 0.0 0.0 0.1 0.1 0.1
C_up 6.0 -1.0 1.0
BEGIN_BLOCK_DATAGRID_3D
"""
