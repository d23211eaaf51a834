"""Two-centre integrals between numerical atomic orbitals: overlaps without a DFT run."""
