"""Ablation: the effect of each part of a recipe, by trainings with all parts and without each, under the same seeds.

An ablation is a folder of run folders, `all-seed0`, `no-dropout-seed0`, …, with recipe.yaml, ablation.json,
ablation.csv and effects.png. The same call continues where it stopped: a finished run is not repeated, an interrupted
one is resumed, and a call for more parts or seeds uses the existing runs.

The effect of a part is top-1 with all parts minus top-1 without it, in percentage points: above 0 it helps. Trainings
are paired by their seed, which determines the weights, the order and the validation split. With two or more seeds the
test and the interval are Student's over the pairs. With one they are of the matched samples (McNemar's mid-p, Tango's
score interval): they cover the choice of images, but not the variance of training. With several parts, the verdicts use
p-values after Holm's correction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import atomic_io, csv_text, documents, statistics
from dlkit.config import ablation_parts
from dlkit.config.ablation_parts import Changes
from dlkit.config.schema import Recipe
from dlkit.errors import DataError, DivergedError, ModelFileError, UsageError
from dlkit.evaluation.record import read_evaluation, read_predictions, same_conditions, staleness
from dlkit.experiments import trainings
from dlkit.experiments.trainings import Say
from dlkit.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA = "dlkit.ablate/1"
ALL_PARTS = "all"
MAX_SEEDS = 1000
COLUMNS = (
    "part", "top1_with", "top1_without", "effect_pp", "low_pp", "high_pp", "pairs", "over", "p_value", "p_holm",
    "verdict",
)  # fmt: skip
SEEDS, IMAGES = "seeds", "images"  # what an interval covers

Split = Literal["validation", "test"]
# The best checkpoint was selected on the validation images, so the last one is evaluated there.
CHECKPOINTS: dict[Split, Literal["best", "last"]] = {"validation": "last", "test": "best"}


@dataclass(frozen=True)
class Training:
    """One training of an ablation; `removed_part` is None for the training with all parts."""

    name: str  # of its run folder
    removed_part: str | None
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training; None if it diverged."""

    training: Training
    top1: float | None
    correct: npt.NDArray[np.bool_] | None  # (N,), in the split's order
    fingerprint: str | None  # SHA-256 of the split


@dataclass(frozen=True)
class Effect:
    """The effect of a part: means over the pairs, top1_with and top1_without as fractions, the rest in points."""

    part: str
    changes: Changes
    pairs: int
    top1_with: float | None
    top1_without: float | None
    effect_pp: float | None
    low_pp: float | None
    high_pp: float | None
    over: str | None = None  # what the interval and the test cover: seeds or images
    p_value: float | None = None
    p_holm: float | None = None  # adjusted for the number of parts

    @property
    def verdict(self) -> str | None:
        """Whether the part helps or harms, or the effect is unclear."""
        if self.p_holm is None or self.effect_pp is None:
            return None
        if self.p_holm >= statistics.LEVEL:
            return "unclear"
        return "helps" if self.effect_pp > 0 else "harms"

    def row(self) -> dict[str, Any]:
        """A row of the table."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Ablation:
    """The result of an ablation."""

    folder: Path
    recipe: Recipe
    split: Split
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    runs: tuple[TrainingResult, ...]

    @property
    def interval(self) -> str:
        """What the intervals cover."""
        return "seeds" if len(self.seeds) > 1 else "matched samples"

    @property
    def diverged(self) -> tuple[str, ...]:
        """The names of the trainings that diverged."""
        return tuple(run.training.name for run in self.runs if run.top1 is None)

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.ablate/1`."""
        runs = [
            {
                "run": run.training.name,
                "left_out": run.training.removed_part,
                "seed": run.training.seed,
                "top1": run.top1,
            }
            for run in self.runs
        ]
        return {
            "schema": SCHEMA,
            "ablation": self.folder.name,
            "model": self.recipe.model.name,
            "dataset": self.recipe.data.name,
            "split": self.split,
            "checkpoint": CHECKPOINTS[self.split],
            "seeds": list(self.seeds),
            "interval": self.interval,
            "effects": [effect.row() for effect in self.effects],
            "runs": runs,
        }


def plan_trainings(recipe: Recipe, drop: Sequence[str], seeds: int) -> list[Training]:
    """The trainings of an ablation, seed by seed.

    Raises:
        UsageError: the recipe does not use a part that is to be removed.
    """
    selected = ablation_parts.select(recipe, drop)
    if not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(f"--seeds {seeds} is out of range. Use a number from 1 to {MAX_SEEDS}.")
    plan = []
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        seeded = ablation_parts.without(recipe, {"train.seed": seed})
        plan.append(Training(f"{ALL_PARTS}-seed{seed}", None, seed, seeded))
        for part, changes in selected.items():
            plan.append(Training(f"no-{part}-seed{seed}", part, seed, ablation_parts.without(seeded, changes)))
    return plan


