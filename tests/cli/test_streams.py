"""The program as a process: a reader that is gone, a full disk behind stdout, a locale without Unicode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_folders

import dlkit
from dlkit.config.resolve import resolve
from dlkit_cli import console, recipes


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())
    yield


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dlkit_cli", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, **options)


def test_a_reader_that_is_gone_ends_the_program_silently() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = program("recipes", "show", "lenet5-mnist", stdout=write_end)
    os.close(write_end)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_exit_7_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = program("recipes", "list", stdout=full)
    assert (
        done.returncode == 7 and done.stderr == b"dlkit: cannot write the answer to stdout: No space left on device.\n"
    )


def test_a_closed_stdout_is_exit_7_in_one_line() -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m dlkit_cli recipes list >&-"], stderr=subprocess.PIPE, timeout=60
    )
    assert done.returncode == 7 and done.stderr == b"dlkit: cannot write the answer to stdout: it is closed.\n"


def test_a_locale_without_unicode_escapes_what_it_cannot_say(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = program("train", "lenet5é", "--dataset", "mnist", stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 2 and b"Did you mean 'lenet5'" in done.stderr and done.stderr.isascii()
    info = {"model": "é", "dataset": "shapes", "epochs": 0, "spec": {}}
    run_folders.create(tmp_path / "runs", "first", resolve("mlp", "shapes").recipe, info)
    done = program("runs", "list", "--format", "tsv", stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 0 and b"first\t\\xe9\tshapes" in done.stdout
    done = program("runs", "list", "--format", "json", stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["model"] == "é"


def test_the_module_is_the_program() -> None:
    done = program("--version", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dlkit {dlkit.__version__}\n".encode(), b"")
    assert recipes.recipes_app is not None
