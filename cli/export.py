"""`dlkit export`: a trained model as a file for other runtimes, verified before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlkit import registry
from dlkit.errors import UsageError

from . import console
from .eval import Checkpoint


def export_command(
    run: Annotated[str | None, typer.Argument(help="A run's name or folder (default: the newest).")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="FORMAT", help="onnx, torch_export or safetensors.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file, or a folder for it (default: the run's folder).")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Verify an exported file again; writes nothing.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The bare network: normalized floats N×C×H×W in, logits out.")
    ] = False,
    resize: Annotated[
        bool, typer.Option("--resize", help="onnx: resize and crop in the graph, for images of any size.")
    ] = False,
    opset: Annotated[int | None, typer.Option("--opset", help="onnx: the operator set (default: 20).")] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", metavar="KIND", help="onnx: int8, calibrated on training images.")
    ] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="The run's weights.")] = Checkpoint.best,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The data set's folder, if it has moved.")] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder of the runs.")] = Path("runs"),
    format: Annotated[
        console.Format | None, typer.Option("--format", help="Print the document instead of the path.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Export a trained model, preprocessing and softmax included: uint8 images N×H×W×C in, probabilities N×K out.

    A model of text takes word ids, int64 N×T, and lengths, int64 N; its file holds the vocabulary and the tokenization.
    The file is compared with the run on 256 validation examples in its own runtime, and written only if it agrees;
    export.json in the same folder holds the measurements. Prints the file's path.
    """
    if verify is not None:
        if raw or resize or any(value is not None for value in (to, output, opset, quantize)):
            raise UsageError("--verify takes only a file and optionally its run. Remove the other options.")
    elif to is not None:
        registry.entry("exporters", to)
    if verify is not None:
        from dlkit.export.verification import verify as verify_file

        result = verify_file(verify, run=run, data_dir=data_dir, runs_dir=runs_dir, say=console.say)
    else:
        from dlkit.export.export import export

        result = export(
            run, to=to or "onnx", output=output, raw=raw, resize=resize, opset=opset, quantize=quantize,
            checkpoint=checkpoint.value, data_dir=data_dir, runs_dir=runs_dir, say=console.say,
        )  # fmt: skip
    if json or format is not None:
        console.write_document(result.document(), console.resolve(format or console.Format.json, json))
    else:
        console.write_text(str(result.path))
