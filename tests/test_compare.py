"""runs compare: what differs is told, and chance is not taken for a difference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dlkit.engine.run_folder import RunFolder
from dlkit.errors import ModelFileError
from dlkit.verbs.compare import compare
from dlkit_cli.main import run as dlkit

EVALUATION = {"dataset": "shapes", "split": "test", "fingerprint": "f", "metrics": {"top1": {"value": 0.5}}}


@pytest.fixture
def pair(tiny_run: RunFolder, tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """Two copies of a run, `a` and `b`, in one folder."""
    for name in ("a", "b"):
        shutil.copytree(tiny_run.path, tmp_path / "runs" / name)
    return RunFolder(tmp_path / "runs" / "a"), RunFolder(tmp_path / "runs" / "b")


def answer(run: RunFolder, right: str, **changes: object) -> None:
    """An evaluation whose answers are right where the text has a 1."""
    (run.path / "evaluation.json").write_text(json.dumps(EVALUATION | changes))
    lines = [{"id": place, "target": "x", "predicted": "x" if one == "1" else "y"} for place, one in enumerate(right)]
    (run.path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_does_not_differ_from_its_copy(pair: tuple[RunFolder, RunFolder]) -> None:
    for run in pair:
        answer(run, "1101")
    found = compare(*pair)
    assert not found.differences and found.paired is not None
    assert (found.paired.only_first, found.paired.only_second) == (0, 0)
    assert found.paired.p_value == 1 and found.paired.verdict == "not distinguishable"


def test_the_better_run_is_named_once_chance_is_unlikely(pair: tuple[RunFolder, RunFolder]) -> None:
    answer(pair[0], "1" * 20 + "0" * 20)
    answer(pair[1], "1" * 23 + "0" * 17)
    few = compare(*pair).paired
    answer(pair[1], "1" * 29 + "0" * 11)
    many = compare(*pair).paired
    assert few is not None and few.only_second == 3 and few.verdict == "not distinguishable"
    assert many is not None and many.difference.value == 9 / 40 and many.verdict == "second is better"
    assert many.difference.low > 0


def test_a_changed_setting_is_the_only_difference(pair: tuple[RunFolder, RunFolder]) -> None:
    recipe = pair[1].path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.001", "lr: 0.01"))
    (difference,) = compare(*pair).differences
    assert (difference.where, difference.key, difference.first, difference.second) == (
        "recipe",
        "optimizer.lr",
        0.001,
        0.01,
    )


@pytest.mark.parametrize("change", [{"split": "validation"}, {"fingerprint": "g"}, {"dataset": "mnist"}])
def test_answers_to_other_samples_are_not_paired(change: dict[str, str], pair: tuple[RunFolder, RunFolder]) -> None:
    answer(pair[0], "10")
    answer(pair[1], "10", **change)
    found = compare(*pair)
    assert found.paired is None and next(iter(change)) in found.unpaired


def test_a_regression_fails_the_gate_and_chance_does_not(
    pair: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    runs_dir = str(pair[0].path.parent)
    command = ["runs", "compare", "a", "b", "--fail-on-regression", "--runs-dir", runs_dir]
    assert dlkit(command) == 2
    answer(pair[0], "1" * 40)
    answer(pair[1], "1" * 38 + "0" * 2)
    assert dlkit(command) == 0
    answer(pair[1], "1" * 20 + "0" * 20)
    capsys.readouterr()
    assert dlkit([*command, "--json"]) == 12
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.compare/1" and document["paired"]["verdict"] == "first is better"


def test_damaged_answers_are_told(pair: tuple[RunFolder, RunFolder]) -> None:
    for run in pair:
        answer(run, "10")
    (pair[1].path / "predictions.jsonl").write_text("{")
    with pytest.raises(ModelFileError, match="dlkit eval b"):
        compare(*pair)
