"""The training configuration: one typed description of every key.

The docstring under each field is what a user reads in the annotated files of `configs/` and in the documentation.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deeph_tracegrad.errors import ConfigError


def _irreps(text: str) -> str:
    if not re.fullmatch(r"\s*[0-9]{1,6}x[0-9]{1,3}[eo](\s*\+\s*[0-9]{1,6}x[0-9]{1,3}[eo])*\s*", text):
        raise PydanticCustomError("irreps", "input should be a list of irreps such as '64x0e+32x1o+16x2e'")
    return text


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
FilePath = Annotated[Path, Field(strict=False)]
Irreps = Annotated[str, AfterValidator(_irreps)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
GridSize = Annotated[int, Field(ge=2)]
Betas = Annotated[tuple[BelowOne, BelowOne], Field(strict=False)]


class TraceGradForm(NamedTuple):
    """The size of TraceGrad, and the weight of its supervision.

    width: quadratic forms, and width of the layers between them and the invariants. decoder_width: of the layers that
    predict the labels. blocks: that have invariants, from the first; None for all. loss_weight: of the labels' error
    relative to that of H.
    """

    width: int
    decoder_width: int
    blocks: int | None
    loss_weight: float


_TRACEGRAD_PRESETS = {
    "compact": TraceGradForm(width=16, decoder_width=64, blocks=1, loss_weight=0.03),
    "paper": TraceGradForm(width=1024, decoder_width=1024, blocks=None, loss_weight=0.3),
}


class Section(BaseModel):
    """A table of the TOML file: immutable, no unknown keys, no silent conversion."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class DataSettings(Section):
    """What is learnt from, and how it is divided."""

    dataset: FilePath = Path("dataset")
    """Dataset of `deeph-tracegrad preprocess`. Paths are relative to the folder in which the command is run."""

    train: Fraction | list[str] = 0.8
    """Samples to train on: a fraction, or a list of labels with the wildcards * and ?. Fractions are of the samples
    that no list names."""

    validation: Fraction | list[str] = 0.1
    """Samples whose error chooses the best checkpoint and steers the plateau schedule. Without any, the error on the
    training samples does."""

    test: Fraction | list[str] = 0.1
    """Samples kept aside for `deeph-tracegrad evaluate`."""

    split_seed: Seed = 0
    """Seed of the division by fractions."""

    max_edges: PositiveInt = 4000
    """Largest number of edges in one batch, over all ranks together; a larger structure is a batch of its own. 1 gives
    one structure a batch."""

    memory_limit: NonNegativeFloat = 2.0
    """GiB of samples that each rank keeps in memory after their first use; the others are read again for each epoch.
    0 keeps none. Results do not depend on it."""

    @model_validator(mode="before")
    @classmethod
    def _without_in_memory(cls, content: Any) -> Any:
        """Version 0.1.0 had a switch `in_memory`."""
        if not isinstance(content, Mapping) or not isinstance(content.get("in_memory"), bool):
            return content
        kept = {} if content["in_memory"] else {"memory_limit": 0.0}
        return kept | {name: value for name, value in content.items() if name != "in_memory"}


class TraceGradSettings(Section):
    """Supervision by trace labels, with the gradient of the invariants fed back into the features."""

    enabled: bool = True
    """False leaves the plain DeepH-E3 network."""

    gradient: bool = True
    """Add the gradient of the invariants to the features; false leaves the supervision alone."""

    preset: Literal["compact", "paper"] = "compact"
    """compact: 16 quadratic forms of the features after the first block; paper: 1024 after every block, as in the
    TraceGrad paper."""

    width: PositiveInt | None = None
    """Quadratic forms, and width of the layers between them and the invariants; the preset's (16 or 1024) where it is
    not set."""

    decoder_width: PositiveInt | None = None
    """Width of the layers that predict the trace labels; the preset's (64 or 1024) where it is not set."""

    signal: Literal["trace", "trace_square", "nuclear"] = "trace"
    """The invariant of each block of H that is learnt: trace: tr(H H†); trace_square: tr((H H†)²); nuclear: the sum of
    the singular values."""

    labels: Literal["normalised", "log", "raw"] = "normalised"
    """normalised: the invariants after a layer norm over the blocks of an edge, as the TraceGrad authors train; log:
    decades of the block's norm, of which the invariant is a power, above 1 meV; raw: in powers of a hartree."""

    loss_weight: NonNegativeFloat | None = None
    """Weight of the trace error relative to the error of H; the preset's (0.03 or 0.3) where it is not set."""

    @property
    def form(self) -> TraceGradForm:
        """The preset's, with what is set here."""
        chosen = self.model_dump(include={"width", "decoder_width", "loss_weight"}, exclude_none=True)
        return _TRACEGRAD_PRESETS[self.preset]._replace(**chosen)


