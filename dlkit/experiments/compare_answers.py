"""Evaluations fit to be compared: of the checkpoint that is there now, over the same samples, made alike."""

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
class Evaluated:
    """A run and its evaluation; {} if it has none, or one that is not of its checkpoint of today."""

    run: RunFolder
    evaluation: dict[str, Any]
    problem: str  # why the evaluation is not used, and what to do; "" if it is


def evaluated(run: RunFolder) -> Evaluated:
    """The run's evaluation, unless it is damaged or stale."""
    try:
        evaluation = read_evaluation(run)
    except ModelFileError as error:
        return Evaluated(run, {}, str(error))
    if not evaluation:
        return Evaluated(run, {}, f"run {full_name(run)} is not evaluated yet: {eval_command(run)}.")
    stale = staleness(run, evaluation)
    if stale:
        return Evaluated(run, {}, f"run {full_name(run)}: {stale}. Evaluate again: {eval_command(run, evaluation)}.")
    return Evaluated(run, evaluation, "")


def evaluate_stale(runs: Sequence[RunFolder], split: str, say: Any) -> None:
    """Evaluate the runs that have no evaluation of this split by their checkpoint of today."""
    from dlkit.evaluation.evaluate import evaluate

    for run in runs:
        found = evaluated(run)
        if found.problem or found.evaluation.get("split") != split:
            before = found.evaluation or _last_evaluation(run)
            which = before.get("checkpoint", "best")
            evaluate(run, split=split, checkpoint=which, mc_dropout=before.get("mc_dropout"), say=say)


def _last_evaluation(run: RunFolder) -> dict[str, Any]:
    try:
        return read_evaluation(run)
    except ModelFileError:
        return {}


def difference(found: Sequence[Evaluated]) -> str:
    """Why these evaluations cannot be compared; "" if they can. `best` beside `last` can, and is stated."""
    for one in found:
        if one.problem:
            return one.problem
    first = found[0].evaluation
    for other in (one.evaluation for one in found[1:]):
        for key in ("dataset", "split", "fingerprint"):
            if first.get(key) != other.get(key):
                return f"they were evaluated on other samples: {key} {first.get(key)} and {other.get(key)}."
        unlike = same_conditions(first, other)
        if unlike:
            return f"they were not evaluated alike: {unlike}."
    if first.get("topk") == 0:
        return "their answers are numbers, of which none is simply right or wrong."
    return ""


def answers(run: RunFolder, evaluation: Mapping[str, Any]) -> dict[Any, bool]:
    """Sample → whether it was answered correctly.

    Raises:
        ModelFileError: predictions.jsonl is damaged, or of another evaluation.
    """
    try:
        return {line["id"]: line["predicted"] == line["target"] for line in read_predictions(run, evaluation)}
    except (KeyError, TypeError) as error:
        again = f"Evaluate again: {eval_command(run)}."
        raise ModelFileError(f"{run.path}/{PREDICTIONS} is damaged: {error}. {again}") from error
