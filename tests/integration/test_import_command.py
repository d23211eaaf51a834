"""import-deeph-e3 through the command: what it writes, and every kind of folder that it refuses."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deeph_tracegrad.orbitals import OrbitalConvention
from deeph_tracegrad.training.checkpoint import load_checkpoint

Command = Callable[..., int]
Unpack = Callable[[str], Path]

CALL = "src/build_model.py"
DATASET = "src/dataset_info.json"
TARGETS = "src/target_blocks.json"
SETTINGS = "src/train.ini"
WEIGHTS = "best_model.pkl"


@pytest.fixture
def model(unpacked: Unpack, tmp_path: Path) -> Path:
    """A model of graphene, to be changed."""
    return Path(shutil.copytree(unpacked("deeph_e3") / "models" / "graphene_e3nn060", tmp_path / "model"))


def test_predicts_what_the_official_program_predicted(
    command: Command, unpacked: Unpack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, checkpoint = unpacked("deeph_e3"), tmp_path / "model.pt"
    assert command("import-deeph-e3", data / "models" / "graphene_e3nn035", "--out", checkpoint) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{checkpoint}: C s2p2d1, spin none; 106336 weights in float64, model ")
    assert said.endswith("graphene_e3nn035 with the conventions of e3nn 0.3\n")

    assert command("inspect", checkpoint) == 0
    shown = capsys.readouterr().out
    assert "3 blocks of 8x0e+4x1o+4x2e+2x3o+2x4e, no TraceGrad" in shown
    assert "imported from DeepH-E3" in shown

    assert command("predict", checkpoint, data / "inputs" / "gr2_dist", "--out", tmp_path / "predicted") == 0
    with h5py.File(tmp_path / "predicted" / "gr2_dist" / "hamiltonian_pred.h5") as file:
        pairs, blocks = file["atom_pairs"][:], file["entries"][:].reshape(-1, 13, 13)
    order = load_checkpoint(checkpoint).basis["C"].order(OrbitalConvention.DEEPH, OrbitalConvention.OPENMX).index
    with h5py.File(data / "predictions" / "graphene_e3nn035" / "float64" / "gr2_dist.h5") as file:
        assert len(file) == len(pairs)
        official = np.array([file[str(pair)][:] for pair in (pairs + np.array([0, 0, 0, 1, 1])).tolist()])
    assert np.abs(blocks[:, order[:, None], order] - official).max() < 1e-10


def test_is_evaluated_like_a_checkpoint_of_train(
    command: Command, unpacked: Unpack, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, checkpoint = tmp_path / "dataset", tmp_path / "model.pt"
    assert command("import-deeph-e3", model, "--out", checkpoint) == 0
    assert command("preprocess", unpacked("openmx") / "graphene", "--out", dataset, "--workers", 1) == 0
    assert command("evaluate", checkpoint, dataset) == 0
    assert "MAE in meV, C (rows) to C (columns), all samples" in capsys.readouterr().out


def edited(pattern: str, replacement: str) -> Callable[[str], str]:
    """A change of a text file, which must change something."""

    def edit(text: str) -> str:
        changed = re.sub(pattern, replacement, text, count=1)
        assert changed != text
        return changed

    return edit


def targets(change: Callable[[list[dict[str, list[int]]]], object]) -> Callable[[str], str]:
    """A change of the list of targets."""

    def edit(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit


TWO_ELEMENTS = '{"spinful": false, "index_to_Z": [6, 7], "orbital_types": [[0, 0, 1, 1, 2], [0]]}'


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (CALL, edited("use_sbf=False", "use_sbf=True"), r"use_sbf is True: it uses a spherical Bessel basis"),
        (CALL, edited("no_parity=False", "no_parity=True"), r"trained with ignore_parity, which .* does not support"),
        (CALL, edited("only_ij=False", "only_ij=True"), r"takes each edge in one direction only"),
        (CALL, edited("use_sc=True", "use_sc=False"), r"has no self-connections"),
        (CALL, edited("irreps=False", "irreps=True"), r"sorts the irreps of its layers"),
        (CALL, edited("use_sc=True", "use_sc=True, selftp=True"), r"has the unknown argument selftp"),
        (CALL, edited(r"r_max=7\.2,", ""), r"lacks argument r_max"),
        (CALL, edited(r"r_max=7\.2", "r_max=-7.2"), r"r_max should be a length in Å, not -7\.2"),
        (CALL, edited(r"r_max=7\.2", "r_max=1e999"), r"r_max should be a length in Å, not inf"),
        (CALL, edited(r"r_max=7\.2", "r_max=6.0"), r"basis\.offsets are not on an even grid from 0 to 6 Å"),
        (CALL, edited(r"r_max=7\.2", "r_max=float('7.2')"), r"no plain text, number, True or False"),
        (CALL, edited("num_block=3", "num_block=True"), r"num_block should be a positive integer, not True"),
        (CALL, edited("num_block=3", "num_block=2"), r"edge_update_blocks\.1\.\S+ has the shape|there is a tensor"),
        (CALL, edited("num_block=3", "num_block=4"), r"there is no tensor|has the shape"),
        (CALL, edited("num_species=1", "num_species=2"), r"num_species is 2, but src/dataset_info\.json lists C"),
        (CALL, edited(r"sh='1x0e\+1x1o", "sh='2x0e+2x1o"), r"irreps_sh should be one harmonic of each degree"),
        (CALL, edited(r"init='8x0e'", "init='8x0o'"), r"irreps_edge_init should be scalars such as 64x0e, not 8x0o"),
        (CALL, edited(r"mid_node='8x0e", "mid_node=['8x0e"), r"is no Python file"),
        (CALL, edited(r"mid_node='8x0e", "mid_node='8x0e+x"), r"irreps_mid_node: .* is no list of irreps"),
        (CALL, edited(r"mid_node='8x0e\+4x1o", "mid_node='8x0e+4x1o+8x0e"), r"should list each irrep once"),
        (CALL, edited(r"mid_node='8x0e\+4x1o", "mid_node='8x0e+5x1o"), r"has the shape"),
        (CALL, edited(r"post_node='8x0e", "post_node='4x1e+8x0e"), r"there is no tensor|has the shape"),
        (CALL, edited(r"post_edge='9x0e", "post_edge='8x0e"), r"irreps_post_edge is .*; supported is 9x0e"),
        (CALL, edited(r"out_edge='1x0e", "out_edge='1x1e"), r"irreps_out_edge is not what the blocks .* need"),
        (CALL, edited("from", "import os\nos.abort()\nfrom"), r"is not the one call of Net"),
        (CALL, edited("Net\\(\n", "Net(1,\n"), r"is not the one call of Net"),
        (CALL, edited("[^¤]+", "(" * 5000), r"is no Python file"),
        (DATASET, edited("false", "true"), r"irreps_out_edge is not what the blocks"),
        (DATASET, edited("false", "0"), r"spinful should be true or false, not 0"),
        (DATASET, edited('"spinful": false, ', ""), r"spinful is missing"),
        (DATASET, edited("[^¤]+", TWO_ELEMENTS), r"num_species is 1, but src/dataset_info\.json lists C, N"),
        (DATASET, edited(r"\[6\]", "[7]"), r"the target \{'6 6': \[0, 0\]\} is not one shell pair"),
        (DATASET, edited(r"\[6\]", "[6, 6]"), r"index_to_Z should list each element once"),
        (DATASET, edited(r"\[6\]", "[119]"), r"index_to_Z should be a list of atomic numbers"),
        (DATASET, edited(r"\[6\]", "[5, 6]"), r"a list of shells for each of the 2 elements"),
        (DATASET, edited("0, 0, 1, 1, 2", "0, 0, 1, 2, 1"), r"C: shells must be a non-empty ascending list"),
        (DATASET, edited("0, 0, 1, 1, 2", "0, 0, 1, 1, 5"), r"go beyond the supported degrees"),
        (DATASET, edited("0, 0, 1, 1, 2", "0, 0, 1, 1"), r"the target .* is not one shell pair"),
        (TARGETS, targets(lambda blocks: blocks.pop()), r"only a part of H: 1 blocks .* pair 6 6 and shells \[4, 4\]"),
        (TARGETS, targets(lambda blocks: blocks.append(blocks[0])), r"the target .* is not one shell pair"),
        (TARGETS, targets(lambda blocks: blocks.reverse()), r"irreps_out_edge is not what the blocks"),
        (TARGETS, edited(r"\[0, 0\]", "[0]"), r"a target should be like"),
        (TARGETS, edited("[^¤]+", "{}"), r"should be a list of targets"),
        (TARGETS, edited("[^¤]+", "[" * 100_000), r"is not valid JSON"),
        (
            SETTINGS,
            edited("double", "float"),
            r"the weights are in torch\.float64, but src/train\.ini says torch\.float32",
        ),
        (SETTINGS, edited("double", "half"), r"dtype should be float or double, not 'half'"),
        (SETTINGS, edited(r"\[data\]", "[target]\ntarget = phiVdphi\n[data]"), r"the model predicts 'phiVdphi'"),
        (SETTINGS, edited(r"\[basic\]", ""), r"is no ini file"),
    ],
)
def test_unknown_models_are_refused(
    command: Command,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    edit: Callable[[str], str],
    message: str,
) -> None:
    path = model / file
    path.write_text(edit(path.read_text()))
    assert_refused(command, model, capsys, message)


@pytest.mark.parametrize("file", [CALL, DATASET, TARGETS, SETTINGS, WEIGHTS])
def test_missing_files_are_named(command: Command, model: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    (model / file).unlink()
    assert_refused(command, model, capsys, re.escape(str(model / file)) + ": the file is missing")


@pytest.mark.parametrize("folder", ["model/best_model.pkl", "nowhere"])
def test_what_is_no_folder_is_refused(
    command: Command, model: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    assert command("import-deeph-e3", model.parent / folder, "--out", model.parent / "model.pt") == 2
    assert f"{folder}: should be the folder of a model" in capsys.readouterr().err


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": Bomb()}, "something other than tensors, numbers and text, which might run code"),
        ({"epoch": 1, "val_loss": 0.5}, "no checkpoint of DeepH-E3: there is no state_dict in it"),
        ([1, 2], "no checkpoint of DeepH-E3"),
        ({"epoch": 1, "val_loss": 0.5, "state_dict": {"weight": 1.0}}, "does not hold named tensors only"),
        ({"epoch": 1, "val_loss": 0.5, "state_dict": {0: torch.ones(1)}}, "does not hold named tensors only"),
        ({"epoch": "1", "val_loss": 0.5, "state_dict": {}}, "epoch and val_loss should be numbers"),
        ({"epoch": 1, "val_loss": 0.5, "state_dict": {}}, "no coupling tables"),
    ],
)
def test_foreign_checkpoints_are_refused(
    command: Command,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: object,
    message: str,
) -> None:
    monkeypatch.chdir(model.parent)
    torch.save(content, model / WEIGHTS)
    assert_refused(command, model, capsys, message)
    assert not (model.parent / "exploded").exists()


def test_files_that_are_no_archive_are_refused(
    command: Command, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}}, model / WEIGHTS, _use_new_zipfile_serialization=False)  # as before torch 1.6
    assert_refused(command, model, capsys, "no checkpoint of torch 1.6 or newer, or a damaged one")


@pytest.mark.parametrize(
    ("name", "message"), [("model.pkl", "should end in .pt"), ("there.pt", "exists; give another")]
)
def test_outputs_that_are_refused(
    command: Command, model: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (model.parent / "there.pt").touch()
    assert command("import-deeph-e3", model, "--out", model.parent / name) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in model.parent.iterdir()) == ["model", "there.pt"]


def assert_refused(command: Command, model: Path, capsys: pytest.CaptureFixture[str], message: str) -> None:
    """The command ends with 2 and one line that names a file of the model, and leaves nothing behind."""
    assert command("import-deeph-e3", model, "--out", model.parent / "model.pt") == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed)
    assert printed.startswith(f"error: {model}")
    assert printed.count("\n") == 1
    assert [path.name for path in model.parent.iterdir()] == ["model"]
