"""The program `dlkit`: its commands, its exit codes, and its one-line errors."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import dlkit
from dlkit import signals
from dlkit.errors import DlkitError, OutOfMemoryError, StorageError
from dlkit.registry import did_you_mean

from . import completion, console, formats, synonyms
from .examples import EXAMPLES
from .help import Command, Group, prepare, show

# A command is a module of its name with NAME_command or NAME_app in it, which is imported when it is called.
COMMANDS = (
    "train", "eval", "calibrate", "predict", "export", "explain", "report", "serve", "lr-find", "reproduce", "ablate",
    "sweep", "plot", "baseline", "dataset", "models", "recipes", "runs",
)  # fmt: skip
EVERYWHERE = ("--quiet", "-q", "--no-progress", "--debug")  # flags that may stand before or after a command
COMPLETION = ("--install-completion", "--show-completion")  # a shell's name may follow
READER_GONE = 141  # an exit code without a message


class Program(Group):
    """The root. It knows each command by its name and its line of help, and builds the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: Command(name, help=_summary(name)) for name in COMMANDS}
        self.epilog = prepare(self, "dlkit", EXAMPLES).epilog

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.built(name), rest

    def built(self, name: str) -> Any:
        """The command with all its options."""
        return _built(name)


def _summary(name: str) -> str:
    """The first paragraph of a command's help, from the text of its file: importing all of them takes longer."""
    stem = _stem(name)
    start = rf'(?:{stem}_app = typer\.Typer\(\s*help="|def {stem}_command\(.*?\n    """)'
    found = re.search(rf'{start}(.*?)(?:\n\n|")', (Path(__file__).parent / f"{stem}.py").read_text("utf-8"), re.DOTALL)
    assert found is not None, name
    return found[1]


def _built(name: str) -> Any:
    module, stem, whole = (
        importlib.import_module(f"dlkit_cli.{_stem(name)}"),
        _stem(name),
        typer.Typer(rich_markup_mode=None),
    )
    group = getattr(module, f"{stem}_app", None)
    if group is None:
        whole.command(name, cls=getattr(module, "CLASS", Command))(getattr(module, f"{stem}_command"))
    else:
        for command in group.registered_commands:
            command.cls = command.cls if issubclass(command.cls, Command) else Command
        whole.add_typer(group, name=name, cls=Group)
    return prepare(typer.main.get_group(whole).commands[name], name, EXAMPLES)


def _stem(name: str) -> str:
    return name.replace("-", "_")


# add_help_option: Typer's own --help imports pydantic even where it is not given; ours below does not
app = typer.Typer(
    name="dlkit", cls=Program, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]}, add_help_option=False,
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        console.write_text(f"dlkit {dlkit.__version__}")
        raise typer.Exit


def _help(context: typer.Context, asked: bool) -> None:
    if asked:
        show(context.command, context)
        raise typer.Exit


def _install_completion(asked: bool) -> None:
    if asked:
        _set_up_completion("--install-completion", None)
        raise typer.Exit


def _show_completion(asked: bool) -> None:
    if asked:
        _set_up_completion("--show-completion", None)
        raise typer.Exit


def _set_up_completion(flag: str, shell: str | None) -> None:
    """Install or print the script for a shell, by default the one that called the program."""
    shell = shell or completion.current_shell()
    if flag == "--show-completion":
        console.write_text(completion.script(shell))
    else:
        console.write_text(str(completion.install(shell)))
        console.note(f"{shell} completes dlkit's commands when it starts anew.")


@app.callback()
def dlkit_command(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress, only warnings and errors.")
    ] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bars and no progress lines.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this message and exit.", callback=_help, is_eager=True)
    ] = False,
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            help="Let bash, zsh or fish complete commands.",
            callback=_install_completion,
        ),
    ] = False,
    show_completion: Annotated[
        bool, typer.Option("--show-completion", help="Print the script for that.", callback=_show_completion)
    ] = False,
) -> None:
    """Train, test and use the classic networks from the shell.

    Answers go to stdout, all else to stderr. -q, --no-progress and --debug may stand anywhere on the line.
    """
    console.settings.quiet, console.settings.progress, console.settings.debug = quiet, not no_progress, debug


