"""Trained weights by the name that --weights takes: "imagenet", a run, or a file. Found here, read when needed.

RUN:ema, RUN:raw, FILE:ema and FILE:raw choose between averaged and raw weights, FILE:KEY what a file holds under a key.

ImageNet's are torchvision's published files, each checked by the start of its SHA-256 that its name states: in dlkit's
cache, in torch.hub's ($TORCH_HOME, else ~/.cache/torch), else downloaded into dlkit's. No torch is imported before
`read`; nothing in a file is executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import cache, imagenet, registry
from dlkit.data.download import download, http, hub
from dlkit.data.splits import Source
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.export_metadata import ExportMetadata
from dlkit.privacy import offline
from dlkit.registry import did_you_mean
from dlkit.runs.run_folder import RunFolder, is_run, list_runs
from dlkit.specs import LINKS, Link, Spec

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET = "imagenet"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """Where weights are, and what they say of themselves; a bare file says nothing but its tensors."""

    name: str  # as messages call them
    read: Callable[[], dict[str, Tensor]]
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    spec: Spec | None = None
    link: Link = "softmax"
    trained_on: tuple[TrainedOn, ...] = ()  # the data that it and what it started from were trained on, where known


TrainedOn = Mapping[str, Any]  # name, data (of the recipe), seed, sha256 of the train split; run and run_id of a run


def find(weights: str | Path, model: str | None, runs_dir: Path, say: Say, which: str = "best") -> Weights:
    """The weights of that name; `which` checkpoint of a run, and `model` for those of ImageNet.

    Raises:
        UsageError: ImageNet's weights for a model that has none.
        ModelFileError: there is no such run or file.
    """
    if is_imagenet(weights):
        return of_imagenet(model, say, str(weights).partition(":")[2] or None)
    text, colon, part = str(weights).rpartition(":")
    for name, chosen in ((str(weights), None), (text, part)) if colon else ((str(weights), None),):
        for folder in (runs_dir / name, Path(name)):
            if name and is_run(folder):
                return _of_run(RunFolder(folder), which, chosen, say)
        if Path(name).is_file():
            return _of_file(Path(name), chosen, model, say)
    names = [IMAGENET, *(run.name for run in list_runs(runs_dir))]
    hint = did_you_mean(str(weights), names) if not Path(weights).suffix else ""
    raise ModelFileError(f"weights {weights}: no such run or file. {hint}".rstrip())


def is_imagenet(weights: str | Path | None) -> bool:
    """Whether these are published weights: imagenet, or imagenet:TAG."""
    return weights is not None and str(weights).partition(":")[0] == IMAGENET


def of_imagenet(model: str | None, say: Say, tag: str | None = None) -> Weights:
    """The published weights of a model, for ImageNet's images and classes; downloaded when they are read."""
    if model is None:
        raise UsageError(f"--weights {IMAGENET} are of which model? Name one: {', '.join(imagenet.FILES)}.")
    if model.startswith("timm/"):
        return _of_timm(model if tag is None else f"{model}.{tag}", model, say)
    file, spec = imagenet.find(model, tag)

    def read() -> dict[str, Tensor]:
        from dlkit.training.weights_file import read_weights

        return read_weights(published(file, say), say)

    return Weights(f"the ImageNet weights of {model}", read, model, spec=spec)


def _of_timm(name: str, model: str, say: Say) -> Weights:
    """The weights that timm publishes on the Hugging Face hub under a name: timm/resnet50 or timm/resnet50.a1_in1k."""
    module, architecture = registry.load("models", name), name.partition("/")[2]
    spec: Spec = module.published_spec(architecture, imagenet.classes())
    repository, file = module.published_file(architecture)

    def read() -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = module.published_weights(architecture, str(hub.fetch(repository, file, say)))
        return tensors

    return Weights(f"the published weights of {name}", read, model, spec=spec)


def published(file: str, say: Say, retries: http.RetryPolicy = http.DEFAULT_RETRIES) -> Path:
    """One of torchvision's published files, verified: from a cache, or else downloaded.

    Raises:
        VerificationError: what the server sent is another file.
        UnreachableError: it cannot be had.
    """
    if found := cached(file, say):
        return found
    if offline():
        raise http.UnreachableError(
            f"{file} is not in the cache, and DLKIT_OFFLINE forbids the network. Unset it, or put the file into "
            f"{cache.weights_dir()}."
        )
    source = Source(imagenet.URL + file, f"sha256:{imagenet.sha256_start(file)}", 0)
    return download.fetch([source], cache.writable(cache.weights_dir()) / file, log=say, retries=retries)


