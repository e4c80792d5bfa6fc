"""Where in an image a trained model's answer comes from: a picture, and figures that say how far to believe it.

Of each image and method: an overlay as PNG and the same record as JSON beside it, in the run's explanations/ where no
other place is named. The figures are those of engine/faithfulness.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import catalog, durable
from dlkit.catalog import did_you_mean
from dlkit.data.inputs import Ahead, Given, Read, Stream, inputs
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.specs import ImageSpec
from dlkit.verbs.evaluate import Checkpoint, chosen_run
from dlkit.verbs.pictures import Pictures
from dlkit.verbs.predict import Failure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from dlkit.engine.restore import Restored

SCHEMA = "dlkit.explain/1"
FEATURES_SCHEMA = "dlkit.explain_features/1"
ALL = "all"
SHELF = "explainers"
FOLDER = "explanations"  # of a run
READ_AHEAD = 8  # images
LISTED = 24  # names in an error

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sanity:
    """What is left of a map without what the network has learned."""

    correlation: float | None  # rank correlation with the map of the same network, its weights shuffled
    survives: bool  # the correlation is 0.5 or more: the map does not depend on what was learned
    random_weights: bool  # the network's own weights cannot be told from shuffled ones

    @property
    def flagged(self) -> bool:
        return self.survives or self.random_weights


@dataclass(frozen=True, eq=False)  # arrays have no one truth to compare by
class Explanation:
    """One method's map of one image, and what it is worth."""

    path: str
    model: str
    method: str
    layer: str | None  # whose maps were looked at
    target: str  # the class asked about, the most probable one where none was
    target_index: int
    probability: float  # of the target
    predicted: str  # the most probable class
    deletion_auc: float
    insertion_auc: float
    completeness_error: float | None  # |sum of the map − difference of the logits|, relative to the difference
    sanity: Sanity
    map: npt.NDArray[np.float32]  # (H, W), as the network saw the image
    image: npt.NDArray[np.uint8]  # (C, H, W)
    png: Path | None = None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.explain/1`."""
        return {
            "schema": SCHEMA,
            "path": self.path,
            "model": self.model,
            "method": self.method,
            "layer": self.layer,
            "target": self.target,
            "target_index": self.target_index,
            "probability": self.probability,
            "predicted": self.predicted,
            "png": None if self.png is None else str(self.png),
            "deletion_auc": self.deletion_auc,
            "insertion_auc": self.insertion_auc,
            "completeness_error": self.completeness_error,
            "sanity": {
                "correlation": self.sanity.correlation,
                "survives": self.sanity.survives,
                "random_weights": self.sanity.random_weights,
                "flagged": self.sanity.flagged,
            },
        }


@dataclass(frozen=True)
class Features:
    """A picture of the first layer's filters and of the maps that a layer gives of one image."""

    path: str
    model: str
    layer: str
    channels: int
    height: int
    width: int
    shown: int  # of the channels
    png: Path

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.explain_features/1`."""
        return {
            "schema": FEATURES_SCHEMA,
            "path": self.path,
            "model": self.model,
            "layer": self.layer,
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "shown": self.shown,
            "png": str(self.png),
        }


@dataclass(frozen=True)
class Layer:
    """A module that gives maps in space, and their form."""

    path: str
    kind: str
    channels: int
    height: int
    width: int
    default: bool  # looked at where no other is named


def explain(
    run: RunFolder | Path | str | None = None,
    paths: Given | Iterable[Given] = (),
    *,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    output: Path | str | None = None,
    montage: bool = False,
    seed: int | None = None,
    write: bool = True,
    checkpoint: Checkpoint = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Explanation | Failure]:
    """Explain what a run (the newest, where none is named) says of images, in order; paths are those of predict.

    method is a name of the shelf of explainers or "all" that fit the model; by default grad_cam where the model has
    maps in space, attention_rollout for a vision transformer, else integrated_gradients. target is a class by name, by
    default each image's most probable. output is a .png file, for one picture, or a folder; with `montage` all maps
    stand in one picture. An image that cannot be read is answered by a Failure and the rest go on. What is drawn at
    random comes from `seed`, the run's where none is given.

    Raises:
        UsageError: no such run, method, class or layer, or the method cannot explain the model.
        ModelFileError: the checkpoint is damaged, or its answers are not finite.
        StorageError: the picture cannot be written.
    """
    methods = _methods(method, layer)
    found = _image_run(run, Path(runs_dir), say)
    _check_target(target, found)
    listed = [paths] if isinstance(paths, str | Path | bytes | Stream) else paths
    pictures = Pictures.at(output, found.path / FOLDER, listed) if write else None

    from dlkit.engine.restore import restore

    subject = Subject(restore(found, checkpoint, device, say), seed, say)
    chosen = subject.fitting(methods, layer)
    if pictures is not None and not montage:
        pictures.check_room(len(chosen), listed)
    answers = _explanations(subject, listed, chosen, target, layer, pictures if not montage else None, say)
    return _in_one_picture(answers, pictures) if montage and pictures else answers


def layers(
    run: RunFolder | Path | str | None = None,
    *,
    checkpoint: Checkpoint = "best",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> list[Layer]:
    """The layers of a run's model whose maps can be looked at, in the order in which an image meets them."""
    from dlkit.engine.restore import restore

    subject = Subject(restore(_image_run(run, Path(runs_dir), say), checkpoint, "cpu", say), None, say)
    default = subject.default_layer()
    return [
        Layer(path, type(subject.model.get_submodule(path)).__name__, *form, path == default)
        for path, form in subject.layers().items()
    ]


