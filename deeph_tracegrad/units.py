"""The only unit constants. Inside the project energies are in eV and lengths in Å; parsers convert.

The DFT codes carry their own values of the constants, and bands are only reproduced to the last digit with those,
so each parser uses its code's and writes which into the provenance.
"""

# OpenMX 3.9 (and the legacy DeepH tools)
OPENMX_HARTREE_EV = 27.2113845
OPENMX_BOHR_ANGSTROM = 0.529177249

# ABACUS
ABACUS_RYDBERG_EV = 13.605698
ABACUS_BOHR_ANGSTROM = 0.529177

# SIESTA up to 4.1
SIESTA_RYDBERG_EV = 13.60580
SIESTA_BOHR_ANGSTROM = 0.529177
