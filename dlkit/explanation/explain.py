"""Explanations of a trained model's predictions: the pixels or words that they depend on, and how far to trust them.

For each input and method: an overlay as PNG, and the same record as JSON next to it, in the run's explanations/ unless
another path is given. The measures of quality are those of explanation/faithfulness.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import documents, registry
from dlkit.data.inputs import InputLike, LoadedInput, listed
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.evaluation.prediction import Failure
from dlkit.explanation.feature_maps import features as features
from dlkit.explanation.feature_maps import layers as layers
from dlkit.explanation.output_paths import OutputPaths
from dlkit.explanation.records import FOLDER, SCHEMA, Explanation, Sanity, suggest
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from dlkit.explanation.model import ExplainedModel
    from dlkit.explanation.views import View

ALL = "all"
REGISTRY = "explainers"

Say = Callable[[str], None]


def explain(
    run: RunFolder | Path | str | None = None,
    paths: InputLike | Iterable[InputLike] = (),
    *,
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    output: Path | str | None = None,
    montage: bool = False,
    seed: int | None = None,
    write: bool = True,
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Explanation | Failure]:
    """Explain the predictions of a run (by default the newest) for images or texts; paths are those of predict.

    method is the name of a method, or "all" for those that fit the model; the default is grad_cam for a model with
    feature maps, attention_rollout for a vision transformer, and integrated_gradients otherwise. target is the name of
    a class, by default the most probable one of each input. output is a .png file for a single image, or a folder; with
    `montage` the maps of all images are drawn in one image. An input that cannot be read gives a Failure, and the rest
    continue. Random numbers are seeded by `seed`, by default the run's.

    Raises:
        UsageError: no such run, method, class or layer, or the method cannot explain the model.
        ModelFileError: the checkpoint is damaged, or its predictions are not finite.
        StorageError: the image cannot be written.
    """
    _check_method(method, layer)
    folder = select_run(run, Path(runs_dir), say)
    methods = _methods(folder, method, layer, montage)
    _check_target(target, folder)
    several = listed(paths)
    output_paths = OutputPaths.create(output, folder.path / FOLDER, several) if write else None

    from dlkit.explanation.model import ExplainedModel
    from dlkit.training.restore import restore

    model = ExplainedModel(restore(folder, checkpoint, device, say), seed, say)
    supported = model.supported_methods(methods, layer)
    if output_paths is not None and not montage:
        output_paths.check_capacity(len(supported), several)
    explanations = _explanations(model, several, supported, target, layer, output_paths if not montage else None)
    return _draw_montage(explanations, output_paths) if montage and output_paths else explanations


def _check_method(method: str | None, layer: str | None) -> None:
    """Raises: UsageError if the method does not exist, or has no layer to select."""
    known = registry.entries(REGISTRY)
    if method in (None, ALL):
        return
    if method not in known:
        raise UsageError(f"--method {method}: no such method. {suggest(method, [*known, ALL])}")
    if layer is not None and "layer" not in known[method].options:
        with_layer = ", ".join(name for name, entry in known.items() if "layer" in entry.options)
        raise UsageError(f"--layer is for {with_layer}; {method} uses the whole network.")


def _methods(run: RunFolder, method: str | None, layer: str | None, montage: bool) -> list[str] | None:
    """The requested methods that explain this kind of input; None selects the model's default.

    Raises:
        UsageError: no method explains this kind of input, or the options do not apply to it.
    """
    spec = run.spec()
    if not isinstance(spec, ImageSpec) and not (spec.words and spec.classes):
        raise UsageError(f"explain is for models of images, text and trees; run {run.name} takes sequences of numbers.")
    if not isinstance(spec, ImageSpec) and (layer is not None or montage):
        flag = "--montage" if layer is None else "--layer"
        raise UsageError(f"{flag} is for models of images; run {run.name} takes {spec.kind}.")
    fitting = [name for name, entry in registry.entries(REGISTRY).items() if spec.kind in entry.takes]
    if method is None:
        return None
    if method == ALL:
        return fitting
    if method not in fitting:
        raise UsageError(f"--method {method} does not explain {spec.kind}. There are: {', '.join([*fitting, ALL])}.")
    return [method]


def _check_target(target: str | None, run: RunFolder) -> None:
    classes = run.spec().classes
    if target is not None and target not in classes:
        raise UsageError(f"--target {target}: run {run.name} has no such class. {suggest(target, classes)}")


def _explanations(
    model: ExplainedModel,
    paths: Iterable[InputLike],
    methods: Sequence[str],
    target: str | None,
    layer: str | None,
    output_paths: OutputPaths | None,
) -> Iterator[Explanation | Failure]:
    for item in model.read(paths):
        if isinstance(item.content, DlkitError):
            yield Failure(item.name, model.name, item.content.exit_code, str(item.content), SCHEMA)
            continue
        view = model.view(item.content)
        for method in methods:
            explanation = _explanation(model, view, item, method, target, layer)
            if explanation.empty:
                where = f" at {explanation.layer}. Try another --layer" if explanation.layer else ""
                model.say(f"note: {item.name}: {method} has no evidence for {explanation.target}{where}.")
            yield explanation if output_paths is None else _draw(explanation, output_paths)


def _explanation(
    model: ExplainedModel, view: View, item: LoadedInput, method: str, target: str | None, layer: str | None
) -> Explanation:
    import torch

    from dlkit.explanation import faithfulness
    from dlkit.explanation.methods._layers import select_layer

    spec, explainer, options = model.spec, registry.load(REGISTRY, method), model.options(method, layer)
    probabilities = faithfulness.probabilities(view.model, view.inputs, model.restored.link)[0]
    if not bool(probabilities.isfinite().all()):
        raise ModelFileError(f"run {model.restored.run.name}: the predictions are not finite. Train the model again.")
    best = int(probabilities.argmax())
    index = best if target is None else spec.classes.index(target)
    targets = torch.tensor([index], device=view.inputs.device)
    map = explainer.explain(view.model, view.inputs, targets, **options)  # (1, H, W)
    shuffled = [explainer.explain(network, inputs, targets, **options) for network, inputs in view.shuffled()]
    deletion, insertion = view.deletion_and_insertion(index, map[0])
    return Explanation(
        path=item.name,
        model=model.name,
        method=method,
        layer=select_layer(view.model, view.inputs, layer) if "layer" in options else None,
        target=spec.classes[index],
        target_index=index,
        probability=float(probabilities[index]),
        predicted=spec.classes[best],
        deletion_auc=deletion,
        insertion_auc=insertion,
        completeness_error=_completeness_error(explainer, view, targets, float(map.sum())),
        sanity=_sanity(model, [faithfulness.rank_correlation(map, other) for other in shuffled]),
        map=map[0].cpu().numpy(),
        notes=item.notes,
        **view.record_fields(explainer, targets, map[0]),
    )


def _sanity(model: ExplainedModel, correlations: Sequence[float | None]) -> Sanity:
    """The mean of the correlations that are defined."""
    from dlkit.explanation.faithfulness import MIN_SURVIVING_CORRELATION

    defined = [value for value in correlations if value is not None]
    mean = sum(defined) / len(defined) if defined else None
    return Sanity(mean, mean is not None and mean >= MIN_SURVIVING_CORRELATION, model.has_random_weights())


def _completeness_error(explainer: Any, view: View, targets: Any, total: float) -> float | None:
    """|sum of the map − difference of the logits|, relative to the difference; None for methods without a baseline."""
    from dlkit.explanation.methods._gradients import target_logits

    if not hasattr(explainer, "baseline"):
        return None
    ends = [target_logits(view.model, inputs, targets) for inputs in (view.inputs, explainer.baseline(view.inputs))]
    difference = float(ends[0] - ends[1])
    return abs(total - difference) / abs(difference) if difference else None


def _draw(explanation: Explanation, output_paths: OutputPaths) -> Explanation:
    from dlkit.explanation import overlay, overlay_text

    path = output_paths.assign(explanation.path, explanation.method)
    explanation = replace(explanation, png=path)
    draw = overlay_text.draw if explanation.image is None else overlay.draw
    draw(explanation, path)
    documents.write(path.with_suffix(".json"), explanation.document())
    return explanation


def _draw_montage(
    answers: Iterator[Explanation | Failure], output_paths: OutputPaths
) -> Iterator[Explanation | Failure]:
    """The same records, drawn in one image once all are known."""
    from dlkit.explanation import overlay

    path = output_paths.assign("montage", "")
    results = [answer if isinstance(answer, Failure) else replace(answer, png=path) for answer in answers]
    explanations = [answer for answer in results if isinstance(answer, Explanation)]
    if explanations:
        overlay.montage(explanations, path)
    yield from results
