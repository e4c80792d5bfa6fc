"""What each part of a recipe is worth: trainings with all of them, and without each, under the same seeds.

An ablation is a folder of run folders, `all-seed0`, `no-dropout-seed0`, …, with recipe.yaml, ablation.json,
ablation.csv and effects.png. The same call goes on where it stopped: a run that has finished is not repeated, one that
was broken off is resumed, and a call for more parts or seeds uses the runs that are there.

The effect of a part is top-1 with everything minus top-1 without it, in percentage points: above 0 it helps. Trainings
are paired by their seed, which draws the weights, the order and the validation split. With two seeds or more the test
and the interval are Student's over the pairs. With one they are of the matched samples (McNemar's mid-p, Tango's score
interval): they state how much the images at hand decide, and nothing about the luck of a training. If there are several
parts, the verdicts go by the p values after Holm's correction.
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
EVERYTHING = "all"
MOST_SEEDS = 1000
COLUMNS = (
    "part", "top1_with", "top1_without", "effect_pp", "low_pp", "high_pp", "pairs", "over", "p_value", "p_holm",
    "verdict",
)  # fmt: skip
SEEDS, IMAGES = "seeds", "images"  # what an interval covers

Split = Literal["validation", "test"]
# The best checkpoint was chosen on the validation images, so there the last one is measured.
CHECKPOINTS: dict[Split, Literal["best", "last"]] = {"validation": "last", "test": "best"}


@dataclass(frozen=True)
class Training:
    """One training of an ablation: `left_out` is a part's name, or none where nothing is left out."""

    name: str  # of its run folder
    left_out: str | None
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Measured:
    """What a training reached; nothing where it diverged."""

    training: Training
    top1: float | None
    right: npt.NDArray[np.bool_] | None  # (N,), in the split's order
    fingerprint: str | None  # SHA-256 of the split


