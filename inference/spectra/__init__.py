"""What follows from the states of H(R), S(R) beyond bands: densities of states, projections, unfolded spectra."""
