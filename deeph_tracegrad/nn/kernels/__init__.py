"""Compiled kernels for CPUs, built on demand; without a compiler the torch code beside each call does the same."""
