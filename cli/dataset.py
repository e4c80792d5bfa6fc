"""`dlkit dataset`: which data sets there are, and having them here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from dlkit.verbs.dataset import Cached, Info

SCHEMA = "dlkit.dataset/1"
LIST_COLUMNS = ("name", "state", "classes", "train", "test", "title")

FormatOption = Annotated[console.Format, typer.Option("--format", help="How the answer is written.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Name = Annotated[str, typer.Argument(help="A name that `dlkit dataset list` shows.", show_default=False)]

dataset_app = typer.Typer(help="Data sets: list, download, describe and verify them.", no_args_is_help=False)


@dataset_app.command("list")
def list_command(format: FormatOption = console.Format.auto, json: JsonFlag = False) -> None:
    """List the data sets, and which of them are here.

    Example: dlkit dataset list --format json | jq -r '.[].name'
    """
    from dlkit.verbs import dataset

    rows = [
        {"schema": SCHEMA, "train": found.sizes.get("train"), "test": found.sizes.get("test"), **asdict(found)}
        for found in dataset.listing()
    ]
    console.write_rows(rows, LIST_COLUMNS, console.resolve(format, json))


@dataset_app.command("download")
def download_command(
    name: Name,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="DIR|FILE|URL", help="Take it from a local copy or a mirror, and nowhere else."),
    ] = None,
    format: FormatOption = console.Format.auto,
    json: JsonFlag = False,
) -> None:
    """Download a data set into the cache and verify it; one that is there already is only verified.

    Prints the folder. A download that broke off is taken up by the same command.

    Example: dlkit dataset download mnist --from ~/copies/mnist
    """
    from dlkit.verbs import dataset

    with _Bars() as bars:
        _show(dataset.download(name, source, say=console.note, progress=bars.tell), console.resolve(format, json))


@dataset_app.command("info")
def info_command(name: Name, format: FormatOption = console.Format.auto, json: JsonFlag = False) -> None:
    """Describe a data set: classes, sizes, licence, sources, options, and where it is.

    Example: dlkit dataset info cifar10
    """
    from dlkit.verbs import dataset

    resolved = console.resolve(format, json)
    found = dataset.info(name)
    whole = resolved in (console.Format.json, console.Format.jsonl)
    console.write_document({"schema": SCHEMA, **asdict(found)} if whole else _brief(found), resolved)


@dataset_app.command("unpack")
def unpack_command(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where SPLIT/CLASS/*.png go.", show_default=False)],
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N images; else all.")] = None,
) -> None:
    """Write a data set's images as PNG files, and their paths to stdout, a line each.

    Example: dlkit dataset unpack mnist digits --limit 20 | dlkit predict -
    """
    from dlkit.verbs.unpack import unpack

    console.write_text(
        "".join(f"{path}\n" for path in unpack(name, folder, split=split, limit=limit, say=console.note))
    )


@dataset_app.command("verify")
def verify_command(name: Name, format: FormatOption = console.Format.auto, json: JsonFlag = False) -> None:
    """Compare every file of a downloaded data set with its digest; exit 6 where one differs.

    Example: dlkit dataset verify mnist
    """
    from dlkit.verbs import dataset

    _show(dataset.verify(name), console.resolve(format, json))


class _Bars:
    """One progress bar at a time, for the file that is being fetched."""

    def __init__(self) -> None:
        self._name = ""
        self._bar: console.Progress | None = None

    def tell(self, name: str, done: int, total: int) -> None:
        """This many bytes of the file are here; fewer than before where it starts anew."""
        if self._bar is None or name != self._name or done < self._bar.done:
            self.close()
            self._name, self._bar = name, console.progress(total or None, name, "bytes")
        self._bar.advance(done - self._bar.done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


def _show(found: Cached, format: console.Format) -> None:
    """The folder alone where a person or a pipe reads, the digests of its files in a document."""
    if format in (console.Format.table, console.Format.tsv, console.Format.csv):
        console.write_text(console.escape(str(found.folder)))
        return
    document: dict[str, Any] = {"schema": SCHEMA, "name": found.name, "folder": str(found.folder)}
    document |= {"fetched": found.fetched, "bytes": found.bytes, "files": [asdict(file) for file in found.files]}
    console.write_document(document, format)


def _brief(info: Info) -> Mapping[str, Any]:
    """What a person wants to see of it: a line a fact."""
    hosts = {file: ", ".join(urls) for file, urls in info.sources.items() if urls}
    facts = {
        "name": info.name, "title": info.title, "state": info.state, "classes": info.classes, "sizes": info.sizes,
        "options": info.options, "licence": info.licence, "citation": info.citation, "sources": hosts,
        "folder": info.folder,
    }  # fmt: skip
    return {key: value for key, value in facts.items() if value not in (None, "", {})}
