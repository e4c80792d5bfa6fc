"""The documentation: reference pages are current, commands are accepted, and a page's commands run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dlkit_cli import console, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tool(name: str) -> ModuleType:
    """A script of docs/tools as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run_pages = tool("run_pages")


def test_reference_pages_say_what_the_program_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    reference = tool("reference")
    reference.write(tmp_path)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in reference.REFERENCE.iterdir()}
    outdated = sorted(name for name in written | committed if written.get(name) != committed.get(name))
    assert not outdated, f"run python docs/tools/reference.py: {outdated}"


def test_commands_of_console_blocks_exist_with_their_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "settings", console.Settings())
    helps: dict[tuple[str, ...], str] = {}
    unknown = []
    for page in PAGES:
        for block in run_pages.blocks(page.read_text(encoding="utf-8")):
            for line in block.commands:
                for words in dlkit_calls(line):
                    verb = tuple(words[: 2 if words[0] in ("dataset", "models", "recipes", "runs") else 1])
                    if verb not in helps:
                        assert main.run([*verb, "--help"]) == 0, f"{page.name}: {line}"
                        helps[verb] = capsys.readouterr().out
                    flags = (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z0]", word))
                    unknown += [
                        f"{page.name}: {flag} of {line}"
                        for flag in flags
                        if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", helps[verb] + "--help --version -q")
                    ]
    assert not unknown


def dlkit_calls(line: str) -> list[list[str]]:
    """The arguments of each call of dlkit in a shell command."""
    parts = re.split(r"\|\||&&|[|;]|2>&1|[<>]", line)
    calls = [shlex.split(part) for part in parts if part.strip().startswith("dlkit ")]
    return [words[1:] for words in calls]


def test_a_block_that_is_not_run_says_why() -> None:
    page = "<!-- not run: needs a GPU -->\n\n```console\n$ dlkit train a\n```\n\n```console\n$ true\n$ false\n```\n"
    first, second = run_pages.blocks(page)
    assert first.reason == "needs a GPU" and second.reason is None and second.commands == ("true", "false")


def test_running_a_page_writes_its_output_and_stops_at_a_failure(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\nold\n$ echo two >&2\n```\ntext\n", encoding="utf-8")
    run_pages.refresh(page)
    assert page.read_text(encoding="utf-8") == "```console\n$ echo one\none\n$ echo two >&2\ntwo\n```\ntext\n"
    page.write_text("```console\n$ exit 3\n```\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="exit 3"):
        run_pages.refresh(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_page_run(page: Path) -> None:
    if run_pages.blocks(page.read_text(encoding="utf-8")):
        run_pages.refresh(page, check=True)


def test_links_and_pictures_of_all_pages_exist() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not missing
