"""A recipe: everything a training run is, as a closed schema. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=10**9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Scalar = bool | int | float | str | None


class Section(BaseModel):
    """What every part of a recipe obeys: no unknown key, no silent conversion, no change after it is made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(Section):
    name: str
    options: dict[str, Scalar] = {}
    weights: str | None = None  # a run or a file to start from


class Augment(Section):
    """Random changes to training images; all off by default. Probabilities and ranges, an image at a time."""

    crop_padding: Annotated[int, Field(ge=0, le=512)] = 0  # pixels added on each side before a random crop
    resized_crop: tuple[Positive, Positive] | None = None  # least and greatest area kept, folders only
    horizontal_flip: Fraction = 0.0  # probability
    vertical_flip: Fraction = 0.0  # probability
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, either way
    translate: Fraction = 0.0  # of the side, either way
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, either way
    brightness: NonNegative = 0.0  # factor in [1 - x, 1 + x]; likewise contrast and saturation
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # turns of the colour circle, either way
    erasing: Fraction = 0.0  # probability
    policy: Literal["none", "trivial", "rand"] = "none"  # TrivialAugment or RandAugment, by torchvision


class Data(Section):
    name: str
    dir: str | None = None
    options: dict[str, Scalar] = {}
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of train; a data set's own validation split goes first
    size: Count | None = None  # pixels a side; none: the data set's own
    channels: Literal[1, 3] | None = None
    workers: Annotated[int, Field(ge=0, le=256)] = 2  # processes that decode folders
    augment: Augment = Augment()


class Optimizer(Section):
    name: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop"] = "adam"
    lr: Positive = 0.001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd, rmsprop
    nesterov: bool = False  # sgd
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)  # adam, adamw
    eps: Positive = 1e-8  # adam, adamw, adagrad, rmsprop
    weight_decay: NonNegative = 0.0
    decay_all: bool = False  # also decay biases and norms


class Schedule(Section):
    name: Literal["constant", "step", "cosine", "onecycle", "exponential"] = "constant"
    warmup_epochs: NonNegative = 0.0
    step_epochs: Positive = 30.0  # step: epochs between two drops; exponential: epochs to fall by gamma
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # step and exponential: factor of each drop
    final: Fraction = 0.0  # cosine and onecycle: the last lr as a fraction of the highest
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3  # onecycle: fraction of the run spent rising


class Loss(Section):
    name: Literal["cross_entropy", "mse", "bce"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Train(Section):
    epochs: Count = 10
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128  # images a step, over all ranks
    accumulate: Count = 1  # parts a batch is computed in: less memory, the same step
    clip_grad: Positive | None = None
    clip_mode: Literal["norm", "value"] = "norm"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the averaged weights; 0 is off
    patience: Count | None = None  # epochs without a better monitor before stopping
    monitor: Literal["val/loss", "val/top1", "val/top5", "train/loss"] = "val/top1"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    threads: Count | None = None  # CPU threads; none: torch's choice
    amp: Literal["off", "auto", "bf16", "fp16"] = "off"
    channels_last: bool | None = None  # none: where it is quicker
    compile: bool = False
    checkpoint_every: Count = 500  # steps
    log_every: Count = 100  # steps
    keep: Annotated[int, Field(ge=2, le=10**6)] = 2  # newest checkpoints kept, beside the best


class Recipe(Section):
    model: Model
    data: Data
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    regularizers: dict[str, dict[str, Any]] = {}
    train: Train = Train()
