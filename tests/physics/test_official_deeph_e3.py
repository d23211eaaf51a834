"""Imported models of the official DeepH-E3 program predict what that program predicted.

tests/data/deeph_e3/README.md tells how the models and predictions were made: one and two elements, trunks of natural
and of both parities, spin-orbit, and for each a training under e3nn 0.3.5 and one under 0.6.0. With
--log-cli-level=info each test tells how large the differences are.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deeph_tracegrad.deeph_e3.folder import read_model
from deeph_tracegrad.deeph_e3.importer import as_checkpoint
from deeph_tracegrad.deeph_legacy import read_deeph_legacy
from deeph_tracegrad.inference.predict import predict_material
from deeph_tracegrad.orbitals import OrbitalConvention

LOG = logging.getLogger(__name__)
LARGEST_ERROR = {"float64": 1e-10, "float32": 1e-4}  # eV; H is of the order of 1 to 10 eV


@pytest.mark.parametrize(
    ("model", "precision", "structure"),
    [
        ("graphene_e3nn035", "float64", "gr2_dist"),
        ("graphene_e3nn035", "float64", "p3_00_cut"),
        ("graphene_e3nn035", "float32", "gr2_dist"),  # trained in double precision, run in single
        ("graphene_e3nn060", "float64", "gr2_dist"),
        ("mos2_e3nn035", "float64", "mos2_dist"),
        ("mos2_e3nn060", "float32", "mos2_dist"),
        ("soc_e3nn035", "float64", "bi2_dist"),
        ("soc_e3nn060", "float32", "bi2_dist"),
    ],
)
def test_prediction_is_the_official_programs(
    unpacked: Callable[[str], Path], model: str, precision: str, structure: str
) -> None:
    data = unpacked("deeph_e3")
    checkpoint = as_checkpoint(read_model(data / "models" / model))
    training = checkpoint.config.training.model_copy(update={"dtype": precision})
    checkpoint = replace(checkpoint, config=checkpoint.config.model_copy(update={"training": training}))
    network = checkpoint.network(torch.device("cpu"))
    predicted = predict_material(read_deeph_legacy(data / "inputs" / structure), checkpoint, network)
    orders = [
        basis.order(OrbitalConvention.DEEPH, OrbitalConvention.OPENMX).repeated(predicted.spin.components)
        for basis in predicted.basis.bases
    ]
    ours = predicted.hamiltonian[0].reordered(orders, predicted.basis.species(predicted.elements))
    with h5py.File(data / "predictions" / model / precision / f"{structure}.h5") as file:
        official = {name: file[name][:] for name in file}
    names = [str(pair) for pair in (ours.pairs + np.array([0, 0, 0, 1, 1])).tolist()]
    assert sorted(names) == sorted(official)
    errors = [np.abs(ours.block(place) - official[name]).max() for place, name in enumerate(names)]
    largest = max(np.abs(block).max() for block in official.values())
    LOG.info("largest difference %.1e eV, largest element %.1f eV", max(errors), largest)
    assert max(errors) < LARGEST_ERROR[precision]