class ModelSettings(Section):
    """The network."""

    blocks: PositiveInt = 3
    """Message-passing blocks, each one node update and one edge update."""

    trunk: Irreps = "64x0e+32x1o+16x2e+8x3o+8x4e"
    """Irreps of the hidden node features, and of the edge features where `edge_trunk` is not set."""

    edge_trunk: Irreps | None = None
    """Irreps of the hidden edge features."""

    node_channels: PositiveInt = 64
    """Scalars that each element is embedded into."""

    edge_channels: GridSize = 64
    """Gaussians that each bond length is embedded into."""

    harmonics_degree: Annotated[int, Field(ge=0)] = 4
    """Highest degree of the spherical harmonics of the bond directions."""

    cutoff_radius: PositiveFloat = 7.2
    """End of the radial grid in Å. Not a cutoff: the edges are the blocks of H."""

    radial_basis: GridSize = 128
    """Gaussians on the radial grid."""

    hermitian: bool = True
    """Average each block with the adjoint of its reverse edge, so that H is Hermitian by construction."""

    norm: Literal["graph", "local"] = "graph"
    """graph: DeepH-E3's layer norm, whose means are over all atoms or edges of a structure; local: over the channels of
    each atom or edge alone, so that H depends on nothing beyond the reach of the messages."""

    smooth_cutoff: bool = False
    """Let messages, and H, go smoothly to zero towards the length at which a bond leaves the graph: the sum of the
    orbitals' radii, or `cutoff_radius` where they are not known. Only norm = "local" makes H continuous there."""

    two_centre_baseline: bool = True
    """Start from what the bond length alone says of H: for each ordered pair of elements and each pair of shells a
    smooth function, fitted to the training samples in the frame of the bond; on atoms, the mean. The network learns the
    rest."""

    target_scaling: bool = True
    """Scale the network's output, for each ordered pair of elements and each pair of shells, by the root mean square of
    what the baseline leaves of H in the training samples. Without baseline, the constants that symmetry allows in the
    frame of the bond are taken off instead."""

    tracegrad: TraceGradSettings = TraceGradSettings()


class OptimizerSettings(Section):
    """How the weights move."""

    name: Literal["adam", "adamw"] = "adamw"
    """adam or adamw."""

    learning_rate: PositiveFloat = 5e-3
    """The rate from which the schedule starts, after the warm-up."""

    betas: Betas = (0.9, 0.999)
    """Decay of the two running moments of the gradient."""

    weight_decay: NonNegativeFloat = 0.0
    """Decoupled for adamw, an L2 penalty for adam."""

    gradient_clip: NonNegativeFloat = 1.0
    """Largest norm of the whole gradient; 0 for no limit."""

    ema_decay: BelowOne = 0.999
    """Decay per step of the running average of the weights, which then validates and predicts; 0 for no average. The
    average of the first steps is shorter."""


