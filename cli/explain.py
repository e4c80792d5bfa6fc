"""`dlkit explain`: the pixels or words that a trained model's predictions depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from dlkit.errors import UsageError

from . import console, formats
from .eval import Checkpoint
from .inputs import Count, Null, Paths, Run, StdinImage, begun, given

COLUMNS = (
    "path", "method", "layer", "target", "probability", "deletion_auc", "insertion_auc", "completeness_error",
    "correlation", "flagged", "png", "error",
)  # fmt: skip
TABLE_COLUMNS = ("path", "method", "target", "probability", "deletion_auc", "insertion_auc", "flagged", "png", "error")
WORD_COLUMNS = ("path", "method", "target", "probability", "place", "word", "value", "known", "png", "error")
NODE_COLUMNS = (
    "path", "method", "target", "node", "parent", "word", "words", "class", "probability", "value", "png", "error",
)  # fmt: skip
LAYER_COLUMNS = ("layer", "kind", "channels", "height", "width", "default")
MAX_INDENT = 24  # levels of a tree
FEATURE_COLUMNS = ("path", "layer", "channels", "height", "width", "shown", "png", "error")


def explain_command(
    paths: Paths = None,
    null: Null = False,
    stdin_image: StdinImage = False,
    run: Run = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="grad_cam, occlusion, … or all (default: depends on the model)."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="CLASS", help="The class to explain (default: the most probable one)."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="NAME", help="The layer for grad_cam (default: the last maps)."),
    ] = None,
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="List the layers that have feature maps, and exit.")
    ] = False,
    features: Annotated[
        str | None,
        typer.Option("--features", metavar="LAYER", help="Draw the first filters and the maps of this layer instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .png file, or a folder (default: explanations/ in the run's folder)."),
    ] = None,
    montage: Annotated[bool, typer.Option("--montage", help="Draw all images and methods in one image.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of random numbers (default: the run's).")] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="The run's weights.")] = Checkpoint.best,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder of the runs.")] = Path("runs"),
    format: Annotated[console.Format, typer.Option("--format", help="Output format.")] = console.Format.auto,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show the pixels or words that a model's predictions depend on: an image for each input, with quality measures.

    A run trained on text explains .txt files or lines of text, one trained on trees also every node.
    Orange is evidence for the class, blue against it. deletion_auc is low and insertion_auc high for a map that
    is faithful to the network; a map is flagged if shuffled weights give a similar one, or the weights are random.
    """
    resolved = console.resolve(format, json)
    if list_layers:
        if paths or features is not None:
            raise UsageError("--list-layers takes only a model. Remove the images and --features.")
        _list_layers(run, checkpoint, runs_dir, resolved)
        return
    images = given(paths or [], null, stdin_image)
    if features is not None:
        if montage or any(value is not None for value in (method, target, layer)):
            raise UsageError("--features draws feature maps. Remove --method, --target, --layer and --montage.")
        from dlkit.explanation.explain import features as draw_features

        feature_maps = draw_features(
            run, images, layer=features, output=output, checkpoint=checkpoint.value, device=device, runs_dir=runs_dir,
            say=console.say,
        )  # fmt: skip
        _write(feature_maps, resolved, FEATURE_COLUMNS, FEATURE_COLUMNS)
        return
    from dlkit.explanation.explain import explain
    from dlkit.runs.run_folder import select_run

    folder = select_run(run, runs_dir, console.say)
    records = explain(
        folder, images, method=method, target=target, layer=layer, output=output, montage=montage, seed=seed,
        checkpoint=checkpoint.value, device=device, runs_dir=runs_dir, say=console.say,
    )  # fmt: skip
    kind = folder.spec().kind
    if kind == "images":
        _write(records, resolved, COLUMNS, TABLE_COLUMNS)
    else:
        _write_texts(records, resolved, NODE_COLUMNS if kind == "trees" else WORD_COLUMNS)


