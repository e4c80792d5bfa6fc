"""What `dlkit explain` finds, as records: of an image a map, of text a value for each word, of a tree for each node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.evaluation.prediction import Node
from dlkit.registry import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA = "dlkit.explain/1"
FEATURES_SCHEMA = "dlkit.explain_features/1"
FOLDER = "explanations"  # of a run
LISTED = 24  # names in an error


@dataclass(frozen=True)
class Sanity:
    """What is left of a map without what the network has learned."""

    correlation: float | None  # rank correlation with the map of the same network, its weights shuffled; of text a mean
    survives: bool  # the correlation is 0.5 or more: the map does not depend on what was learned
    random_weights: bool  # the network's own weights cannot be told from shuffled ones

    @property
    def flagged(self) -> bool:
        return self.survives or self.random_weights


@dataclass(frozen=True)
class Word:
    """A word of a text, and how far it speaks for the class."""

    word: str
    value: float
    known: bool  # whether the vocabulary has it


@dataclass(frozen=True)
class Part:
    """A node of a tree with its most probable class, and how far the words below it speak for the class asked about."""

    node: Node
    value: float
    place: int | None = None  # of its own word, among the text's

    def document(self) -> dict[str, Any]:
        """As `dlkit.predict/1` has nodes, with the value."""
        return {**self.node.document(), "value": self.value}


@dataclass(frozen=True, eq=False)  # arrays have no one truth to compare by
class Explanation:
    """One method's map of one input, and what it is worth."""

    path: str
    model: str
    method: str
    layer: str | None  # whose maps were looked at
    target: str  # the class asked about, the most probable one where none was
    target_index: int
    probability: float  # of the target
    predicted: str  # the most probable class
    deletion_auc: float
    insertion_auc: float
    completeness_error: float | None  # |sum of the map − difference of the logits|, relative to the difference
    sanity: Sanity
    map: npt.NDArray[np.float32]  # (H, W), as the network saw the image; (1, T) of text
    image: npt.NDArray[np.uint8] | None = None  # (C, H, W)
    words: tuple[Word, ...] = ()  # of a text or a tree, in word order
    parts: tuple[Part, ...] = ()  # of a tree, from its root
    png: Path | None = None
    notes: tuple[str, ...] = ()  # as in a Prediction

    @property
    def empty(self) -> bool:
        """Whether the map says nothing: of Grad-CAM, where all that the layer found speaks against the class."""
        return not self.map.any()

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.explain/1`; `words` and `nodes` stand in it where there are any."""
        found = {
            "schema": SCHEMA,
            "path": self.path,
            "model": self.model,
            "method": self.method,
            "layer": self.layer,
            "target": self.target,
            "target_index": self.target_index,
            "probability": self.probability,
            "predicted": self.predicted,
            "png": None if self.png is None else str(self.png),
            "deletion_auc": self.deletion_auc,
            "insertion_auc": self.insertion_auc,
            "completeness_error": self.completeness_error,
            "empty": self.empty,
            "sanity": {**asdict(self.sanity), "flagged": self.sanity.flagged},
        }
        words, nodes = [asdict(word) for word in self.words], [part.document() for part in self.parts]
        optional = {"words": words, "nodes": nodes, "notes": list(self.notes)}
        return found | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True)
class Features:
    """A picture of the first layer's filters and of the maps that a layer gives of one image."""

    path: str
    model: str
    layer: str
    channels: int
    height: int
    width: int
    shown: int  # of the channels
    png: Path

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.explain_features/1`."""
        return {"schema": FEATURES_SCHEMA, **asdict(self), "png": str(self.png)}


@dataclass(frozen=True)
class Layer:
    """A module that gives maps in space, and their form."""

    path: str
    kind: str
    channels: int
    height: int
    width: int
    default: bool  # looked at where no other is named


def hints(name: str, names: Iterable[str]) -> str:
    """The nearest right name, and then all of them, the first ones where they are many."""
    names = list(names)
    hint = did_you_mean(name, names)
    if not hint.startswith("Did"):
        return hint
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{hint} There are: {', '.join(names[:LISTED])}{more}."
