"""Compiled kernels for CPUs, built on demand; where there is no compiler, the torch code beside each call does the same."""