def _list_layers(run: str | None, checkpoint: Checkpoint, runs_dir: Path, format: console.Format) -> None:
    from dlkit.explanation.explain import layers

    spatial_layers = layers(run, checkpoint=checkpoint.value, runs_dir=runs_dir, say=console.say)
    rows = [{"layer": layer.path, **asdict(layer)} for layer in spatial_layers]
    if not rows:
        raise UsageError("the model has no layers with feature maps: it is not a convolutional network.")
    console.write_rows(rows, LAYER_COLUMNS, format)


def _write(
    records: Iterator[Any], format: console.Format, columns: tuple[str, ...], table_columns: tuple[str, ...]
) -> None:
    """Write each record as soon as it is ready; the exit code reports inputs that could not be read."""
    count = Count()
    documents = count.of(begun(records))
    if format in (console.Format.json, console.Format.jsonl):
        console.write_rows(documents, (), format)
    else:
        shown = table_columns if format == console.Format.table else columns
        console.write_rows(map(_row, documents), shown, format, stream=True)
    count.report()


def _row(document: dict[str, Any]) -> dict[str, Any]:
    """A document as one row; of an error, its message."""
    if "error" in document:
        return {"path": document["path"], "error": document["error"]["message"]}
    return {**document, **document.get("sanity", {})}


def _write_texts(records: Iterator[Any], format: console.Format, columns: tuple[str, ...]) -> None:
    """The same for texts: a row for each word or node; in a table the text itself, then its rows."""
    count = Count()
    documents = count.of(begun(records))
    if format in (console.Format.json, console.Format.jsonl):
        console.write_rows(documents, (), format)
    elif format == console.Format.table:
        for document in documents:
            _write_text(document)
    else:
        console.write_rows(chain.from_iterable(map(_value_rows, documents)), columns, format, stream=True)
    count.report()


def _value_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each word of a text or each node of a tree, or one with the error message."""
    if "error" in document:
        yield _row(document)
        return
    common = {key: document[key] for key in ("path", "method", "target", "probability", "png")}
    if "nodes" in document:
        yield from ({**common, **node} for node in document["nodes"])
    else:
        yield from ({"place": number, **word, **common} for number, word in enumerate(document["words"], start=1))


def _write_text(document: dict[str, Any]) -> None:
    if "error" in document:
        console.write_text(formats.escape(document["error"]["message"]))  # starts with the path
        return
    console.write_text(formats.escape(_headline(document)))
    console.write_text(_colored_words(document["words"]))
    if "nodes" in document:
        console.write_rows(_indent(document["nodes"]), ("node", "words", "class", "value"), console.Format.table)
    else:
        console.write_rows(document["words"], ("word", "value", "known"), console.Format.table)


def _headline(document: Mapping[str, Any]) -> str:
    predicted = document["predicted"]
    measures = [f"deletion {document['deletion_auc']:.2f}", f"insertion {document['insertion_auc']:.2f}"]
    sanity = document["sanity"]
    reason = "random weights" if sanity["random_weights"] else "similar with shuffled weights"
    flagged = f"  flagged: {reason}" if sanity["flagged"] else ""
    answer = f"{document['target']} {100 * document['probability']:.1f} %"
    other = "" if predicted == document["target"] else f" (prediction: {predicted})"
    return f"{document['path']}  {document['method']}  {answer}{other}  {', '.join(measures)}{flagged}"


def _colored_words(words: list[dict[str, Any]]) -> str:
    """The words on one line, each with the background color of its value if the terminal has colors."""
    from rich.text import Text

    from dlkit.explanation.overlay_text import cell_colors

    line = Text()
    for word, (background, color) in zip(words, cell_colors([word["value"] for word in words]), strict=True):
        line.append(formats.escape(word["word"]), f"{_rgb(color)} on {_rgb(background)}")
        line.append(" ")
    return formats.rendered(line)


def _rgb(color: tuple[int, int, int]) -> str:
    return f"rgb({','.join(map(str, color))})"


def _indent(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes, their words indented by their depth."""
    depths: dict[int, int] = {}
    for node in nodes:
        depths[node["node"]] = 0 if node["parent"] is None else depths[node["parent"]] + 1
        yield {**node, "words": "  " * min(depths[node["node"]], MAX_INDENT) + node["words"]}
