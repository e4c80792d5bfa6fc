"""`dlkit serve`: a web page and an HTTP interface for a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .eval import Checkpoint


def serve_command(
    source: Annotated[
        str | None,
        typer.Argument(metavar="RUN|FILE", help="A run's name or folder (default: the newest), or an exported file."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="0 selects any free port.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; other machines can reach any but this one.")
    ] = "127.0.0.1",
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="The run's weights.")] = Checkpoint.best,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder of the runs.")] = Path("runs"),
) -> None:
    """Serve a model to browsers and programs: drop an image or draw a digit, and see the classes with an explanation.

    Prints the page's address once the model is loaded, and runs until Ctrl-C. Programs send an image or a text and get
    the record of predict:

    curl --data-binary @cat.jpg http://127.0.0.1:8000/predict
    """
    from dlkit.serve.server import serve

    serve(
        source, host=host, port=port, checkpoint=checkpoint.value, device=device, runs_dir=runs_dir,
        ready=console.write_text, say=console.say,
    )  # fmt: skip
