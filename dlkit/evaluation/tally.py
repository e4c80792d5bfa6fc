"""What an evaluation sums over its batches, and the figures that come out of the sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlkit import metrics, statistics

if TYPE_CHECKING:
    from dlkit.evaluation.evaluate import Answers


@dataclass(frozen=True)
class Metric:
    """One figure; a proportion comes with its 95 % Wilson interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass
class Tally:
    """Sums over batches; nothing in them grows with the number of samples."""

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

    def add(self, answers: Answers) -> None:
        """Add a batch."""
        targets, probabilities = answers.targets, answers.log_probabilities.exp()
        predicted = metrics.ranked(answers.outputs, 1)[:, 0]  # (N,)
        confidence = probabilities.gather(1, predicted[:, None])[:, 0]
        right = predicted == targets
        self.samples += len(targets)
        self.correct += int(right.sum())
        self.correct_topk += int(metrics.topk_correct(answers.outputs, targets, self.topk).sum())
        self.loss += float(answers.losses.sum())
        self.brier += float(metrics.brier_scores(probabilities, targets).sum())
        self.confusion += metrics.confusion_matrix(targets, predicted, len(self.confusion))
        self.bins += metrics.calibration_bins(confidence, right)

    def metrics(self, scores: metrics.Scores) -> dict[str, Metric]:
        """The figures for all classes together; `scores` are those of each, from the confusion matrix."""
        found: dict[str, Metric] = {}
        for k, correct in {1: self.correct, self.topk: self.correct_topk}.items():
            found[f"top{k}"] = Metric(**asdict(statistics.wilson(correct, self.samples)))
            found[f"top{k}_error"] = Metric(**asdict(statistics.wilson(self.samples - correct, self.samples)))
        found["loss"] = Metric(self.loss / self.samples)
        found["ece"] = Metric(metrics.expected_calibration_error(self.bins))
        found["brier"] = Metric(self.brier / self.samples)
        found["balanced_accuracy"] = Metric(metrics.balanced_accuracy(scores))
        for kind, means in (("macro", metrics.macro_means(scores)), ("weighted", metrics.weighted_means(scores))):
            found |= {f"{kind}_{name}": Metric(value) for name, value in asdict(means).items()}
        return found


def single_class_warning(confusion: Tensor, classes: Sequence[str]) -> tuple[str, ...]:
    """A warning about a model that predicts one class for everything, though the targets hold several."""
    predicted, targets = confusion.sum(dim=0).nonzero()[:, 0], confusion.sum(dim=1).nonzero()[:, 0]
    if len(predicted) != 1 or len(targets) < 2:
        return ()
    samples = f"every one of {int(confusion.sum()):,} samples, whose targets hold {len(targets)} classes"
    return (f"the model predicts {classes[int(predicted)]!r} for {samples}.",)


@dataclass
class Doubts:
    """How uncertain the passes of Monte Carlo dropout left each sample, and whether its answer was wrong."""

    independent: bool = False  # whether the classes' probabilities are
    entropies: list[Tensor] = field(default_factory=list)  # (N,) each, nats
    informations: list[Tensor] = field(default_factory=list)
    wrong: list[Tensor] = field(default_factory=list)  # (N,) bool

    def add(self, log_probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Add a batch: (T, N, K) float64 of T passes, and (N,); returns its entropies and mutual informations, (N,)."""
        self.entropies.append(metrics.predictive_entropies(log_probabilities, self.independent))
        self.informations.append(metrics.mutual_informations(log_probabilities, self.independent))
        self.wrong.append(metrics.ranked(metrics.mean_of_passes(log_probabilities), 1)[:, 0] != targets)
        return self.entropies[-1], self.informations[-1]

    def metrics(self) -> dict[str, Metric]:
        """Means over the samples, in nats, and how well each tells wrong answers from right ones."""
        return dict(self._figures())

    def _figures(self) -> Iterator[tuple[str, Metric]]:
        wrong = torch.cat(self.wrong)
        for name, batches in (("predictive_entropy", self.entropies), ("mutual_information", self.informations)):
            values = torch.cat(batches)
            yield name, Metric(float(values.mean()))
            auroc = metrics.auroc(values, wrong)
            if math.isfinite(auroc):  # else all are right, or all wrong, and there is nothing to tell apart
                yield f"{name}_error_auroc", Metric(auroc)
