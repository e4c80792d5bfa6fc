"""`dlkit models`: which networks there are, and what each is made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit import registry
from dlkit.errors import UsageError

from . import console
from .console import Format
from .inputs import model_options

if TYPE_CHECKING:
    from dlkit.evaluation.model_summary import ModelSummary
    from dlkit.specs import Spec

models_app = typer.Typer(help="Models: list, show.")

FormatOption = Annotated[Format, typer.Option("--format", help="How the answer is written.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="The same as --format json.")]

LAYER_COLUMNS = ("name", "kind", "output", "parameters", "macs")


@models_app.command("list")
def list_command(format: FormatOption = Format.auto, json: JsonFlag = False) -> None:
    """List the models.

    Example: dlkit models list --format json | jq -r '.[].name'
    """
    rows = (
        {
            "schema": "dlkit.models/1",
            "name": entry.name,
            "family": entry.family,
            "summary": entry.summary,
            "options": {**entry.options, **entry.fixed},
        }
        for entry in registry.entries("models").values()
    )
    console.write_rows(rows, ("name", "summary"), console.resolve(format, json))


@models_app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="A name that `dlkit models list` shows.", show_default=False)],
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="For images and classes of this data set.")
    ] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Where --dataset folder has its images.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of the model; may be repeated.")
    ] = None,
    format: FormatOption = Format.auto,
    json: JsonFlag = False,
) -> None:
    """Show a model: its paper, and its layers with output shapes, parameters and multiply-adds.

    Multiply-adds (macs) are of one input. Where no data set is named, the input is what the model was made for.

    Example: dlkit models show lenet5 --dataset cifar10 --option activation=tanh
    """
    options = model_options(option)
    registry.check_options("models", name, options)  # before torch is imported
    spec = _spec(name, dataset, data_dir)
    from dlkit.evaluation.model_summary import summarize

    _write(summarize(name, spec, options), console.resolve(format, json))


def _spec(model: str, dataset: str | None, data_dir: str | None) -> Spec | None:
    if dataset is None:
        if data_dir is not None:
            raise UsageError("--data-dir is for --dataset folder. Add that, or leave --data-dir out.")
        return None
    from dlkit.config.resolve import data_for

    data = data_for(model, dataset, data_dir)
    registry.check_pair(model, data.name, data.options)
    from dlkit.data.library import spec_of

    return spec_of(data, words=False, allow_download=False, log=console.say)


def _write(summary: ModelSummary, format: Format) -> None:
    rows = [{**asdict(layer), "output": "×".join(map(str, layer.output))} for layer in summary.layers]
    if format in (Format.json, Format.jsonl):
        console.write_document({"schema": "dlkit.model/1", **asdict(summary)}, format)
    elif format == Format.table:
        console.write_text(f"{summary.document}\n")
        console.write_rows(rows, LAYER_COLUMNS, format)
        console.write_text(_totals(summary))
    else:
        console.write_rows(rows, LAYER_COLUMNS, format)


def _totals(summary: ModelSummary) -> str:
    size = "×".join(map(str, summary.input))
    read = {"images": size, "sequences": f"{size} steps", "trees": f"a tree of {size} words"}[summary.reads]
    options = ", ".join(f"{key}={value}" for key, value in summary.options.items())
    notes = "".join(f"{note}\n" for note in summary.notes)
    return (
        f"\ninput {read}, {summary.classes} classes\n"
        f"options: {options}\n{notes}"
        f"{summary.parameters:,} parameters, {summary.trainable:,} of them trainable; {summary.macs:,} multiply-adds"
    )
