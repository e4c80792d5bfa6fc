"""Evaluations that can be compared: of the present checkpoint, on the same samples, under the same conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlkit.errors import ModelFileError
from dlkit.evaluation.record import (
    PREDICTIONS,
    eval_command,
    read_evaluation,
    read_predictions,
    same_conditions,
    staleness,
)
from dlkit.runs.experiments import full_name
from dlkit.runs.run_folder import RunFolder


@dataclass(frozen=True)
class EvaluatedRun:
    """A run and its evaluation; {} if there is none, or if it is not of the present checkpoint."""

    run: RunFolder
    evaluation: dict[str, Any]
    problem: str  # the reason why the evaluation is not used, and what to do; "" if it is used


def load_evaluation(run: RunFolder) -> EvaluatedRun:
    """The run's evaluation, unless it is damaged or stale."""
    try:
        evaluation = read_evaluation(run)
    except ModelFileError as error:
        return EvaluatedRun(run, {}, str(error))
    if not evaluation:
        return EvaluatedRun(run, {}, f"run {full_name(run)} is not evaluated yet: {eval_command(run)}.")
    stale = staleness(run, evaluation)
    if stale:
        return EvaluatedRun(run, {}, f"run {full_name(run)}: {stale}. Evaluate again: {eval_command(run, evaluation)}.")
    return EvaluatedRun(run, evaluation, "")


def evaluate_stale(runs: Sequence[RunFolder], split: str, say: Any) -> None:
    """Evaluate the runs that have no evaluation of this split with their present checkpoint."""
    from dlkit.evaluation.evaluate import evaluate

    for run in runs:
        current = load_evaluation(run)
        if current.problem or current.evaluation.get("split") != split:
            before = current.evaluation or _last_evaluation(run)
            checkpoint = before.get("checkpoint", "best")
            evaluate(run, split=split, checkpoint=checkpoint, mc_dropout=before.get("mc_dropout"), say=say)


def _last_evaluation(run: RunFolder) -> dict[str, Any]:
    try:
        return read_evaluation(run)
    except ModelFileError:
        return {}


def incompatibility(runs: Sequence[EvaluatedRun]) -> str:
    """The reason why these evaluations cannot be compared; "" if they can. `best` and `last` can, with a remark."""
    for run in runs:
        if run.problem:
            return run.problem
    first = runs[0].evaluation
    for other in (run.evaluation for run in runs[1:]):
        for key in ("dataset", "split", "fingerprint"):
            if first.get(key) != other.get(key):
                return f"they were evaluated on different samples: {key} {first.get(key)} and {other.get(key)}."
        conditions = same_conditions(first, other)
        if conditions:
            return f"they were evaluated under different conditions: {conditions}."
    if first.get("topk") == 0:
        return "their predictions are numbers, which are not simply right or wrong."
    return ""


def correct_by_sample(run: RunFolder, evaluation: Mapping[str, Any]) -> dict[Any, bool]:
    """Whether each sample was classified correctly, by its id.

    Raises:
        ModelFileError: predictions.jsonl is damaged, or of another evaluation.
    """
    try:
        return {line["id"]: line["predicted"] == line["target"] for line in read_predictions(run, evaluation)}
    except (KeyError, TypeError) as error:
        again = f"Evaluate again: {eval_command(run)}."
        raise ModelFileError(f"{run.path}/{PREDICTIONS} is damaged: {error}. {again}") from error
