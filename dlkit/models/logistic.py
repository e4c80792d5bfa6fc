"""Logistic regression: a linear function of the pixels, fitted to its optimum by `dlkit baseline`.

Cox, "The regression analysis of binary sequences", J. Royal Statistical Society B 20(2), 1958; over several classes it
is the softmax of K linear functions. scikit-learn minimises Σ cross entropy + ‖w‖² / (2c) by L-BFGS, from 0 and over
all images at once, so that nothing is random, until no derivative of the mean loss exceeds `tolerance`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dlkit.layers.classical import Images, Targets, fitted_classes, rows, sklearn
from dlkit.specs import ImageSpec

NATURAL = (1, 28, 28, 10)  # channels, height, width, classes
LIMIT = None  # images to fit to


def build(spec: ImageSpec, *, c: float = 0.01, iterations: int = 200, tolerance: float = 1e-3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, len(spec.classes)))


def fit(
    images: Images, targets: Targets, spec: ImageSpec, seed: int, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The fitted model, and the options that say how large it is."""
    fitted_classes(targets, len(spec.classes))
    regression = sklearn("linear_model").LogisticRegression(
        C=options["c"], max_iter=options["iterations"], tol=options["tolerance"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn("exceptions").ConvergenceWarning)
        regression.fit(rows(images, spec), targets)
    if regression.n_iter_.max() >= options["iterations"]:
        short = f"not at its optimum after {options['iterations']} iterations; raise model.options.iterations"
        warnings.warn(short, stacklevel=2)
    weight, bias = regression.coef_, regression.intercept_
    if len(spec.classes) == 2:  # one function for both classes: half of it speaks for the one, half against the other
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    model = build(spec)
    model.load_state_dict({"1.weight": torch.from_numpy(weight), "1.bias": torch.from_numpy(bias)})
    return model, {}
