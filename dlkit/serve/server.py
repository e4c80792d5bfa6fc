"""A web server for a trained model: images or texts in, the records of predict and explain out.

It is reachable only from this machine unless another address is given, and reads no files but the model's: a request
holds an image or a text, never a name. The page, the addresses and their limits are in app.py.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from dlkit import export_metadata
from dlkit.errors import StoppedError
from dlkit.runs.run_folder import CheckpointName, RunFolder
from dlkit.serve.listener import HOST, PORT, is_loopback, listen
from dlkit.serve.model import Say, open_model
from dlkit.signals import stop_flag

NEEDS = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


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
    """Serve http://host:port until a signal arrives; `ready` is called with the address once the model is loaded.

    source is a run (by default the newest) or an exported file. Port 0 selects any free port.

    Raises:
        UsageError: no such run, address or port, a missing package, or a model for neither images nor text.
        ModelFileError: the checkpoint or the file is damaged.
        StorageError: the port is in use.
        StoppedError: SIGINT or SIGTERM, which end the server.
    """
    export_metadata.need(NEEDS, "serve", "serve")
    with listen(host, port) as listener, stop_flag() as stop:
        served = open_model(source, checkpoint, device, Path(runs_dir), say)
        if not is_loopback(host):
            say(f"warning: {host} is reachable from other machines, and anyone who reaches it can use the model.")
        address = f"[{host}]" if ":" in host else host
        ready(f"http://{address}:{listener.getsockname()[1]}/")
        from dlkit.serve.app import application
        from dlkit.serve.connections import run_until

        run_until(stop, application(served, host, say), listener, say)
    raise StoppedError(f"stopped by {signal.Signals(stop()).name}.", stop())