def cached(file: str, say: Say) -> Path | None:
    """The file where it has been fetched already, by dlkit or by torch.hub; a damaged one is said and left aside."""
    for path in (cache.weights_dir() / file, torch_hub() / file):
        if path.is_file():
            if _is_published(path):
                return path
            say(f"warning: {path} is damaged: its SHA-256 does not begin with {imagenet.sha256_start(file)}")
    return None


def torch_hub() -> Path:
    """Where torch.hub keeps what it downloads."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or base / "torch").expanduser() / "hub" / "checkpoints"


def _of_run(run: RunFolder, which: str, part: str | None, say: Say) -> Weights:
    def read() -> dict[str, Tensor]:
        from dlkit.training.restore import run_weights

        return run_weights(run, which, say, part)

    return _known_by_run(run, f"run {run.name}", read)


def _of_file(file: Path, part: str | None, model: str | None, say: Say) -> Weights:
    """A file's weights: checkpoints and exports say what they are, torchvision's are known by name and digest."""

    def read() -> dict[str, Tensor]:
        from dlkit.training.weights_file import read_weights

        return read_weights(file, say, part)

    run, name = RunFolder(file.absolute().parent.parent), f"weights {file}"
    if is_run(run.path):
        return _known_by_run(run, name, read)
    if about := _export_about(file):
        return Weights(name, read, about.model, about.options, about.spec, about.link, _records(about))
    published_model = imagenet.model_of_file(file.name, model)
    if published_model is not None and _is_published(file):
        return Weights(name, read, published_model, spec=imagenet.spec_of_file(file.name))
    return Weights(name, read)


def _known_by_run(run: RunFolder, name: str, read: Callable[[], dict[str, Tensor]]) -> Weights:
    recipe = run.trained_recipe()
    model, link = recipe.model, LINKS[recipe.loss.name]
    return Weights(name, read, model.name, dict(model.options), run.spec(), link, trained_on(run))


def trained_on(run: RunFolder) -> tuple[TrainedOn, ...]:
    """The data that a run was trained on, then those of the weights that it started from."""
    info, recipe = run.info(), run.recipe()
    own = {
        "name": run.name,
        "run": str(run.path.resolve()),
        "run_id": info["run_id"],
        "data": recipe.data.model_dump(
            mode="json", include={"name", "dir", "options", "validation", "size", "channels"}
        ),
        "seed": recipe.train.seed,
        "sha256": info.get("data", {}).get("train", {}).get("sha256"),
    }
    if "starts_from" in info or recipe.model.weights is None or is_imagenet(recipe.model.weights):
        return (own, *info.get("starts_from", ()))
    try:  # a run of an older dlkit names its weights alone
        return (own, *find(str(recipe.model.weights), None, run.path.parent, lambda text: None).trained_on)
    except DlkitError:
        return (own,)


def portable(records: Sequence[TrainedOn]) -> list[TrainedOn]:
    """The same for a file that leaves this machine: without the places of runs and data."""
    return [
        {**{key: value for key, value in record.items() if key != "run"}, "data": {**record["data"], "dir": None}}
        for record in records
    ]


def _records(about: ExportMetadata) -> tuple[TrainedOn, ...]:
    """What an exported file says of its training; anybody may have written it."""
    found = about.training.get("trained_on")
    listed = found if isinstance(found, list) else []
    return tuple(record for record in listed if isinstance(record, dict) and isinstance(record.get("name"), str))


def _export_about(file: Path) -> ExportMetadata | None:
    """What an exported .safetensors file says of itself, or none of another file.

    Raises:
        ModelFileError: it says something that cannot be. VerificationError: it was changed since it was exported.
    """
    if file.suffix.lower() != ".safetensors":
        return None
    from dlkit.export.formats.safetensors import read_export

    return read_export(file)


def _is_published(path: Path) -> bool:
    return download.digest(path).startswith(imagenet.sha256_start(path.name))
