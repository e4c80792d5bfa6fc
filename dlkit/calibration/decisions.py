"""The decision about each input: its prediction set, whether to abstain, whether it is unfamiliar.

An input is unfamiliar if its energy, -ln Σ_k exp(z_k), is above what all but a given share of the validation split has
(Liu, Wang, Owens and Li, "Energy-based out-of-distribution detection", NeurIPS 2020); with K sigmoids it is
-Σ_k ln(1 + exp(z_k)) (Wang et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit.calibration import conformal
from dlkit.calibration.record import Calibration
from dlkit.specs import Link

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """None: nothing was calibrated for it."""

    classes: tuple[str, ...] | None = None
    abstained: bool | None = None
    unfamiliar: bool | None = None

    def document(self) -> dict[str, Any]:
        """Its fields of `dlkit.predict/1`."""
        classes = None if self.classes is None else list(self.classes)
        fields = {"set": classes, "abstained": self.abstained, "unfamiliar": self.unfamiliar}
        return {name: value for name, value in fields.items() if value is not None}


def fields(calibration: Calibration | None) -> tuple[str, ...]:
    """The keys that decisions have in a record."""
    if calibration is None:
        return ()
    parts = {"set": calibration.sets, "abstained": calibration.abstention, "unfamiliar": calibration.familiarity}
    return tuple(name for name, part in parts.items() if part is not None)


def energies(outputs: Floats, link: Link) -> Floats:
    """(N, K) → (N,)."""
    if link == "sigmoid":
        independent: Floats = -np.logaddexp(0, outputs).sum(axis=1)
        return independent
    highest = outputs.max(axis=1)
    found: Floats = -(highest + np.log(np.exp(outputs - highest[:, None]).sum(axis=1)))
    return found


def in_sets(log_probabilities: Floats, calibration: Calibration) -> npt.NDArray[np.bool_] | None:
    """Which classes are in each input's set: (N, K) → (N, K)."""
    if calibration.sets is None:
        return None
    class_scores = conformal.scores(log_probabilities, calibration.sets.score)
    return conformal.prediction_sets(class_scores, np.array(calibration.sets.thresholds))


def decide(
    outputs: Floats, log_probabilities: Floats, calibration: Calibration, link: Link, classes: Sequence[str]
) -> list[Decision]:
    """A decision for each input, from its scaled outputs and their log probabilities: (N, K), (N, K)."""
    count = len(outputs)
    members, abstained, unfamiliar = in_sets(log_probabilities, calibration), [None] * count, [None] * count
    sets: Sequence[tuple[str, ...] | None] = [None] * count
    if members is not None:
        orders = np.argsort(-log_probabilities, axis=1, kind="stable")  # the most probable first
        sets = [
            tuple(classes[index] for index in order[row[order]].tolist())
            for order, row in zip(orders, members, strict=True)
        ]
    if calibration.abstention is not None:
        abstained = (np.exp(log_probabilities.max(axis=1)) <= calibration.abstention.threshold).tolist()
    if calibration.familiarity is not None:
        unfamiliar = (energies(outputs, link) > calibration.familiarity.threshold).tolist()
    return [Decision(*row) for row in zip(sets, abstained, unfamiliar, strict=True)]