@dataclass(frozen=True)
class Effect:
    """What a part brings: means over the pairs, top1_with and top1_without as fractions, the rest percentage points."""

    part: str
    changes: Changes
    pairs: int
    top1_with: float | None
    top1_without: float | None
    effect_pp: float | None
    low_pp: float | None
    high_pp: float | None
    over: str | None = None  # what interval and test cover: seeds or images
    p_value: float | None = None
    p_holm: float | None = None  # adjusted for the number of parts

    @property
    def verdict(self) -> str | None:
        """Whether the part helps, harms, or neither can be said."""
        if self.p_holm is None or self.effect_pp is None:
            return None
        if self.p_holm >= statistics.LEVEL:
            return "unclear"
        return "helps" if self.effect_pp > 0 else "harms"

    def row(self) -> dict[str, Any]:
        """Its line of a table."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Ablation:
    """What an ablation found."""

    folder: Path
    recipe: Recipe
    split: Split
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    runs: tuple[Measured, ...]

    @property
    def interval(self) -> str:
        """What the intervals are over."""
        return "seeds" if len(self.seeds) > 1 else "matched samples"

    @property
    def diverged(self) -> tuple[str, ...]:
        """The names of the trainings that diverged."""
        return tuple(run.training.name for run in self.runs if run.top1 is None)

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.ablate/1`."""
        runs = [
            {"run": run.training.name, "left_out": run.training.left_out, "seed": run.training.seed, "top1": run.top1}
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


def planned(recipe: Recipe, drop: Sequence[str], seeds: int) -> list[Training]:
    """The trainings of an ablation, seed by seed.

    Raises:
        UsageError: the recipe does not use what is to be left out.
    """
    chosen = ablation_parts.select(recipe, drop)
    if not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds {seeds}: it is a number of trainings of each, 1 to {MOST_SEEDS}.")
    plan = []
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        seeded = ablation_parts.without(recipe, {"train.seed": seed})
        plan.append(Training(f"{EVERYTHING}-seed{seed}", None, seed, seeded))
        for part, changes in chosen.items():
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
    """Train with everything and without each part in `drop`, under `seeds` seeds from the recipe's own on.

    The test split may be asked for; the default leaves it for the end of the work. There the last checkpoint is
    measured, as the best one was chosen on the same images; on the test split the best. A training that diverges is
    said, and its pair left out. `retrain` trains again the runs that were made with other data, packages or settings.

    Raises:
        UsageError: the recipe does not use a part; the folder holds another ablation, or runs made by other packages.
        DataError: there is no such split, or the data changed meanwhile.
        BusyError: another process is at it. StoppedError and the rest of train's: call again to go on.
    """
    recipe = trainings.found_weights(recipe, Path(runs_dir))
    plan = planned(recipe, drop, seeds)
    folder = Path(runs_dir) / (name or default_name(recipe))
    test_sha256 = _check_split(recipe, split, say)
    trainings.open_folder(folder, recipe, "ablation")
    say(f"ablation: {folder}")
    with RunFolder(folder).locked():
        members = [(RunFolder(folder / training.name), training.recipe) for training in plan]
        trainings.check_alike(members, retrain=retrain, say=say)
        runs = [_measured(*item, folder, split, test_sha256, argv, say, progress) for item in _numbered(plan)]
        found = _found(folder, recipe, split, drop, runs)
        _write(found)
    say(f"written into {folder}: ablation.json, ablation.csv, effects.png")
    return found


def _check_split(recipe: Recipe, split: Split, say: Say) -> str | None:
    """Refuse, before hours of training, a split that there is not, or a model that is not trained.

    Returns the test split's fingerprint if that is measured.
    """
    from dlkit.data.fingerprint import fingerprint
    from dlkit.data.library import splits
    from dlkit.evaluation.matching import readable
    from dlkit.training.inputs import refuse_fitted

    refuse_fitted(recipe)
    if split not in CHECKPOINTS:
        raise UsageError(f"an ablation is measured on validation or test, not on {split!r}.")
    found = splits(recipe.data, log=say)
    if not found.spec.classes:
        raise UsageError(f"an ablation counts right answers; data set {recipe.data.name!r} has no classes.")
    if split == "test" and found.test is None:
        raise DataError(f"data set {recipe.data.name!r} has no test split. Leave --split out.")
    if split == "validation" and found.validation is None and recipe.data.validation == 0:
        raise UsageError("there is no validation split, as data.validation is 0. Keep some, or give --split test.")
    if split == "validation" or found.test is None:  # validation images are among those of training: checked there
        return None
    return fingerprint(readable(found.test, split, recipe.data, say)[0], found.spec.classes)


def _numbered(plan: Sequence[Training]) -> Iterator[tuple[Training, str]]:
    for number, training in enumerate(plan, start=1):
        yield training, f"training {number} of {len(plan)}, {training.name}"


def _measured(
    training: Training,
    title: str,
    folder: Path,
    split: Split,
    test_sha256: str | None,
    argv: Sequence[str],
    say: Say,
    progress: bool,
) -> Measured:
    run = RunFolder(folder / training.name)
    try:
        trainings.finish(run, training.recipe, title, argv=argv, say=say, progress=progress)
    except DivergedError as error:
        say(f"warning: {title}: {error}")
        return Measured(training, None, None, None)
    return _answers(training, run, split, test_sha256, say)


def _answers(training: Training, run: RunFolder, split: Split, test_sha256: str | None, say: Say) -> Measured:
    """Which samples the run gets right: as it was evaluated before, or now."""
    import numpy as np

    if not _evaluated(run, split, test_sha256):
        from dlkit.evaluation.evaluate import evaluate

        evaluate(
            run, split=split, checkpoint=CHECKPOINTS[split], device=training.recipe.train.device,
            say=lambda text: say(text) if text.startswith("warning: ") else None,
        )  # fmt: skip
    document = read_evaluation(run)
    right = np.array([line["predicted"] == line["target"] for line in read_predictions(run, document)])
    return Measured(training, float(right.mean()), right, document["fingerprint"])


def _evaluated(run: RunFolder, split: Split, test_sha256: str | None) -> bool:
    """Whether the run's last evaluation is of this split as it is now, of the checkpoint as it is now, and complete."""
    try:
        document = read_evaluation(run)
        expected = {
            "split": split,
            "checkpoint": CHECKPOINTS[split],
            "dataset": run.recipe().data.name,
            "samples": len(read_predictions(run, document)),
            "fingerprint": test_sha256 or run.info()["data"].get(split, {}).get("sha256"),
        }
        alike = all(document.get(key) == value for key, value in expected.items())
        return alike and not same_conditions(document, {}) and not staleness(run, document)
    except (AttributeError, KeyError, ModelFileError):
        return False


def _found(folder: Path, recipe: Recipe, split: Split, drop: Sequence[str], runs: list[Measured]) -> Ablation:
    by_name = {(run.training.left_out, run.training.seed): run for run in runs}
    seeds = tuple(dict.fromkeys(run.training.seed for run in runs))
    chosen = ablation_parts.select(recipe, drop)
    effects = []
    for part, changes in chosen.items():
        pairs = [(by_name[None, seed], by_name[part, seed]) for seed in seeds]
        effects.append(_effect(part, changes, [pair for pair in pairs if None not in (pair[0].top1, pair[1].top1)]))
    return Ablation(folder, recipe, split, seeds, tuple(_adjusted(effects)), tuple(runs))


def _adjusted(effects: Sequence[Effect]) -> Iterator[Effect]:
    adjusted = iter(statistics.holm([effect.p_value for effect in effects if effect.p_value is not None]))
    for effect in effects:
        yield effect if effect.p_value is None else replace(effect, p_holm=next(adjusted))


def _effect(part: str, changes: Changes, pairs: Sequence[tuple[Measured, Measured]]) -> Effect:
    if not pairs:
        return Effect(part, changes, 0, None, None, None, None, None)
    for whole, less in pairs:
        if whole.fingerprint != less.fingerprint:
            names = f"{whole.training.name} and {less.training.name}"
            raise DataError(f"{names} were measured on different images: the data changed. Give a new --name.")
    tops = [(run.top1 or 0.0, less.top1 or 0.0) for run, less in pairs]
    result = _estimate(pairs, [whole - less for whole, less in tops])
    means = [sum(column) / len(pairs) for column in zip(*tops, strict=True)]
    return Effect(
        part, changes, len(pairs), means[0], means[1], 100 * result.value, 100 * result.low, 100 * result.high,
        SEEDS if len(pairs) > 1 else IMAGES, result.p_value,
    )  # fmt: skip


def _estimate(pairs: Sequence[tuple[Measured, Measured]], differences: Sequence[float]) -> statistics.Estimate:
    whole, less = pairs[0][0].right, pairs[0][1].right
    assert whole is not None and less is not None
    if len(differences) > 1:
        return statistics.student(differences, 1 / len(whole))
    return statistics.matched_difference(int((whole & ~less).sum()), int((less & ~whole).sum()), len(whole))


def _write(found: Ablation) -> None:
    from dlkit.plots.bars import Bar, write_effects

    rows = [effect.row() for effect in found.effects]
    cells = ([row.get(column) for column in COLUMNS] for row in rows)
    atomic_io.write_text(found.folder / "ablation.csv", csv_text.document([COLUMNS, *cells]))
    bars = [Bar(effect.part, effect.effect_pp, effect.low_pp, effect.high_pp) for effect in found.effects]
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    title = f"{found.recipe.model.name} on {found.recipe.data.name}, {found.split}: what each part brings, {seeds}"
    below = f"effect on top-1, percentage points; 95 % interval over {found.interval}"
    write_effects(bars, title, below, found.folder / "effects.png")
    documents.write(found.folder / "ablation.json", found.document())