class ScheduleSettings(Section):
    """How the learning rate changes."""

    kind: Literal["constant", "cosine", "plateau", "steps"] = "cosine"
    """constant; cosine: half a cosine over all epochs, down to `min_learning_rate`; plateau: DeepH-E3's, which lowers
    the rate when the smoothed validation error stalls and ends the training at `min_learning_rate`; steps: DeepH-E3's
    slippery slope, which lowers the rate at given epochs, not below `min_learning_rate`."""

    warmup_epochs: NonNegativeFloat = 5.0
    """Epochs over which the rate grows linearly from 0."""

    min_learning_rate: NonNegativeFloat = 3e-5
    """Where cosine arrives, and where plateau ends the training."""

    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """plateau, steps: what the rate is multiplied by."""

    first_step: PositiveInt = 1400
    """steps: the epoch after which the rate is lowered for the first time."""

    step_interval: PositiveInt = 200
    """steps: epochs from one step to the next."""

    patience: PositiveInt = 120
    """plateau: validations without progress before the rate is lowered."""

    cooldown: Annotated[int, Field(ge=0)] = 40
    """plateau: validations after a change that do not count."""

    threshold: BelowOne = 0.05
    """plateau: relative improvement that counts as progress."""

    smoothing: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """plateau: weight of the newest validation error in the smoothed one."""

    revert_patience: PositiveInt = 20
    """Validations in a row above twice the best error before the best checkpoint is taken up again. A loss that is not
    finite does not wait."""

    revert_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """What the rate is multiplied by at such a return."""


class TrainingSettings(Section):
    """The run."""

    run: FilePath = Path("run")
    """Folder to write configuration, log, metrics and checkpoints into."""

    epochs: PositiveInt = 1000
    """Passes over the training samples."""

    validation_interval: PositiveInt = 1
    """Epochs between two validations; each gives a line of the log and of metrics.csv, and last.pt."""

    seed: Seed = 42
    """Seed of the initial weights and of the order of the samples."""

    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network: float32 or float64."""

    matrix_products: Literal["full", "tf32", "bf16"] = "full"
    """What training rounds the factors of matrix products to, with dtype = "float32": full: not at all; tf32: to 10
    bits, on NVIDIA GPUs, without effect on CPUs; bf16: to 7 bits (bfloat16), in the channel matrices of the blocks but
    not in TraceGrad, norms, rotations and the last layer; slow on CPUs, where the compiled kernels do not know it.
    Weights, sums, losses and the optimizer stay in float32; validations and predictions are in full precision."""

    deterministic: bool = False
    """On GPUs, take only algorithms that give the same bits each time, which is slower; where torch has none for an
    operation, the training ends and names it. For the same ranks. On CPUs results repeat anyway, for the same ranks and
    threads."""

    device: str = "auto"
    """cpu, cuda, cuda:N or auto; under mpirun, cuda gives each rank of a machine its own GPU."""

    loss: Literal["mse", "mae", "huber"] = "mae"
    """What to minimise of each block's root mean square error, which no axes change: mse: its square; mae: itself;
    huber: its square far below `huber_delta`, a multiple of itself far above. Validations measure the mean square."""

    huber_delta: PositiveFloat = 0.01
    """huber: eV; with block_weights = "norm" in units of the scales."""

    block_weights: Literal["equal", "norm"] = "equal"
    """norm: errors count in units of the scales of `target_scaling`, which must be on, so that small blocks weigh as
    much as large ones."""

    recompute: bool = False
    """Compute each block again in the backward pass instead of keeping what is inside it: less memory, more time."""

    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each rank; 0 shares the cores among the ranks of a machine."""

    optimizer: OptimizerSettings = OptimizerSettings()

    schedule: ScheduleSettings = ScheduleSettings()


class ParallelSettings(Section):
    """How ranks divide the work."""

    graph: PositiveInt = 1
    """Ranks that share each structure of a batch, by its bonds, for structures too large for one; their number has to
    be a multiple of it. 1: a rank has whole structures."""


