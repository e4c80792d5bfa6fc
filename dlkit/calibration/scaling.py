"""Scaling of a network's outputs before the link function, so that probabilities are frequencies.

    temperature   z / T               one number: ranks and accuracy stay
    vector        w_k z_k + b_k       2 K numbers, which correct each class

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017. Both minimize the mean negative
log likelihood of the validation split, which is convex in 1 / T, and in w and b. For networks trained with bce the
likelihood is that of K independent yes-or-no answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dlkit.errors import DataError
from dlkit.specs import Link

Method = Literal["temperature", "vector", "none"]
METHODS: tuple[Method, ...] = ("temperature", "vector", "none")
SLOPE_BOUNDS = (-12.0, 5.0)  # of log 1 / T: a network that is right by chance alone comes to the lower one
STEPS = 60  # of bisection: to the last bit
MAX_ITERATIONS = 500
FLAT = 1e-6  # greatest component of the gradient at the minimum


def fit_temperature(outputs: Tensor, targets: Tensor, link: Link) -> float:
    """T: (N, K) float64, (N,) → above 0.

    Raises:
        DataError: every answer is right, or right as often as it is wrong: the likelihood has no maximum.
    """

    def slope(log_scale: float) -> float:
        scale = torch.tensor(math.exp(log_scale), dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(likelihood(outputs * scale, targets, link), scale)
        return float(gradient)

    low, high = SLOPE_BOUNDS
    if slope(high) <= 0:
        raise DataError(
            f"none of the {len(targets):,} validation samples is classified wrongly: there is no best temperature. "
            "Use more validation samples (data.validation), or --method none."
        )
    if slope(low) > 0:
        raise DataError("the answers are no better than chance: no temperature makes them probabilities. Train longer.")
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def fit_vector(outputs: Tensor, targets: Tensor, link: Link, classes: Sequence[str]) -> tuple[list[float], list[float]]:
    """w and b, K numbers each; b sums to 0 with a softmax, which does not see its sum.

    Raises:
        DataError: a class has no sample, or the likelihood has no maximum.
    """
    missing = [name for index, name in enumerate(classes) if not bool((targets == index).any())]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise DataError(
            f"--method vector needs validation samples of every class; there is none of {shown}. "
            "Use --method temperature, or a larger data.validation."
        )
    start = 1 / fit_temperature(outputs, targets, link)
    scale = torch.full((len(classes),), start, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scale, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=FLAT / 10,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = likelihood(outputs * scale + bias, targets, link)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    closure()
    gradients = [parameter.grad for parameter in (scale, bias) if parameter.grad is not None]
    steepest = max(float(gradient.abs().max()) for gradient in gradients)
    if steepest > 100 * FLAT or float(scale.detach().abs().min()) < FLAT:
        raise DataError(
            f"no best scaling of {len(classes)} classes exists for {len(targets):,} validation samples. "
            "Use --method temperature, or a larger data.validation."
        )
    shift = bias.mean() if link == "softmax" else 0.0
    return scale.tolist(), (bias - shift).tolist()


def likelihood(outputs: Tensor, targets: Tensor, link: Link) -> Tensor:
    """The mean negative log likelihood, the mean over classes too with a sigmoid: (N, K), (N,) → ()."""
    if link == "softmax":
        return nn.functional.cross_entropy(outputs, targets)
    hits = nn.functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return nn.functional.binary_cross_entropy_with_logits(outputs, hits)
