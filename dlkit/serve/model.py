"""The model of a server: predict and explain, each with its model loaded once for all requests."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from dlkit.evaluation.model_file import SUFFIXES, open_model_file
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.specs import Spec

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation

OVERLAY_SIDE = 280  # approximate pixels of an explanation's image

Say = Callable[[str], None]
Record = TypeVar("Record")


class Session(Generic[Record]):
    """A function from a stream of inputs to records, kept open between inputs so that its model is loaded once.

    Not thread-safe. After an error the model is loaded again.
    """

    def __init__(self, start: Callable[[Iterator[bytes]], Iterator[Record]]) -> None:
        self._start = start
        self._inputs: SimpleQueue[bytes | None] = SimpleQueue()
        self._records: Iterator[Record] | None = None

    def process(self, content: bytes) -> Record:
        """The record of an image or a text; raises what the function raises."""
        if self._records is None:
            self._inputs = SimpleQueue()  # after an error, a reader may still wait at the old queue
            self._records = self._start(iter(self._inputs.get, None))
        try:
            self._inputs.put(content)
            return next(self._records)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the stream of inputs."""
        self._inputs.put(None)
        self._records = None


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its sessions."""

    name: str  # of the run or the file
    model: str
    spec: Spec
    predict: Session[Prediction | Failure]  # with all classes
    explain: Session[Explanation | Failure] | None  # None for an exported file


def open_model(
    source: RunFolder | Path | str | None, checkpoint: CheckpointName, device: str, runs_dir: Path, say: Say
) -> ServedModel:
    """Load the model of a run or an exported file. Raises the errors of serve."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES and not Path(source).is_dir():
        about = open_model_file(Path(source)).about
        predict_file = partial(predict, None, model=str(source), topk=len(about.spec.classes))
        served = ServedModel(Path(source).name, about.model, about.spec, _session(predict_file, device, say), None)
    else:
        run = select_run(source, runs_dir, say)
        model, spec = run.recipe().model.name, run.spec()
        predict_run = partial(predict, run, topk=len(spec.classes) or None, checkpoint=checkpoint)
        explain = _explain_session(run, checkpoint, device, say)
        served = ServedModel(run.name, model, spec, _session(predict_run, device, say), explain)
    served.predict.process(b"")  # neither an image nor a text, but it loads the model and raises its errors
    return served


def _session(function: Callable[..., Iterator[Record]], device: str, say: Say) -> Session[Record]:
    return Session(lambda inputs: function(paths=inputs, batch_size=1, device=device, say=say))


def _explain_session(
    run: RunFolder, checkpoint: CheckpointName, device: str, say: Say
) -> Session[Explanation | Failure]:
    def start(inputs: Iterator[bytes]) -> Iterator[Explanation | Failure]:
        from dlkit.explanation.explain import explain

        return explain(run, inputs, write=False, checkpoint=checkpoint, device=device, say=say)

    return Session(start)


def overlay_png(explanation: Explanation) -> bytes:
    """The explained image with its map as an overlay."""
    from dlkit.explanation import overlay

    file = io.BytesIO()
    overlay.render_overlay(explanation, OVERLAY_SIDE).save(file, format="PNG")
    return file.getvalue()