class Config(Section):
    """Everything that `deeph-tracegrad train` reads."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    parallel: ParallelSettings = ParallelSettings()


_PUBLISHED = ModelSettings(hermitian=False, two_centre_baseline=False, target_scaling=False)
_PUBLISHED_TRAINING = TrainingSettings(
    epochs=3000,
    loss="mse",
    optimizer=OptimizerSettings(name="adam", learning_rate=2e-3, gradient_clip=0.0, ema_decay=0.0),
    schedule=ScheduleSettings(kind="plateau", warmup_epochs=0.0),
)

PRESETS: Mapping[str, Config] = {
    "default": Config(),
    "deeph-e3": Config(
        data=DataSettings(max_edges=1),
        model=_PUBLISHED.model_copy(update={"tracegrad": TraceGradSettings(enabled=False)}),
        training=_PUBLISHED_TRAINING,
    ),
    "paper": Config(
        data=DataSettings(max_edges=1),
        model=_PUBLISHED.model_copy(update={"tracegrad": TraceGradSettings(preset="paper")}),
        training=_PUBLISHED_TRAINING,
    ),
}
"""The files of `configs/`: the project's choices, DeepH-E3 as published, DeepH-E3 with TraceGrad as published."""


def load_config(path: Path | str, settings: list[str] | None = None) -> Config:
    """The configuration of a TOML file.

    settings: overrides `section.key=value`; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: the file is missing or no TOML, or a key is unknown or of the wrong kind.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    overridden = [_override(content, setting) for setting in settings or []]
    return parse_config(content, str(path), overridden)


def parse_config(content: Mapping[str, Any], source: str, overridden: list[str] | None = None) -> Config:
    """The configuration of nested tables.

    source: named in messages. overridden: keys that come from --set instead.

    Raises:
        ConfigError: a key is unknown or of the wrong kind.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        problems: dict[str, list[Any]] = {}
        for problem in error.errors():
            section, keys = _locate(problem["loc"])
            problems.setdefault(".".join(keys), []).append((section, keys, problem))
        lines = []
        for key, alternatives in problems.items():
            by_setting = any(f"{setting}.".startswith(f"{key}.") for setting in overridden or [])
            lines.append(f"{'--set' if by_setting else source}: {_explain(key, alternatives)}")
        raise ConfigError("\n".join(lines)) from None


def differing_keys(one: Config, other: Config) -> list[str]:
    """The dotted names of the keys whose values differ."""
    left, right = dict(_flat(one, "")), dict(_flat(other, ""))
    return [key for key in left if left[key] != right[key]]


def _override(content: dict[str, Any], setting: str) -> str:
    """Put one `section.key=value` into the tables; returns its key."""
    key, equals, text = setting.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not sections:
        raise ConfigError(f"--set {setting}: expected section.key=value, such as training.epochs=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting}: {section} is a key, not a section")
    table[name] = value
    return key.strip()


def _locate(location: tuple[int | str, ...]) -> tuple[type[Section], list[str]]:
    """The section that an error of pydantic is in, and the names that lead to its key."""
    section: type[Section] = Config
    keys = []
    for name in map(str, location):
        keys.append(name)
        annotation = section.model_fields[name].annotation if name in section.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            break
        section = annotation
    return section, keys


def _explain(key: str, alternatives: list[Any]) -> str:
    """A sentence about one key; a value of several allowed kinds has a complaint from each."""
    section, keys, problem = alternatives[0]
    if problem["type"] == "extra_forbidden":
        table = ".".join(keys[:-1])
        nearest = get_close_matches(keys[-1], section.model_fields, n=1, cutoff=0.0)[0]
        return (
            f"unknown key {keys[-1]}{f' in [{table}]' if table else ''}; the nearest known one is {nearest}, "
            f"all are {', '.join(section.model_fields)}"
        )
    messages = dict.fromkeys(other["msg"][0].lower() + other["msg"][1:] for _, _, other in alternatives)
    complaints = " or ".join(messages)
    field = section.model_fields.get(keys[-1])
    meaning = " ".join(field.description.split()) if field and field.description else ""
    return f"{key} = {problem['input']!r}: {complaints}.{f' {meaning}' if meaning else ''}"


def _flat(section: Section, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section:
        if isinstance(value, Section):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