def features(
    run: RunFolder | Path | str | None = None,
    paths: Given | Iterable[Given] = (),
    *,
    layer: str,
    output: Path | str | None = None,
    checkpoint: Checkpoint = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Features | Failure]:
    """Draw the first convolution's filters, and the maps that a layer gives of each image.

    Raises:
        UsageError: no such run or layer.
    """
    found = _image_run(run, Path(runs_dir), say)
    listed = [paths] if isinstance(paths, str | Path | bytes | Stream) else paths
    pictures = Pictures.at(output, found.path / FOLDER, listed)

    from dlkit.engine.restore import restore

    subject = Subject(restore(found, checkpoint, device, say), None, say)
    subject.check_layer(layer, "--features")
    return _features(subject, listed, layer, pictures, say)


class Subject:
    """The network that is asked about, its shuffled copy, and what is known of both."""

    def __init__(self, restored: Restored, seed: int | None, say: Say) -> None:
        self.restored, self.model, self.spec = restored, restored.model, restored.image_spec
        self.name, self.say = restored.recipe.model.name, say
        self.seed = restored.recipe.train.seed if seed is None else seed
        self._shuffled: nn.Module | None = None
        self._random: bool | None = None

    def blank(self) -> Tensor:
        import torch

        return torch.zeros(1, self.spec.channels, self.spec.height, self.spec.width, device=self.restored.device)

    def layers(self) -> dict[str, tuple[int, int, int]]:
        from dlkit.explainers._layers import spatial_layers

        return spatial_layers(self.model, self.blank())

    def default_layer(self) -> str | None:
        from dlkit.explainers._layers import chosen_layer

        try:
            return chosen_layer(self.model, self.blank(), None)
        except UsageError:
            return None

    def check_layer(self, layer: str, flag: str = "--layer") -> None:
        """Raises: UsageError where no such layer gives maps; the nearest and the others are told."""
        found = self.layers()
        if layer not in found:
            raise UsageError(f"{flag} {layer}: {self.name} has no such layer that gives maps. {_hints(layer, found)}")

    def fitting(self, methods: Sequence[str] | None, layer: str | None) -> list[str]:
        """The methods that can explain this network: those named, or None for its own.

        Raises:
            UsageError: a method that was named alone cannot.
        """
        if layer is not None:
            self.check_layer(layer)
        if methods is None:
            return [self._own_method() if layer is None else "grad_cam"]
        images = self.blank()
        targets = images.new_zeros(1).long()
        fits = []
        for name in methods:
            try:
                if name != "occlusion":  # which fits all, and has no cheap form
                    options = _options(name, layer, self.seed) | _cheapest(name)
                    catalog.load(SHELF, name).explain(self.model, images, targets, **options)
                fits.append(name)
            except UsageError as error:
                if len(methods) == 1:
                    raise UsageError(f"{self.name}: {error}") from None
                self.say(f"{name} is left out: {error}")
        return fits

    def _own_method(self) -> str:
        if self.default_layer() is not None and getattr(self.model, "grid", None) is None:
            return "grad_cam"
        return "attention_rollout" if hasattr(self.model, "grid") else "integrated_gradients"

    def shuffled(self) -> nn.Module:
        from dlkit.engine.faithfulness import shuffled

        if self._shuffled is None:
            self._shuffled = shuffled(self.model, self.seed)
        return self._shuffled

    def looks_random(self) -> bool:
        from dlkit.engine.faithfulness import looks_random

        if self._random is None:
            self._random = looks_random(self.model, self.seed)
            if self._random:
                self.say(
                    f"warning: the weights of {self.name} cannot be told from random ones: its explanations show what "
                    "any untrained network's would, and are flagged. Train it longer."
                )
        return self._random


