"""runs compare: what differs is told, and chance is not taken for a difference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from scipy import stats

from dlkit.errors import DataError, UsageError
from dlkit.experiments.compare import compare
from dlkit.experiments.compare_groups import compare_groups
from dlkit.runs.run_folder import RunFolder
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


def test_an_evaluation_of_an_older_checkpoint_is_not_compared(
    pair: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    for run in pair:
        answer(run, "10", checkpoint="best", step=9)
    answer(pair[0], "10", checkpoint="last", step=1)
    found = compare(*pair)
    assert found.paired is None and "older than its last checkpoint: of step 1, now 9" in found.unpaired
    assert f"dlkit eval {pair[0].path} --checkpoint last" in found.unpaired
    assert "test/top1" not in {figure.key for figure in found.metrics}
    answer(pair[0], "10", run_id="another")
    assert "another training under the same name" in compare(*pair).unpaired
    for key in ("mc_dropout", "calibration", "tta"):
        answer(pair[0], "10", **{key: 8})
        assert f"under different conditions: {key} 8 and None" in compare(*pair).unpaired
    answer(pair[0], "10", checkpoint="last")
    assert dlkit(["-q", "runs", "compare", "a", "b", "--runs-dir", str(pair[0].path.parent)]) == 0
    assert "verdict\tverdict\t\tnot distinguishable" in capsys.readouterr().out
    assert "(last checkpoint of a, best of b)" in compare(*pair).sentence()


@pytest.mark.parametrize("format", ["table", "csv", "tsv", "json"])
def test_every_format_holds_the_verdict_quiet_or_not(
    format: str, pair: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    for run in pair:
        answer(run, "1101")
    assert dlkit(["-q", "runs", "compare", "a", "b", "--format", format, "--runs-dir", str(pair[0].path.parent)]) == 0
    out = capsys.readouterr().out
    assert "not distinguishable" in out and "these two networks" in out


def group(runs_dir: Path, tiny_run: RunFolder, name: str, accuracies: list[float]) -> list[RunFolder]:
    """A group of seeds whose runs reach these accuracies over 1,000 samples."""
    runs = []
    for seed, top1 in enumerate(accuracies):
        run = RunFolder(Path(shutil.copytree(tiny_run.path, runs_dir / name / f"seed{seed}")))
        recipe = (run.path / "recipe.yaml").read_text()
        (run.path / "recipe.yaml").write_text(recipe.replace("  seed: 0", f"  seed: {seed}"))
        answer(run, "1", metrics={"top1": {"value": top1}}, samples=1000, weights_sha256=f"{name}{seed}")
        runs.append(run)
    shutil.copy(tiny_run.path / "recipe.yaml", runs_dir / name / "recipe.yaml")
    return runs


def test_groups_are_compared_over_their_seeds(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracies = ([0.90, 0.91, 0.905], [0.95, 0.93, 0.94])
    first, second = (group(tmp_path, tiny_run, name, top1) for name, top1 in zip("AB", accuracies, strict=True))
    found, oracle = compare_groups(first, second), stats.ttest_ind(accuracies[1], accuracies[0], equal_var=False)
    assert found.difference.p_value == pytest.approx(oracle.pvalue)
    assert (found.verdict, found.first.seeds, found.samples) == ("second is better", (0, 1, 2), 1000)
    command = ["runs", "compare", "--runs-dir", str(tmp_path), "--json"]
    ways = (
        ["A", "B"],
        ["A", "--against", "B"],
        ["A/seed0", "A/seed1", "A/seed2", "--against", "B/seed0", "B/seed1", "B/seed2"],
    )
    for words in ways:
        assert dlkit([*command, *words]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == "second is better" and document["concerns"] == "the recipes, over their seeds"
        assert document["difference"]["p_value"] == pytest.approx(oracle.pvalue)
    assert dlkit([*command, "B", "A", "--fail-on-regression"]) == 12
    assert dlkit([*command, "A", "B", "--fail-on-regression", "--require-groups"]) == 0
    assert dlkit([*command, "A/seed0", "B/seed0", "--require-groups"]) == 2
    assert compare(first[0], second[0]).document()["second"] == "B/seed0"
    capsys.readouterr()
    assert dlkit([*command, "A"]) == 0  # three runs side by side
    assert [row["top1"] for row in json.loads(capsys.readouterr().out)] == accuracies[0]


def test_two_seeds_that_agree_leave_doubt(tiny_run: RunFolder, tmp_path: Path) -> None:
    first, second = (group(tmp_path, tiny_run, name, [top1, top1]) for name, top1 in (("A", 0.9), ("B", 0.901)))
    found = compare_groups(first, second)
    assert found.difference.low < 0 < found.difference.high and found.verdict == "not distinguishable"


def test_groups_that_are_none_are_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    first, second = (group(tmp_path, tiny_run, name, [0.9, 0.91]) for name in "AB")
    with pytest.raises(UsageError, match="at least two runs"):
        compare_groups(first, second[:1])
    with pytest.raises(UsageError, match="given twice"):
        compare_groups(first, [first[0], second[0]])
    answer(second[1], "1", metrics={"top1": {"value": 0.9}}, samples=1000, weights_sha256="B0")
    with pytest.raises(UsageError, match="same weights twice"):
        compare_groups(first, second)
    (second[1].path / "evaluation.json").unlink()
    with pytest.raises(DataError, match=f"not evaluated yet: dlkit eval {second[1].path}"):
        compare_groups(first, second)


def test_a_missing_evaluation_is_made_if_that_is_asked_for(
    pair: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit(["runs", "compare", "a", "b", "--evaluate", "--json", "--runs-dir", str(pair[0].path.parent)]) == 0
    paired = json.loads(capsys.readouterr().out)["paired"]
    assert paired["samples"] == 160 and paired["verdict"] == "not distinguishable"


def test_damaged_answers_are_told(pair: tuple[RunFolder, RunFolder]) -> None:
    for run in pair:
        answer(run, "10")
    (pair[1].path / "predictions.jsonl").write_text("{")
    found = compare(*pair)  # all else is compared
    assert found.paired is None and f"dlkit eval {pair[1].path}" in found.unpaired and found.metrics
