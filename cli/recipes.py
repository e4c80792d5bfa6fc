"""recipes: list and show what dlkit trains with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dlkit import registry
from dlkit.errors import UsageError
from dlkit.registry import did_you_mean

from . import console
from .console import Format

recipes_app = typer.Typer(help="Recipes that come with dlkit: list, show; and what one may hold: keys, regularizers.")


@recipes_app.command("list")
def list_command(
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """List the recipes that come with dlkit; each is used by `dlkit train --recipe NAME`."""
    from dlkit.config import yaml_file

    rows = []
    for name in yaml_file.shipped_names():
        path = yaml_file.shipped_path(name)
        assert path is not None
        values = yaml_file.read(path)
        about = yaml_file.header(path).partition("\n")[0]
        row = {
            "schema": "dlkit.recipes/1",
            "name": name,
            "model": values["model"]["name"],
            "dataset": values["data"]["name"],
        }
        rows.append({**row, "about": about})
    console.write_rows(rows, ("name", "model", "dataset", "about"), console.resolve(format, json))


@recipes_app.command("show")
def show_command(name: Annotated[str, typer.Argument(metavar="NAME", help="As `dlkit recipes list` has it.")]) -> None:
    """Print a recipe as it is written, with its paper and what to expect."""
    from dlkit.config import yaml_file

    path = yaml_file.shipped_path(name)
    if path is None:
        raise UsageError(f"no recipe is called {name!r}. {did_you_mean(name, yaml_file.shipped_names())}")
    console.write_text(yaml_file.read_bytes(path).decode("utf-8"))


@recipes_app.command("regularizers")
def regularizers_command(
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """List the regularizers and their options, each used by `--set regularizers.NAME.OPTION=VALUE`; {} takes defaults.

    Label smoothing is --label-smoothing, weight decay --weight-decay, and dropout an option of the models.
    Against class imbalance: --class-weights, --logit-adjustment, --focal-gamma, --set data.sampler=balanced.
    """
    rows = (
        {
            "schema": "dlkit.regularizers/1",
            "name": entry.name,
            "options": dict(entry.options),
            "off": dict(entry.off),
            "summary": entry.summary,
        }
        for entry in registry.entries("regularizers").values()
    )
    console.write_rows(rows, ("name", "options", "summary"), console.resolve(format, json))


@recipes_app.command("keys")
def keys_command(
    pattern: Annotated[str | None, typer.Argument(metavar="[PATTERN]", help="Part of a key: augment.")] = None,
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """List the keys of a recipe: type and range, default, and meaning. Each is set by `--set KEY=VALUE`."""
    from dlkit.config.key_reference import recipe_keys

    keys = [info for info in recipe_keys() if pattern is None or pattern in info.key]
    if not keys:
        raise UsageError(f"no key of a recipe contains {pattern!r}. `dlkit recipes keys` lists all.")
    rows = ({"schema": "dlkit.recipe-keys/1", **asdict(info)} for info in keys)
    console.write_rows(rows, ("key", "type", "default", "meaning"), console.resolve(format, json))
