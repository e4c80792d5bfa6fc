"""`dlkit serve`: a trained model on a page of its own, and behind an address for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .eval import Checkpoint


def serve_command(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|FILE", help="A run's name or folder (the newest where none is given), or an .onnx file."
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="0 takes any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; any but this one lets other machines in.")
    ] = "127.0.0.1",
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="Which weights of the run.")] = Checkpoint.best,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder that holds the runs.")] = Path("runs"),
) -> None:
    """Answer in the browser and to programs: drop an image or draw a digit, see the classes and where they come from.

    Prints the page's address once the model is loaded, and goes on until Ctrl-C. Programs send an image, or a text,
    and get the record of predict:

    curl --data-binary @cat.jpg http://127.0.0.1:8000/predict
    """
    from dlkit.serve.server import serve

    serve(
        source, host=host, port=port, checkpoint=checkpoint.value, device=device, runs_dir=runs_dir,
        ready=console.write_text, say=console.say,
    )  # fmt: skip
