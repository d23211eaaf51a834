"""Files that are no checkpoint, and networks and bases that cannot be: a sentence, exit code 2, nothing written."""

import json
import pickle
import re
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import load_config
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.deeph_legacy import write_deeph_legacy
from deeph_tracegrad.inference.predict import checkpoint_model
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.testing import check_model, equivariance, random_rotation, transformed
from deeph_tracegrad.training.checkpoint import Checkpoint, library_versions, load_checkpoint
from deeph_tracegrad.training.state import TrainingState
from materials import random_material


@pytest.fixture
def good(tiny_training, graphene_dataset):
    """The content of a checkpoint that fits the dataset; it has never been trained."""
    config, dataset = load_config(tiny_training), GraphDataset(graphene_dataset)
    state = TrainingState(config, dataset.basis, dataset.spin, torch.device("cpu"))
    path = tiny_training.with_name("good.pt")
    facts = (dataset.reach, dataset.fingerprint, {"train": dataset.labels}, library_versions(), {})
    Checkpoint(config, dataset.basis, dataset.spin, *facts, state.content()).save(path)
    return path


@pytest.fixture
def refused(command, capfd, tmp_path, monkeypatch):
    """Runs a command that must fail with one line, and leave no file behind; returns the line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        capfd.readouterr()
        assert command(*arguments) == 2
        shown = capfd.readouterr()
        assert sorted(tmp_path.rglob("*")) == before
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        return line.removeprefix("error: ")

    return run


class Trap:
    """Leaves a file where whoever unpickles it works."""

    def __reduce__(self):
        return open, ("witness", "w")


def write_text(path, good):
    path.write_text("epoch 3, loss 0.1\n" * 50)


def write_nothing(path, good):
    path.touch()


def write_noise(path, good):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def write_archive(path, good):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "text")


def write_plain_pickle(path, good):
    path.write_bytes(pickle.dumps({"format": "deeph-tracegrad checkpoint", "trap": Trap()}))


def write_trap(path, good):
    torch.save({"format": "deeph-tracegrad checkpoint", "format_version": 1, "trap": Trap()}, path)


def write_module(path, good):
    torch.save(torch.nn.Linear(2, 2), path)


def write_weights(path, good):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def write_part(path, good):
    path.write_bytes(good.read_bytes()[:-1000])


def write_flipped(path, good):
    content = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        place = content.index(archive.read(largest)) + largest.file_size // 2  # entries are not compressed
    content[place] ^= 1
    path.write_bytes(content)


def write_deeph_e3(path, good):
    names = ("epoch", "val_loss", "state_dict", "optimizer_state_dict", "scheduler_state_dict")
    torch.save(dict.fromkeys(names, 0), path)


def edited(edit):
    def write(path, good):
        content = torch.load(good, weights_only=True)
        edit(content)
        torch.save(content, path)

    return write


FOREIGN = "no checkpoint of deeph-tracegrad"
RUNS_CODE = f"{FOREIGN}: it holds objects that could run code, so it was not loaded"
BAD_FILES = {
    write_text: FOREIGN,
    write_nothing: FOREIGN,
    write_noise: FOREIGN,
    write_archive: f"{FOREIGN}, or a damaged one",
    write_plain_pickle: FOREIGN,
    write_trap: RUNS_CODE,
    write_module: RUNS_CODE,
    write_weights: FOREIGN,
    write_part: "damaged checkpoint of deeph-tracegrad: its end is missing",
    write_flipped: r"damaged checkpoint of deeph-tracegrad: archive/data/\d+ in it does not have its checksum",
    write_deeph_e3: "a model of DeepH-E3, not of deeph-tracegrad; make a checkpoint of it with "
    "deeph-tracegrad import-deeph-e3 FOLDER --out CHECKPOINT",
    edited(lambda content: content.update(format_version=99)): (
        "checkpoint of format version 99; this program reads up to 2: update it"
    ),
    edited(lambda content: content["config"]["model"].update(layers=3)): r"unknown key layers in \[model\]; .*",
    edited(lambda content: content["config"]["model"].update(trunk="4x0e+")): r"model.trunk = '4x0e\+': .*",
    edited(lambda content: content["basis"]["C"].update(shells=[0, 0, 5])): (
        r"shells \[0, 0, 5\] go beyond the supported degrees 0..4 \(s..g\)"
    ),
    edited(lambda content: content.pop("reach")): "damaged checkpoint: KeyError: 'reach'",
}


@pytest.mark.parametrize("name", ["inspect", "predict", "evaluate"])
@pytest.mark.parametrize(("write", "message"), BAD_FILES.items())
def test_a_file_that_is_no_checkpoint(write, message, name, refused, good, unpacked, graphene_dataset):
    bad = good.with_name("best_model.pkl" if write is write_deeph_e3 else "bad.pt")
    write(bad, good)
    line = refused(*with_checkpoint(name, bad, unpacked, graphene_dataset))
    expected = message.replace("FOLDER", re.escape(str(bad.parent)))
    assert re.fullmatch(f"{re.escape(str(bad))}: {expected}", line)


def with_checkpoint(name, checkpoint, unpacked, dataset):
    """The arguments of a command that reads a checkpoint."""
    run = unpacked("openmx") / "demo_a_00"
    rest = {"inspect": [], "predict": [run, "--out", "predicted"], "evaluate": [dataset, "--out", "errors"]}
    return [name, checkpoint, *rest[name]]


@pytest.mark.parametrize("name", ["predict", "evaluate"])
def test_a_folder_that_is_no_checkpoint(name, refused, good, unpacked, graphene_dataset, tmp_path):
    def line_for(folder):
        return refused(*with_checkpoint(name, folder, unpacked, graphene_dataset)).removeprefix(f"{folder}: ")

    assert line_for(tmp_path) == "a folder; name the checkpoint in it, such as best.pt"
    assert line_for(graphene_dataset).startswith("a dataset; a checkpoint is a file such as best.pt")
    write_deeph_e3(tmp_path / "best_model.pkl", good)
    assert f"import-deeph-e3 {tmp_path} --out CHECKPOINT" in line_for(tmp_path)
    assert f"import-deeph-e3 {tmp_path} --out CHECKPOINT" in refused("inspect", tmp_path)


@pytest.mark.parametrize("name", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trunk": "5x0e+4x1o+2x2e"}, "its weights do not fit the network"),
        ({"harmonics_degree": 0}, r"cannot reach the irreps 1o, 1e, 2e of H for C s2p1; raise \[model\]"),
    ],
)
def test_settings_that_are_not_those_of_the_weights(settings, message, name, refused, good, unpacked, graphene_dataset):
    edited(lambda content: content["config"]["model"].update(settings))(good, good)
    assert re.search(message, refused(*with_checkpoint(name, good, unpacked, graphene_dataset)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trunk=4x0e+4x0o"], "the trunk 4x0e+4x0o with 2 blocks and harmonics up to l = 2 cannot reach the irreps 1e"),
        (["harmonics_degree=0"], "harmonics up to l = 0 cannot reach the irreps 1o, 1e, 2e of H for C s2p1"),
        (["trunk=8x0o"], "no irrep of 8x0o can be made of 8x0e and 8x0e with harmonics up to l = 2"),
        (["trunk=1x40e"], "irreps of degree 40 are beyond the supported l = 16"),
        (["edge_trunk=4x0o"], "no irrep of 4x0o can be made of"),
        (["trunk='0x0e'"], "can be made of 8x0e and 8x0e"),
        (["trunk=4x0e+"], "input should be a list of irreps such as"),
        (["trunk=+4x0e"], "input should be a list of irreps such as"),
        (["trunk=4x0e++4x1o"], "input should be a list of irreps such as"),
        (["edge_trunk=-4x0e"], "input should be a list of irreps such as"),
        (["edge_trunk=''"], "input should be a list of irreps such as"),
    ],
)
def test_irreps_that_make_no_network(settings, message, refused, tiny_training):
    options = [part for setting in settings for part in ("--set", f"model.{setting}")]
    assert message in refused("train", tiny_training, *options)


@pytest.mark.parametrize(
    "settings",
    [
        ["trunk=4x0e"],  # the last node features get what H needs
        ["edge_trunk=4x0e"],
        ["trunk=4x1o"],  # gates are made, though no layer keeps a scalar
        ["trunk= 4x1o+4x0e +2x0e "],
        ["trunk=2x0e+1x1o+1x12e", "harmonics_degree=12"],
        ["harmonics_degree=40"],  # what is beyond all paths is left out
    ],
)
def test_unusual_irreps_that_make_one(settings, command, tiny_training, tmp_path, unpacked):
    options = [part for setting in settings for part in ("--set", f"model.{setting}")]
    assert command("train", tiny_training, "--set", "training.epochs=1", *options) == 0
    trained = load_checkpoint(tmp_path / "run" / "best.pt")
    report = check_model(checkpoint_model(trained), read_material(unpacked("openmx") / "demo_a_00"))
    assert all(result.value < 1e-11 for name, result in report.items() if name != "largest |H|")


@pytest.fixture
def with_h_shell(tmp_path):
    """DeepH folders, current and legacy, whose last shell of Mo is called l = 5."""
    material = random_material(SpinMode.NONE, max_degree=4)
    write_deeph(material, tmp_path / "deeph")
    info = tmp_path / "deeph" / "info.json"
    content = json.loads(info.read_text())
    content["elements_orbital_map"]["Mo"] = [0, 0, 1, 2, 3, 5]
    info.write_text(json.dumps(content))
    write_deeph_legacy(material, tmp_path / "legacy", local_coordinates=False)
    types = tmp_path / "legacy" / "orbital_types.dat"
    types.write_text(types.read_text().replace("4", "5"))
    return tmp_path


@pytest.mark.parametrize("folder", ["deeph", "legacy"])
def test_shells_beyond_the_supported_ones(folder, with_h_shell, refused, command, capfd):
    path = with_h_shell / folder
    reason = "Mo: shells [0, 0, 1, 2, 3, 5] go beyond the supported degrees 0..4 (s..g)"
    assert refused("inspect", path).endswith(reason)
    assert refused("convert", path, "converted").endswith(reason)
    before = sorted(with_h_shell.rglob("*"))
    assert command("preprocess", path, "--out", "dataset", "--workers", 1) == 2
    assert reason in capfd.readouterr().err
    assert sorted(with_h_shell.rglob("*")) == before


def test_a_dataset_with_shells_beyond_the_supported_ones(refused, graphene_dataset, tiny_training, tmp_path):
    content = json.loads((graphene_dataset / "dataset.json").read_text())
    content["basis"]["C"]["shells"] = [0, 0, 5]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset.json").write_text(json.dumps(content))
    reason = "other/dataset.json: shells [0, 0, 5] go beyond the supported degrees 0..4 (s..g)"
    assert refused("train", tiny_training, "--set", "data.dataset=other") == reason
    assert refused("inspect", "other") == reason


@pytest.mark.parametrize("spin", [SpinMode.NONE, SpinMode.NONCOLLINEAR])
def test_shells_up_to_g_go_all_the_way(spin, command, tiny_training, tmp_path):
    material = random_material(spin, max_degree=4)
    write_deeph(material, tmp_path / "runs" / "one")
    assert command("preprocess", tmp_path / "runs", "--out", tmp_path / "dataset", "--workers", 1) == 0
    settings = {
        "data.dataset": tmp_path / "dataset",
        "data.train": "['one']",
        "data.validation": 0.0,
        "model.trunk": "4x0e+2x1o+2x2e+1x3o+1x4e",
        "model.harmonics_degree": 4,
        "training.epochs": 1,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert command("train", tiny_training, *options) == 0
    assert command("predict", tmp_path / "run" / "best.pt", tmp_path / "runs", "--out", tmp_path / "predicted") == 0
    model = checkpoint_model(load_checkpoint(tmp_path / "run" / "best.pt"))
    assert equivariance(model, material, partial(transformed, operation=-random_rotation(0))) < 1e-11
