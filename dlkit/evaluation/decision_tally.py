"""What a calibration is worth on a split: the calibration error without it, and how good its decisions are."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import metrics, statistics
from dlkit.calibration import selective
from dlkit.calibration.decisions import decide, in_sets
from dlkit.calibration.record import Calibration
from dlkit.data.link import log_probabilities
from dlkit.evaluation.outputs import BatchOutputs
from dlkit.evaluation.result import Metric
from dlkit.evaluation.tally import calibration_error
from dlkit.specs import Link


@dataclass
class DecisionTally:
    """Sums over batches, and the confidence of each answer for the risk-coverage curve."""

    calibration: Calibration
    link: Link
    classes: tuple[str, ...]
    bins: Tensor = field(default_factory=lambda: torch.zeros(3, metrics.CALIBRATION_BINS, dtype=torch.float64))
    covered: int = 0
    sizes: list[npt.NDArray[np.int64]] = field(default_factory=list)
    unfamiliar: int = 0
    confidences: list[npt.NDArray[np.float64]] = field(default_factory=list)
    wrong: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def add(self, batch: BatchOutputs) -> dict[str, list[Any]]:
        """Add a batch; returns the fields of its decisions, a list each, for predictions.jsonl."""
        outputs, logs, targets = batch.outputs.numpy(), batch.log_probabilities.numpy(), batch.targets.numpy()
        rows = np.arange(len(targets))
        self._add_uncalibrated(batch)
        self.confidences.append(np.exp(logs.max(axis=1)))
        self.wrong.append(metrics.ranked(batch.outputs, 1)[:, 0].numpy() != targets)
        members = in_sets(logs, self.calibration)
        if members is not None:
            self.covered += int(members[rows, targets].sum())
            self.sizes.append(members.sum(axis=1))
        decisions = decide(outputs, logs, self.calibration, self.link, self.classes)
        self.unfamiliar += sum(bool(one.unfamiliar) for one in decisions)
        documents = [one.document() for one in decisions]
        return {name: [document[name] for document in documents] for name in documents[0]}

    def metrics(self) -> dict[str, Metric]:
        """Those of what was calibrated; proportions with Wilson's interval."""
        found: dict[str, Metric] = {}
        total, calibration = sum(map(len, self.wrong)), self.calibration
        if calibration.scales:
            found["ece_uncalibrated"] = calibration_error(self.bins)
        if calibration.sets is not None:
            found["set_coverage"] = _share(self.covered, total)
            found["set_size"] = _mean(np.concatenate(self.sizes).astype(np.float64))
        if calibration.abstention is not None:
            accepted = np.concatenate(self.confidences) > calibration.abstention.threshold
            count, errors = int(accepted.sum()), int(np.concatenate(self.wrong)[accepted].sum())
            found["accepted"] = _share(count, total)
            if count:  # undefined if it abstains from all
                found["selective_risk"] = _share(errors, count)
        if calibration.familiarity is not None:
            found["unfamiliar"] = _share(self.unfamiliar, total)
        if calibration.decides:
            found["aurc"] = Metric(float(self.risk_coverage()[1].mean()))
        return found

    def risk_coverage(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(N,) shares of answers that are accepted, the most confident first, and (N,) error rates among them."""
        return selective.risk_coverage(np.concatenate(self.confidences), np.concatenate(self.wrong))

    def _add_uncalibrated(self, batch: BatchOutputs) -> None:
        if not self.calibration.scales:
            return
        scale, bias = (
            torch.tensor(values, dtype=torch.float64) for values in (self.calibration.scale, self.calibration.bias)
        )
        outputs = (batch.outputs - bias) / scale
        logs = torch.from_numpy(log_probabilities(outputs.numpy(), self.link))
        predicted = metrics.ranked(outputs, 1)
        confidences = logs.gather(1, predicted)[:, 0].exp()
        self.bins += metrics.calibration_bins(confidences, predicted[:, 0] == batch.targets)


def _share(count: int, total: int) -> Metric:
    return Metric(**asdict(statistics.wilson(count, total)))


def _mean(values: npt.NDArray[np.float64]) -> Metric:
    """The mean with the 95 % interval of the normal distribution."""
    mean, half = float(values.mean()), statistics.Z95 * float(values.std()) / math.sqrt(len(values))
    return Metric(mean, mean - half, mean + half)
