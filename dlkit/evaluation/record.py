"""The evaluation in a run folder, and whether it is of the weights and the settings that are there now."""

from __future__ import annotations

import json
import shlex
from typing import Any

from dlkit.errors import ModelFileError
from dlkit.runs.run_folder import RunFolder

CONDITIONS = ("mc_dropout", "calibration", "tta")  # what changes the answers of the same weights


def read_evaluation(run: RunFolder) -> dict[str, Any]:
    """evaluation.json, or {} if the run was not evaluated.

    Raises:
        ModelFileError: it is damaged.
    """
    path = run.path / "evaluation.json"
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}. Evaluate again: {eval_command(run)}.") from error
    return document


def staleness(run: RunFolder, evaluation: dict[str, Any]) -> str:
    """Why an evaluation is not of the run's checkpoint of today; "" if it is."""
    from dlkit.training.restore import checkpoint_step  # imports torch

    run_id = run.info().get("run_id")
    if evaluation.get("run_id", run_id) != run_id:
        return "its evaluation is of another training under the same name"
    which, step = evaluation.get("checkpoint", "best"), evaluation.get("step")
    now = checkpoint_step(run, which)
    if step is None or now is None or step == now:
        return ""
    return f"its evaluation is older than its {which} checkpoint: of step {step:,}, now {now:,}"


def same_conditions(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first setting of two evaluations that changes answers and differs; "" if there is none."""
    for key in CONDITIONS:
        if one.get(key) != other.get(key):
            return f"{key} {one.get(key)} and {other.get(key)}"
    return ""


def eval_command(run: RunFolder, evaluation: dict[str, Any] | None = None) -> str:
    """The command that evaluates a run (again, as it was)."""
    words = ["dlkit", "eval", shlex.quote(str(run.path))]
    for key, default in (("split", "test"), ("checkpoint", "best"), ("mc_dropout", None)):
        value = (evaluation or {}).get(key)
        if value not in (None, default):
            words += [f"--{key.replace('_', '-')}", str(value)]
    return " ".join(words)