def _image_run(run: RunFolder | Path | str | None, runs_dir: Path, say: Say) -> RunFolder:
    found = chosen_run(run, runs_dir, say)
    kind = found.spec().kind
    if kind != ImageSpec.kind:
        raise UsageError(f"explain is for models of images; run {found.name} reads {kind}.")
    return found


def _methods(method: str | None, layer: str | None) -> list[str] | None:
    """What was asked for; None leaves it to the network."""
    known = catalog.entries(SHELF)
    if method is None:
        return None
    if method == ALL:
        return list(known)
    if method not in known:
        raise UsageError(f"--method {method}: there is none of that name. {_hints(method, [*known, ALL])}")
    if layer is not None and "layer" not in known[method].options:
        with_layer = ", ".join(name for name, entry in known.items() if "layer" in entry.options)
        raise UsageError(f"--layer is for {with_layer}; {method} looks at the whole network.")
    return [method]


def _check_target(target: str | None, run: RunFolder) -> None:
    classes = run.spec().classes
    if target is not None and target not in classes:
        raise UsageError(f"--target {target}: run {run.name} knows no such class. {_hints(target, classes)}")


def _hints(name: str, names: Iterable[str]) -> str:
    """The nearest right name, and then all of them, the first ones where they are many."""
    names = list(names)
    hint = did_you_mean(name, names)
    if not hint.startswith("Did"):
        return hint
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{hint} There are: {', '.join(names[:LISTED])}{more}."


def _options(method: str, layer: str | None, seed: int) -> dict[str, Any]:
    known = catalog.entry(SHELF, method).options
    return {name: value for name, value in {"layer": layer, "seed": seed}.items() if name in known}


def _cheapest(method: str) -> dict[str, Any]:
    """Options with which a method costs least, to see whether it fits the network."""
    least = {"samples": 1, "steps": 1, "most": 1}
    return {name: value for name, value in least.items() if name in catalog.entry(SHELF, method).options}


def _explanations(
    subject: Subject,
    paths: Iterable[Given],
    methods: Sequence[str],
    target: str | None,
    layer: str | None,
    pictures: Pictures | None,
    say: Say,
) -> Iterator[Explanation | Failure]:
    for read in _reads(paths, subject.spec, say):
        if isinstance(read.content, DlkitError):
            yield Failure(read.name, subject.name, read.content.exit_code, str(read.content), SCHEMA)
            continue
        for method in methods:
            explanation = _explanation(subject, read, method, target, layer)
            yield explanation if pictures is None else _drawn(explanation, pictures)


def _reads(paths: Iterable[Given], spec: ImageSpec, say: Say) -> Iterator[Read]:
    with closing(Ahead(inputs(paths, spec), spec, READ_AHEAD)) as ahead:
        for batch in ahead.batches(1, None):
            for read in batch:
                for note in read.notes:
                    say(f"warning: {note}")
                yield read


