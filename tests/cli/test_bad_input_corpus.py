"""The corpus of bad input, row by row: 80 rows, each with its exit code, one line of error and nothing else touched."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import pytest
from bad_input import archives, datasets, images, models, onnx_files, recipes
from bad_input.case import Bench, Case, untouched

from dlkit.runs.run_folder import RunFolder

ROWS = 80
MOST_SECONDS = 5.0
CASES = list(chain.from_iterable(part.cases() for part in (images, datasets, models, archives, recipes, onnx_files)))


@pytest.fixture
def bench(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    folder = tmp_path / "here"
    folder.mkdir()
    return Bench(folder, tiny_run, capsys, monkeypatch)


def test_all_rows_are_there() -> None:
    assert sorted({case.row for case in CASES}) == list(range(1, ROWS + 1))
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in CASES]
)
def test_bad_input_ends_with_its_exit_code(case: Case, bench: Bench) -> None:
    started = time.thread_time()  # not by the clock: a machine with other work would fail
    with untouched(bench.folder):
        code = case.attempt(bench)
    assert (code, bench.err) == (case.code, bench.err)
    assert case.says in bench.err
    assert "Traceback" not in bench.err
    errors = [line for line in bench.err.splitlines() if line.startswith("dlkit: ") and "dlkit: warning: " not in line]
    assert len(errors) <= 1
    assert time.thread_time() - started < MOST_SECONDS or case.slow
