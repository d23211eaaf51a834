"""One description of the keys: reading, messages, and the files of configs/."""

import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeph_tracegrad.annotated_config import annotated_toml
from deeph_tracegrad.config import (
    PRESETS,
    Config,
    DataSettings,
    OptimizerSettings,
    TraceGradSettings,
    TrainingSettings,
    differing_keys,
    load_config,
    parse_config,
)
from deeph_tracegrad.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", PRESETS)
def test_files_in_configs_are_in_step(name: str) -> None:
    """If this fails, write_presets('configs') of annotated_config mends it."""
    assert (CONFIGS / f"{name}.toml").read_text(encoding="utf-8") == annotated_toml(PRESETS[name])
    assert load_config(CONFIGS / f"{name}.toml") == PRESETS[name]


def test_configs_has_no_other_file() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == set(PRESETS)


@given(
    label=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    rate=st.floats(min_value=1e-300, max_value=1e300),
    decay=st.floats(min_value=0.0, max_value=0.999),
)
def test_written_and_read_again(label: str, rate: float, decay: float) -> None:
    config = Config(
        data=DataSettings(train=[label, "*"], memory_limit=0.5),
        training=TrainingSettings(run=Path("a b"), optimizer=OptimizerSettings(learning_rate=rate, ema_decay=decay)),
    )
    assert parse_config(tomllib.loads(annotated_toml(config)), "text") == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in_memory = true", DataSettings().memory_limit),
        ("in_memory = false", 0.0),
        ("in_memory = false\nmemory_limit = 3", 3.0),
    ],
)
def test_the_earlier_switch_of_the_memory_is_read(tmp_path: Path, text: str, expected: float) -> None:
    config = load_config(written(tmp_path, f"[data]\nsplit_seed = 4\n{text}"))
    assert config.data == DataSettings(split_seed=4, memory_limit=expected)


def test_every_key_is_described() -> None:
    for line, following in pairwise(annotated_toml(Config()).splitlines()):
        if " = " in following and not following.startswith("#"):
            assert line.startswith("# "), following


def written(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("[training]\nepohs = 3", [], ["c.toml", "unknown key epohs in [training]", "epochs"]),
        ("[trainig]\nepochs = 3", [], ["c.toml", "unknown key trainig", "training"]),
        ("[model.tracegrad]\nwidht = 3", [], ["unknown key widht in [model.tracegrad]", "width"]),
        ("[training]\nepochs = 'many'", [], ["c.toml", "training.epochs = 'many'", "valid integer", "Passes over"]),
        ("[training]\nepochs = 2.5", [], ["training.epochs = 2.5"]),
        ("[training]\nepochs = true", [], ["training.epochs = True"]),
        ("[data]\ntrain = 2", [], ["data.train = 2", "less than or equal to 1", "list", "fraction"]),
        ("[model]\ntrunk = '64x0'", [], ["model.trunk = '64x0': input should be a list of irreps such as '64x0e+"]),
        ("[model.tracegrad]\npreset = 'large'", [], ["model.tracegrad.preset = 'large'", "'compact' or 'paper'"]),
        ("[model]\nradial_basis = 1", [], ["model.radial_basis = 1: input should be greater than or equal to 2"]),
        ("[model]\nedge_channels = 1", [], ["model.edge_channels = 1: input should be greater than or equal to 2"]),
        ("[model]\ncutoff_radius = inf", [], ["model.cutoff_radius = inf: input should be a finite number"]),
        ("[data]\nsplit_seed = -1", [], ["data.split_seed = -1: input should be greater than or equal to 0"]),
        ("[training]\nseed = 9223372036854775808", [], ["training.seed = 9223372036854775808: "]),
        ("[training.optimizer]\nbetas = [0.9, 2]", [], ["training.optimizer.betas", "less than 1"]),
        ("training = 3", [], ["training = 3"]),
        ("", ["training.optimizer.name=sgd"], ["--set", "'sgd'", "'adam' or 'adamw'"]),
        ("", ["training.optimiser.name=adam"], ["--set", "unknown key optimiser in [training]", "optimizer"]),
        ("", ["epochs=3"], ["--set epochs=3", "section.key=value"]),
        ("", ["training.epochs"], ["--set training.epochs", "section.key=value"]),
        ("[data\n", [], ["c.toml", "not a TOML file", "line 1"]),
        ("data = 3", ["data.train=0.5"], ["--set data.train=0.5", "data is a key, not a section"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, settings: list[str], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, text), settings)
    for part in expected:
        assert part in str(error.value)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, "[data]\nfoo = 1\n[training]\nepochs = 0"), ["model.blocks=no"])
    assert len(str(error.value).splitlines()) == 3


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read"):
        load_config(tmp_path / "none.toml")


def test_settings_override_the_file(tmp_path: Path) -> None:
    settings = [
        "training.epochs=7",
        "training.run=out/a run",
        "training.optimizer.learning_rate=1e-3",
        "data.train=['a_*']",
        "model.tracegrad.enabled=false",
    ]
    config = load_config(written(tmp_path, "[training]\nepochs = 3\nseed = 5"), settings)
    assert (config.training.epochs, config.training.seed) == (7, 5)
    assert config.training.run == Path("out/a run")
    assert config.training.optimizer.learning_rate == 1e-3
    assert config.data.train == ["a_*"]
    assert not config.model.tracegrad.enabled
    assert config.model == Config().model.model_copy(update={"tracegrad": config.model.tracegrad})


def test_the_form_is_the_presets_where_nothing_is_set() -> None:
    assert TraceGradSettings().form == TraceGradSettings(preset="compact").form
    assert TraceGradSettings().form.loss_weight == 0.03
    assert TraceGradSettings(preset="paper").form == (1024, 1024, None, 0.3)
    assert TraceGradSettings(preset="paper", width=256).form == (256, 1024, None, 0.3)
    assert TraceGradSettings(preset="paper", decoder_width=32).form == (1024, 32, None, 0.3)
    assert TraceGradSettings(preset="paper", loss_weight=0.0).form == (1024, 1024, None, 0.0)


def test_differing_keys() -> None:
    other = Config(training=TrainingSettings(epochs=3, optimizer=OptimizerSettings(name="adam")))
    assert differing_keys(Config(), other) == ["training.epochs", "training.optimizer.name"]


def test_configuration_needs_no_torch() -> None:
    code = "import sys; import deeph_tracegrad.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
