"""Every command that the README, the documentation and the recipes show is one that the program accepts."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dlkit.config import yaml_file
from dlkit_cli import console, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = [*PAGES, *sorted((ROOT / "recipes").glob("*.yaml"))]
SHOWN = re.compile(r"^(?:    (?:\$ )?|# Command: )(?:.*\| )?(dlkit [^|#>\n`]+)", re.MULTILINE)


def commands() -> list[str]:
    return sorted({line.strip() for path in FILES for line in SHOWN.findall(path.read_text(encoding="utf-8"))})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())
    for name in ("cat", "dog"):  # a person's own images, by their path
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (40, 30), (60 * index, 0, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    photos = sorted((tmp_path / "photos").glob("*/*.png"))
    rows = (f"{photo.relative_to(tmp_path)},{photo.parent.name}\n" for photo in photos)
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(rows))
    (tmp_path / "runs" / "latest").mkdir(parents=True)  # README repeats the newest run by its recipe
    shutil.copy(ROOT / "recipes" / "mlp-mnist.yaml", tmp_path / "runs" / "latest" / "recipe.yaml")


def test_there_are_commands_to_try() -> None:
    assert len(commands()) > 15 and len(yaml_file.shipped_names()) == len(FILES) - len(PAGES)


@pytest.mark.parametrize("line", commands())
def test_a_shown_command_is_taken(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "train" and "--resume" not in words:
        assert main.run([*words, "--dry-run"]) == 0, capsys.readouterr().err
        return
    verb = words[:2] if words[0] in ("dataset", "models", "recipes", "runs") else words[:1]
    assert main.run([*verb, "--help"]) == 0
    known = capsys.readouterr().out
    for flag in (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z0]", word)):
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", known), f"{flag} is not in the help of {verb}"


def test_links_and_pictures_of_the_pages_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
