"""The records of predict: the classes of an input, or the error that prevented reading it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dlkit.calibration.decisions import Decision
from dlkit.result_table import ResultTable, Rows, data_frame, html_table, joined

SCHEMA = "dlkit.predict/1"
WORDS_SHOWN = 30  # of a node


@dataclass(frozen=True)
class Ranked:
    """A class with its rank, from 1."""

    rank: int
    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Node:
    """A node of a tree, numbered in written order from the root, and its most probable class."""

    node: int
    parent: int | None
    word: str | None  # its own; an inner node of a tree in brackets has none
    words: str  # its own and those below it, the first WORDS_SHOWN
    name: str
    index: int
    probability: float

    def document(self) -> dict[str, Any]:
        """The JSON form in `dlkit.predict/1`."""
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
    """The uncertainty of MC dropout in nats: of the mean prediction, and from disagreement between passes."""

    passes: int
    predictive_entropy: float
    mutual_information: float


@dataclass(frozen=True)
class Prediction(ResultTable):
    """The most probable classes of one input, best first: those of a tree's root, and of its nodes if requested."""

    path: str
    model: str
    predictions: tuple[Ranked, ...]
    nodes: tuple[Node, ...] = ()
    uncertainty: Uncertainty | None = None
    unknown: int | None = None  # words of a text that are not in the vocabulary
    truncated: int | None = None  # words of a text beyond the longest sequence
    notes: tuple[str, ...] = ()  # such as: only the first frame of an animation was used
    decision: Decision | None = None  # of a calibrated run

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.predict/1`."""
        rows = [
            {"rank": r.rank, "class": r.name, "index": r.index, "probability": r.probability} for r in self.predictions
        ]
        nodes = [node.document() for node in self.nodes]
        document = {"schema": SCHEMA, "path": self.path, "model": self.model, "predictions": rows}
        notes: dict[str, Any] = {"notes": list(self.notes)} if self.notes else {}
        if self.unknown is not None:
            notes = {"unknown": self.unknown, "truncated": self.truncated} | notes
        decision = {} if self.decision is None else self.decision.document()
        return document | decision | ({"nodes": nodes} if nodes else {}) | self._uncertainty() | notes

    def rows(self) -> Rows:
        """A row for each rank."""
        uncertainty = {name: value for name, value in self._uncertainty().items() if name != "mc_dropout"}
        ranks = self.document()["predictions"] or [{}]  # none above the least probability
        return [{"path": self.path, **ranked, **uncertainty} for ranked in ranks]

    def _uncertainty(self) -> dict[str, Any]:
        if self.uncertainty is None:
            return {}
        values = asdict(self.uncertainty)
        return {"mc_dropout": values.pop("passes"), **values}


@dataclass(frozen=True)
class Failure(ResultTable):
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

    def rows(self) -> Rows:
        """One row with the error."""
        return [{"path": self.path, "error": self.message}]


class Predictions(Iterator[Prediction | Failure]):
    """The answers of predict, in order and as they come; what shows them as a table reads all that are left."""

    def __init__(
        self, answers: Iterator[Prediction | Failure], fields: tuple[str, ...], close: Callable[[], None]
    ) -> None:
        self._answers = answers
        self.fields = fields  # the keys of the decisions that each has
        self.close = close  # stops reading inputs

    def __next__(self) -> Prediction | Failure:
        return next(self._answers)

    def to_dict(self) -> list[dict[str, Any]]:
        """The JSON form of each answer."""
        return [answer.document() for answer in self._all()]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row for each rank of each answer.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame(joined(self._all()))

    def _repr_html_(self) -> str:
        return html_table(joined(self._all()))

    def _all(self) -> list[Prediction | Failure]:
        answers = list(self._answers)
        self._answers = iter(answers)
        return answers
