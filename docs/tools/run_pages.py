"""Run the commands of documentation pages, in order, and write their real output into the pages.

    python docs/tools/run_pages.py docs/learn/lenet.md …     # refresh
    python docs/tools/run_pages.py --check docs/learn/*.md   # only run: every command must exit with 0

A page's commands stand behind `$ ` in its console blocks. They share one empty folder, and dlkit's cache. Comments:

    <!-- not run: REASON -->           the next block stays as it is
    <!-- save FILE as images/NAME -->  copies a file that the block above made into docs/images
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
READER_GONE = 141  # `dlkit … | head`
FENCE = re.compile(r"```console\n(.*?)```\n", re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\n+$")
SAVED = re.compile(r"<!-- save (\S+) as (images/\S+) -->")


@dataclass(frozen=True)
class Block:
    """A console block: where it lies in the page, its commands, and why it is not run, if so."""

    start: int
    end: int
    commands: tuple[str, ...]
    reason: str | None


def blocks(page: str) -> list[Block]:
    """The console blocks of a page."""
    found = []
    for match in FENCE.finditer(page):
        reason = NOT_RUN.search(page[: match.start()])
        lines = match[1].splitlines()
        commands = tuple(line.removeprefix("$ ") for line in lines if line.startswith("$ "))
        found.append(Block(match.start(1), match.end(1), commands, reason[1] if reason else None))
    return found


def refresh(path: Path, check: bool = False) -> None:
    """Run a page's commands; unless `check`, write their output and the files that it saves."""
    page = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="dlkit-docs-") as folder:
        pieces, position = [], 0
        for block in blocks(page):
            pieces.append(page[position : block.start])
            pieces.append(page[block.start : block.end] if block.reason else transcript(block, Path(folder)))
            position = block.end
        pieces.append(page[position:])
        if not check:
            path.write_text("".join(pieces), encoding="utf-8")
            for source, target in SAVED.findall(page):
                (DOCS / target).parent.mkdir(exist_ok=True)
                shutil.copyfile(Path(folder) / source, DOCS / target)


def transcript(block: Block, folder: Path) -> str:
    """The block with the output of its commands as it is now."""
    return "".join(f"$ {command}\n{run(command, folder)}" for command in block.commands)


def run(command: str, folder: Path) -> str:
    """What a command prints in an 80-column terminal without color; stdout and stderr together."""
    sys.stderr.write(f"$ {command}\n")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    if done.returncode not in (0, READER_GONE):
        raise SystemExit(f"exit {done.returncode}: {command}\n{done.stdout}")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def environment() -> Mapping[str, str]:
    bin_folder = Path(sys.executable).parent
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}


if __name__ == "__main__":
    arguments = sys.argv[1:]
    for name in arguments:
        if name != "--check":
            refresh(Path(name), "--check" in arguments)
