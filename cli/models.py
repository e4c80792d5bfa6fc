"""`dlkit models`: which networks there are, and what each is made of."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit import registry
from dlkit.errors import UsageError

from . import console
from .console import Format
from .formats import Percentage, Quantity
from .inputs import model_options

if TYPE_CHECKING:
    from dlkit.catalog import CatalogEntry
    from dlkit.evaluation.model_summary import ModelSummary
    from dlkit.specs import Spec

models_app = typer.Typer(help="Models: list, show.")

FormatOption = Annotated[Format, typer.Option("--format", help="How the answer is written.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="The same as --format json.")]

LIST_COLUMNS = ("name", "summary", "parameters", "macs", "input", "pretrained", "top1")
SHORT_COLUMNS = ("name", "params", "macs", "input", "top-1", "weights", "summary")
OPTIONAL_COLUMNS = ("input", "macs", "weights", "summary")  # the last is left out first
LAYER_COLUMNS = ("name", "kind", "output", "parameters", "macs")


class Task(StrEnum):
    """What a model classifies."""

    images = "images"
    text = "text"
    series = "series"
    trees = "trees"


@models_app.command("list")
def list_command(
    pattern: Annotated[
        list[str] | None, typer.Argument(metavar="PATTERN", help="A part of a name, or a glob: 'torchvision/*net*'.")
    ] = None,
    task: Annotated[Task | None, typer.Option("--task", help="Models of these inputs.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Models with published weights.")] = False,
    format: FormatOption = Format.auto,
    json: JsonFlag = False,
) -> None:
    """List the models, with their size, input, and the ImageNet accuracy of their published weights.

    Parameters and multiply-adds (macs) are those for the input that a model was made for. timm's models are listed if
    a pattern names them, as in 'timm/*'.
    """
    from dlkit import catalog

    entries = catalog.find(pattern or (), None if task is None else task.value, pretrained)
    if pattern and not entries:
        names = registry.names("models")
        raise UsageError(f"no model matches {' '.join(pattern)}. {registry.did_you_mean(pattern[0], names)}")
    format = console.resolve(format, json)
    if format == Format.table:
        console.write_rows(map(_short, entries), SHORT_COLUMNS, format, optional=OPTIONAL_COLUMNS)
    else:
        rows = ({"schema": "dlkit.models/1", **asdict(entry), "pretrained": bool(entry.weights)} for entry in entries)
        console.write_rows(rows, LIST_COLUMNS, format)


def _short(entry: CatalogEntry) -> dict[str, Any]:
    """An entry for a terminal: 11.7M parameters, 69.8 %."""
    size = entry.input or ()
    return {
        "name": entry.name,
        "params": None if entry.parameters is None else Quantity(entry.parameters),
        "macs": None if entry.macs is None else Quantity(entry.macs),
        "input": "×".join(map(str, size[1:])) if len(size) == 3 else entry.takes[0],
        "top-1": None if entry.top1 is None else Percentage(entry.top1),
        "weights": "yes" if entry.weights else "",
        "summary": entry.summary,
    }


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
