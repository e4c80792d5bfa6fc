"""`dlkit explain`: where in an image, or by which words, a trained model's answer comes about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
MOST_INDENTED = 24  # levels of a tree
FEATURE_COLUMNS = ("path", "layer", "channels", "height", "width", "shown", "png", "error")


def explain_command(
    paths: Paths = None,
    null: Null = False,
    stdin_image: StdinImage = False,
    run: Run = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="How: grad_cam, occlusion, … or all (default: what fits)."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="CLASS", help="Explain this class and not the most probable one.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="Whose maps grad_cam looks at (default: the last).")
    ] = None,
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="List the layers that have maps, and end.")
    ] = False,
    features: Annotated[
        str | None,
        typer.Option("--features", metavar="LAYER", help="Draw the first filters and this layer's maps instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .png file, or a folder (default: explanations/ in the run's folder)."),
    ] = None,
    montage: Annotated[bool, typer.Option("--montage", help="All images and methods in one picture.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Of what is drawn at random (default: the run's).")] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="Which weights of the run.")] = Checkpoint.best,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder that holds the runs.")] = Path("runs"),
    format: Annotated[
        console.Format, typer.Option("--format", help="How the answers are written.")
    ] = console.Format.auto,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show where in images, or by which words, a model's answer comes about: a picture of each, and what it is worth.

    A run trained on text explains .txt files or lines of text, one trained on trees also every node.
    Orange speaks for the class, blue against it. deletion_auc is low and insertion_auc high where the map
    is right about the network; flagged maps look much the same with shuffled weights, or the weights are random.

    Example: dlkit explain seven.png --method all --montage -o seven-explained.png
    """
    resolved = console.resolve(format, json)
    if list_layers:
        if paths or features is not None:
            raise UsageError("--list-layers is of the model alone: leave the images and --features out.")
        _list_layers(run, checkpoint, runs_dir, resolved)
        return
    images = given(paths or [], null, stdin_image)
    if features is not None:
        if montage or any(value is not None for value in (method, target, layer)):
            raise UsageError("--features draws what the layers give: leave --method, --target, --layer, --montage out.")
        from dlkit.explanation.explain import features as draw_features

        drawn = draw_features(
            run, images, layer=features, output=output, checkpoint=checkpoint.value, device=device, runs_dir=runs_dir,
            say=console.say,
        )  # fmt: skip
        _write(drawn, resolved, FEATURE_COLUMNS, FEATURE_COLUMNS)
        return
    from dlkit.explanation.explain import explain
    from dlkit.runs.run_folder import select_run

    found = select_run(run, runs_dir, console.say)
    answers = explain(
        found, images, method=method, target=target, layer=layer, output=output, montage=montage, seed=seed,
        checkpoint=checkpoint.value, device=device, runs_dir=runs_dir, say=console.say,
    )  # fmt: skip
    if found.spec().kind == "images":
        _write(answers, resolved, COLUMNS, TABLE_COLUMNS)
    else:
        _write_texts(answers, resolved, NODE_COLUMNS if found.spec().kind == "trees" else WORD_COLUMNS)


def _list_layers(run: str | None, checkpoint: Checkpoint, runs_dir: Path, format: console.Format) -> None:
    from dlkit.explanation.explain import layers

    found = layers(run, checkpoint=checkpoint.value, runs_dir=runs_dir, say=console.say)
    rows: list[dict[str, Any]] = [
        {"layer": layer.path, "kind": layer.kind, "channels": layer.channels, "height": layer.height}
        | {"width": layer.width, "default": layer.default}
        for layer in found
    ]
    if not rows:
        raise UsageError("the model has no layers that give maps in space: it is no convolutional network.")
    console.write_rows(rows, LAYER_COLUMNS, format)


def _write(
    answers: Iterator[Any], format: console.Format, columns: tuple[str, ...], table_columns: tuple[str, ...]
) -> None:
    """Write each answer as it comes; what could not be read decides the exit code."""
    count = Count()
    documents = count.of(begun(answers))
    if format in (console.Format.json, console.Format.jsonl):
        console.write_rows(documents, (), format)
    else:
        shown = table_columns if format == console.Format.table else columns
        console.write_rows(map(_row, documents), shown, format, stream=True)
    count.report()


def _row(document: dict[str, Any]) -> dict[str, Any]:
    """A document flat; the error in words."""
    if "error" in document:
        return {"path": document["path"], "error": document["error"]["message"]}
    return {**document, **document.get("sanity", {})}


def _write_texts(answers: Iterator[Any], format: console.Format, columns: tuple[str, ...]) -> None:
    """The same of texts: a row for each word, or each node; in a table the text itself, then its rows."""
    count = Count()
    documents = count.of(begun(answers))
    if format in (console.Format.json, console.Format.jsonl):
        console.write_rows(documents, (), format)
    elif format == console.Format.table:
        for document in documents:
            _write_text(document)
    else:
        console.write_rows(chain.from_iterable(map(_value_rows, documents)), columns, format, stream=True)
    count.report()


def _value_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each word of a text or each node of a tree, or one with the error in words."""
    if "error" in document:
        yield _row(document)
        return
    common = {key: document[key] for key in ("path", "method", "target", "probability", "png")}
    if "nodes" in document:
        yield from ({**common, **node} for node in document["nodes"])
    else:
        yield from ({"place": place, **word, **common} for place, word in enumerate(document["words"], start=1))


def _write_text(document: dict[str, Any]) -> None:
    if "error" in document:
        console.write_text(formats.escape(document["error"]["message"]))  # it begins with the path
        return
    console.write_text(formats.escape(_headline(document)))
    console.write_text(_coloured(document["words"]))
    if "nodes" in document:
        console.write_rows(_indented(document["nodes"]), ("node", "words", "class", "value"), console.Format.table)
    else:
        console.write_rows(document["words"], ("word", "value", "known"), console.Format.table)


def _headline(document: Mapping[str, Any]) -> str:
    said = document["predicted"]
    figures = [f"deletion {document['deletion_auc']:.2f}", f"insertion {document['insertion_auc']:.2f}"]
    sanity = document["sanity"]
    why = "the weights look random" if sanity["random_weights"] else "much the same with shuffled weights"
    flagged = f"  flagged: {why}" if sanity["flagged"] else ""
    answer = f"{document['target']} {100 * document['probability']:.1f} %"
    other = "" if said == document["target"] else f" (the model says {said})"
    return f"{document['path']}  {document['method']}  {answer}{other}  {', '.join(figures)}{flagged}"


def _coloured(words: list[dict[str, Any]]) -> str:
    """The words in a line, each on the colour of its value where the terminal has colours."""
    from rich.text import Text

    from dlkit.explanation.overlay_text import colours

    line = Text()
    for word, (ground, ink) in zip(words, colours([word["value"] for word in words]), strict=True):
        line.append(formats.escape(word["word"]), f"{_rgb(ink)} on {_rgb(ground)}")
        line.append(" ")
    return formats.rendered(line)


def _rgb(colour: tuple[int, int, int]) -> str:
    return f"rgb({','.join(map(str, colour))})"


def _indented(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes, the words of each as far to the right as it stands below the root."""
    depths: dict[int, int] = {}
    for node in nodes:
        depths[node["node"]] = 0 if node["parent"] is None else depths[node["parent"]] + 1
        yield {**node, "words": "  " * min(depths[node["node"]], MOST_INDENTED) + node["words"]}
