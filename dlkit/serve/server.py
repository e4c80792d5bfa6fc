"""A trained model on a page of its own: a small web server that answers images, or text, as predict and explain do.

It listens on this machine alone where no other address is named, and knows no files but the model's: what comes in is
an image or a text, never a name. The page, the addresses and their limits are in serve_app.py.
"""

from __future__ import annotations

import errno
import io
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from dlkit import export_metadata
from dlkit.errors import StoppedError, StorageError, UsageError
from dlkit.evaluation.model_file import SUFFIXES, open_model_file
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.runs.run_folder import CheckpointName, RunFolder, select_run
from dlkit.signals import stop_flag
from dlkit.specs import Spec

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation

HOST, PORT = "127.0.0.1", 8000
NEEDS = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
OVERLAY_SIDE = 280  # pixels of the picture of an explanation, about

Say = Callable[[str], None]
Answer = TypeVar("Answer")


class Held(Generic[Answer]):
    """A verb that answers a list of inputs, held open between two of them, so that its model is loaded once.

    Not for two threads at once. After an error the model is loaded anew.
    """

    def __init__(self, begin: Callable[[Iterator[bytes]], Iterator[Answer]]) -> None:
        self._begin = begin
        self._asked: SimpleQueue[bytes | None] = SimpleQueue()
        self._answers: Iterator[Answer] | None = None

    def answer(self, given: bytes) -> Answer:
        """What the verb says of an image's bytes, or a text's; raises what it raises."""
        if self._answers is None:
            self._asked = SimpleQueue()  # a reader left over from an error may still wait at the old one
            self._answers = self._begin(iter(self._asked.get, None))
        try:
            self._asked.put(given)
            return next(self._answers)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the list."""
        self._asked.put(None)
        self._answers = None


@dataclass(frozen=True)
class Served:
    """A model and what answers with it."""

    name: str  # of the run or the file
    model: str
    spec: Spec
    predict: Held[Prediction | Failure]  # with all classes
    explain: Held[Explanation | Failure] | None  # by a run


def serve(
    source: RunFolder | Path | str | None = None,
    *,
    host: str = HOST,
    port: int = PORT,
    checkpoint: CheckpointName = "best",
    device: str = "auto",
    runs_dir: Path | str = "runs",
    ready: Callable[[str], None] = lambda url: None,
    say: Say = lambda text: None,
) -> None:
    """Answer on http://host:port until a signal comes; `ready` is told the address once the model is loaded.

    source is a run (the newest, where none is named) or an exported file. Port 0 takes any that is free.

    Raises:
        UsageError: no such run, address or port, a package is missing, or the model reads neither images nor text.
        ModelFileError: the checkpoint or the file is damaged.
        StorageError: the port is taken.
        StoppedError: SIGINT or SIGTERM, which is how it ends.
    """
    export_metadata.need(NEEDS, "serve", "serve")
    with listening(host, port) as listener, stop_flag() as stop:
        served = opened(source, checkpoint, device, Path(runs_dir), say)
        if not is_loopback(host):
            say(f"warning: {host} is reachable from other machines, and whoever reaches it may use the model.")
        place = f"[{host}]" if ":" in host else host
        ready(f"http://{place}:{listener.getsockname()[1]}/")
        from dlkit.serve.app import application
        from dlkit.serve.connections import run_until

        run_until(stop, application(served, host, say), listener, say)
    raise StoppedError(f"stopped by {signal.Signals(stop()).name}.", stop())


def opened(
    source: RunFolder | Path | str | None, checkpoint: CheckpointName, device: str, runs_dir: Path, say: Say
) -> Served:
    """The model of a run or an exported file, loaded. Raises what serve does."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES and not Path(source).is_dir():
        about = open_model_file(Path(source)).about
        of_file = partial(predict, None, model=str(source), topk=len(about.spec.classes))
        served = Served(Path(source).name, about.model, about.spec, _held(of_file, device, say), None)
    else:
        run = select_run(source, runs_dir, say)
        model, spec = run.recipe().model.name, run.spec()
        of_run = partial(predict, run, topk=len(spec.classes) or None, checkpoint=checkpoint)
        served = Served(run.name, model, spec, _held(of_run, device, say), _explained(run, checkpoint, device, say))
    served.predict.answer(b"")  # is no image and no text, but loads the model: what is wrong with it is told now
    return served


def _held(verb: Callable[..., Iterator[Answer]], device: str, say: Say) -> Held[Answer]:
    return Held(lambda given: verb(paths=given, batch_size=1, device=device, say=say))


def _explained(run: RunFolder, checkpoint: CheckpointName, device: str, say: Say) -> Held[Explanation | Failure]:
    def begin(given: Iterator[bytes]) -> Iterator[Explanation | Failure]:
        from dlkit.explanation.explain import explain

        return explain(run, given, write=False, checkpoint=checkpoint, device=device, say=say)

    return Held(begin)


def overlaid(explanation: Explanation) -> bytes:
    """The image that is explained with its map over it, as a PNG file."""
    from dlkit.explanation import overlay

    file = io.BytesIO()
    overlay.render_overlay(explanation, OVERLAY_SIDE).save(file, format="PNG")
    return file.getvalue()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address; taken before the model is loaded, since that may take long.

    Raises:
        UsageError: no such address or port. StorageError: it is taken, or not permitted.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: a port is 1 to 65535, or 0 for any that is free.")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:  # the second where a host cannot be a name
        code = getattr(error, "errno", None)
        if code not in (errno.EADDRINUSE, errno.EACCES):
            raise UsageError(f"--host {host}: no address of this machine. Leave it out for {HOST}.") from error
        why = "is taken" if code == errno.EADDRINUSE else "is not permitted"
        raise StorageError(
            f"port {port} of {host} {why}. Give another --port, or --port 0 for any that is free."
        ) from error
    # asyncio does this only for sockets that it made: a body would be held back until its header is acknowledged, 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
