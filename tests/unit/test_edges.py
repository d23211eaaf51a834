import numpy as np
import pytest

from deeph_tracegrad.blocks import find_pairs
from deeph_tracegrad.edges import edge_pairs, longest_edges, merged_reach, pairs_within
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.runs import read_material
from materials import random_material


def same_pairs(one, other):
    return len(one) == len(other) and (find_pairs(one, other) >= 0).all()


def test_openmx_edges_are_the_overlaps_and_within_their_own_reach(unpacked):
    material = read_material(unpacked("openmx/mos2"))
    pairs = edge_pairs(material)
    assert same_pairs(pairs, material.overlap.pairs)
    reach = longest_edges(material.elements, pairs, material.pair_vectors(pairs))
    assert set(reach) == {"Mo-Mo", "Mo-S", "S-S"}
    # what a prediction would take from the overlap and the reach of training data
    assert same_pairs(edge_pairs(material.with_hamiltonian(()), reach), pairs)


@pytest.mark.parametrize("case", ["si2", "bi_soc", "fe_nspin2"])
def test_abacus_edges_reach_beyond_the_overlap_and_are_found_again_without_h(unpacked, case):
    material = read_material(unpacked(f"abacus/{case}"))
    pairs = edge_pairs(material)
    assert len(pairs) > len(material.overlap)
    assert (find_pairs(pairs, material.hamiltonian[0].pairs) >= 0).all()
    reach = longest_edges(material.elements, pairs, material.pair_vectors(pairs))
    assert same_pairs(edge_pairs(material.with_hamiltonian(()), reach), pairs)


def test_reach_is_measured_by_element_pair():
    material = random_material(SpinMode.NONE)
    vectors = material.pair_vectors(material.overlap.pairs)
    reach = longest_edges(material.elements, material.overlap.pairs, vectors)
    assert max(reach.values()) == np.linalg.norm(vectors, axis=1).max()
    assert merged_reach(reach, {"Mo-S": 9.0, "C-C": 1.0}) == {**reach, "Mo-S": 9.0, "C-C": 1.0}


def test_pairs_within_keeps_to_each_element_pairs_reach():
    material = random_material(SpinMode.NONE)
    pairs = pairs_within(material.structure, {"Mo-Mo": 3.6, "S-S": 3.0})
    elements = np.array(material.elements)
    kinds = {"-".join(sorted(pair)) for pair in elements[pairs[:, 3:]].tolist()}
    assert kinds == {"Mo-Mo", "S-S"}
    lengths = np.linalg.norm(material.pair_vectors(pairs), axis=1)
    assert lengths[elements[pairs[:, 3]] == "Mo"].max() <= 3.6
