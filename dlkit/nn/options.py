"""What a model's options may be: a recipe carries scalars, and a wrong one is a person's mistake, told in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dlkit.catalog import did_you_mean
from dlkit.errors import UsageError


def check_choice(option: str, value: Any, choices: Iterable[str]) -> None:
    """Raises: UsageError where the value is none of the choices."""
    choices = list(choices)
    if value not in choices:
        raise UsageError(f"model option {option} is {value!r}. {did_you_mean(str(value), choices)}")


def sizes(option: str, value: Any) -> tuple[int, ...]:
    """The layer sizes that "512,256" or 512 stand for; "" stands for none.

    Raises: UsageError where the value is not such a list.
    """
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [str(value)]
    if parts == [""]:
        return ()
    if isinstance(value, bool) or not all(
        part.isascii() and part.isdigit() and 0 < int(part) <= 2**20 for part in parts
    ):
        raise UsageError(f"model option {option} is {value!r}. It must be whole numbers such as 512 or '512,256'.")
    return tuple(int(part) for part in parts)
