"""What is known of every model without building it: size, input, published accuracy and weights. No torch is imported.

networks.csv is written from the networks themselves (`python tests/network_tables.py`); timm's sizes are not known.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from dlkit import imagenet, packages, published, registry

TABLE = Path(__file__).with_name("networks.csv")
TASKS = {"images": "images", "text": "sequences", "series": "sequences", "trees": "trees"}  # task → kind of spec


@dataclass(frozen=True)
class CatalogEntry:
    """A model for the input that it was made for; a classical baseline has no size."""

    name: str
    family: str
    summary: str
    options: Mapping[str, Any]
    takes: tuple[str, ...]  # kinds of spec
    parameters: int | None
    macs: int | None
    input: tuple[int, ...] | None  # channels, height and width; or the length of a sequence or tree
    weights: tuple[str, ...]  # tags of the published weights, the default first
    top1: float | None  # fraction of ImageNet's validation images, of the default weights
    top5: float | None


def find(patterns: Sequence[str] = (), task: str | None = None, pretrained: bool = False) -> list[CatalogEntry]:
    """The models that fit any of the patterns, take a task's inputs, and have published weights.

    A pattern is a glob or a part of a name. timm's models are listed if a pattern names timm.
    """
    names = registry.names("models", with_timm=any("timm" in pattern for pattern in patterns))
    fitting = (name for name in names if not patterns or any(_fits(name, pattern) for pattern in patterns))
    entries = map(_entry, fitting)
    kind = None if task is None else TASKS[task]
    return [entry for entry in entries if kind in (None, *entry.takes) and (entry.weights or not pretrained)]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or pattern.lower() in name


def _entry(name: str) -> CatalogEntry:
    member = registry.entry("models", name)
    parameters, macs, size = _sizes().get(name, (None, None, None))
    tags, best = _published(name)
    return CatalogEntry(
        name=name,
        family=member.family.lstrip("_"),
        summary=member.summary,
        options={key: value for key, value in {**member.options, **member.fixed}.items() if key != "architecture"},
        takes=member.takes,
        parameters=parameters,
        macs=macs,
        input=size,
        weights=tags,
        top1=None if best is None else best.top1,
        top5=None if best is None else best.top5,
    )


def _published(name: str) -> tuple[tuple[str, ...], published.PublishedWeights | None]:
    """The tags of a model's weights, and what is known of the default ones."""
    package, _, architecture = name.partition("/")
    if package == "timm":
        return packages.timm_tags().get(architecture, ()), None
    if not imagenet.has_weights(name):
        return (), None
    best = published.of_file(imagenet.find(name)[0])
    assert best is not None, name
    return tuple(one.tag for one in published.weights()[architecture]) if architecture else (best.tag,), best


@cache
def _sizes() -> Mapping[str, tuple[int, int, tuple[int, ...]]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {
            row["name"]: (int(row["parameters"]), int(row["macs"]), tuple(map(int, row["input"].split("×"))))
            for row in csv.DictReader(file)
        }
