"""The names of the networks that packages offer, torchvision/NAME and timm/NAME. Neither package is imported."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

REGISTERED = re.compile(r"^@register_model\s+def (\w+)", re.MULTILINE)
TAGGED = re.compile(r"""["']([a-z]\w+)\.([\w.]+)["']""")  # resnet50.a1_in1k


def names(package: str) -> list[str]:
    """The networks of a package, as in torchvision/resnet50; none if it is not installed."""
    return [f"{package}/{name}" for name in MEMBERS[package]()]


def is_member(name: str) -> bool:
    """Whether this is written as a network of a package: torchvision/NAME or timm/NAME."""
    return name.partition("/")[0] in MEMBERS and "/" in name


def torchvision_architectures() -> list[str]:
    """The names of torchvision's networks for classification."""
    from dlkit import published  # here, because help and most typos need no table

    return list(published.weights())


@cache
def timm_architectures() -> tuple[str, ...]:
    """The names that timm registers, from the text of its files: importing them takes seconds."""
    return tuple(sorted(name for text in _timm_files() for name in REGISTERED.findall(text)))


@cache
def timm_tags() -> Mapping[str, tuple[str, ...]]:
    """The tags of the weights that timm's files name, by architecture: timm/resnet50.a1_in1k has the tag a1_in1k."""
    known = set(timm_architectures())
    tags: dict[str, set[str]] = {}
    for text in _timm_files():
        for name, tag in TAGGED.findall(text):
            if name in known and tag != "untrained":
                tags.setdefault(name, set()).add(tag)
    return {name: tuple(sorted(found)) for name, found in tags.items()}


@cache
def _timm_files() -> tuple[str, ...]:
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        return ()
    files = sorted((Path(package.origin).parent / "models").glob("*.py"))
    return tuple(path.read_text(encoding="utf-8") for path in files)


MEMBERS: Mapping[str, Callable[[], Iterable[str]]] = {
    "torchvision": torchvision_architectures,
    "timm": timm_architectures,
}
