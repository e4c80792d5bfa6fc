"""The records of `dlkit explain`: a map of an image, or a value for each word of a text or each node of a tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.evaluation.prediction import Node
from dlkit.registry import MAX_LISTED, did_you_mean
from dlkit.result_table import ResultTable, Rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA = "dlkit.explain/1"
FEATURES_SCHEMA = "dlkit.explain_features/1"
FOLDER = "explanations"  # of a run


@dataclass(frozen=True)
class Sanity:
    """How much of a map remains without the learned weights."""

    correlation: float | None  # rank correlation with the map of the network with shuffled weights; for text a mean
    survives: bool  # the correlation is at least 0.5: the map does not depend on what was learned
    random_weights: bool  # the network's own weights are indistinguishable from shuffled ones

    @property
    def flagged(self) -> bool:
        return self.survives or self.random_weights


@dataclass(frozen=True)
class WordAttribution:
    """A word of a text and its contribution to the target class."""

    word: str
    value: float
    known: bool  # whether the vocabulary contains it


@dataclass(frozen=True)
class NodeAttribution:
    """A node of a tree, its most probable class, and the contribution of the words below it to the target class."""

    node: Node
    value: float
    word_index: int | None = None  # of the node's own word in the text

    def document(self) -> dict[str, Any]:
        """A node as in `dlkit.predict/1`, with the value."""
        return {**self.node.document(), "value": self.value}


@dataclass(frozen=True, eq=False)  # the comparison of arrays has no single truth value
class Explanation(ResultTable):
    """One method's map of one input, with the measures of its quality."""

    path: str
    model: str
    method: str
    layer: str | None  # the layer whose maps were used
    target: str  # the explained class; the most probable one by default
    target_index: int
    probability: float  # of the target
    predicted: str  # the most probable class
    deletion_auc: float
    insertion_auc: float
    completeness_error: float | None  # |sum of the map − difference of the logits|, relative to the difference
    sanity: Sanity
    map: npt.NDArray[np.float32]  # (H, W) of the preprocessed image; (1, T) of text
    image: npt.NDArray[np.uint8] | None = None  # (C, H, W)
    words: tuple[WordAttribution, ...] = ()  # of a text or a tree, in word order
    nodes: tuple[NodeAttribution, ...] = ()  # of a tree, from its root
    png: Path | None = None
    notes: tuple[str, ...] = ()  # as in a Prediction

    @property
    def empty(self) -> bool:
        """Whether the map is all zeros: for Grad-CAM, the layer has only evidence against the class."""
        return not self.map.any()

    def rows(self) -> Rows:
        """One row with the figures, or one for each word of a text."""
        figures = ("path", "method", "layer", "target", "probability", "deletion_auc", "insertion_auc", "png")
        document = self.document()
        return [asdict(word) for word in self.words] or [{name: document[name] for name in figures}]

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.explain/1`; `words`, `nodes` and `notes` are omitted if they are empty."""
        document = {
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
        words, nodes = [asdict(word) for word in self.words], [node.document() for node in self.nodes]
        optional = {"words": words, "nodes": nodes, "notes": list(self.notes)}
        return document | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True)
class FeatureMaps:
    """An image of the first layer's filters and of a layer's feature maps for one input."""

    path: str
    model: str
    layer: str
    channels: int
    height: int
    width: int
    shown: int  # number of channels in the image
    png: Path

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.explain_features/1`."""
        return {"schema": FEATURES_SCHEMA, **asdict(self), "png": str(self.png)}


@dataclass(frozen=True)
class SpatialLayer:
    """A module whose output is feature maps, and their shape."""

    path: str
    kind: str
    channels: int
    height: int
    width: int
    default: bool  # used if no layer is requested


def suggest(name: str, choices: Iterable[str]) -> str:
    """The nearest name, followed by a list of the choices."""
    choices = list(choices)
    hint = did_you_mean(name, choices)
    if not hint.startswith("Did"):
        return hint
    more = f" and {len(choices) - MAX_LISTED} more" if len(choices) > MAX_LISTED else ""
    return f"{hint} There are: {', '.join(choices[:MAX_LISTED])}{more}."
