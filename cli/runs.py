"""`dlkit runs`: list, show, compare, tag and remove runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import console
from .compare import CompareCommand, compare_command
from .console import Format

runs_app = typer.Typer(help="Runs: list, show, compare, tag, prune, rm.")

COLUMNS = ("name", "model", "dataset", "status", "epochs", "metric", "best", "when", "kind", "members", "tags")
ON_TERMINAL = ("name", "kind", "model", "status", "epochs", "best", "tags")  # 80 columns
OPTIONAL = ("best", "epochs", "status", "tags", "kind")  # a narrower terminal omits the last first

RunsDir = Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="The folder of the runs.")]
AsFormat = Annotated[Format, typer.Option("--format", help="Output format.")]
AsJson = Annotated[bool, typer.Option("--json", help="Same as --format json.")]


@runs_app.command("list")
def list_command(
    everything: Annotated[
        bool, typer.Option("--all", help="Include the runs in sweeps and other experiments.")
    ] = False,
    filter: Annotated[
        list[str] | None, typer.Option(metavar="KEY=PATTERN", help="model=vit*, best>0.9, tag=paper. May repeat.")
    ] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="A column: best, epochs, name and so on.")] = "when",
    reverse: Annotated[bool, typer.Option("--reverse", help="Sort in descending order.")] = False,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """List the runs and the experiments (sweeps, ablations, groups of seeds), oldest first."""
    from dlkit.runs.listing import entries, filter_entries, sort_entries

    found = filter_entries(entries(runs_dir, members=everything, say=console.say), filter or [])
    if sort != "when" or reverse:
        found = sort_entries(found, sort, reverse)
    chosen = console.resolve(format, json)
    rows = [{"schema": "dlkit.runs/1", **asdict(entry)} for entry in found]
    if chosen not in (Format.json, Format.jsonl):
        rows = [{**row, "tags": " ".join(row["tags"])} for row in rows]
    console.write_rows(rows, ON_TERMINAL if chosen == Format.table else COLUMNS, chosen, optional=OPTIONAL)


@runs_app.command("tag")
def tag_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs or experiments.")],
    add: Annotated[list[str] | None, typer.Option("--add", metavar="TAG", help="A word. May repeat.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="TAG", help="May repeat.")] = None,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Add tags to runs and experiments, remove them, or show them; `runs list --filter tag=WORD` finds them again."""
    from dlkit.runs.listing import folder_of, tag, tags_of

    folders = [folder_of(name, runs_dir) for name in runs]  # all must exist before the first is tagged
    changes = bool(add or remove)
    rows = [
        {
            "schema": "dlkit.tags/1",
            "name": name,
            "tags": list(tag(folder, add or [], remove or []) if changes else tags_of(folder)),
        }
        for name, folder in zip(runs, folders, strict=True)
    ]
    chosen = console.resolve(format, json)
    if chosen not in (Format.json, Format.jsonl):
        rows = [{**row, "tags": " ".join(row["tags"])} for row in rows]
    console.write_rows(rows, ("name", "tags"), chosen)


@runs_app.command("show")
def show_command(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A name or a folder (default: the newest run).")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Show a run: its status, results and environment."""
    from dlkit.runs import run_folder
    from dlkit.runs.summary import details

    found = run_folder.find(run, runs_dir, trained=False)
    if run is None:
        console.say(f"important: run: {found.path}")
    console.write_document(details(found, console.say), console.resolve(format, json))


runs_app.command("compare", cls=CompareCommand)(compare_command)


@runs_app.command("rm")
def rm_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or folders; experiments go as a whole.")],
    force: Annotated[bool, typer.Option("--force", help="Even if another run starts from its weights.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Delete runs and experiments, with all that is in their folders."""
    from dlkit.runs.listing import folder_of
    from dlkit.runs.removal import remove_all

    folders = [folder_of(run, runs_dir) for run in runs]  # all must be there before the first goes
    removed = remove_all(folders, runs_dir, force=force, dry_run=dry_run)
    _write_removed([asdict(one) for one in removed], dry_run, format, json)


@runs_app.command("prune")
def prune_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Delete finished runs' checkpoints other than the best and the last, and what killed processes left behind.

    The members of sweeps, ablations and groups of seeds are runs too.
    """
    from dlkit.runs.experiments import list_experiments
    from dlkit.runs.prune import prune

    folders = [runs_dir, *(experiment.path for experiment in list_experiments(runs_dir))]
    removed = [one for folder in folders for one in prune(folder, dry_run=dry_run, say=console.say)]
    _write_removed([asdict(one) for one in removed], dry_run, format, json)


def _write_removed(rows: list[dict[str, object]], dry_run: bool, format: Format, json: bool) -> None:
    documents = ({"schema": "dlkit.removed/1", **row} for row in rows)
    console.write_rows(documents, ("path", "bytes"), console.resolve(format, json))
    freed = sum(int(str(row["bytes"])) for row in rows)
    console.note(f"{'would free' if dry_run else 'freed'} {freed / 2**20:,.1f} MiB")
