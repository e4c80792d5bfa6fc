"""The house: imports only go down, a command that needs no torch imports none, and nothing dangerous is called."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "dlkit").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
SHELVES = ("models", "datasets", "regularizers", "exporters", "explainers", "trackers")
FLOORS = {"data": 1, "nn": 1, "metrics": 1, **dict.fromkeys(SHELVES, 2), "engine": 3, "verbs": 4}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("dlkit_cli", *parts[1:]) if parts[0] == "cli" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> int:
    if module.partition(".")[0] == "dlkit_cli":
        return 5
    return FLOORS.get([*module.split("."), ""][1], 0)


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; `from a import b` counts as a.b, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{name.name}" for name in node.names)


def ours(path: Path) -> list[str]:
    names = imported(ast.parse(path.read_text()), module_name(path), path.stem == "__init__")
    return [name for name in names if name.split(".")[0] in ("dlkit", "dlkit_cli")]


def at_top(path: Path) -> ast.Module:
    """The statements that run when the file is imported: without functions and what only type checkers read."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]  # fmt: skip
    return tree


def test_the_sweep_sees_every_floor() -> None:
    assert {floor(module_name(path)) for path in FILES} == {0, 1, 2, 3, 4, 5}
    assert sum(len(ours(path)) for path in FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_only_go_down(path: Path) -> None:
    module = module_name(path)
    if module == "dlkit":  # its verbs are imported when they are first asked for
        return
    for name in ours(path):
        assert floor(name) <= floor(module), f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in SHELVES], ids=module_name)
def test_a_shelf_imports_no_other_shelf(path: Path) -> None:
    for name in ours(path):
        shelf = [*name.split("."), ""][1]
        assert shelf not in SHELVES or shelf == path.parent.name, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", [path for path in FILES if floor(module_name(path)) == 5], ids=module_name)
def test_commands_import_the_verbs_inside_functions(path: Path) -> None:
    names = list(imported(at_top(path), module_name(path), path.stem == "__init__"))
    assert all(floor(name) in (0, 5) for name in names if name.startswith("dlkit"))
    heavy = {"torch", "torchvision", "numpy", "PIL", "pydantic", "yaml", "matplotlib"}
    assert not heavy & {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", [path for path in FILES if floor(module_name(path)) == 0], ids=module_name)
def test_the_ground_floor_knows_no_torch_and_no_numpy(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {name.split(".")[0] for name in imported(tree, module_name(path), path.stem == "__init__")}
    assert not names & {"torch", "torchvision", "numpy", "PIL"}


BANNED_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib"}
BANNED_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
}


def dangers(source: str) -> list[str]:
    """What in a file could run somebody else's code."""
    tree = ast.parse(source)
    found = [name for name in imported(tree, "x", False) if name.split(".")[0] in BANNED_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in BANNED_CALLS or called.endswith(".extractall"):
            found.append(called)
        if called == "torch.load" and keywords.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if keywords.get("shell") == "True" or keywords.get("allow_pickle") == "True":
            found.append(f"{called} with a shell or a pickle")
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path != ROOT / "dlkit/data/pickles.py"], ids=module_name)
def test_nothing_unpickles_evaluates_or_extracts_blindly(path: Path) -> None:
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "eval('1')", "yaml.load(x, Loader=y)", "tar.extractall()",
     "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x, allow_pickle=True)",
     "subprocess.run(x, shell=True)"],
)  # fmt: skip
def test_the_ban_list_sees_what_it_bans(source: str) -> None:
    assert dangers(source)


GOOD = [
    "", "--help", "--version", "train --help", "eval --help", "predict --help", "dataset --help", "models --help",
    "recipes list", "recipes regularizers", "recipes show lenet5-mnist", "models list", "dataset list", "runs list",
    "train lenet5 --dataset mnist --dry-run", "train mlp --dataset shapes --dry-run",
]  # fmt: skip
WRONG = [
    "trian", "train --epoch 3", "train lenet6 --dataset mnist", "train lenet5 --dataset minst", "runs show nothing",
    "train lenet5 --dataset mnist --set optimizer.lrr=1", "train lenet5 --dataset mnist --lr fast",
    "train --recipe nothing.yaml",
]  # fmt: skip

PROBE = """
import contextlib, io, json, sys
from dlkit_cli.main import run
import dlkit
heavy = {}
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = run(line.split())
    heavy[line] = [code, *sorted({"torch", "torchvision", "matplotlib"} & sys.modules.keys())]
print(json.dumps(heavy))
"""


def test_commands_that_need_no_torch_import_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, json.dumps(GOOD + WRONG)]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout) == {**{line: [0] for line in GOOD}, **{line: [2] for line in WRONG}}
    assert list(tmp_path.iterdir()) == []


def test_help_and_a_typo_do_without_pydantic_and_yaml() -> None:
    for line in ("--help", "trian", "train lenet5 --dataset mnist --set optimizer.lrr=1"):
        probe = PROBE.replace('"torch", "torchvision", "matplotlib"', '"pydantic", "yaml", "numpy", "rich.console"')
        done = subprocess.run([sys.executable, "-c", probe, json.dumps([line])], capture_output=True, check=True)
        assert json.loads(done.stdout)[line][1:] == []