def default_name(recipe: Recipe) -> str:
    """ablation-lenet5-mnist."""
    return f"ablation-{recipe.model.name}-{recipe.data.name}"


def ablate(
    recipe: Recipe,
    drop: Sequence[str],
    *,
    seeds: int = 1,
    split: Split = "validation",
    name: str | None = None,
    runs_dir: Path | str = "runs",
    retrain: bool = False,
    argv: Sequence[str] = (),
    say: Say = lambda text: None,
    progress: bool = False,
) -> Ablation:
    """Train with all parts and without each part in `drop`, under `seeds` seeds starting with the recipe's.

    The default split is validation, so that the test split is kept for the final evaluation; on validation the last
    checkpoint is evaluated, because the best one was selected on the same images, on test the best. A training that
    diverges is reported, and its pair skipped. `retrain` trains runs with other data, packages or settings again.

    Raises:
        UsageError: the recipe does not use a part; the folder has another ablation, or runs of other packages.
        DataError: there is no such split, or the data has changed.
        BusyError: another process uses the folder. StoppedError and other errors of train: call again to continue.
    """
    recipe = trainings.resolve_weights(recipe, Path(runs_dir))
    plan = plan_trainings(recipe, drop, seeds)
    folder = Path(runs_dir) / (name or default_name(recipe))
    test_sha256 = _check_split(recipe, split, say)
    trainings.open_folder(folder, recipe, "ablation")
    say(f"ablation: {folder}")
    with RunFolder(folder).locked():
        members = [(RunFolder(folder / training.name), training.recipe) for training in plan]
        trainings.check_comparable(members, retrain=retrain, say=say)
        runs = [_train_and_evaluate(*item, folder, split, test_sha256, argv, say, progress) for item in _number(plan)]
        ablation = _summarize(folder, recipe, split, drop, runs)
        _write(ablation)
    say(f"wrote {folder}: ablation.json, ablation.csv, effects.png")
    return ablation


def _check_split(recipe: Recipe, split: Split, say: Say) -> str | None:
    """Refuse a missing split, or a model that is not trained, before hours of training.

    Returns the fingerprint of the test split if it is the one to evaluate.
    """
    from dlkit.data.fingerprint import fingerprint
    from dlkit.data.library import splits
    from dlkit.evaluation.matching import readable
    from dlkit.training.inputs import refuse_fitted

    refuse_fitted(recipe)
    if split not in CHECKPOINTS:
        raise UsageError(f"--split {split}: an ablation is evaluated on validation or test.")
    available = splits(recipe.data, log=say)
    if not available.spec.classes:
        raise UsageError(f"an ablation compares accuracies, but data set {recipe.data.name!r} has no classes.")
    if split == "test" and available.test is None:
        raise DataError(f"data set {recipe.data.name!r} has no test split. Remove --split.")
    if split == "validation" and available.validation is None and recipe.data.validation == 0:
        raise UsageError("there is no validation split: data.validation is 0. Increase it, or use --split test.")
    if split == "validation" or available.test is None:  # validation images are checked in training
        return None
    return fingerprint(readable(available.test, split, recipe.data, say)[0], available.spec.classes)


def _number(plan: Sequence[Training]) -> Iterator[tuple[Training, str]]:
    for number, training in enumerate(plan, start=1):
        yield training, f"training {number} of {len(plan)}, {training.name}"


def _train_and_evaluate(
    training: Training,
    title: str,
    folder: Path,
    split: Split,
    test_sha256: str | None,
    argv: Sequence[str],
    say: Say,
    progress: bool,
) -> TrainingResult:
    run = RunFolder(folder / training.name)
    try:
        trainings.finish(run, training.recipe, title, argv=argv, say=say, progress=progress)
    except DivergedError as error:
        say(f"warning: {title}: {error}")
        return TrainingResult(training, None, None, None)
    return _evaluate(training, run, split, test_sha256, say)


