"""Help of every command: options in panels, examples at the end; drawn on a terminal, plain text in a pipe."""

from __future__ import annotations

import inspect
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dlkit.errors import UsageError
from dlkit.registry import did_you_mean

from . import console, formats, synonyms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OWN = "Options"  # what one command alone does; the panels below are the same for all
PANELS: Mapping[str, str] = {
    "Data": "data dataset data_dir text_column path_column label_column validation test_split split on_bad_image "
    "img_size classes mean std source limit null stdin_image channels",
    "Model": "model weights pretrained init_layers freeze option recipe set_ checkpoint dropout mc_dropout",
    "Optimization": "epochs batch_size lr opt sched weight_decay momentum warmup_epochs layer_decay clip_grad patience "
    "monitor class_weights focal_gamma logit_adjustment",
    "Augmentation and regularization": "label_smoothing mixup cutmix aa model_ema",
    "Hardware": "device workers loader_timeout amp compile channels_last accumulate",
    "Run": "run name seed seeds retrain runs_dir resume inexact dry_run check track tensorboard",
    "Output": "output topk min_prob no_write format json help",
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names.split()}
ORDER = [OWN, *PANELS]


class CommandHelp:
    """What a command and a group of commands have in common: their help is written to stdout, like any answer."""

    params: list[Any]
    epilog: str | None

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback, option.rich_help_panel = _show, PANEL_OF["help"]
        return option

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments = [param for param in self.params if param.param_type_name == "argument"]
        _section(formatter, "Arguments", (param.get_help_record(ctx) for param in arguments))
        options = [param for param in self.get_params(ctx) if param.param_type_name == "option"]  # type: ignore[attr-defined]
        for panel in ORDER:
            inside = [param for param in options if (param.rich_help_panel or OWN) == panel]
            _section(formatter, panel if panel != OWN else "Options", (param.get_help_record(ctx) for param in inside))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


class Command(CommandHelp, TyperCommand):
    """A command with such help."""


class Group(CommandHelp, TyperGroup):
    """Commands under one name: named alone it shows its help, and a misspelt one gets the nearest right name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            ours = synonyms.command_named(args[0]) if ctx.parent is None else None
            hint = f"Did you mean {ours!r}?" if ours else did_you_mean(args[0], self.commands)
            raise UsageError(f"{ctx.command_path} has no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        _section(formatter, "Commands", ((name, summary(command)) for name, command in self.commands.items()))


def prepare(command: Any, path: str, examples: Mapping[str, Iterable[str]]) -> Any:
    """Give a command, and those below it, their panels, paragraphs and examples; returns it."""
    command.help = _paragraphs(command.help)
    for param in command.params:
        if param.param_type_name == "option":
            param.metavar = "" if param.is_flag else param.metavar
            param.rich_help_panel = OWN if path == "dlkit" else PANEL_OF.get(param.name, OWN)
    command.params.sort(key=lambda param: ORDER.index(getattr(param, "rich_help_panel", None) or OWN))
    if path in examples:
        command.epilog = "\n".join(["Examples:", *(f"  {example}" for example in examples[path])])
    for name, inner in getattr(command, "commands", {}).items():
        prepare(inner, f"{path} {name}", examples)
    return command


def show(command: Any, context: Any) -> None:
    """Write the help of a command to stdout."""
    if not console.on_terminal():
        console.write_text(command.get_help(context))
        return
    from rich.markup import escape
    from typer import rich_utils

    for text in (command, *command.params, *getattr(command, "commands", {}).values()):
        text.help = escape(text.help or "")
    command.epilog = escape(command.epilog or "")
    with redirect_stdout(formats.stdout()):
        rich_utils.rich_format_help(obj=command, ctx=context, markup_mode="rich")


def summary(command: Any) -> str:
    """The first paragraph of a command's help."""
    return _paragraphs(command.help).partition("\n\n")[0]


def _show(context: Any, parameter: Any, value: bool) -> None:
    if value and not context.resilient_parsing:
        show(context.command, context)
        raise typer.Exit


def _paragraphs(text: str | None) -> str:
    """The text, each paragraph in one line: help is broken where its reader's lines end."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def _section(formatter: Any, title: str, records: Iterable[Any]) -> None:
    rows = [record for record in records if record is not None]
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)
