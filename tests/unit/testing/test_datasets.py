"""The checks of datasets on real runs, and on samples that are damaged in one way each."""

from dataclasses import replace

import numpy as np
import pytest

from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.testing import check_dataset, check_sample
from materials import random_material


def violated(report, limit=1e-9):
    return {name for name, result in report.items() if not result.value < limit}


def test_a_dataset_holds_what_the_runs_hold(graphene_dataset):
    report = check_dataset(GraphDataset(graphene_dataset), read_material)
    assert len(report) == 9
    assert not violated(report, 1e-12)
    assert "H of the source" not in check_dataset(GraphDataset(graphene_dataset))


def test_a_dataset_is_as_good_as_its_worst_sample(graphene_dataset, monkeypatch):
    def other_energies(path):
        material = read_material(path)
        shift = 0.5 if path.name == "demo_a_01" else 0.0
        (matrix,) = material.hamiltonian
        return material.with_hamiltonian((matrix.with_entries(matrix.entries + shift),))

    report = check_dataset(GraphDataset(graphene_dataset), other_energies)
    assert violated(report) == {"H of the source"}
    assert report["H of the source"].value == pytest.approx(0.5)


@pytest.mark.parametrize("case", ["openmx/bi_soc", "abacus/fe_nspin2", "abacus/bi_soc"])
def test_real_runs_with_spin(unpacked, case):
    material = read_material(unpacked(case))
    report = check_sample(build_sample(material, case), TargetLayout(material.basis, material.spin), material)
    assert not violated(report, 1e-11)


def without_first_bond(sample):
    """The sample without one edge, whose reverse stays."""
    kept = np.delete(np.arange(len(sample.pairs)), len(sample.elements))
    return {"pairs": sample.pairs[kept], "vectors": sample.vectors[kept], "frames": sample.frames[kept], "blocks": None}


def with_last_frame(sample, operation):
    frames = sample.frames.copy()
    frames[-1] = operation @ frames[-1]
    return {"frames": frames, "blocks": None}


def with_last_element(sample):
    blocks = sample.blocks.copy()
    blocks[-1, -1] += 0.25
    return {"blocks": blocks}


DAMAGES = {
    "an edge lost": (without_first_bond, {"edges without reverse"}),
    "an axis doubled": (
        lambda sample: with_last_frame(sample, np.diag([2.0, 1, 1])),
        {"frames orthogonal", "frames right-handed", "frames of reverse edges"},
    ),
    "an axis reversed": (
        lambda sample: with_last_frame(sample, np.diag([-1.0, 1, 1])),
        {"frames right-handed", "frames of reverse edges"},
    ),
    "turned about the bond": (
        lambda sample: with_last_frame(sample, np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])),
        {"frames of reverse edges"},
    ),
    "turned away from the bond": (
        lambda sample: with_last_frame(sample, np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])),
        {"third axis along the bond", "frames of reverse edges"},
    ),
    "an element of H changed": (with_last_element, {"H Hermitian", "H of the source"}),
}


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_found_by_its_check(spin, damage, expected):
    material = random_material(spin)
    layout = TargetLayout(material.basis, spin)
    sample = build_sample(material, "one")
    assert not violated(check_sample(sample, layout, material), 1e-12)
    report = check_sample(replace(sample, **damage(sample)), layout, material)
    assert violated(report) == expected


def test_on_site_frames_are_global():
    material = random_material(SpinMode.NONE)
    sample = build_sample(material, "one")
    frames = sample.frames.copy()
    frames[0] = [[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]
    report = check_sample(replace(sample, frames=frames, blocks=None), TargetLayout(material.basis, material.spin))
    assert violated(report) == {"frames on site are global"}


def test_irreps_that_lose_something(monkeypatch):
    material = random_material(SpinMode.COLLINEAR)
    layout = TargetLayout(material.basis, material.spin)
    monkeypatch.setattr(layout, "to_global", lambda coefficients, frames: coefficients)
    assert violated(check_sample(build_sample(material, "one"), layout, material)) == {"H from its irreps"}
