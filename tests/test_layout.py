"""The layout: imports point one way and in no circle; what needs no torch imports none; nothing runs foreign code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "dlkit").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
# Packages by rank: a module imports from its own package and from packages of a lower rank.
ORDER = (
    ("config",),
    ("data", "metrics"),
    ("inference", "layers"),
    ("models", "datasets", "regularizers", "trackers", "export.formats", "explanation.methods"),
    ("runs",),
    ("plots", "calibration"),
    ("training",),
    ("evaluation",),
    ("explanation", "export"),
    ("experiments",),
    ("report", "serve"),
)
RANK = {package: rank for rank, packages in enumerate(ORDER, start=1) for package in packages}
CLI = len(ORDER) + 1


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("dlkit_cli", *parts[1:]) if parts[0] == "cli" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(module: str) -> str:
    """The package that ranks a module; "" for the modules at the top, which need no torch."""
    root, *parts = module.split(".")
    if root == "dlkit_cli":
        return root
    return next((name for name in (".".join(parts[:2]), *parts[:1]) if name in RANK), "")


def rank(module: str) -> int:
    return CLI if package(module) == "dlkit_cli" else RANK.get(package(module), 0)


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


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def own_imports(path: Path) -> list[str]:
    names = imported(parsed(path), module_name(path), path.stem == "__init__")
    return [name for name in names if name.split(".")[0] in ("dlkit", "dlkit_cli")]


def import_graph() -> dict[str, set[str]]:
    """Each module and those that it imports, inside functions and for type checkers too."""
    modules = {module_name(path): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        names = {name if name in modules else name.rpartition(".")[0] for name in own_imports(path)}
        graph[module] = (names & modules.keys()) - {module}
    return graph


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules that are left when those that import none of the rest are removed again and again, from both ends."""
    left = {module: set(names) for module, names in graph.items()}
    while True:
        wanted = set().union(*left.values()) if left else set()
        free = {module for module, names in left.items() if not names & left.keys() or module not in wanted}
        if not free:
            return sorted(left)
        left = {module: names - free for module, names in left.items() if module not in free}


def at_top(path: Path) -> ast.Module:
    """The statements that run when the file is imported: without functions and what only type checkers read."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]  # fmt: skip
    return tree


def test_every_package_has_a_rank() -> None:
    packages = {path.parent.name for path in (ROOT / "dlkit").glob("*/__init__.py")}
    assert packages == {name for name in RANK if "." not in name and name != "metrics"}
    assert sum(len(own_imports(path)) for path in FILES) > 100


def test_imports_point_one_way() -> None:
    wrong = []
    for path in FILES:
        module = module_name(path)
        if module == "dlkit":  # its public functions are imported when they are first used
            continue
        for name in own_imports(path):
            down = rank(name) < rank(module) or (rank(name), package(name)) == (rank(module), package(module))
            if not down:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_module_imports_itself_through_others() -> None:
    assert cycle(import_graph()) == []


# Class names that still exist twice; nothing may be added.
SHARED_CLASS_NAMES = {"Checkpoint", "Document", "Network", "Section", "Sets", "Trial", "Watch", "_Run"}


def test_class_names_are_unique_in_the_project() -> None:
    trees = [ast.parse(path.read_text()) for path in FILES]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert {name for name, count in names.items() if count > 1} <= SHARED_CLASS_NAMES


def test_a_cycle_is_seen() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a", "e"}, "d": {"a"}, "e": set()}) == ["a", "b", "c"]


def test_commands_import_their_subjects_inside_functions() -> None:
    heavy = {"torch", "torchvision", "numpy", "PIL", "pydantic", "yaml", "matplotlib"}
    for path in FILES:
        if rank(module_name(path)) == CLI:
            names = list(imported(at_top(path), module_name(path), path.stem == "__init__"))
            assert all(rank(name) in (0, 1, CLI) for name in names if name.startswith("dlkit")), path
            assert not heavy & {name.split(".")[0] for name in names}, path


def test_the_modules_at_the_top_and_the_configuration_know_no_torch_and_no_numpy() -> None:
    for path in FILES:
        if rank(module_name(path)) <= 1:
            names = imported(parsed(path), module_name(path), path.stem == "__init__")
            assert not {name.split(".")[0] for name in names} & {"torch", "torchvision", "numpy", "PIL"}, path


def test_the_wheel_holds_every_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(declared) == {module_name(path) for path in FILES if path.stem == "__init__"} | {"dlkit_recipes"}


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


def dangers(tree: ast.Module) -> list[str]:
    """What in a file could run somebody else's code."""
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


def test_nothing_unpickles_evaluates_or_extracts_blindly() -> None:
    for path in FILES:
        if path != ROOT / "dlkit/data/download/pickles.py":
            assert dangers(parsed(path)) == [], path


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "eval('1')", "yaml.load(x, Loader=y)", "tar.extractall()",
     "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x, allow_pickle=True)",
     "subprocess.run(x, shell=True)"],
)  # fmt: skip
def test_the_ban_list_sees_what_it_bans(source: str) -> None:
    assert dangers(ast.parse(source))


FORKS = {"os.fork", "os.forkpty", "multiprocessing", "multiprocessing.pool", "ProcessPoolExecutor", "DataLoader"}
LOADER = ROOT / "dlkit/data/workers.py"  # torch's DataLoader: its workers need the data set of the program itself


def test_only_the_loader_of_batches_forks() -> None:
    """A process that has threads or a process group is not forked; data/processes.py starts helpers by exec."""
    for path in FILES:
        tree = parsed(path)
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
        names |= {name.rpartition(".")[2] for name in imported(tree, "x", False)} | set(imported(tree, "x", False))
        assert path == LOADER or not FORKS & names, path


GOOD = [
    "", "--help", "--version", "train --help", "eval --help", "predict --help", "dataset --help", "models --help",
    "recipes list", "recipes regularizers", "recipes show lenet5-mnist", "models list", "dataset list", "runs list",
    "models list --pretrained swin",
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
