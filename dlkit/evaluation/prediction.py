"""What predict answers: the classes of an input, or why it could not be read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "dlkit.predict/1"
WORDS_SHOWN = 30  # of a node


@dataclass(frozen=True)
class Ranked:
    """One class that an input may be of; ranks count from 1."""

    rank: int
    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Node:
    """A node of a tree, numbered from its root in the order in which it is written, and its most probable class."""

    node: int
    parent: int | None
    word: str | None  # its own; an inner node of a tree in brackets has none
    words: str  # its own and those below it, the first WORDS_SHOWN
    name: str
    index: int
    probability: float

    def document(self) -> dict[str, Any]:
        """As it stands in `dlkit.predict/1`."""
        return {
            "node": self.node,
            "parent": self.parent,
            "word": self.word,
            "words": self.words,
            "class": self.name,
            "index": self.index,
            "probability": self.probability,
        }


@dataclass(frozen=True)
class Uncertainty:
    """What passes with dropout on leave open about an input, in nats: in all, and for want of agreement."""

    passes: int
    predictive_entropy: float
    mutual_information: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one input, best first: of a tree its root's, and its nodes' where asked for."""

    path: str
    model: str
    predictions: tuple[Ranked, ...]
    nodes: tuple[Node, ...] = ()
    uncertainty: Uncertainty | None = None
    unknown: int | None = None  # of a text: words that the vocabulary does not have
    truncated: int | None = None  # of a text: words at its end that are not read
    notes: tuple[str, ...] = ()  # what the answer does not cover: only the first frame of an animation was used

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1`."""
        rows = [
            {"rank": r.rank, "class": r.name, "index": r.index, "probability": r.probability} for r in self.predictions
        ]
        nodes = [node.document() for node in self.nodes]
        found = {"schema": SCHEMA, "path": self.path, "model": self.model, "predictions": rows}
        notes: dict[str, Any] = {"notes": list(self.notes)} if self.notes else {}
        if self.unknown is not None:
            notes = {"unknown": self.unknown, "truncated": self.truncated} | notes
        return found | ({"nodes": nodes} if nodes else {}) | self._doubts() | notes

    def _doubts(self) -> dict[str, Any]:
        if self.uncertainty is None:
            return {}
        figures = asdict(self.uncertainty)
        return {"mc_dropout": figures.pop("passes"), **figures}


@dataclass(frozen=True)
class Failure:
    """An input that could not be read; `code` is the exit code of its kind of error."""

    path: str
    model: str
    code: int
    message: str
    schema: str = SCHEMA

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1` or the verb's own."""
        error = {"code": self.code, "message": self.message}
        return {"schema": self.schema, "path": self.path, "model": self.model, "error": error}
