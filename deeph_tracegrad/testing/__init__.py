"""Checks that anyone can run on a model or a dataset. Each measures how far something is off, none says yes or no.

    print(check_model(checkpoint_model(load_checkpoint("run/best.pt")), material))  # from inference.predict
    print(check_dataset(GraphDataset("dataset")))

A model is any function from a material with an overlap to that material with a Hamiltonian.
"""

from deeph_tracegrad.testing.changes import (
    in_lattice_vectors,
    random_rotation,
    repeated,
    transformed,
    transformed_matrix,
    with_atoms_in_order,
    with_atoms_in_other_cells,
)
from deeph_tracegrad.testing.datasets import check_dataset, check_sample
from deeph_tracegrad.testing.models import (
    Change,
    Model,
    check_model,
    cutoff_jump,
    equivariance,
    network_model,
)
from deeph_tracegrad.testing.report import Report, Result, hermiticity, largest_difference

__all__ = [
    "Change",
    "Model",
    "Report",
    "Result",
    "check_dataset",
    "check_model",
    "check_sample",
    "cutoff_jump",
    "equivariance",
    "hermiticity",
    "in_lattice_vectors",
    "largest_difference",
    "network_model",
    "random_rotation",
    "repeated",
    "transformed",
    "transformed_matrix",
    "with_atoms_in_order",
    "with_atoms_in_other_cells",
]
