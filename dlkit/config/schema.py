"""The schema of a recipe: everything a training run is, with bounds and defaults. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dlkit.specs import MAX_PIXELS

NO_WEIGHTS = "none"


def _without_none(value: Any) -> Any:  # --weights none
    return None if value == NO_WEIGHTS else value


def _listed(value: Any) -> Any:  # --classes cat,dog
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    return tuple(names) if isinstance(names, list) else names


def _integer(value: Any) -> Any:
    if type(value) is not int:  # a Literal alone accepts true and 1.0 as 1
        raise ValueError("not an integer")
    return value


Count = Annotated[int, Field(ge=1, le=10**9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Patterns = Annotated[str, Field(min_length=1)]  # comma-separated globs over parameter names
Monitor = Literal["val/loss", "val/top1", "val/top5", "val/macro_f1", "val/balanced_accuracy", "train/loss"]
ClassWeights = Annotated[
    Literal["balanced", "sqrt", "effective"] | dict[str, NonNegative] | None, BeforeValidator(_without_none)
]
Options = dict[str, bool | int | float | str | None]


class Section(BaseModel):
    """A section of a recipe: unknown keys and values of another type are errors; instances are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(Section):
    name: str  # of `dlkit models list`
    options: Options = {}  # those that `dlkit models show NAME` lists
    weights: Annotated[str | None, BeforeValidator(_without_none)] = None  # to start from: "imagenet", a run or a file
    init_layers: Patterns | None = None  # the parameters to load; the rest starts from scratch; none: all


class Augment(Section):
    """Augmentation of training images, drawn per image; all off by default."""

    crop_padding: Annotated[int, Field(ge=0, le=512)] = 0  # pixels added on each side before a random crop
    resized_crop: tuple[Positive, Positive] | None = None  # minimum and maximum area kept; folders only
    horizontal_flip: Fraction = 0.0  # probability
    vertical_flip: Fraction = 0.0  # probability
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, either way
    translate: Fraction = 0.0  # of the side, either way
    scale: tuple[Positive, Positive] = (1.0, 1.0)  # minimum and maximum factor of the side
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, either way
    brightness: NonNegative = 0.0  # factor in [1 - x, 1 + x]
    contrast: NonNegative = 0.0  # factor in [1 - x, 1 + x]
    saturation: NonNegative = 0.0  # factor in [1 - x, 1 + x]
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # turns of the color circle, either way
    erasing: Fraction = 0.0  # probability
    policy: Literal["none", "trivial", "rand"] = "none"  # TrivialAugment or RandAugment, by torchvision


OnBadImage = Literal["error", "skip"]


class Data(Section):
    name: str  # of `dlkit dataset list`
    dir: str | None = None  # the location of your own data: a folder, a table, shards
    options: Options = {}  # those that `dlkit dataset info NAME` lists
    sampler: Literal["uniform", "balanced"] = "uniform"  # balanced: classes are equally frequent in each epoch
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = None  # of images; none: all
    vectors: str | None = None  # word vectors in GloVe's format, to initialize the embedding
    validation: Below1 = 0.1  # fraction of train; a data set's own validation split has precedence
    size: Count | None = None  # pixels a side; none: the data set's own
    channels: Annotated[Literal[1, 3], BeforeValidator(_integer)] | None = None  # none: the data set's own
    workers: Annotated[int, Field(ge=0, le=256)] = 2  # processes that decode folders
    loader_timeout: Positive = 7.0  # seconds that those may neither compute nor wait for a disk
    max_pixels: Count = MAX_PIXELS  # of an image; larger ones are refused
    on_bad_image: OnBadImage = "error"  # skip: excluded before the first epoch, up to 1 % of a split
    augment: Augment = Augment()


class Optimizer(Section):
    name: Literal["sgd", "adam", "adamw", "adagrad", "rmsprop"] = "adam"  # the algorithm
    lr: Positive = 0.001  # learning rate, the highest of the schedule
    momentum: Below1 = 0.9  # sgd, rmsprop
    nesterov: bool = False  # sgd
    betas: tuple[Below1, Below1] = (0.9, 0.999)  # adam, adamw
    eps: Positive = 1e-8  # adam, adamw, adagrad, rmsprop
    weight_decay: NonNegative = 0.0  # of the weights, not of biases and norms; decoupled with adamw
    decay_all: bool = False  # also decay biases and norms
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # factor on the lr of each layer, from the last to the first


class Schedule(Section):
    name: Literal["constant", "step", "cosine", "onecycle", "exponential"] = "constant"  # how the learning rate changes
    warmup_epochs: NonNegative = 0.0  # from the start of the run; not with onecycle, which has its own
    step_epochs: Positive = (
        30.0  # step: a drop at each multiple, from the start of the run; exponential: to fall by gamma
    )
    milestones: tuple[Positive, ...] | None = None  # step: epochs of the run with a drop, in place of step_epochs
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # step and exponential: factor of each drop
    final: Fraction = 0.0  # cosine and onecycle: the last lr as a fraction of the highest
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3  # onecycle: fraction of the run spent rising


class Loss(Section):
    name: Literal["cross_entropy", "mse", "bce"] = (
        "cross_entropy"  # it defines the probabilities: softmax, clipped outputs, sigmoid
    )
    label_smoothing: Below1 = 0.0  # share of the target spread over all classes
    class_weights: ClassWeights = None  # balanced, sqrt, effective, or a file CLASS,WEIGHT, whose content is kept
    effective_beta: Below1 = 0.999  # of class_weights effective
    focal_gamma: NonNegative = 0.0  # exponent of the focal loss; 0 is off
    logit_adjustment: NonNegative = 0.0  # τ: the loss is of logits + τ ln(share of the class); 0 is off


class Train(Section):
    epochs: Count = 10  # passes over the training data
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128  # images a step, over all ranks
    accumulate: Count = 1  # parts a batch is computed in: less memory; batch norm averages each part alone
    clip_grad: Positive | None = None  # maximum of the gradient's norm, or of its values
    clip_mode: Literal["norm", "value"] = "norm"  # what clip_grad limits
    ema: Below1 = 0.0  # decay of the averaged weights; 0 is off
    patience: Count | None = None  # epochs without improvement of the monitor before stopping
    freeze: Count | Patterns | None = None  # first layers, or parameters, that keep their initial weights
    unfreeze: Count | tuple[Count, ...] | None = None  # epochs between two unfreezings, or a list of epochs
    select: Literal["best", "last"] = "best"  # the epoch that eval and predict use: by the monitor, or the last one
    monitor: Monitor = "val/top1"  # chooses the best epoch
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0  # of all randomness
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    ] = "auto"  # auto: CUDA, then MPS, then the CPU
    threads: Count | None = None  # CPU threads; none: torch's choice
    amp: Literal["off", "auto", "bf16", "fp16"] = "off"  # mixed precision
    channels_last: bool | None = None  # memory layout; none: if it is faster
    compile: bool = False  # torch.compile
    checkpoint_every: Count = 500  # steps
    log_every: Count = 100  # steps
    keep: Annotated[int, Field(ge=2, le=10**6)] = 2  # newest checkpoints kept, beside the best
    track: tuple[str, ...] = ()  # trackers: tensorboard, mlflow, wandb


class Recipe(Section):
    model: Model
    data: Data
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    regularizers: dict[str, Options] = {}  # by name, with their options: `dlkit recipes regularizers`
    train: Train = Train()


MAY_CHANGE_ON_RESUME = (
    "train.epochs", "train.log_every", "train.checkpoint_every", "train.keep", "train.track", "data.workers",
    "data.loader_timeout", "data.dir",
)  # fmt: skip
