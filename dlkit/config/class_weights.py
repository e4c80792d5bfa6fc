"""The weights of classes in the loss: computed from their counts in train, or read from a file into the recipe.

The recipe holds a file's weights themselves, so that a run does not depend on the file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlkit import atomic_io
from dlkit.errors import UsageError
from dlkit.registry import did_you_mean

AUTOMATIC = ("balanced", "sqrt", "effective")
NONE = "none"


def with_class_weights(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a recipe with the content of the file that loss.class_weights names.

    Raises:
        UsageError: no such file, or it does not hold a class and a weight in each line.
    """
    loss = values.get("loss")
    source = loss.get("class_weights") if isinstance(loss, Mapping) else None
    if not isinstance(source, str) or source in (*AUTOMATIC, NONE):
        return values
    return {**values, "loss": {**values["loss"], "class_weights": _read(source)}}


def _read(source: str) -> dict[str, float]:
    path = Path(source)
    if not path.is_file():
        choices = f"{', '.join(AUTOMATIC)}, {NONE} nor a file"
        hint = did_you_mean(source, (*AUTOMATIC, NONE)) if "/" not in source and "." not in source else ""
        raise UsageError(f"class weights {source!r} not found: neither {choices}. {hint}".rstrip())
    with atomic_io.storage_errors(path):
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:
        rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
    except csv.Error as error:
        raise UsageError(f"{path}: {error}. Write a line CLASS,WEIGHT for each class.") from error
    weights: dict[str, float] = {}
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and len(row) == 2 and not _is_number(row[1])):  # a line of column names
            continue
        value = _number(row[1]) if len(row) == 2 else None
        if value is None or row[0] in weights:
            problem = "is the second of its class" if value is not None else "is no class and weight of at least 0"
            raise UsageError(f"{path}:{number}: {','.join(row)[:60]!r} {problem}. Write CLASS,WEIGHT once for each.")
        weights[row[0]] = value
    if not weights:
        raise UsageError(f"{path} holds no class weights. Write a line CLASS,WEIGHT for each class.")
    return weights


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float | None:
    """A weight, or None for anything else."""
    value = float(text) if _is_number(text) else math.nan
    return value if math.isfinite(value) and value >= 0 else None
