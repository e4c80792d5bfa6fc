"""Calibrate a run on its validation split: probabilities, prediction sets, abstention, unfamiliar inputs.

Everything is fitted to the outputs of one pass over the validation split, never to the test split, and stored in the
run folder under the checkpoint's digest (dlkit.calibration.record). Where both a scaling and thresholds are fitted,
each gets a random half of the split: thresholds are guaranteed only by samples that the scaling has not seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.calibration.record import FILE, Abstention, Calibration, Familiarity, Section, Sets, write
from dlkit.errors import DataError, StorageError, UsageError
from dlkit.evaluation.matching import load_split
from dlkit.evaluation.options import check_batch_size
from dlkit.evaluation.result import Metric
from dlkit.registry import did_you_mean
from dlkit.runs.data_of_run import data_of_run
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import LINKS, Link

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from dlkit.training.restore import Restored

SCHEMA = "dlkit.calibrate/1"
CONFIDENCE = 0.95  # of the guarantee of --max-error

Log = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to calibrate; None leaves a part out."""

    method: str = "temperature"
    coverage: float | None = None
    sets: str = "lac"
    class_conditional: bool = False
    max_error: float | None = None
    confidence: float = CONFIDENCE
    unfamiliar: float | None = None

    @property
    def has_thresholds(self) -> bool:
        return any(part is not None for part in (self.coverage, self.max_error, self.unfamiliar))


