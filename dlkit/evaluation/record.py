"""The evaluation in a run folder, and whether it is of the weights and the settings that are there now.

evaluation.json carries its own digest and that of predictions.jsonl beside it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dlkit import atomic_io, documents
from dlkit.errors import ModelFileError
from dlkit.runs.run_folder import RunFolder

EVALUATION, PREDICTIONS = "evaluation.json", "predictions.jsonl"
PREDICTIONS_DIGEST = "predictions_sha256"
CONDITIONS = ("mc_dropout", "calibration", "tta")  # what changes the answers of the same weights


def write_predictions(run: RunFolder, lines: Sequence[str]) -> str:
    """Write predictions.jsonl; returns its SHA-256 for the evaluation."""
    content = "".join(line + "\n" for line in lines).encode("utf-8", errors="surrogateescape")
    atomic_io.write_bytes(run.path / PREDICTIONS, content)
    return hashlib.sha256(content).hexdigest()


def write_evaluation(run: RunFolder, document: Mapping[str, Any], predictions_sha256: str) -> None:
    """Write evaluation.json, after the files that it vouches for."""
    documents.write(run.path / EVALUATION, {**document, PREDICTIONS_DIGEST: predictions_sha256})


def read_evaluation(run: RunFolder) -> dict[str, Any]:
    """A run's last evaluation; empty where there was none.

    Raises:
        ModelFileError: it is damaged. StorageError: it cannot be read.
    """
    path = run.path / EVALUATION
    with atomic_io.storage_errors(path):
        if not path.is_file():
            return {}
    return dict(documents.read(path, advice=_remedy(run)))


def read_predictions(run: RunFolder, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl, an answer each.

    Raises:
        ModelFileError: they are damaged, or of another evaluation than this.
    """
    path = run.path / PREDICTIONS
    with atomic_io.storage_errors(path):
        content = path.read_bytes() if path.is_file() else b""
    stated = evaluation.get(PREDICTIONS_DIGEST)
    if stated is not None and stated != hashlib.sha256(content).hexdigest():
        raise ModelFileError(f"{path} is damaged, or of another evaluation than {EVALUATION}. {_remedy(run)}")
    try:
        answers = [documents.parsed(line) for line in content.splitlines()]
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: {error}. {_remedy(run)}") from error
    if not all(isinstance(answer, dict) for answer in answers):
        raise ModelFileError(f"{path} is damaged: a line is not an object. {_remedy(run)}")
    return answers


def staleness(run: RunFolder, evaluation: dict[str, Any]) -> str:
    """Why an evaluation is not of the run's checkpoint of today; "" if it is."""
    run_id = run.info().get("run_id")
    if evaluation.get("run_id", run_id) != run_id:
        return "its evaluation is of another training under the same name"
    which, step = evaluation.get("checkpoint", "best"), evaluation.get("step")
    now = run.checkpoint_step(which)
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


def _remedy(run: RunFolder) -> str:
    return f"Evaluate again: {eval_command(run)}."
