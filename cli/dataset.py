"""`dlkit dataset`: which data sets there are, and having them here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.errors import DataError, UsageError

from . import console, formats
from .bundle import bundle_command, unbundle_command
from .pack import is_pack, pack_command, show_pack

if TYPE_CHECKING:
    from dlkit.data.checks.check import CheckReport
    from dlkit.data.download.store import CachedDataset
    from dlkit.data.library import DatasetInfo

SCHEMA = "dlkit.dataset/1"
SHOWN_OF_A_KIND = 10  # findings, on a terminal
LIST_COLUMNS = ("name", "state", "bytes", "classes", "train", "test", "title")

FormatOption = Annotated[console.Format, typer.Option("--format", help="How the answer is written.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Name = Annotated[str, typer.Argument(help="A name that `dlkit dataset list` shows.", show_default=False)]

dataset_app = typer.Typer(help="Data sets: list, download, describe, check, pack, carry.", no_args_is_help=False)


@dataset_app.command("list")
def list_command(format: FormatOption = console.Format.auto, json: JsonFlag = False) -> None:
    """List the data sets, and which of them are here."""
    from dlkit.data import library

    rows = [
        {"schema": SCHEMA, "train": found.sizes.get("train"), "test": found.sizes.get("test"), **asdict(found)}
        for found in library.listing()
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
    """
    from dlkit.data.download import store as dataset_cache

    with _Bars() as bars:
        _show(dataset_cache.download(name, source, log=console.note, progress=bars.tell), console.resolve(format, json))


dataset_app.command("bundle")(bundle_command)
dataset_app.command("unbundle")(unbundle_command)


@dataset_app.command("info")
def info_command(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Draw images of each class, as png, svg or pdf."),
    ] = None,
    augment: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Draw them as this recipe changes them in training.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where it lies, of data that is yours.")] = None,
    format: FormatOption = console.Format.auto,
    json: JsonFlag = False,
) -> None:
    """Describe a data set: classes, sizes, licence, sources, options, and where it is; or a folder, or a pack."""
    if is_pack(name):
        from dlkit.data.images import pack

        show_pack(pack.describe(Path(name)), console.resolve(format, json))
        return
    from dlkit.config.data_location import resolve_dataset
    from dlkit.data import library

    resolved = console.resolve(format, json)
    name, place = resolve_dataset(name, None if data_dir is None else str(data_dir))
    found = library.info(name, place)
    whole = resolved in (console.Format.json, console.Format.jsonl)
    if output is not None:
        _draw(name, output, augment, place)
    elif augment is not None:
        raise UsageError("--augment requires -o FILE: it changes the images that are drawn. Add -o FILE.png.")
    console.write_document({"schema": SCHEMA, **asdict(found)} if whole else _brief(found), resolved)


@dataset_app.command("check")
def check_command(
    target: Annotated[
        str, typer.Argument(metavar="DIR|NAME", help="A folder of your own images, or a data set.", show_default=False)
    ],
    data_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the data set NAME lies.")] = None,
    fix_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the paths of damaged images and of copies, a line each.")
    ] = None,
    null: Annotated[bool, typer.Option("-0", "--null", help="End each path in FILE with NUL, for xargs -0.")] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Accept images of N pixels, as data.max_pixels does.")
    ] = None,
    hashes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare the files with what sha256sum wrote of them.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="A kind of finding to pass over, as tiny. May repeat.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, metavar="N", help="Processes; else one a core.")
    ] = None,
    format: FormatOption = console.Format.auto,
    json: JsonFlag = False,
) -> None:
    """Decode every image and name what would spoil training or its results; exit 4 where there are faults.

    It finds damaged and odd files, pictures in two splits (saved again or mirrored, too) or under two names, classes
    without images or with exchanged labels. --fix-list names damaged images and exact copies only; one of each group
    of copies is not in it. To delete what it lists: xargs -0 rm -f -- < drop
    """
    from dlkit.data.checks.check import check
    from dlkit.specs import MAX_PIXELS

    if null and fix_list is None:
        raise UsageError("-0 says how --fix-list FILE is written: give that as well.")
    with _Bars("images") as bars:
        report = check(
            target, data_dir, fix_list=fix_list, null=null, max_pixels=max_pixels or MAX_PIXELS, hashes=hashes,
            ignore=ignore or (), workers=workers, log=console.say,
            progress=lambda done, total: bars.tell("checking", done, total),
        )  # fmt: skip
    _write_report(report, console.resolve(format, json))


