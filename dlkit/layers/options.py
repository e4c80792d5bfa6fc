"""Validation of a model's options: recipes have scalars, and an invalid one is a UsageError in one line."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

from dlkit.errors import UsageError
from dlkit.registry import did_you_mean


def check_choice(option: str, value: Any, choices: Iterable[str]) -> None:
    """Raises: UsageError if the value is not one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise UsageError(f"model option {option} is {value!r}. {did_you_mean(str(value), choices)}")


def sizes(option: str, value: Any) -> tuple[int, ...]:
    """The layer sizes in "512,256" or 512; none for "".

    Raises: UsageError where the value is not such a list.
    """
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [str(value)]
    if parts == [""]:
        return ()
    if isinstance(value, bool) or not all(
        part.isascii() and part.isdigit() and 0 < int(part) <= 2**20 for part in parts
    ):
        raise UsageError(f"model option {option} is {value!r}. It must be integers such as 512 or '512,256'.")
    return tuple(int(part) for part in parts)


def check_whole(option: str, value: Any, least: int = 1, most: int = 2**20) -> None:
    """Raises: UsageError if the value is not an integer from least to most."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"model option {option} is {value!r}. It must be an integer from {least} to {most:,}.")


def check_flag(option: str, value: Any) -> None:
    """Raises: UsageError if the value is not a boolean."""
    if not isinstance(value, bool):
        raise UsageError(f"model option {option} is {value!r}. It must be true or false.")


def check_number(option: str, value: Any) -> None:
    """Raises: UsageError if the value is not a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        raise UsageError(f"model option {option} is {value!r}. It must be a number.")
