"""Trained weights by the name that --weights takes: "imagenet", a run, or a file. Found here, read when needed.

ImageNet's are torchvision's published files, each checked by the start of its SHA-256 that its name states: in dlkit's
cache, in torch.hub's ($TORCH_HOME, else ~/.cache/torch), else downloaded into dlkit's. No torch is imported before
`read`; nothing in a file is executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import cache, imagenet
from dlkit.catalog import did_you_mean
from dlkit.data import download, web
from dlkit.data.samples import Source
from dlkit.engine.run_folder import RunFolder, list_runs
from dlkit.errors import ModelFileError, UsageError
from dlkit.privacy import offline
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


def find(weights: str | Path, model: str | None, runs_dir: Path, say: Say, which: str = "best") -> Weights:
    """The weights of that name; `which` checkpoint of a run, and `model` for those of ImageNet.

    Raises:
        UsageError: ImageNet's weights for a model that has none.
        ModelFileError: there is no such run or file.
    """
    if weights == IMAGENET:
        return of_imagenet(model, say)
    for folder in (runs_dir / weights, Path(weights)):
        if (folder / "run.json").is_file():
            return _of_run(RunFolder(folder), which, say)
    file = Path(weights)
    if not file.is_file():
        names = [IMAGENET, *(run.name for run in list_runs(runs_dir))]
        hint = did_you_mean(str(weights), names) if not file.suffix else ""
        raise ModelFileError(f"weights {weights}: no such run or file. {hint}".rstrip())
    return _of_file(file, say)


def of_imagenet(model: str | None, say: Say) -> Weights:
    """torchvision's weights of a model, for ImageNet's images and classes; downloaded when they are read."""
    if model is None:
        raise UsageError(f"--weights {IMAGENET} are of which model? Name one: {', '.join(imagenet.FILES)}.")
    if model not in imagenet.FILES:
        raise UsageError(f"there are no ImageNet weights for {model!r}. There are for: {', '.join(imagenet.FILES)}.")

    def read() -> dict[str, Tensor]:
        from dlkit.engine.restore import read_weights

        return read_weights(published(imagenet.FILES[model], say), say)

    return Weights(f"the ImageNet weights of {model}", read, model, spec=imagenet.spec())


def published(file: str, say: Say) -> Path:
    """One of torchvision's published files, verified: from a cache, or else downloaded.

    Raises:
        VerificationError: what the server sent is another file.
        UnreachableError: it cannot be had.
    """
    if found := cached(file, say):
        return found
    if offline():
        raise web.UnreachableError(
            f"{file} is not in the cache, and DLKIT_OFFLINE forbids the network. Unset it, or put the file into "
            f"{cache.weights_dir()}."
        )
    source = Source(imagenet.URL + file, f"sha256:{imagenet.sha256_start(file)}", 0)
    return download.fetch([source], cache.writable(cache.weights_dir()) / file, say=say)


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


def _of_run(run: RunFolder, which: str, say: Say) -> Weights:
    def read() -> dict[str, Tensor]:
        from dlkit.engine.restore import run_weights

        return run_weights(run, which, say)

    recipe = run.recipe()
    link = LINKS[recipe.loss.name]
    return Weights(f"run {run.name}", read, recipe.model.name, dict(recipe.model.options), run.spec(), link)


def _of_file(file: Path, say: Say) -> Weights:
    """A file's weights: a run's checkpoint knows its run, and one of torchvision's is known by its name and digest."""

    def read() -> dict[str, Tensor]:
        from dlkit.engine.restore import read_weights

        return read_weights(file, say)

    known = partial(Weights, f"weights {file}", read)
    run = RunFolder(file.absolute().parent.parent)
    if (run.path / "run.json").is_file():
        recipe = run.recipe()
        return known(recipe.model.name, dict(recipe.model.options), run.spec(), LINKS[recipe.loss.name])
    for model, name in imagenet.FILES.items():
        if file.name == name and _is_published(file):
            return known(model, spec=imagenet.spec())
    return known()


def _is_published(path: Path) -> bool:
    return download.digest(path).startswith(imagenet.sha256_start(path.name))