@dataclass(frozen=True)
class Fitted:
    """A calibration that was stored, or None if it was removed, and the calibration error before and after."""

    run: RunFolder
    checkpoint: str
    calibration: Calibration | None
    samples: int  # of the validation split
    ece_before: Metric
    ece_after: Metric

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.calibrate/1`; the errors are those of the validation split."""
        return {
            "schema": SCHEMA,
            "run": str(self.run.path),
            "checkpoint": self.checkpoint,
            "validation_samples": self.samples,
            "ece": {"before": self.ece_before.document(), "after": self.ece_after.document()},
            "calibration": None if self.calibration is None else self.calibration.model_dump(mode="json"),
        }


def calibrate(
    run: RunFolder | Path | str | None = None,
    *,
    method: str = "temperature",
    coverage: float | None = None,
    sets: str = "lac",
    class_conditional: bool = False,
    max_error: float | None = None,
    confidence: float = CONFIDENCE,
    unfamiliar: float | None = None,
    checkpoint: CheckpointName = "best",
    data_dir: Path | str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    device: str = "auto",
    runs_dir: Path | str = "runs",
    say: Log = lambda text: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Fitted:
    """Calibrate a run (by default the newest) on its validation split; the result replaces an earlier calibration.

    method is temperature, vector or none (scaling.py); none without a threshold removes the calibration. coverage is
    that of prediction sets by the score `sets`, lac, aps or raps (conformal.py). max_error is the greatest error rate
    of the answers that are not abstained from, guaranteed with `confidence` (selective.py). unfamiliar is the share
    of familiar inputs that may be flagged as unfamiliar (decisions.py).

    Raises:
        UsageError: no such run, method or score, or a level that is no share; a run without probabilities.
        DataError: too few validation samples, or no threshold reaches max_error.
    """
    options = Options(method, coverage, sets, class_conditional, max_error, confidence, unfamiliar)
    check_options(options)
    check_batch_size(batch_size)
    run = select_run(run, Path(runs_dir), say)
    link = _link(run)
    if not os.access(run.path, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {run.path}: permission denied. Calibrate a copy of the run.")
    data = data_of_run(run, run.recipe().data, None if data_dir is None else os.fspath(data_dir))
    part = load_split(run, data, "validation", run.spec(), say)
    _check_count(len(part.samples), options)

    import torch

    from dlkit.data.processes import use_timeout
    from dlkit.evaluation.outputs import compute_outputs
    from dlkit.training.precision import lay_out
    from dlkit.training.restore import restore

    restored = restore(run, checkpoint, device, say, calibrated=False)
    lay_out(restored.model, restored.device)
    use_timeout(data.loader_timeout)
    outputs, targets = [], []
    for batch in compute_outputs(
        restored, part.samples, batch_size, data.workers if workers is None else workers, None
    ):
        outputs.append(batch.outputs)
        targets.append(batch.targets)
        advance(len(batch.targets))
    fitted = _fit(torch.cat(outputs), torch.cat(targets), restored, options, link, part.fingerprint)
    kept = fitted if fitted.scales or fitted.decides else None
    write(run, restored.sha256, kept)
    say(f"wrote {FILE} to {run.path}" if kept else f"{run.path}: the {checkpoint} checkpoint has no calibration")
    before, after = (_error(torch.cat(outputs), torch.cat(targets), link, one) for one in (None, fitted))
    return Fitted(run, checkpoint, kept, len(part.samples), before, after)


def check_options(options: Options) -> None:
    """Raises: UsageError for a method or score of another name, or a level that is no share."""
    from dlkit.calibration.conformal import SCORES
    from dlkit.calibration.scaling import METHODS

    for flag, value, names in (("--method", options.method, METHODS), ("--sets", options.sets, SCORES)):
        if value not in names:
            raise UsageError(f"{flag} {value}: there is none of that name. {did_you_mean(value, names)}")
    levels = {
        "--coverage": options.coverage, "--max-error": options.max_error, "--confidence": options.confidence,
        "--unfamiliar": options.unfamiliar,
    }  # fmt: skip
    for flag, level in levels.items():
        if level is not None and not 0 < level < 1:
            raise UsageError(f"{flag} {level:g}: it is a share, above 0 and below 1.")
    if options.class_conditional and options.coverage is None:
        raise UsageError("--class-conditional is for prediction sets. Add --coverage 0.9.")


def _link(run: RunFolder) -> Link:
    """Raises: UsageError if the run gives no probabilities that can be scaled."""
    if not run.spec().classes:
        raise UsageError(f"calibrate is for classifiers; run {run.name} predicts a number.")
    link = LINKS[run.trained_recipe().loss.name]
    if link == "clip":
        raise UsageError(f"calibrate scales logits; run {run.name} was trained with mse, whose outputs are none.")
    return link


def _check_count(count: int, options: Options) -> None:
    """Raises: DataError if the validation split is too small for a level, with the number of samples needed."""
    from dlkit.calibration import conformal, selective

    needed = {"": 1}
    if options.coverage is not None:
        needed[f"--coverage {options.coverage:g}"] = conformal.samples_needed(options.coverage)
    if options.max_error is not None:
        least = selective.samples_needed(options.max_error, 1 - options.confidence)
        needed[f"--max-error {options.max_error:g}"] = least
    if options.unfamiliar is not None:
        needed[f"--unfamiliar {options.unfamiliar:g}"] = conformal.samples_needed(1 - options.unfamiliar)
    halves = 2 if options.method != "none" and options.has_thresholds else 1
    flag, least = max(needed.items(), key=lambda item: item[1])
    if count // halves < least:
        why = f" ({least:,} beside as many for --method {options.method})" if halves == 2 else ""
        raise DataError(
            f"{flag} needs {halves * least:,} validation samples{why}, and there are {count:,}. "
            "Use a larger data.validation when you train, or another level."
        )


def _fit(
    outputs: Tensor, targets: Tensor, restored: Restored, options: Options, link: Link, split_sha256: str
) -> Calibration:
    import torch

    from dlkit.calibration import scaling
    from dlkit.data.rng import permutation

    classes, count = restored.spec.classes, len(targets)
    order = torch.from_numpy(permutation(restored.recipe.train.seed, 0, count))
    cut = 0 if options.method == "none" else count // 2 if options.has_thresholds else count
    first, second = order[:cut], order[cut:]
    scale, bias = [1.0], [0.0]
    if options.method == "temperature":
        scale = [1 / scaling.fit_temperature(outputs[first], targets[first], link)]
    elif options.method == "vector":
        scale, bias = scaling.fit_vector(outputs[first], targets[first], link, classes)
    scaled = outputs[second] * torch.tensor(scale, dtype=torch.float64) + torch.tensor(bias, dtype=torch.float64)
    parts = _thresholds(scaled.numpy(), targets[second].numpy(), options, link, classes)
    fields = {"step": restored.step, "method": options.method, "scale": tuple(scale), "bias": tuple(bias)}
    return Calibration.model_validate({**fields, "samples": cut or count, "split_sha256": split_sha256, **parts})


def _thresholds(
    outputs: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    options: Options,
    link: Link,
    classes: tuple[str, ...],
) -> dict[str, Section]:
    """The parts of a calibration that decide, from scaled outputs (N, K)."""
    from dlkit.calibration import conformal
    from dlkit.calibration.decisions import energies
    from dlkit.data.link import log_probabilities

    logs, count = log_probabilities(outputs, link), len(targets)
    found: dict[str, Section] = {}
    if options.coverage is not None:
        found["sets"] = _sets(logs, targets, options, classes)
    if options.max_error is not None:
        found["abstention"] = _abstention(logs, targets, options)
    if options.unfamiliar is not None:
        limit = conformal.threshold(energies(outputs, link), _complement(options.unfamiliar))
        found["familiarity"] = Familiarity(rate=options.unfamiliar, threshold=limit, samples=count)
    return found


def _sets(
    logs: npt.NDArray[np.float64], targets: npt.NDArray[np.int64], options: Options, classes: tuple[str, ...]
) -> Sets:
    import numpy as np

    from dlkit.calibration import conformal

    assert options.coverage is not None
    own = conformal.scores(logs, options.sets)[np.arange(len(targets)), targets]  # type: ignore[arg-type]
    groups = [own]
    if options.class_conditional:
        groups = [own[targets == index] for index in range(len(classes))]
        needed = conformal.samples_needed(options.coverage)
        few = [f"{name!r} ({len(group)})" for name, group in zip(classes, groups, strict=True) if len(group) < needed]
        if few:
            raise DataError(
                f"--class-conditional with --coverage {options.coverage:g} needs {needed:,} validation samples of each "
                f"class for its threshold; too few has {', '.join(few[:5])}{', …' if len(few) > 5 else ''}. "
                "Use a larger data.validation when you train, or leave it out."
            )
    return Sets(
        score=options.sets,  # type: ignore[arg-type]
        coverage=options.coverage,
        class_conditional=options.class_conditional,
        thresholds=tuple(conformal.threshold(group, options.coverage) for group in groups),
        samples=len(own),
    )


def _abstention(logs: npt.NDArray[np.float64], targets: npt.NDArray[np.int64], options: Options) -> Abstention:
    import numpy as np

    from dlkit.calibration import selective

    assert options.max_error is not None
    confidences, wrong = np.exp(logs.max(axis=1)), logs.argmax(axis=1) != targets
    points = selective.operating_points(confidences, wrong, 1 - options.confidence)
    best = selective.widest(points, options.max_error)
    if best is None:
        nearest = min(points, key=lambda point: point.bound)
        raise DataError(
            f"no threshold bounds the error rate by {options.max_error:g}: the best bound is {nearest.bound:.4f}, with "
            f"{nearest.accepted:.0%} of the answers. Allow a larger --max-error, or validate on more samples."
        )
    return Abstention(
        max_error=options.max_error, confidence=options.confidence, threshold=best.threshold, accepted=best.accepted,
        error=best.error, bound=best.bound, samples=len(targets),
    )  # fmt: skip


def _complement(share: float) -> float:
    """1 - share, without the digits that binary fractions add."""
    return float(f"{1 - share:.12g}")


def _error(outputs: Tensor, targets: Tensor, link: Link, calibration: Calibration | None) -> Metric:
    """The calibration error of a split with a calibration or without."""
    import torch

    from dlkit import metrics
    from dlkit.data.link import log_probabilities
    from dlkit.evaluation.tally import calibration_error

    if calibration is not None:
        outputs = outputs * torch.tensor(calibration.scale, dtype=torch.float64)
        outputs = outputs + torch.tensor(calibration.bias, dtype=torch.float64)
    predicted = metrics.ranked(outputs, 1)
    confidences = torch.from_numpy(log_probabilities(outputs.numpy(), link)).gather(1, predicted)[:, 0].exp()
    return calibration_error(metrics.calibration_bins(confidences, predicted[:, 0] == targets))
