"""dataset pack: the images of a folder, decoded once, in one file; and what such a file says of itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.config.data_location import TABLES
from dlkit.errors import UsageError

from . import console, formats

if TYPE_CHECKING:
    from dlkit.config.schema import Data
    from dlkit.data.images.pack import Packed

SCHEMA = "dlkit.pack/1"


def pack_command(
    place: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="Where the images lie; not for a data set that dlkit downloads."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The pack to write.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="What lies there: folder, csv, wds …; or imagenette and the like.")
    ] = "folder",
    size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pixels a side of what the network sees; else 224.")
    ] = None,
    channels: Annotated[int | None, typer.Option(min=1, max=3, metavar="N", help="1 or 3; else 3.")] = None,
    crop: Annotated[
        float | None, typer.Option(metavar="X", help="Part of the shorter side that it sees; else the data set's.")
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep whole images, their shorter side N: for random resized crops."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set: data.options.test=0.1."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=0, metavar="N", help="Processes; else one a core.")
    ] = None,
    format: Annotated[console.Format, typer.Option("--format", help="How the answer is written.")] = (
        console.Format.auto
    ),
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Decode a folder's images once, into one file that trains at full speed; prints its path.

    dlkit train MODEL --dataset packed --data-dir FILE gives the weights that the folder gives. For recipes with random
    resized crops keep the images larger, by --side: crops are then cut from those.
    """
    from dlkit.data.images.pack import pack

    data = _data(dataset, place, size, channels, crop, set_ or [])
    bar: console.Progress | None = None

    def tell(name: str, done: int, total: int) -> None:
        nonlocal bar
        bar = bar or console.progress(total, name, "images")
        bar.advance(done - bar.done)

    try:
        found = pack(data, output, side=side, workers=workers, log=console.say, progress=tell)
    finally:
        if bar is not None:
            bar.close()
    show_pack(found, console.resolve(format, json), brief=True)


def is_pack(name: str) -> bool:
    """Whether this names a file and not a data set."""
    return Path(name).is_file() and Path(name).suffix.lower() not in (*TABLES, ".tar")


def show_pack(found: Packed, format: console.Format, *, brief: bool = False) -> None:
    """What the pack holds; its path alone where that is enough and no document was asked for."""
    document: dict[str, Any] = {"schema": SCHEMA, **asdict(found), "path": str(found.path)}
    if format in (console.Format.json, console.Format.jsonl):
        console.write_document(document, format)
    elif brief:
        console.write_text(formats.escape(str(found.path)))
    else:
        console.write_document({key: value for key, value in document.items() if value is not None}, format)


def _data(
    dataset: str, place: str | None, size: int | None, channels: int | None, crop: float | None, settings: list[str]
) -> Data:
    """The data section of a recipe that these flags ask for."""
    from dlkit.config.data_location import resolve_dataset
    from dlkit.config.resolve import parse_setting
    from dlkit.config.schema import Data

    name, place = (
        resolve_dataset(place) if dataset == "folder" and place is not None else resolve_dataset(dataset, place)
    )
    if channels == 2:
        raise UsageError("--channels is 1 or 3, not 2.")
    options: dict[str, Any] = {} if crop is None else {"crop": crop}
    for setting in map(parse_setting, settings):
        option = setting.key.removeprefix("data.options.")
        if option == setting.key or "." in option or isinstance(setting.value, list | dict):
            raise UsageError(f"--set {setting.key}: a pack takes data.options.NAME=VALUE alone.")
        options[option] = setting.value
    return Data.model_validate({"name": name, "dir": place, "size": size, "channels": channels, "options": options})
