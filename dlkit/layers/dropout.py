"""Dropout for a model's `dropout` option."""

from __future__ import annotations

from typing import Any

from torch import nn

from dlkit.errors import UsageError


def dropout(probability: Any, option: str = "dropout") -> nn.Module:
    """Set units to 0 with this probability while training (Srivastava et al. 2014); at 0 an identity.

    Raises: UsageError where it is no number in [0, 1).
    """
    number = isinstance(probability, int | float) and not isinstance(probability, bool)
    if not number or not 0 <= probability < 1:
        raise UsageError(
            f"model option {option} is {probability!r}. It must be a number from 0 up to, not including, 1."
        )
    return nn.Dropout(probability) if probability else nn.Identity()
