"""What each part of a recipe is worth: trainings with all of them, and without each, under the same seeds.

An ablation is a folder of run folders, `all-seed0`, `no-dropout-seed0`, …, with recipe.yaml, ablation.json,
ablation.csv and effects.png. The same call goes on where it stopped: a run that has finished is not repeated, one that
was broken off is resumed, and a call for more parts or seeds uses the runs that are there.

The effect of a part is top-1 with everything minus top-1 without it, in percentage points: above 0 it helps. Trainings
are paired by their seed, which draws the weights, the order and the validation split. With two seeds or more the
interval is Student's over the pairs. With one it is of the matched samples (Agresti and Min 2005): it says how much the
images at hand decide, and nothing about the luck of a training.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import durable, recipe_parts
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DataError, DivergedError, ModelFileError, UsageError
from dlkit.recipe import Recipe
from dlkit.recipe_parts import Changes
from dlkit.verbs import trainings
from dlkit.verbs.trainings import Say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlkit.metrics import Interval

SCHEMA = "dlkit.ablate/1"
EVERYTHING = "all"
MOST_SEEDS = 1000
COLUMNS = ("part", "top1_with", "top1_without", "effect_pp", "low_pp", "high_pp", "pairs")

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
            "effects": [asdict(effect) for effect in self.effects],
            "runs": runs,
        }


def planned(recipe: Recipe, drop: Sequence[str], seeds: int) -> list[Training]:
    """The trainings of an ablation, seed by seed.

    Raises:
        UsageError: the recipe does not use what is to be left out.
    """
    chosen = recipe_parts.chosen(recipe, drop)
    if not 1 <= seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds {seeds}: it is a number of trainings of each, 1 to {MOST_SEEDS}.")
    plan = []
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        seeded = recipe_parts.without(recipe, {"train.seed": seed})
        plan.append(Training(f"{EVERYTHING}-seed{seed}", None, seed, seeded))
        for part, changes in chosen.items():
            plan.append(Training(f"no-{part}-seed{seed}", part, seed, recipe_parts.without(seeded, changes)))
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
    argv: Sequence[str] = (),
    say: Say = lambda text: None,
    progress: bool = False,
) -> Ablation:
    """Train with everything and without each part in `drop`, under `seeds` seeds from the recipe's own on.

    The test split may be asked for; the default leaves it for the end of the work. There the last checkpoint is
    measured, as the best one was chosen on the same images; on the test split the best. A training that diverges is
    said, and its pair left out.

    Raises:
        UsageError: the recipe does not use a part; the folder holds another ablation.
        DataError: there is no such split, or the data changed meanwhile.
        BusyError: another process is at it. StoppedError and the rest of train's: call again to go on.
    """
    recipe = trainings.found_weights(recipe, Path(runs_dir))
    plan = planned(recipe, drop, seeds)
    folder = Path(runs_dir) / (name or default_name(recipe))
    _check_split(recipe, split, say)
    trainings.open_folder(folder, recipe, "ablation")
    say(f"ablation: {folder}")
    with RunFolder(folder).locked():
        runs = [_measured(*item, folder, split, argv, say, progress) for item in _numbered(plan)]
        found = _found(folder, recipe, split, drop, runs)
        _write(found)
    say(f"written into {folder}: ablation.json, ablation.csv, effects.png")
    return found


def _check_split(recipe: Recipe, split: Split, say: Say) -> None:
    """Refuse, before hours of training, a split that there is not, or a model that is not trained."""
    from dlkit.verbs.dataset import splits
    from dlkit.verbs.train.materials import refuse_fitted

    refuse_fitted(recipe)
    if split not in CHECKPOINTS:
        raise UsageError(f"an ablation is measured on validation or test, not on {split!r}.")
    found = splits(recipe.data, say=say)
    if not found.spec.classes:
        raise UsageError(f"an ablation counts right answers; data set {recipe.data.name!r} has no classes.")
    if split == "test" and found.test is None:
        raise DataError(f"data set {recipe.data.name!r} has no test split. Leave --split out.")
    if split == "validation" and found.validation is None and recipe.data.validation == 0:
        raise UsageError("there is no validation split, as data.validation is 0. Keep some, or give --split test.")


def _numbered(plan: Sequence[Training]) -> Iterator[tuple[Training, str]]:
    for number, training in enumerate(plan, start=1):
        yield training, f"training {number} of {len(plan)}, {training.name}"


def _measured(
    training: Training, title: str, folder: Path, split: Split, argv: Sequence[str], say: Say, progress: bool
) -> Measured:
    run = RunFolder(folder / training.name)
    try:
        trainings.finish(run, training.recipe, title, argv=argv, say=say, progress=progress)
    except DivergedError as error:
        say(f"warning: {title}: {error}")
        return Measured(training, None, None, None)
    return _answers(training, run, split, say)


def _answers(training: Training, run: RunFolder, split: Split, say: Say) -> Measured:
    """Which samples the run gets right: as it was evaluated before, or now."""
    import numpy as np

    if not _evaluated(run, split):
        from dlkit.verbs.evaluate import evaluate

        evaluate(
            run, split=split, checkpoint=CHECKPOINTS[split], device=training.recipe.train.device,
            say=lambda text: say(text) if text.startswith("warning: ") else None,
        )  # fmt: skip
    document = json.loads((run.path / "evaluation.json").read_bytes())
    lines = [json.loads(line) for line in (run.path / "predictions.jsonl").read_bytes().splitlines()]
    right = np.array([line["predicted"] == line["target"] for line in lines])
    return Measured(training, float(right.mean()), right, document["fingerprint"])


def _evaluated(run: RunFolder, split: Split) -> bool:
    """Whether the run's last evaluation is the one that is wanted, and whole."""
    try:
        document = json.loads((run.path / "evaluation.json").read_bytes())
        lines = (run.path / "predictions.jsonl").read_bytes().count(b"\n")
        wanted = (split, CHECKPOINTS[split], run.recipe().data.name, lines, None)
        return wanted == tuple(
            document.get(key) for key in ("split", "checkpoint", "dataset", "samples", "mc_dropout")
        ) and document.get("fingerprint") == run.info()["data"].get(split, {}).get("sha256", document["fingerprint"])
    except (OSError, ValueError, AttributeError, KeyError, ModelFileError):
        return False


