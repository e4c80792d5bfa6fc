"""Write the reference pages from the program itself: `python docs/tools/reference.py` (part of `make docs`).

A test compares the pages with what this writes, so they cannot be out of date.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/tools/reference.py; edit the program instead. -->\n\n"
GROUPS = ("dataset", "models", "recipes", "runs")


def pages() -> dict[str, str]:
    """All reference pages: file name → Markdown."""
    return {
        "commands.md": commands(),
        "recipe.md": recipe(),
        "recipes.md": recipes(),
        "models.md": registry_page("Models", "models", "`dlkit train NAME --set model.options.OPTION=VALUE`"),
        "datasets.md": registry_page("Data sets", "datasets", "`--dataset NAME --set data.options.OPTION=VALUE`"),
        "regularizers.md": registry_page("Regularizers", "regularizers", "`--set regularizers.NAME.OPTION=VALUE`"),
        "explanations.md": registry_page("Explanation methods", "explainers", "`dlkit explain --method NAME`"),
        "exports.md": registry_page("Export formats", "exporters", "`dlkit export --to NAME`"),
        "exit-codes.md": exit_codes(),
        "python.md": python_api(),
    }


def commands() -> str:
    """The help of every command, as a pipe gets it."""
    lines = ["# Commands", "", "The help of every command, as `dlkit COMMAND --help` prints it in a pipe.", ""]
    for words in [[], *command_names()]:
        lines += [f"## dlkit {' '.join(words)}".rstrip(), "", "```text", help_text(words), "```", ""]
    return "\n".join(lines)


def command_names() -> Iterator[list[str]]:
    from dlkit_cli import main

    for name in main.COMMANDS:
        yield [name]
        if name in GROUPS:
            group = getattr(importlib.import_module(f"dlkit_cli.{name}"), f"{name}_app")
            yield from ([name, command.name] for command in group.registered_commands if not command.hidden)


def help_text(words: Sequence[str]) -> str:
    from dlkit_cli import main

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        main.run([*words, "--help"])
    return text.getvalue().rstrip()


def recipe() -> str:
    """The keys of a recipe."""
    from dlkit.config.key_reference import recipe_keys

    rows = [(f"`{info.key}`", info.type, info.default or "", info.meaning) for info in recipe_keys()]
    text = (
        "A recipe is a YAML file with these keys. `--set KEY=VALUE` changes one; a flag wins over `--set`, `--set` "
        "over the recipe, the recipe over the defaults. `dlkit recipes keys` prints this table, and "
        "`dlkit train … --dry-run` prints a recipe with every value."
    )
    return "\n".join(["# Recipe keys", "", text, "", *table(("key", "type", "default", "meaning"), rows), ""])


def recipes() -> str:
    """The shipped recipes with their headers."""
    from dlkit.config import yaml_file

    lines = ["# Recipes", "", "The recipes that come with dlkit: `dlkit train --recipe NAME`.", ""]
    for name in yaml_file.shipped_names():
        path = yaml_file.shipped_path(name)
        assert path is not None
        lines += [f"## {name}", "", *(f"{line}  " for line in yaml_file.header(path).splitlines()), ""]
    return "\n".join(lines)


def registry_page(title: str, name: str, usage: str) -> str:
    """The families of a registry: members, options, and the file's docstring."""
    from dlkit import registry

    families: dict[str, list[registry.Entry]] = {}
    for entry in registry.entries(name).values():
        families.setdefault(entry.family, []).append(entry)
    lines = [f"# {title}", "", f"Options are set by {usage}.", ""]
    for members in families.values():
        first = members[0]
        lines += [f"## {', '.join(entry.name for entry in members)}", "", first.document, ""]
        if first.options:
            rows = [(f"`{option}`", f"`{default!r}`") for option, default in first.options.items()]
            lines += [*table(("option", f"default (of {first.name})"), rows), ""]
    return "\n".join(lines)


def exit_codes() -> str:
    """The classes of errors and their codes."""
    from dlkit import errors

    rows = [("0", "", "done"), ("1", "", "a bug in dlkit")]
    rows += [
        (str(error.exit_code), f"`{error.__name__}`", (inspect.getdoc(error) or "").partition("\n")[0])
        for error in errors.DlkitError.__subclasses__()
        if error.__module__ == errors.__name__ and error is not errors.StoppedError
    ]
    rows += [
        ("129, 130, 143", "`StoppedError`", "SIGHUP, SIGINT or SIGTERM; a training is saved"),
        ("141", "", "the reader closed the pipe"),
    ]
    text = "Each class of `dlkit.errors` has its exit code; from Python the class is raised instead."
    return "\n".join(["# Exit codes", "", text, "", *table(("exit code", "class", "meaning"), rows), ""])


def python_api() -> str:
    """Signatures and docstrings of the public functions."""
    import dlkit

    lines = ["# Python", "", "`import dlkit` is instant; each function imports torch when it is first used.", ""]
    for name in dlkit.__all__:
        value = getattr(dlkit, name)
        lines += [f"## dlkit.{name}", "", "```python", *signature(value), "```", "", *docstring(value), ""]
    return "\n".join(lines)


def signature(function: Callable[..., object]) -> list[str]:
    """One parameter a line, as it would be written."""
    parsed = inspect.signature(function)
    lines, keyword_only = [], False
    for parameter in parsed.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            lines.append("    *,")
        default = "" if parameter.default is parameter.empty else f" = {default_text(parameter.default)}"
        lines.append(f"    {parameter.name}: {parameter.annotation}{default},")
    return [f"{function.__name__}(", *lines, f") -> {parsed.return_annotation}"]


def default_text(value: object) -> str:
    return "..." if callable(value) else repr(value)


def docstring(value: object) -> list[str]:
    """The docstring; its Raises section as a list."""
    text, _, raised = (inspect.getdoc(value) or "").partition("Raises:\n")
    errors = [
        f"- {line.strip()}" if re.match(r"    \w+: ", line) else f"  {line.strip()}" for line in raised.splitlines()
    ]
    return [text.rstrip(), "", *(["Raises:", "", *errors] if errors else [])]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; bars inside cells are escaped."""
    cells = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def write(target: Path = REFERENCE) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (target / name).write_text(NOTE + clean(text), encoding="utf-8")


def clean(text: str) -> str:
    return "\n".join(line if line.endswith("  ") else line.rstrip() for line in text.rstrip().splitlines()) + "\n"


if __name__ == "__main__":
    environment: Mapping[str, str] = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    os.environ.update(environment)
    write()
    sys.stderr.write(f"wrote {len(pages())} pages\n")