def _evaluate(training: Training, run: RunFolder, split: Split, test_sha256: str | None, say: Say) -> TrainingResult:
    """The samples that the run classifies correctly, by its stored evaluation or a new one."""
    import numpy as np

    if not _is_evaluated(run, split, test_sha256):
        from dlkit.evaluation.evaluate import evaluate

        evaluate(
            run, split=split, checkpoint=CHECKPOINTS[split], device=training.recipe.train.device,
            say=lambda text: say(text) if text.startswith("warning: ") else None,
        )  # fmt: skip
    document = read_evaluation(run)
    correct = np.array([line["predicted"] == line["target"] for line in read_predictions(run, document)])
    return TrainingResult(training, float(correct.mean()), correct, document["fingerprint"])


def _is_evaluated(run: RunFolder, split: Split, test_sha256: str | None) -> bool:
    """Whether the run's stored evaluation is complete, and of the present split and checkpoint."""
    try:
        document = read_evaluation(run)
        expected = {
            "split": split,
            "checkpoint": CHECKPOINTS[split],
            "dataset": run.recipe().data.name,
            "samples": len(read_predictions(run, document)),
            "fingerprint": test_sha256 or run.info()["data"].get(split, {}).get("sha256"),
        }
        matches = all(document.get(key) == value for key, value in expected.items())
        return matches and not same_conditions(document, {}) and not staleness(run, document)
    except (AttributeError, KeyError, ModelFileError):
        return False


def _summarize(folder: Path, recipe: Recipe, split: Split, drop: Sequence[str], runs: list[TrainingResult]) -> Ablation:
    by_name = {(run.training.removed_part, run.training.seed): run for run in runs}
    seeds = tuple(dict.fromkeys(run.training.seed for run in runs))
    selected = ablation_parts.select(recipe, drop)
    effects = []
    for part, changes in selected.items():
        pairs = [(by_name[None, seed], by_name[part, seed]) for seed in seeds]
        effects.append(_effect(part, changes, [pair for pair in pairs if None not in (pair[0].top1, pair[1].top1)]))
    return Ablation(folder, recipe, split, seeds, tuple(_adjust(effects)), tuple(runs))


def _adjust(effects: Sequence[Effect]) -> Iterator[Effect]:
    adjusted = iter(statistics.holm([effect.p_value for effect in effects if effect.p_value is not None]))
    for effect in effects:
        yield effect if effect.p_value is None else replace(effect, p_holm=next(adjusted))


def _effect(part: str, changes: Changes, pairs: Sequence[tuple[TrainingResult, TrainingResult]]) -> Effect:
    if not pairs:
        return Effect(part, changes, 0, None, None, None, None, None)
    for complete, reduced in pairs:
        if complete.fingerprint != reduced.fingerprint:
            names = f"{complete.training.name} and {reduced.training.name}"
            raise DataError(f"{names} were evaluated on different images: the data changed. Use a new --name.")
    tops = [(run.top1 or 0.0, reduced.top1 or 0.0) for run, reduced in pairs]
    result = _estimate(pairs, [complete - reduced for complete, reduced in tops])
    means = [sum(column) / len(pairs) for column in zip(*tops, strict=True)]
    return Effect(
        part, changes, len(pairs), means[0], means[1], 100 * result.value, 100 * result.low, 100 * result.high,
        SEEDS if len(pairs) > 1 else IMAGES, result.p_value,
    )  # fmt: skip


def _estimate(
    pairs: Sequence[tuple[TrainingResult, TrainingResult]], differences: Sequence[float]
) -> statistics.Estimate:
    complete, reduced = pairs[0][0].correct, pairs[0][1].correct
    assert complete is not None and reduced is not None
    if len(differences) > 1:
        return statistics.student(differences, 1 / len(complete))
    return statistics.matched_difference(
        int((complete & ~reduced).sum()), int((reduced & ~complete).sum()), len(complete)
    )


def _write(ablation: Ablation) -> None:
    from dlkit.plots.bars import Bar, write_effects

    rows = [effect.row() for effect in ablation.effects]
    cells = ([row.get(column) for column in COLUMNS] for row in rows)
    atomic_io.write_text(ablation.folder / "ablation.csv", csv_text.document([COLUMNS, *cells]))
    bars = [Bar(effect.part, effect.effect_pp, effect.low_pp, effect.high_pp) for effect in ablation.effects]
    seeds = f"{len(ablation.seeds)} seed{'s' if len(ablation.seeds) > 1 else ''}"
    title = f"{ablation.recipe.model.name} on {ablation.recipe.data.name}, {ablation.split}: effects of parts, {seeds}"
    x_label = f"effect on top-1, percentage points; 95 % interval over {ablation.interval}"
    write_effects(bars, title, x_label, ablation.folder / "effects.png")
    documents.write(ablation.folder / "ablation.json", ablation.document())
