"""`dlkit runs compare`: two runs, two groups of seeds, or several runs side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.errors import GateError, UsageError

from . import console
from .console import Format
from .help import Command

if TYPE_CHECKING:
    from dlkit.runs.run_folder import RunFolder

AGAINST = "--against"


class EvaluatedSplit(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class CompareCommand(Command):
    """A command whose option --against takes several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        expanded, is_against = list[str](), False
        for position, word in enumerate(args):
            if is_against and not word.startswith("-") and args[position - 1] != AGAINST:
                expanded.append(AGAINST)
            is_against = word == AGAINST or (is_against and not word.startswith("-"))
            expanded.append(word)
        return super().parse_args(ctx, expanded)


def compare_command(
    runs: Annotated[list[str], typer.Argument(metavar="A B...", help="Runs, or folders of a group of seeds.")],
    against: Annotated[
        list[str] | None, typer.Option(AGAINST, metavar="B...", help="A second group, for a test over seeds.")
    ] = None,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit 12 if B is significantly worse than A.")
    ] = False,
    require_groups: Annotated[
        bool, typer.Option("--require-groups", help="Refuse to compare recipes by single networks.")
    ] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="First evaluate runs whose evaluation is missing or stale.")
    ] = False,
    split: Annotated[EvaluatedSplit, typer.Option("--split", help="The split for --evaluate.")] = EvaluatedSplit.test,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="The folder of the runs.")] = Path("runs"),
    format: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Compare two runs, or two groups of runs; three or more runs without --against are shown side by side.

    Two runs: settings, data, environment, metrics, and predictions sample by sample (McNemar's mid-p, Tango's score
    interval); the verdict concerns these two networks. Groups (`A1 A2 A3 --against B1 B2 B3`, or two folders of `train
    --seeds`): Welch's t-test over the seeds; the verdict concerns the recipes. The difference is B minus A.
    """
    from dlkit.experiments.compare_predictions import evaluate_stale
    from dlkit.runs.experiments import find_experiment, find_runs

    if not against and len(runs) == 2 and all(find_experiment(name, runs_dir) for name in runs):
        runs, against = runs[:1], runs[1:]
    first = [run for name in runs for run in find_runs(name, runs_dir)]
    second = [run for name in against or [] for run in find_runs(name, runs_dir)]
    if evaluate:
        evaluate_stale([*first, *second], split.value, console.say)
    chosen = console.resolve(format, json)
    if against:
        names = (_group_name(runs, "A"), _group_name(against, "B"))
        _compare_groups(first, second, names, fail_on_regression, chosen)
    elif require_groups:
        raise UsageError(
            "--require-groups: single networks are no evidence about their recipes. Use groups, with --against."
        )
    elif len(first) == 2:
        _compare_two(first[0], first[1], fail_on_regression, chosen)
    elif len(first) < 2:
        raise UsageError("runs compare needs at least two runs. See dlkit runs list.")
    elif fail_on_regression:
        raise UsageError(f"--fail-on-regression is for two runs or two groups, not {len(first)} runs. Use --against.")
    else:
        _show_overview(first, chosen)


def _group_name(names: list[str], default: str) -> str:
    return names[0] if len(names) == 1 else default


def _compare_two(first: RunFolder, second: RunFolder, fail_on_regression: bool, format: Format) -> None:
    from dlkit.experiments.compare import compare

    comparison = compare(first, second)
    if format in (Format.json, Format.jsonl):
        console.write_document(comparison.document(), format)
    else:
        console.write_rows(comparison.rows(), ("where", "key", "first", "second"), format)
    paired = comparison.paired
    if format == Format.table:
        console.write_text(comparison.sentence())
    elif paired is None:
        console.warn(comparison.sentence())
    else:
        console.note(comparison.sentence())
    if not fail_on_regression:
        return
    if paired is None:
        raise UsageError(
            f"--fail-on-regression needs predictions of both runs for the same samples: {comparison.unpaired}"
        )
    if paired.verdict == "first is better":
        raise GateError(
            f"{comparison.second} is worse than {comparison.first}: p = {paired.p_value:.3g} over {paired.split}."
        )


def _compare_groups(
    first: list[RunFolder], second: list[RunFolder], names: tuple[str, str], fail_on_regression: bool, format: Format
) -> None:
    from dlkit.experiments.compare_groups import compare_groups

    comparison = compare_groups(first, second, names, console.say)
    if format in (Format.json, Format.jsonl):
        console.write_document(comparison.document(), format)
    else:
        columns = ("group", "run", "seed", "checkpoint", "top1", "low", "high", "p_value", "verdict")
        shown = ("run", "seed", "top1", "low", "high", "p_value") if format == Format.table else columns
        console.write_rows(comparison.rows(), shown, format)
    (console.write_text if format == Format.table else console.note)(comparison.sentence())
    if fail_on_regression and comparison.verdict == "first is better":
        p_value = comparison.difference.p_value
        raise GateError(f"{names[1]} is worse than {names[0]}: p = {p_value:.3g} over seeds, on {comparison.split}.")


def _show_overview(runs: list[RunFolder], format: Format) -> None:
    from dlkit.experiments.compare_overview import COLUMNS as ALL_COLUMNS
    from dlkit.experiments.compare_overview import overview

    shown = ("name", "epochs", "best", "top1", "low", "high", "loss") if format == Format.table else ALL_COLUMNS
    console.write_rows(overview(runs, console.say), shown, format)
    console.note("no test: tests compare two runs, or two groups with --against")