def _found(folder: Path, recipe: Recipe, split: Split, drop: Sequence[str], runs: list[Measured]) -> Ablation:
    by_name = {(run.training.left_out, run.training.seed): run for run in runs}
    seeds = tuple(dict.fromkeys(run.training.seed for run in runs))
    chosen = recipe_parts.chosen(recipe, drop)
    effects = []
    for part, changes in chosen.items():
        pairs = [(by_name[None, seed], by_name[part, seed]) for seed in seeds]
        effects.append(_effect(part, changes, [pair for pair in pairs if None not in (pair[0].top1, pair[1].top1)]))
    return Ablation(folder, recipe, split, seeds, tuple(effects), tuple(runs))


def _effect(part: str, changes: Changes, pairs: Sequence[tuple[Measured, Measured]]) -> Effect:
    if not pairs:
        return Effect(part, changes, 0, None, None, None, None, None)
    for whole, less in pairs:
        if whole.fingerprint != less.fingerprint:
            names = f"{whole.training.name} and {less.training.name}"
            raise DataError(f"{names} were measured on different images: the data changed. Give a new --name.")
    tops = [(run.top1 or 0.0, less.top1 or 0.0) for run, less in pairs]
    found = _interval(pairs, [whole - less for whole, less in tops])
    means = [sum(column) / len(pairs) for column in zip(*tops, strict=True)]
    return Effect(part, changes, len(pairs), *means, *(100 * value for value in (found.value, found.low, found.high)))


def _interval(pairs: Sequence[tuple[Measured, Measured]], differences: Sequence[float]) -> Interval:
    from dlkit import metrics

    if len(differences) > 1:
        return metrics.mean_difference(differences)
    whole, less = pairs[0][0].right, pairs[0][1].right
    assert whole is not None and less is not None
    return metrics.matched_difference(int((whole & ~less).sum()), int((less & ~whole).sum()), len(whole))


def _write(found: Ablation) -> None:
    from dlkit.verbs.drawing.bars import Bar, effects

    rows = [asdict(effect) for effect in found.effects]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    durable.write_text(found.folder / "ablation.csv", text.getvalue())
    bars = [Bar(effect.part, effect.effect_pp, effect.low_pp, effect.high_pp) for effect in found.effects]
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    title = f"{found.recipe.model.name} on {found.recipe.data.name}, {found.split}: what each part brings, {seeds}"
    below = f"effect on top-1, percentage points; 95 % interval over {found.interval}"
    effects(bars, title, below, found.folder / "effects.png")
    durable.write_json(found.folder / "ablation.json", found.document())
