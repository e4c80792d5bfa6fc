"""calibration.json in a run folder: what was fitted for each checkpoint, by the SHA-256 of its payload. No torch.

A checkpoint without an entry beside one that has one is refused, so that a calibration is never used for other weights.
"""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlkit import atomic_io, documents
from dlkit.errors import ModelFileError
from dlkit.runs import manifest
from dlkit.runs.run_folder import CheckpointName, RunFolder

FILE, SCHEMA = "calibration.json", "dlkit.calibration/1"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**53)]


class Section(BaseModel):
    """Frozen, with known types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Sets(Section):
    """Prediction sets: dlkit.calibration.conformal."""

    score: Literal["lac", "aps", "raps"]
    coverage: Share
    class_conditional: bool
    thresholds: tuple[float, ...]  # one, or one a class
    samples: Count


class Abstention(Section):
    """The probability below which no answer is given: dlkit.calibration.selective."""

    max_error: Share
    confidence: Share  # of the guarantee
    threshold: float
    accepted: Share  # of the calibration samples
    error: Share  # of those that are accepted
    bound: Share
    samples: Count


class Familiarity(Section):
    """The energy above which an input is unfamiliar: dlkit.calibration.decisions."""

    rate: Share  # of familiar inputs that are flagged
    threshold: float
    samples: Count


class Calibration(Section):
    """What was fitted to the validation split for one checkpoint."""

    step: Annotated[int, Field(ge=0, le=2**53)]
    method: Literal["temperature", "vector", "none"]
    scale: tuple[float, ...] = (1.0,)  # of the outputs: one number, or one a class
    bias: tuple[float, ...] = (0.0,)
    samples: Count  # that the scaling was fitted to; of none, the validation split
    split_sha256: str = ""
    sets: Sets | None = None
    abstention: Abstention | None = None
    familiarity: Familiarity | None = None

    @property
    def scales(self) -> bool:
        """Whether it changes probabilities."""
        return self.method != "none"

    @property
    def decides(self) -> bool:
        """Whether it has a threshold."""
        return any(part is not None for part in (self.sets, self.abstention, self.familiarity))

    @property
    def sha256(self) -> str:
        """The digest of all of it."""
        return documents.digest(self.model_dump(mode="json"))


def read(run: RunFolder) -> dict[str, Calibration]:
    """Every entry by its checkpoint's digest; empty if the run is not calibrated.

    Raises:
        ModelFileError: the file is damaged, or of another run.
    """
    path = run.path / FILE
    with atomic_io.storage_errors(path):
        if not path.is_file():
            return {}
    remedy = f"Calibrate again: {command(run)}"
    document = documents.read(path, SCHEMA, advice=remedy)
    if document["run_id"] != run.info()["run_id"]:
        raise ModelFileError(f"{path} is the calibration of another run. Remove it, or calibrate again: {command(run)}")
    try:
        entries: dict[str, Any] = document["checkpoints"]
        return {digest: Calibration.model_validate_json(json.dumps(entry)) for digest, entry in entries.items()}
    except (ValidationError, AttributeError) as error:
        raise ModelFileError(f"{path} is damaged: an entry is not valid. {remedy}") from error


def find(run: RunFolder, step: int, sha256: str) -> Calibration | None:
    """The calibration of a checkpoint; None if the run has none at all.

    Raises:
        ModelFileError: it is of another checkpoint.
    """
    entries = read(run)
    if not entries or sha256 in entries:
        return entries.get(sha256)
    steps = ", ".join(f"{entry.step:,}" for entry in entries.values())
    which = "last" if step == run.checkpoint_step("last") != run.checkpoint_step("best") else "best"
    raise ModelFileError(
        f"{run.path / FILE} is the calibration of the checkpoint of step {steps}, not of that of step {step:,}. "
        f"Calibrate this one: {command(run, which)}; or remove it: rm {shlex.quote(str(run.path / FILE))}"
    )


def selected(run: RunFolder, which: CheckpointName) -> Calibration | None:
    """The calibration of a run's best or last checkpoint, by the manifests alone; raises as `find`."""
    if not (run.path / FILE).is_file():
        return None
    step = run.checkpoint_step(which)
    return None if step is None else find(run, step, manifest.read(run.checkpoints, step)["sha256"])


def write(run: RunFolder, sha256: str, entry: Calibration | None) -> None:
    """Put the entry of a checkpoint in place of its earlier one, or remove it; entries of pruned checkpoints go."""
    try:
        entries = read(run)
    except ModelFileError:  # damaged or of another run: it is replaced
        entries = {}
    kept = {manifest.read(run.checkpoints, step)["sha256"] for step in manifest.saved_steps(run.checkpoints)}
    entries = {digest: one for digest, one in entries.items() if digest in kept and digest != sha256}
    if entry is not None:
        entries[sha256] = entry
    path = run.path / FILE
    if not entries:
        with atomic_io.storage_errors(path):
            path.unlink(missing_ok=True)
        return
    content = {digest: one.model_dump(mode="json") for digest, one in entries.items()}
    documents.write(path, {"schema": SCHEMA, "run_id": run.info()["run_id"], "checkpoints": content})


def command(run: RunFolder, which: str = "best") -> str:
    """The command that calibrates a run."""
    return f"dlkit calibrate {shlex.quote(str(run.path))}" + (" --checkpoint last" if which == "last" else "")