dataset_app.command("pack")(pack_command)


@dataset_app.command("unpack")
def unpack_command(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where SPLIT/CLASS/*.png go.", show_default=False)],
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N images; else all.")] = None,
) -> None:
    """Write a data set's images as PNG files, and their paths to stdout, a line each."""
    from dlkit.data.images.unpack import unpack

    console.write_text(
        "".join(f"{path}\n" for path in unpack(name, folder, split=split, limit=limit, log=console.note))
    )


@dataset_app.command("verify")
def verify_command(name: Name, format: FormatOption = console.Format.auto, json: JsonFlag = False) -> None:
    """Compare every file of a data set, or every image of a pack, with its digest; exit 6 where one differs."""
    if is_pack(name):
        from dlkit.data.images import pack

        show_pack(pack.verify(Path(name)), console.resolve(format, json), brief=True)
        return
    from dlkit.data.download import store as dataset_cache

    _show(dataset_cache.verify(name), console.resolve(format, json))


def _draw(name: str, output: Path, augment: str | None, place: str | None) -> None:
    from dlkit.config.resolve import resolve
    from dlkit.config.schema import Data
    from dlkit.plots.contact_sheet import contact_sheet

    flags = {} if place is None else {"data.dir": place}
    recipe = None if augment is None else resolve(dataset=name, recipe=augment, flags=flags).recipe
    data = Data(name=name, dir=place) if recipe is None else recipe.data
    contact_sheet(data, output, recipe=recipe, say=console.say)
    console.note(f"contact sheet: {output}")


def _write_report(report: CheckReport, format: console.Format) -> None:
    """The findings a line each, on a terminal the first of each kind; the summary to stderr. Raises: DataError."""
    if format in (console.Format.json, console.Format.jsonl):
        console.write_document(report.document(), format)
    else:
        most = SHOWN_OF_A_KIND if format == console.Format.table else len(report.findings)
        kinds = groupby(report.findings, key=lambda found: (found.level, found.kind))
        shown = [asdict(found) for _, group in kinds for found in islice(group, most)]
        console.write_rows(shown, ("level", "kind", "path", "message"), format)
        if len(shown) < len(report.findings):
            console.note(f"{len(report.findings) - len(shown):,} more: --format tsv shows all.")
    console.note(report.summary)
    if report.faults:
        raise DataError(report.verdict)


class _Bars:
    """One progress bar at a time, for the file that is being fetched."""

    def __init__(self, unit: str = "bytes") -> None:
        self._name, self._unit = "", unit
        self._bar: console.Progress | None = None

    def tell(self, name: str, done: int, total: int) -> None:
        """This many bytes of the file are here; fewer than before where it starts anew."""
        if self._bar is None or name != self._name or done < self._bar.done:
            self.close()
            self._name, self._bar = name, console.progress(total or None, name, self._unit)
        self._bar.advance(done - self._bar.done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


def _show(found: CachedDataset, format: console.Format) -> None:
    """The folder alone where a person or a pipe reads, the digests of its files in a document."""
    if format in (console.Format.table, console.Format.tsv, console.Format.csv):
        console.write_text(formats.escape(str(found.folder)))
        return
    document: dict[str, Any] = {"schema": SCHEMA, "name": found.name, "folder": str(found.folder)}
    document |= {"fetched": found.fetched, "bytes": found.bytes, "files": [asdict(file) for file in found.files]}
    console.write_document(document, format)


def _brief(info: DatasetInfo) -> Mapping[str, Any]:
    """What a person wants to see of it: a line a fact."""
    hosts = {file: ", ".join(urls) for file, urls in info.sources.items() if urls}
    facts = {
        "name": info.name, "title": info.title, "state": info.state, "classes": info.classes, "sizes": info.sizes,
        "options": info.options, "licence": info.licence, "citation": info.citation, "sources": hosts,
        "folder": info.folder,
    }  # fmt: skip
    return {key: value for key, value in facts.items() if value not in (None, "", {})}
