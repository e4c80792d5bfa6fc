"""Help and completion: panels, examples that parse, nothing cut off, and no heavy import on the way."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlkit import registry
from dlkit_cli import completion, help, main
from dlkit_cli.examples import EXAMPLES

DLKIT = str(Path(sys.executable).with_name("dlkit"))
HEAVY = ("torch", "torchvision", "timm", "matplotlib", "numpy", "pydantic", "rich")


def commands() -> dict[str, Any]:
    """Every command by its path: "train", "dataset", "dataset list"."""
    found: dict[str, Any] = {}
    for name in main.COMMANDS:
        found[name] = main._built(name)
        found |= {f"{name} {inner}": command for inner, command in getattr(found[name], "commands", {}).items()}
    return found


COMMANDS = commands()


def options(command: Any) -> Iterator[Any]:
    return (param for param in command.params if param.param_type_name == "option")


# -- help


def test_every_command_has_three_examples_that_its_parser_takes() -> None:
    assert EXAMPLES.keys() == {"dlkit", *COMMANDS}
    for path, examples in EXAMPLES.items():
        assert len(set(examples)) == 3, path
        for example in examples:
            words = shlex.split(example)
            lines = [words[at + 1 :] for at, word in enumerate(words) if word == "dlkit"]
            assert lines, example
            for line in lines:
                parse([word for word in line[: min(map(line.index, {"|", ">"} & set(line)), default=len(line))]])
            assert path in ("dlkit", example.split("dlkit ", 1)[1][: len(path)]) or path in example, example


def parse(words: list[str]) -> None:
    """Read a line as the program would, names of models, data sets and recipes included; nothing is run."""
    words = [word for word in words if word not in main.EVERYWHERE]
    path = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    command = COMMANDS[path]
    context = command.make_context(path, words[len(path.split()) :])
    values = context.params
    if path in ("train", "lr-find", "ablate", "baseline"):
        assert values["model"] in (None, "photos/", *registry.names("models"))
    if values.get("recipe") is not None:
        from dlkit.config import yaml_file

        assert values["recipe"] in yaml_file.shipped_names()


def test_options_that_commands_share_stand_in_the_same_panel() -> None:
    panels: dict[str, set[str]] = {}
    for path, command in COMMANDS.items():
        for param in options(command):
            assert param.rich_help_panel in help.ORDER, path
            panels.setdefault(param.name, set()).add(param.rich_help_panel)
    assert {name for name, where in panels.items() if len(where) > 1} == set()
    train = {param.rich_help_panel for param in options(COMMANDS["train"])}
    assert set(help.PANELS) <= train and help.OWN not in train


@pytest.mark.parametrize("columns", [60, 80])
def test_summaries_are_whole_on_any_terminal_and_in_a_pipe(columns: int) -> None:
    piped = subprocess.run([DLKIT, "--help"], capture_output=True, text=True, check=True)
    assert piped.stderr == "" and "\x1b" not in piped.stdout and "..." not in piped.stdout.split("Commands:")[1]
    drawn = on_terminal([DLKIT, "--help"], columns)
    for text in (piped.stdout, drawn):
        words = re.sub(r"[│\s]+", " ", text)
        for name in main.COMMANDS:
            assert re.sub(r"\s+", " ", help.summary(COMMANDS[name])) in words, name
    assert "╭" in drawn and all(len(line) <= columns for line in drawn.splitlines())


def test_help_of_a_command_goes_to_stdout_with_panels_and_examples() -> None:
    done = subprocess.run([DLKIT, "train", "--help"], capture_output=True, text=True, check=True)
    titles = re.findall(r"^(\w.*):$", done.stdout, re.MULTILINE)
    assert done.stderr == "" and titles == ["Arguments", *help.PANELS, "Examples"]
    assert f"\nExamples:\n  {EXAMPLES['train'][0]}\n" in done.stdout


def on_terminal(command: list[str], columns: int) -> str:
    """What a program writes to a terminal of that width, without its colors."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        text = b""
        try:
            while chunk := os.read(leader, 1 << 16):
                text += chunk
        except OSError:  # what Linux raises when the program has closed its end
            pass
        assert process.wait() == 0
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).replace("\r", "")


# -- completion


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "run.json").write_text("{}")
    (tmp_path / "runs" / "no-run").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tra"], ["train"]), (["dataset", "ver"], ["verify"]), (["-q", "mod"], ["models"]), (["trian", "x"], []),
        (["train", "--rec"], ["--recipe"]), (["train", "lenet5_"], ["lenet5_relu"]),
        (["train", "squeezenet1_1"], ["torchvision/squeezenet1_1"]), (["train", "lenet5", "mni"], ["mnist"]),
        (["train", "--lr", "0.1", "lenet5", "mni"], ["mnist"]), (["train", "--recipe", "lenet5_relu-s"],
        ["lenet5_relu-shapes"]),
        (["train", "--dataset=mni"], ["--dataset=mnist"]), (["train", "--dataset", "=", "mni"], ["mnist"]),
        (["train", "--set", "optimizer.nest"], ["optimizer.nesterov="]), (["train", "--set", "regularizers.sam.r"],
        ["regularizers.sam.rho="]), (["eval", ""], ["first", "runs/first"]), (["runs", "show", "fi"], ["first"]),
        (["runs", "show", "--runs-dir", "nowhere", ""], []), (["export", "--to", "on"], ["onnx"]),
        (["predict", "--format", "js"], ["json", "jsonl"]), (["models", "list", "--task", "te"], ["text"]),
        (["explain", "x.png", "--method", "occ"], ["occlusion"]), (["train", "lenet5", "mnist", "x", ""], []),
    ],
)  # fmt: skip
def test_a_word_is_completed_by_what_may_stand_there(run_folder: Path, words: list[str], expected: list[str]) -> None:
    assert completion.complete(main.typer.main.get_command(main.app), words) == expected


def test_completion_imports_nothing_heavy(run_folder: Path) -> None:
    """Time is not tested; what takes the time is that these are imported."""
    code = (
        "import json, sys; from dlkit_cli import main, completion;"
        "lines = json.loads(sys.argv[1]); program = main.typer.main.get_command(main.app);"
        "[completion.complete(program, line) for line in lines];"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    lines = [["tr"], ["train", "le"], ["train", "--set", "opt"], ["train", "lenet5", "m"], ["eval", ""], ["--"]]
    done = subprocess.run([sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_bash_completes_with_the_script_that_is_printed(run_folder: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = subprocess.run([DLKIT, "--show-completion", "bash"], capture_output=True, text=True, check=True).stdout
    ask = f'COMP_WORDS=({DLKIT} train lenet5 mnis); COMP_CWORD=3; _dlkit_completion {DLKIT}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run([bash, "--norc", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout == "mnist\n"


def test_completion_is_installed_once_and_only_where_the_shell_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'")
    for shell in ("bash", "bash", "zsh", "fish"):
        assert main.run(["--install-completion", shell]) == 0
        path = Path(capsys.readouterr().out.strip())
        assert path.is_relative_to(tmp_path) and path.read_text() == completion.SCRIPTS[shell]
    assert (tmp_path / ".bashrc").read_text() == "alias ll='ls -l'\nsource ~/.bash_completions/dlkit.sh\n"
    assert main.run(["--install-completion", "tcsh"]) == 2 and "bash, zsh, fish" in capsys.readouterr().err
    monkeypatch.setenv("SHELL", "/bin/fish")
    assert main.run(["--show-completion"]) == 0 and "dlkit" in capsys.readouterr().out
