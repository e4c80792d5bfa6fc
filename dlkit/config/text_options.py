"""How a data set's text becomes words, where a recipe leaves it open.

A data set's own defaults are what runs had before there was a choice, so that an old recipe means what it meant. A new
run on texts of one's own states in its recipe what it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlkit import registry

NEW_RUN = {"tokenizer": "unicode", "normalize": "nfc"}
OPTIONS = ("tokenizer", "normalize", "lower")


def for_new_run(dataset: str | None) -> dict[str, Any]:
    """Those of a new run on this data set."""
    return _accepted(dataset, NEW_RUN)


def like(dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those with which this data set's text is read as another's with these options is."""
    return _accepted(dataset, {name: options[name] for name in OPTIONS if name in options})


def _accepted(dataset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    known = registry.entries("datasets")
    return {name: value for name, value in options.items() if dataset in known and name in known[dataset].options}
