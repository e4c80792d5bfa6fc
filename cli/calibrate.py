"""`dlkit calibrate`: probabilities that are frequencies, and thresholds for decisions, from the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .eval import Checkpoint

if TYPE_CHECKING:
    from dlkit.evaluation.calibrate import Fitted

COLUMNS = ("figure", "value", "low", "high")


class Method(StrEnum):
    temperature = "temperature"
    vector = "vector"
    none = "none"


class Sets(StrEnum):
    lac = "lac"
    aps = "aps"
    raps = "raps"


def calibrate_command(
    run: Annotated[str | None, typer.Argument(help="A run's name or folder; the newest where none is given.")] = None,
    run_option: Annotated[str | None, typer.Option("--run", help="The same as the argument.")] = None,
    method: Annotated[
        Method,
        typer.Option("--method", help="Scaling of the outputs. none leaves them, and alone removes the calibration."),
    ] = Method.temperature,
    coverage: Annotated[
        float | None, typer.Option("--coverage", metavar="X", help="Prediction sets that hold the true class: 0.9.")
    ] = None,
    sets: Annotated[Sets, typer.Option("--sets", help="The score of the sets; lac has the smallest sets.")] = Sets.lac,
    class_conditional: Annotated[
        bool, typer.Option("--class-conditional", help="The coverage of each class, with a threshold of its own.")
    ] = False,
    max_error: Annotated[
        float | None,
        typer.Option("--max-error", metavar="X", help="Abstain such that the rest has at most this error rate: 0.02."),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="X", help="Of the guarantee of --max-error.")
    ] = 0.95,
    unfamiliar: Annotated[
        float | None,
        typer.Option("--unfamiliar", metavar="X", help="Flag unfamiliar inputs, and this share of others: 0.05."),
    ] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="Which weights.")] = Checkpoint.best,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The folder that the data set is in now.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Inputs at a time.")] = 256,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-j", min=0, max=256, help="Processes that decode (default: the recipe's)."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder that holds the runs.")] = Path("runs"),
    format: Annotated[
        console.Format, typer.Option("--format", help="How the answer is written.")
    ] = console.Format.auto,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Calibrate a run on its validation split; eval, predict, serve, explain and export then use it.

    The calibration is calibration.json in the run folder, for this checkpoint alone, and replaces an earlier one. A new
    training of the run needs a new calibration. The test split is never read.
    """
    from dlkit.errors import UsageError
    from dlkit.evaluation.calibrate import Options, calibrate, check_options
    from dlkit.runs.run_folder import select_run

    if run is not None and run_option not in (None, run):
        raise UsageError(f"{run} and --run {run_option} are two runs. Give one.")
    options = Options(method.value, coverage, sets.value, class_conditional, max_error, confidence, unfamiliar)
    check_options(options)
    folder = select_run(run or run_option, runs_dir, console.say)
    with console.progress(None, f"calibrating {folder.name}") as bar:
        fitted = calibrate(
            folder, method=method.value, coverage=coverage, sets=sets.value, class_conditional=class_conditional,
            max_error=max_error, confidence=confidence, unfamiliar=unfamiliar, checkpoint=checkpoint.value,
            data_dir=data_dir, batch_size=batch_size, workers=workers, device=device, runs_dir=runs_dir,
            say=console.say, advance=bar.advance,
        )  # fmt: skip
    resolved = console.resolve(format, json)
    if resolved in (console.Format.json, console.Format.jsonl):
        console.write_document(fitted.document(), resolved)
    else:
        console.write_rows(list(_rows(fitted)), COLUMNS, resolved)


def _rows(fitted: Fitted) -> Iterator[dict[str, Any]]:
    """What a person reads; errors of calibration and rates are those of the validation split."""
    yield {"figure": "validation samples", "value": fitted.samples}
    for name, metric in (("ece before", fitted.ece_before), ("ece after", fitted.ece_after)):
        yield {"figure": name, **metric.document()}
    calibration = fitted.calibration
    if calibration is None:
        return
    if calibration.method == "temperature":
        yield {"figure": "temperature", "value": 1 / calibration.scale[0]}
    if (sets := calibration.sets) is not None:
        yield {"figure": "set coverage, guaranteed", "value": sets.coverage}
    if (abstention := calibration.abstention) is not None:
        yield {"figure": "error rate, guaranteed", "value": abstention.max_error}
        yield {"figure": "accepted", "value": abstention.accepted}
        yield {"figure": "error rate of the accepted", "value": abstention.error, "high": abstention.bound}
        yield {"figure": "accepted above probability", "value": max(abstention.threshold, 0.0)}
    if (familiarity := calibration.familiarity) is not None:
        yield {"figure": "familiar inputs flagged", "value": familiarity.rate}