def _explanation(subject: Subject, read: Read, method: str, target: str | None, layer: str | None) -> Explanation:
    import torch

    from dlkit.data.batches import normalize
    from dlkit.engine import faithfulness
    from dlkit.explainers._layers import chosen_layer

    spec, model = subject.spec, subject.model
    pixels: Any = read.content
    images = normalize(torch.from_numpy(pixels[None]).to(subject.restored.device), spec)
    answer = faithfulness.probabilities(model, images)[0]
    if not bool(answer.isfinite().all()):
        raise ModelFileError(f"run {subject.restored.run.name}: the model's answers are not finite. Train it again.")
    best = int(answer.argmax())
    index = best if target is None else spec.classes.index(target)
    targets = torch.tensor([index], device=images.device)
    options, explainer = _options(method, layer, subject.seed), catalog.load(SHELF, method)
    map = explainer.explain(model, images, targets, **options)
    other = explainer.explain(subject.shuffled(), images, targets, **options)
    deletion, insertion = faithfulness.deletion_and_insertion(model, images[0], index, map[0])
    correlation = faithfulness.rank_correlation(map, other)
    return Explanation(
        path=read.name,
        model=subject.name,
        method=method,
        layer=chosen_layer(model, images, layer) if "layer" in options else None,
        target=spec.classes[index],
        target_index=index,
        probability=float(answer[index]),
        predicted=spec.classes[best],
        deletion_auc=deletion,
        insertion_auc=insertion,
        completeness_error=_completeness(explainer, model, images, targets, map),
        sanity=Sanity(
            correlation, correlation is not None and correlation >= faithfulness.SURVIVES, subject.looks_random()
        ),
        map=map[0].cpu().numpy(),
        image=pixels,
    )


def _completeness(explainer: Any, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor) -> float | None:
    """How far the map's sum is from the difference of the logits, relative to that; None where none is promised."""
    from dlkit.explainers._gradients import scores

    if not hasattr(explainer, "baseline"):
        return None
    difference = float(scores(model, images, targets) - scores(model, explainer.baseline(images), targets))
    return abs(float(maps.sum()) - difference) / abs(difference) if difference else None


def _drawn(explanation: Explanation, pictures: Pictures) -> Explanation:
    from dlkit.verbs import overlay

    path = pictures.place(explanation.path, explanation.method)
    found = replace(explanation, png=path)
    overlay.draw(found, path)
    durable.write_json(path.with_suffix(".json"), found.document())
    return found


def _in_one_picture(answers: Iterator[Explanation | Failure], pictures: Pictures) -> Iterator[Explanation | Failure]:
    """The same answers, drawn in one picture once all are known."""
    from dlkit.verbs import overlay

    path = pictures.place("montage", "")
    found = [answer if isinstance(answer, Failure) else replace(answer, png=path) for answer in answers]
    explained = [answer for answer in found if isinstance(answer, Explanation)]
    if explained:
        overlay.montage(explained, path)
    yield from found


def _features(
    subject: Subject, paths: Iterable[Given], layer: str, pictures: Pictures, say: Say
) -> Iterator[Features | Failure]:
    import torch

    from dlkit.data.batches import normalize
    from dlkit.explainers._layers import kept_maps
    from dlkit.verbs import overlay

    for read in _reads(paths, subject.spec, say):
        if isinstance(read.content, DlkitError):
            yield Failure(read.name, subject.name, read.content.exit_code, str(read.content), SCHEMA)
            continue
        pixels: Any = read.content
        with torch.no_grad(), kept_maps(subject.model, layer) as kept:
            subject.model(normalize(torch.from_numpy(pixels[None]).to(subject.restored.device), subject.spec))
        maps = kept[-1][0].cpu().numpy()  # (C, h, w)
        path = pictures.place(read.name, f"features-{layer}")
        title = f"{subject.name}: {layer} gives {len(maps)} maps of {maps.shape[1]} x {maps.shape[2]}"
        shown = overlay.features(pixels, first_filters(subject.model), maps, title, path)
        channels, height, width = maps.shape
        yield Features(read.name, subject.name, layer, channels, height, width, shown, path)


def first_filters(model: nn.Module) -> npt.NDArray[np.float32] | None:
    """The weights of the first convolution, (maps, C, kh, kw); None where there is none."""
    from torch import nn

    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return None
    weights: npt.NDArray[np.float32] = first.weight.detach().cpu().numpy()
    return weights
