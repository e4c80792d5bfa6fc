"""`dlkit eval`: how good a trained model is on a split of its data set, or of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dlkit.errors import UsageError

from . import console
from .gates import GateResult, parse_gates, refuse_missed
from .inputs import Classes, ImgSize, Mean, ModelOptions, Std, Weights, model_options, numbers

if TYPE_CHECKING:
    from dlkit.evaluation.result import Evaluation

METRIC_COLUMNS = ("metric", "value", "low", "high")
CLASS_COLUMNS = ("class", "precision", "recall", "f1", "support")


class Checkpoint(StrEnum):
    best = "best"
    last = "last"


class OnBadImage(StrEnum):
    error = "error"
    skip = "skip"


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


def eval_command(
    run: Annotated[str | None, typer.Argument(help="A run's name or folder; the newest where none is given.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="FILE|NAME", help="An exported file; or a model by name, with --weights."),
    ] = None,
    weights: Weights = None,
    classes: Classes = None,
    img_size: ImgSize = None,
    mean: Mean = None,
    std: Std = None,
    option: ModelOptions = None,
    topk: Annotated[
        int | None, typer.Option("--topk", help="Also count the answers whose class is among the k best (default: 5).")
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Which part of the data set.")] = Split.test,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Another data set; its classes are matched by name.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The folder that the data set is in.")] = None,
    on_bad_image: Annotated[
        OnBadImage | None,
        typer.Option("--on-bad-image", help="Skip leaves out up to 1 % of damaged files (default: as trained)."),
    ] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="Which weights.")] = Checkpoint.best,
    mc_dropout: Annotated[
        int | None,
        typer.Option("--mc-dropout", metavar="N", help="Leave dropout on: the mean of N passes, and its uncertainty."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", help="Images at a time; the result does not depend on it.")
    ] = 256,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-j", min=0, max=256, help="Processes that decode (default: the recipe's)."),
    ] = None,
    loader_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.5, help="That those may stand still before they count as hung."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", metavar="METRIC=BAR,…", help="Exit 12 if it is lower: top1=0.98. May repeat."),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option("--fail-over", metavar="METRIC=BAR,…", help="Exit 12 if it is higher: loss=0.1,ece=0.05."),
    ] = None,
    no_write: Annotated[bool, typer.Option("--no-write", help="Write nothing into the run folder.")] = False,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder that holds the runs.")] = Path("runs"),
    format: Annotated[
        console.Format, typer.Option("--format", help="How the answer is written.")
    ] = console.Format.auto,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Measure a trained model: top-1 and top-k with 95 % intervals, loss, calibration, and figures for each class.

    With --mc-dropout also the means, in nats, of the predictive entropy and of the mutual information (what the passes
    disagree about), and of each the chance that it is higher for a wrong answer than for a right one (error_auroc).

    A bare file of weights is measured by --model NAME --weights FILE --dataset NAME; nothing is written then.

    The run folder gets evaluation.json, predictions.jsonl, confusion_matrix.csv, and its figures in plots/.
    """
    from dlkit.evaluation.options import ceiling_names, gate_names, resolve_topk

    bad: Literal["error", "skip"] | None = None if on_bad_image is None else on_bad_image.value
    flags = {"--classes": classes, "--img-size": img_size, "--mean": mean, "--std": std, "--option": option}
    misplaced = [flag for flag, value in flags.items() if value is not None]
    if misplaced and weights is None:
        raise UsageError(f"{misplaced[0]} describes --weights FILE. Add --weights, or remove {misplaced[0]}.")
    if model is not None or weights is not None:
        from dlkit.evaluation.bare_weights import Inputs
        from dlkit.evaluation.exported_file import evaluate_file, open_model

        if run is not None or mc_dropout is not None:
            raise UsageError("--model and --weights cannot be combined with a run or --mc-dropout. Remove one of them.")
        pixels, options = (numbers(mean, "--mean"), numbers(std, "--std")), model_options(option)
        inputs = Inputs(dataset, data_dir, classes, img_size, *pixels, options)
        file = open_model(model, weights, inputs, runs_dir, checkpoint.value, console.say)
        k = resolve_topk(topk, len(file.about.spec.classes), console.note)
        gates = parse_gates(fail_under, fail_over, gate_names(k), ceiling_names(k, mc_dropout))
        with console.progress(None, f"testing {file.path}") as bar:
            evaluation = evaluate_file(
                file, dataset=dataset, data_dir=data_dir, split=split.value, on_bad_image=bad, topk=k,
                batch_size=batch_size, workers=workers, loader_timeout=loader_timeout, device=device,
                say=console.say, advance=bar.advance,
            )  # fmt: skip
    else:
        from dlkit.evaluation.evaluate import evaluate
        from dlkit.runs.run_folder import select_run

        found = select_run(run, runs_dir, console.say)
        k = resolve_topk(topk, len(found.spec().classes), console.note)
        gates = parse_gates(fail_under, fail_over, gate_names(k), ceiling_names(k, mc_dropout))
        with console.progress(None, f"testing {found.name}") as bar:
            evaluation = evaluate(
                found, dataset=dataset, data_dir=data_dir, split=split.value, on_bad_image=bad, topk=k,
                checkpoint=checkpoint.value, mc_dropout=mc_dropout, batch_size=batch_size, workers=workers,
                loader_timeout=loader_timeout, device=device, write=not no_write, say=console.say, advance=bar.advance,
            )  # fmt: skip
    results = [gate.judge(evaluation.metrics[gate.metric].value) for gate in gates]
    _show(evaluation, results, console.resolve(format, json))
    refuse_missed(results, f"{evaluation.run.name} on {evaluation.dataset} {evaluation.split}")


def _show(evaluation: Evaluation, results: Sequence[GateResult], format: console.Format) -> None:
    """One document in JSON; in csv and tsv one long table; on a terminal the classes, then the figures for all."""
    gates = [{"metric": f"gate {result.gate}", "value": result.verdict} for result in results]
    if format in (console.Format.json, console.Format.jsonl):
        documents = [result.document() for result in results]
        console.write_document(evaluation.document() | ({"gates": documents} if documents else {}), format)
    elif format == console.Format.table:
        if evaluation.classes:
            console.write_rows(evaluation.document()["classes"], CLASS_COLUMNS, format)
        console.write_rows([*_metric_rows(evaluation), *gates], METRIC_COLUMNS, format)
    else:
        columns = ("metric", "class", "value", "low", "high")
        console.write_rows([*_metric_rows(evaluation), *_class_rows(evaluation), *gates], columns, format)


def _metric_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    yield {"metric": "samples", "value": evaluation.samples}
    for name, metric in evaluation.metrics.items():
        yield {"metric": name, "value": metric.value, "low": metric.low, "high": metric.high}


def _class_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for row in evaluation.document()["classes"]:
        for score in CLASS_COLUMNS[1:]:
            yield {"metric": score, "class": row["class"], "value": row[score]}
