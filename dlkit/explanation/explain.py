"""Where in an image, or by which words, a trained model's answer comes about: a picture, and figures to believe it by.

Of each input and method: an overlay as PNG and the same record as JSON beside it, in the run's explanations/ where no
other place is named. The figures are those of explanation/faithfulness.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import documents, registry
from dlkit.data.inputs import Given, Read, Stream
from dlkit.errors import DlkitError, ModelFileError, UsageError
from dlkit.evaluation.prediction import Failure
from dlkit.explanation.feature_maps import features as features
from dlkit.explanation.feature_maps import layers as layers
from dlkit.explanation.pictures import Pictures
from dlkit.explanation.records import FOLDER, SCHEMA, Explanation, Sanity, hints
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from dlkit.explanation.subject import Subject
    from dlkit.explanation.views import View

ALL = "all"
SHELF = "explainers"

Say = Callable[[str], None]


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
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Say = lambda text: None,
) -> Iterator[Explanation | Failure]:
    """Explain what a run (the newest, where none is named) says of images or texts; paths are those of predict.

    method is a name of the shelf of explainers or "all" that fit the model; by default grad_cam where the model has
    maps in space, attention_rollout for a vision transformer, else integrated_gradients. target is a class by name, by
    default each input's most probable. output is a .png file, for one picture, or a folder; with `montage` the maps of
    all images stand in one picture. An input that cannot be read is answered by a Failure and the rest go on. What is
    drawn at random comes from `seed`, the run's where none is given.

    Raises:
        UsageError: no such run, method, class or layer, or the method cannot explain the model.
        ModelFileError: the checkpoint is damaged, or its answers are not finite.
        StorageError: the picture cannot be written.
    """
    _check_method(method, layer)
    found = select_run(run, Path(runs_dir), say)
    methods = _methods(found, method, layer, montage)
    _check_target(target, found)
    listed = [paths] if isinstance(paths, str | Path | bytes | Stream) else paths
    pictures = Pictures.at(output, found.path / FOLDER, listed) if write else None

    from dlkit.explanation.subject import Subject
    from dlkit.training.restore import restore

    subject = Subject(restore(found, checkpoint, device, say), seed, say)
    chosen = subject.fitting(methods, layer)
    if pictures is not None and not montage:
        pictures.check_room(len(chosen), listed)
    answers = _explanations(subject, listed, chosen, target, layer, pictures if not montage else None)
    return _in_one_picture(answers, pictures) if montage and pictures else answers


def _check_method(method: str | None, layer: str | None) -> None:
    """Raises: UsageError where there is no such method, or it looks at no layer."""
    known = registry.entries(SHELF)
    if method in (None, ALL):
        return
    if method not in known:
        raise UsageError(f"--method {method}: there is none of that name. {hints(method, [*known, ALL])}")
    if layer is not None and "layer" not in known[method].options:
        with_layer = ", ".join(name for name, entry in known.items() if "layer" in entry.options)
        raise UsageError(f"--layer is for {with_layer}; {method} looks at the whole network.")


def _methods(run: RunFolder, method: str | None, layer: str | None, montage: bool) -> list[str] | None:
    """What was asked for, as far as it explains what the run reads; None leaves it to the network.

    Raises:
        UsageError: nothing explains what the run reads, or not so.
    """
    spec = run.spec()
    if not isinstance(spec, ImageSpec) and not (spec.words and spec.classes):
        raise UsageError(f"explain is for models of images, text and trees; run {run.name} reads sequences of numbers.")
    if not isinstance(spec, ImageSpec) and (layer is not None or montage):
        given = "--montage" if layer is None else "--layer"
        raise UsageError(f"{given} is for models of images; run {run.name} reads {spec.kind}.")
    fitting = [name for name, entry in registry.entries(SHELF).items() if spec.kind in entry.takes]
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
        raise UsageError(f"--target {target}: run {run.name} knows no such class. {hints(target, classes)}")


def _explanations(
    subject: Subject,
    paths: Iterable[Given],
    methods: Sequence[str],
    target: str | None,
    layer: str | None,
    pictures: Pictures | None,
) -> Iterator[Explanation | Failure]:
    for read in subject.reads(paths):
        if isinstance(read.content, DlkitError):
            yield Failure(read.name, subject.name, read.content.exit_code, str(read.content), SCHEMA)
            continue
        view = subject.view(read.content)
        for method in methods:
            explanation = _explanation(subject, view, read, method, target, layer)
            if explanation.empty:
                where = f" on {explanation.layer}: try another --layer" if explanation.layer else ""
                subject.say(f"note: {read.name}: {method} finds nothing that speaks for {explanation.target}{where}.")
            yield explanation if pictures is None else _drawn(explanation, pictures)


def _explanation(
    subject: Subject, view: View, read: Read, method: str, target: str | None, layer: str | None
) -> Explanation:
    import torch

    from dlkit.explanation import faithfulness
    from dlkit.explanation.methods._layers import chosen_layer

    spec, explainer, options = subject.spec, registry.load(SHELF, method), subject.options(method, layer)
    answer = faithfulness.probabilities(view.model, view.inputs, subject.restored.link)[0]
    if not bool(answer.isfinite().all()):
        raise ModelFileError(f"run {subject.restored.run.name}: the model's answers are not finite. Train it again.")
    best = int(answer.argmax())
    index = best if target is None else spec.classes.index(target)
    targets = torch.tensor([index], device=view.inputs.device)
    map = explainer.explain(view.model, view.inputs, targets, **options)  # (1, H, W)
    others = [explainer.explain(model, inputs, targets, **options) for model, inputs in view.others()]
    deletion, insertion = view.curves(index, map[0])
    return Explanation(
        path=read.name,
        model=subject.name,
        method=method,
        layer=chosen_layer(view.model, view.inputs, layer) if "layer" in options else None,
        target=spec.classes[index],
        target_index=index,
        probability=float(answer[index]),
        predicted=spec.classes[best],
        deletion_auc=deletion,
        insertion_auc=insertion,
        completeness_error=_completeness(explainer, view, targets, float(map.sum())),
        sanity=_sanity(subject, [faithfulness.rank_correlation(map, other) for other in others]),
        map=map[0].cpu().numpy(),
        notes=read.notes,
        **view.shown(explainer, targets, map[0]),
    )


def _sanity(subject: Subject, correlations: Sequence[float | None]) -> Sanity:
    """Of several shuffled networks the mean of what could be correlated."""
    from dlkit.explanation.faithfulness import SURVIVES

    known = [value for value in correlations if value is not None]
    mean = sum(known) / len(known) if known else None
    return Sanity(mean, mean is not None and mean >= SURVIVES, subject.looks_random())


def _completeness(explainer: Any, view: View, targets: Any, total: float) -> float | None:
    """How far the map's sum is from the difference of the logits, relative to that; None where none is promised."""
    from dlkit.explanation.methods._gradients import scores

    if not hasattr(explainer, "baseline"):
        return None
    ends = [scores(view.model, inputs, targets) for inputs in (view.inputs, explainer.baseline(view.inputs))]
    difference = float(ends[0] - ends[1])
    return abs(total - difference) / abs(difference) if difference else None


def _drawn(explanation: Explanation, pictures: Pictures) -> Explanation:
    path = pictures.place(explanation.path, explanation.method)
    found = replace(explanation, png=path)
    if found.image is not None:
        from dlkit.explanation import overlay

        overlay.draw(found, path)
    else:
        from dlkit.explanation import overlay_text

        overlay_text.draw(found, path)
    documents.write(path.with_suffix(".json"), found.document())
    return found


def _in_one_picture(answers: Iterator[Explanation | Failure], pictures: Pictures) -> Iterator[Explanation | Failure]:
    """The same answers, drawn in one picture once all are known."""
    from dlkit.explanation import overlay

    path = pictures.place("montage", "")
    found = [answer if isinstance(answer, Failure) else replace(answer, png=path) for answer in answers]
    explained = [answer for answer in found if isinstance(answer, Explanation)]
    if explained:
        overlay.montage(explained, path)
    yield from found
