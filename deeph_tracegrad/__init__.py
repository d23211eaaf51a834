"""From DFT runs to the electronic structure of materials too large for DFT.

Heavy libraries are imported by the modules that need them, never here: the command line starts without torch.
"""

__version__ = "0.1.0"
