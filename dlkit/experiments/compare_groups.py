"""Comparison of two groups of runs, each one recipe under several seeds: is one recipe significantly better?

A network's accuracy is one sample from the distribution of its recipe. Welch's t-test over the seeds checks whether the
means differ, without assuming equal variances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dlkit import statistics
from dlkit.errors import DataError, UsageError
from dlkit.experiments.compare_predictions import EvaluatedRun, incompatibility, load_evaluation
from dlkit.runs.provenance import recipe_differences
from dlkit.runs.run_folder import RunFolder

SCHEMA = "dlkit.compare_groups/1"
TEST = "Welch's t over seeds"
CONCERNS = "the recipes, over their seeds"


@dataclass(frozen=True)
class RunGroup:
    """Runs of one recipe, and the top-1 accuracy of each."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    checkpoint: str
    top1: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class GroupComparison:
    """Two groups; the difference is the second's mean top-1 minus the first's, with Welch's 95 % interval."""

    first: RunGroup
    second: RunGroup
    split: str
    samples: int
    difference: statistics.Estimate

    @property
    def verdict(self) -> str:
        """Which is better, at the 5 % level, or that they are not distinguishable."""
        if self.difference.p_value >= statistics.LEVEL:
            return "not distinguishable"
        return "second is better" if self.difference.value > 0 else "first is better"

    def sentence(self) -> str:
        """The verdict in a sentence."""
        value, low, high = (100 * part for part in (self.difference.value, self.difference.low, self.difference.high))
        return (
            f"{self.split}: {self.second.name} minus {self.first.name} {value:+.2f} points of top-1 "
            f"(95 % {low:+.2f} to {high:+.2f}) over {len(self.second.runs)} and {len(self.first.runs)} seeds; "
            f"{TEST} p = {self.difference.p_value:.3g}: {self.verdict}{unlike_checkpoints(self.first, self.second)}"
        )

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.compare_groups/1`."""
        return {
            "schema": SCHEMA, **asdict(self), "test": TEST, "interval": "Welch", "concerns": CONCERNS,
            "verdict": self.verdict,
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """A row for each run, then the means, then the verdict."""
        runs = [
            {"group": group.name, "run": run, "seed": seed, "checkpoint": group.checkpoint, "top1": top1}
            for group in (self.first, self.second)
            for run, seed, top1 in zip(group.runs, group.seeds, group.top1, strict=True)
        ]
        means = [{"group": group.name, "run": "mean", "top1": group.mean} for group in (self.first, self.second)]
        verdict = {
            "group": f"{self.second.name} minus {self.first.name}", "run": "difference", "top1": self.difference.value,
            "low": self.difference.low, "high": self.difference.high, "p_value": self.difference.p_value,
            "verdict": self.verdict,
        }  # fmt: skip
        return [*runs, *means, verdict]


def unlike_checkpoints(first: RunGroup, second: RunGroup) -> str:
    """A remark if the best checkpoints of one are compared with the last ones of the other."""
    if first.checkpoint == second.checkpoint:
        return ""
    return f" ({first.checkpoint} checkpoints of {first.name}, {second.checkpoint} of {second.name})"


def compare_groups(
    first: Sequence[RunFolder],
    second: Sequence[RunFolder],
    names: tuple[str, str] = ("A", "B"),
    say: Callable[[str], None] = lambda text: None,
) -> GroupComparison:
    """Compare two groups of two runs or more, each evaluated on the same samples.

    Raises:
        UsageError: a group is too small, or a run counts twice.
        DataError: a run is not evaluated, or not like the others; the message has the command to run.
        ModelFileError: a file of a run is damaged.
    """
    runs = [*first, *second]
    if min(len(first), len(second)) < 2:
        raise UsageError("a group needs at least two runs: one training has no variance. Train more seeds.")
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        duplicate = next(run for run in runs if paths.count(run.path.resolve()) > 1)
        raise UsageError(f"run {duplicate.path} is given twice: it would count as two. Give each run once.")
    evaluations = [load_evaluation(run) for run in runs]
    problem = incompatibility(evaluations)
    if problem:
        raise DataError(f"the groups cannot be compared: {problem}")
    parts = (evaluations[: len(first)], evaluations[len(first) :])
    groups = [_group(name, part, say) for name, part in zip(names, parts, strict=True)]
    samples = int(evaluations[0].evaluation["samples"])
    estimate = statistics.welch(groups[0].top1, groups[1].top1, 1 / samples)
    return GroupComparison(groups[0], groups[1], str(evaluations[0].evaluation["split"]), samples, estimate)


def _group(name: str, evaluations: Sequence[EvaluatedRun], say: Callable[[str], None]) -> RunGroup:
    recipes = [one.run.recipe() for one in evaluations]
    for one, recipe in zip(evaluations[1:], recipes[1:], strict=True):
        changes = recipe_differences(recipes[0].model_dump(mode="json"), recipe.model_dump(mode="json"))
        other = [change for change in changes if change.name != "train.seed"]
        if other:
            say(f"warning: group {name} has more than one recipe: in {one.run.name} {other[0]}")
            break
    digests = [one.evaluation.get("weights_sha256") or one.run.path for one in evaluations]
    if len(set(digests)) < len(digests):
        raise UsageError(f"group {name} has the same weights twice: they would count as two seeds. Remove one.")
    checkpoints = {str(one.evaluation.get("checkpoint", "best")) for one in evaluations}
    if len(checkpoints) > 1:
        raise UsageError(f"group {name} mixes best and last checkpoints. Evaluate all runs with one --checkpoint.")
    top1 = tuple(float(one.evaluation["metrics"]["top1"]["value"]) for one in evaluations)
    seeds = tuple(recipe.train.seed for recipe in recipes)
    names = tuple(str(one.run.path) for one in evaluations)
    return RunGroup(name, names, seeds, checkpoints.pop(), top1, sum(top1) / len(top1))