def main() -> None:
    """The program, from its first line to its last."""
    signals.guard_process()
    console.prepare_streams()
    formats.take_stdout()
    warnings.showwarning = _show_warning
    code = run(sys.argv[1:]) if completion.VARIABLE not in os.environ else _complete(sys.argv[1:])
    signals.end_process(code)
    console.release_streams()
    sys.exit(code)


def _complete(words: Sequence[str]) -> int:
    """Answer the shell that asks what a word may become."""
    for name in completion.complete(typer.main.get_command(app), words):
        console.write_text(name)
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is one line on stderr."""
    console.settings = console.Settings(debug="--debug" in arguments)
    with signals.handled() as flag:
        try:
            if len(arguments) == 2 and arguments[0] in COMPLETION:
                _set_up_completion(*arguments)
            else:
                _invoke(_flags_first(synonyms.help_first(arguments)))
            console.flush()
        except console.ReaderGone:
            return READER_GONE
        except KeyboardInterrupt as stop:
            return _report_stop(stop)
        except Exception as error:  # a library may turn Interrupted into an error of its own
            return _report_stop(signals.Interrupted(flag.signal)) if flag.raised else _report(error)
        return 128 + flag.signal if flag.raised else 0


def _invoke(arguments: list[str]) -> None:
    """What Typer's own main does, but for its handling of errors: that ends the program at any broken pipe."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("dlkit", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:  # --help and --version
        assert done.exit_code == 0, "a command ends with an error of dlkit.errors, not with an exit code"


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Move the flags that may stand anywhere to the front, where the program itself takes them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    anywhere = [argument for argument in arguments[:end] if argument in EVERYWHERE]
    rest = [argument for argument in arguments[:end] if argument not in EVERYWHERE]
    return [*anywhere, *rest, *arguments[end:]]


def _report(error: Exception) -> int:
    """Say on stderr what went wrong and return the exit code for it."""
    if console.settings.debug:
        traceback.print_exception(error)
    if isinstance(error, DlkitError):
        console.error(str(error))
        return error.exit_code
    if isinstance(error, typer.TyperException):
        refused = error.format_message().rstrip(".")
        if refused.endswith("is not readable"):  # what Typer finds out about a path
            console.error(f"{refused}: permission denied. Change its owner or mode, or run as its owner.")
            return StorageError.exit_code
        console.error(_usage_message(error))
        return error.exit_code
    if _is_out_of_memory(error):
        console.error(f"out of memory: {str(error) or 'no more to be had'}. Try a smaller --batch-size.")
        return OutOfMemoryError.exit_code
    hint = "" if console.settings.debug else " --debug shows the traceback."
    console.error(f"a bug in dlkit: {type(error).__name__}: {error}.{hint}")
    return DlkitError.exit_code


def _report_stop(stop: KeyboardInterrupt) -> int:
    """Write on stderr which signal ended the command and return the exit code for it."""
    if console.settings.debug:
        traceback.print_exception(stop)
    console.error(str(stop) or "stopped by SIGINT.")
    return getattr(stop, "exit_code", 130)


def _usage_message(error: typer.TyperException) -> str:
    """One line for a mistake that Typer found; its exceptions have no public names, so what they hold tells them."""
    context: Any = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "dlkit"
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        names = [name for parameter in context.command.params for name in parameter.opts] if context is not None else []
        known = [name for name in names if name.startswith("-")]  # arguments have names too
        hint = synonyms.option_hint(option, known)
        hint = hint or (did_you_mean(option, known) if error.possibilities else f"See {where} --help.")
        return f"{where} has no option {option!r}. {hint}"
    return f"{error.format_message().replace('Value error, ', '').rstrip('.')}. See {where} --help."


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # not imported for the question's sake
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    console.warn(f"{message} ({filename}:{lineno})" if console.settings.debug else str(message))
