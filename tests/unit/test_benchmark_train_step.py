"""The benchmark of the training step, on a network and crystals so small that it takes seconds."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from _agreement import TOLERANCE, agreement, share_weights
from _e3nn_network import E3nnNetwork
from _e3nn_output import WignerEckart
from _machine import MIB, peak_memory
from _train_sides import Case, Ours, Task, Theirs
from _train_variants import HEADER, measure_variants
from _work import bond_product, forward_work, linear
from e3nn import o3

from deeph_tracegrad.deeph_e3.arguments import read_arguments
from deeph_tracegrad.deeph_e3.folder import read_model
from deeph_tracegrad.deeph_legacy import read_deeph_legacy
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.nn.kernels import library
from deeph_tracegrad.orbitals import OrbitalConvention
from deeph_tracegrad.targets import TargetLayout

TRUNK = "4x0e+3x1o+2x2e"
CASES = {
    "graphene": Case("graphene", (1, 1, 1), TRUNK, TRUNK),
    "mos2": Case("mos2", (1, 1, 1), TRUNK, TRUNK),
    "bismuth": Case("bi_soc", (1, 1, 1), f"{TRUNK}+2x3o+1x4e", f"{TRUNK}+2x3o+1x4e+3x1e"),
}


@pytest.fixture(scope="module")
def graphene() -> tuple[Task, Theirs, Ours]:
    task = Task(CASES["graphene"], torch.float32, torch.device("cpu"))
    theirs, ours = Theirs(task), Ours(task)
    share_weights(theirs, ours)
    return task, theirs, ours


@pytest.mark.parametrize(
    ("name", "precision", "structure", "largest_error"),
    [
        ("graphene_e3nn060", "float64", "gr2_dist", 1e-10),
        ("mos2_e3nn060", "float32", "mos2_dist", 1e-4),
        ("soc_e3nn060", "float32", "bi2_dist", 1e-4),
    ],
)
def test_e3nn_network_predicts_what_the_official_program_did(unpacked, name, precision, structure, largest_error):
    data = unpacked("deeph_e3")
    folder = data / "models" / name
    model = read_model(folder)
    network = E3nnNetwork(**read_arguments(folder / "src" / "build_model.py")._asdict()).double()
    network.load_state_dict(model.state)
    output = WignerEckart([(target.l1, target.l2) for target in model.network.targets], spinor=name.startswith("soc"))
    material = read_deeph_legacy(data / "inputs" / structure)
    graph = build_graph(material, material.overlap.pairs, model.basis)
    with torch.no_grad():
        elements = output(network(graph)).numpy()

    layout = TargetLayout(model.basis, model.spin)
    sizes = [(2 * target.l1 + 1) * (2 * target.l2 + 1) * model.spin.components**2 for target in model.network.targets]
    parts = dict(zip(model.network.targets, np.split(elements, np.cumsum(sizes)[:-1], axis=1), strict=True))
    species = graph.species.numpy()
    (found,) = layout.unpack(np.concatenate([parts[target] for target in layout.targets], 1), graph.pairs, species)
    orders = [
        basis.order(OrbitalConvention.DEEPH, OrbitalConvention.OPENMX).repeated(model.spin.components)
        for basis in model.basis.bases
    ]
    found = found.reordered(orders, species)
    with h5py.File(data / "predictions" / name / precision / f"{structure}.h5") as file:
        assert len(file) == len(found)
        for place, pair in enumerate((found.pairs + np.array([0, 0, 0, 1, 1])).tolist()):
            assert np.abs(found.block(place) - file[str(pair)][:]).max() < largest_error  # eV


@pytest.mark.parametrize("case", CASES)
def test_both_sides_compute_the_same(case):
    task = Task(CASES[case], torch.float64, torch.device("cpu"))
    theirs, ours = Theirs(task), Ours(task)
    share_weights(theirs, ours)
    assert max(agreement(theirs, ours)) < 1e-12
    assert theirs.loss().item() == pytest.approx(ours.loss().item(), rel=1e-12)


def test_a_wrong_weight_is_seen(graphene):
    _, theirs, ours = graphene
    before = ours.network.head.weight.detach().clone()
    ours.network.head.weight.data[0, 0] += 0.1
    assert max(agreement(theirs, ours)) > TOLERANCE[torch.float32]
    ours.network.head.weight.data[:] = before


def test_steps_of_both_sides_lower_the_loss(graphene):
    for side in graphene[1:]:
        before = side.loss().item()
        for _ in range(3):
            side.step()
        assert side.loss().item() < before


def test_variants_on_the_cpu(graphene, monkeypatch):
    monkeypatch.setattr(library, "_library", lambda: None)  # torch alone, as on a GPU
    task, theirs, _ = graphene
    header, plain, half = measure_variants(["float32", "bf16"], task, theirs, rounds=1)
    assert header == HEADER
    assert float(plain.split()[1]) < TOLERANCE[torch.float32] < float(half.split()[1]) < 0.1


def test_work_of_default_network():
    trunk, gated = o3.Irreps("64x0e+32x1o+16x2e+8x3o+8x4e"), o3.Irreps("128x0e+32x1o+16x2e+8x3o+8x4e")
    # channels with l >= m in and out: 384·192, and twice 192·64, 96·32, 48·16, 24·8
    assert bond_product(trunk + trunk + trunk, gated, 4) == 384 * 192 + 2 * (192 * 64 + 96 * 32 + 48 * 16 + 24 * 8)
    # no pair beyond the triangle rule, none at m = 0 where natural meets pseudo
    assert bond_product(o3.Irreps("1x0e"), o3.Irreps("1x2e"), 1) == 0
    assert bond_product(o3.Irreps("2x1o"), o3.Irreps("3x1e"), 1) == 12
    assert linear(trunk, gated) == 64 * 128 + 32**2 * 3 + 16**2 * 5 + 8**2 * 7 + 8**2 * 9


def test_work_grows_with_the_bonds(graphene):
    _, theirs, _ = graphene
    one, two, three = (forward_work(theirs.network, 2, edges) for edges in (10, 20, 30))
    assert one.operations < two.operations
    assert three.operations - two.operations == two.operations - one.operations
    assert three.numbers - two.numbers == two.numbers - one.numbers


def test_peak_memory_is_seen():
    block = 64 * MIB
    found = peak_memory(lambda: torch.ones(block // 8, dtype=torch.float64), torch.device("cpu"))
    assert 60 < found < 80
