"""A support vector machine with a Gaussian kernel, fitted by `dlkit baseline`.

Cortes and Vapnik, "Support-vector networks", Machine Learning 20, 1995; one machine for each pair of classes, and they
vote (Knerr, Personnaz and Dreyfus 1990). The kernel is exp(-γ ‖x - v‖²), γ by default 1 / (numbers in an image · their
variance). Fitting takes time with the square of the images and more, so that by default it sees 10,000 of them, of
each class its share.

An SVM gives no probabilities. The logits are the votes, and, for what votes leave equal, the sum of the machines'
decisions squeezed into ±1/3, as scikit-learn has it: they rank the classes, but losses and calibration mean little.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlkit.layers.classical import Images, Targets, fitted_classes, rows, sklearn
from dlkit.specs import ImageSpec

NATURAL = (1, 28, 28, 10)  # channels, height, width, classes
LIMIT = 10_000  # images to fit to


class SVM(nn.Module):
    """V support vectors of D numbers, and P = K (K - 1) / 2 machines, each a weight a vector and a bias."""

    vectors: Tensor
    weights: Tensor
    biases: Tensor
    gamma: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, vectors: int, width: int, classes: int) -> None:
        super().__init__()
        pairs = torch.tensor(list(combinations(range(classes), 2)))
        self.register_buffer("vectors", torch.zeros(vectors, width))
        self.register_buffer("weights", torch.zeros(vectors, len(pairs)))
        self.register_buffer("biases", torch.zeros(len(pairs)))
        self.register_buffer("gamma", torch.zeros(()))
        for name, side in zip(("first", "second"), pairs.T, strict=True):  # (P, K): which class a machine is for
            self.register_buffer(name, nn.functional.one_hot(side, classes).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        x = images.flatten(1)
        squares = x.square().sum(1, keepdim=True) - 2 * x @ self.vectors.T + self.vectors.square().sum(1)  # (N, V)
        decisions = torch.exp(-self.gamma * squares.clamp(min=0)) @ self.weights + self.biases  # (N, P)
        votes = (decisions >= 0).float() @ self.first + (decisions < 0).float() @ self.second  # (N, K)
        sums = decisions @ (self.first - self.second)
        return votes + sums / (3 * (sums.abs() + 1))

    def multiply_adds(self, output: Tensor) -> int:
        return self.vectors.numel() + self.weights.numel() + 2 * self.first.numel()


def build(spec: ImageSpec, *, c: float = 5.0, gamma: float = 0.0, vectors: int = 1) -> nn.Module:
    """gamma 0 is the default of the text above; `vectors` is what fitting found."""
    return SVM(vectors, spec.channels * spec.height * spec.width, len(spec.classes))


def fit(
    images: Images, targets: Targets, spec: ImageSpec, seed: int, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The fitted model, and the options that say how large it is."""
    fitted_classes(targets, len(spec.classes))
    x = rows(images, spec)
    gamma = options["gamma"] or 1 / (x.shape[1] * max(float(x.var()), 1e-12))
    machine = sklearn("svm").SVC(C=options["c"], gamma=gamma, cache_size=1000).fit(x, targets)
    model = SVM(len(machine.support_vectors_), x.shape[1], len(spec.classes))
    sign = -1 if len(spec.classes) == 2 else 1  # of a single machine scikit-learn turns the sign
    model.vectors.copy_(torch.from_numpy(machine.support_vectors_))
    model.weights.copy_(torch.from_numpy(sign * _by_machine(machine.dual_coef_, machine.n_support_)))
    model.biases.copy_(torch.from_numpy(sign * machine.intercept_))
    model.gamma.fill_(gamma)
    return model, {"vectors": len(machine.support_vectors_)}


def _by_machine(coefficients: npt.NDArray[np.float64], counts: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """libsvm's (K - 1, V), in which each vector has a row for every other class, as (V, P) with zeros."""
    ends = np.cumsum(counts)
    own = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    pairs = list(combinations(range(len(counts)), 2))
    weights = np.zeros((ends[-1], len(pairs)))
    for machine, (i, j) in enumerate(pairs):
        weights[own[i], machine] = coefficients[j - 1, own[i]]
        weights[own[j], machine] = coefficients[i, own[j]]
    return weights
