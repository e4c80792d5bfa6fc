"""Sums over the batches of an evaluation, and the metrics computed from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from dlkit import metrics, statistics
from dlkit.evaluation.outputs import BatchOutputs
from dlkit.evaluation.result import Metric


@dataclass
class Tally:
    """Sums over batches; their size does not depend on the number of samples."""

    topk: int
    confusion: Tensor  # (K, K) int64
    bins: Tensor  # (3, bins) float64, metrics.calibration_bins
    samples: int = 0
    correct: int = 0
    correct_topk: int = 0
    loss: float = 0.0
    brier: float = 0.0

    @classmethod
    def empty(cls, classes: int, topk: int) -> Tally:
        bins = torch.zeros(3, metrics.CALIBRATION_BINS, dtype=torch.float64)
        return cls(topk, torch.zeros(classes, classes, dtype=torch.int64), bins)

    def add(self, batch: BatchOutputs) -> None:
        targets, probabilities = batch.targets, batch.log_probabilities.exp()
        predicted = metrics.ranked(batch.outputs, 1)[:, 0]  # (N,)
        confidence = probabilities.gather(1, predicted[:, None])[:, 0]
        correct = predicted == targets
        self.samples += len(targets)
        self.correct += int(correct.sum())
        self.correct_topk += int(metrics.topk_correct(batch.outputs, targets, self.topk).sum())
        self.loss += float(batch.losses.sum())
        self.brier += float(metrics.brier_scores(probabilities, targets).sum())
        self.confusion += metrics.confusion_matrix(targets, predicted, len(self.confusion))
        self.bins += metrics.calibration_bins(confidence, correct)

    def metrics(self, scores: metrics.Scores) -> dict[str, Metric]:
        """The metrics over all classes; `scores` are those of each class, from the confusion matrix."""
        values: dict[str, Metric] = {}
        for k, correct in {1: self.correct, self.topk: self.correct_topk}.items():
            values[f"top{k}"] = Metric(**asdict(statistics.wilson(correct, self.samples)))
            values[f"top{k}_error"] = Metric(**asdict(statistics.wilson(self.samples - correct, self.samples)))
        values["loss"] = Metric(self.loss / self.samples)
        values["ece"] = calibration_error(self.bins)
        values["brier"] = Metric(self.brier / self.samples)
        values["balanced_accuracy"] = Metric(metrics.balanced_accuracy(scores))
        for kind, means in (("macro", metrics.macro_means(scores)), ("weighted", metrics.weighted_means(scores))):
            values |= {f"{kind}_{name}": Metric(value) for name, value in asdict(means).items()}
        return values


def calibration_error(bins: Tensor) -> Metric:
    """The expected calibration error with its interval."""
    return Metric(metrics.expected_calibration_error(bins), *metrics.calibration_error_interval(bins))


def single_class_warning(confusion: Tensor, classes: Sequence[str]) -> tuple[str, ...]:
    """A warning if the model predicts one class for every sample but the targets have several."""
    predicted, targets = confusion.sum(dim=0).nonzero()[:, 0], confusion.sum(dim=1).nonzero()[:, 0]
    if len(predicted) != 1 or len(targets) < 2:
        return ()
    samples = f"every one of {int(confusion.sum()):,} samples, but the targets have {len(targets)} classes"
    return (f"the model predicts {classes[int(predicted)]!r} for {samples}.",)


@dataclass
class Uncertainties:
    """The uncertainty of each sample under MC dropout, and whether its prediction was wrong."""

    independent: bool = False  # one sigmoid per class instead of a softmax
    entropies: list[Tensor] = field(default_factory=list)  # (N,) each, nats
    informations: list[Tensor] = field(default_factory=list)
    wrong: list[Tensor] = field(default_factory=list)  # (N,) bool

    def add(self, log_probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Add a batch, (T, N, K) float64 of T passes and (N,); returns its entropies and mutual informations, (N,)."""
        self.entropies.append(metrics.predictive_entropies(log_probabilities, self.independent))
        self.informations.append(metrics.mutual_informations(log_probabilities, self.independent))
        self.wrong.append(metrics.ranked(metrics.mean_of_passes(log_probabilities), 1)[:, 0] != targets)
        return self.entropies[-1], self.informations[-1]

    def metrics(self) -> dict[str, Metric]:
        """Means over the samples in nats, and the AUROC of each measure as a detector of wrong predictions."""
        values, wrong = dict[str, Metric](), torch.cat(self.wrong)
        for name, batches in (("predictive_entropy", self.entropies), ("mutual_information", self.informations)):
            measure = torch.cat(batches)
            values[name] = Metric(float(measure.mean()))
            auroc = metrics.auroc(measure, wrong)
            if math.isfinite(auroc):  # undefined if all are correct or all are wrong
                values[f"{name}_error_auroc"] = Metric(auroc)
        return values
