"""train --seeds: a group of runs that differ by their seed alone, trained once each."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from dlkit import documents
from dlkit.config.resolve import resolve, with_changes
from dlkit.errors import UsageError
from dlkit.experiments.seeds import train_seeds
from dlkit.runs.run_folder import RunFolder
from dlkit_cli.main import run as dlkit

QUICK = {
    "data.options.train": 80, "data.options.test": 8, "model.options.hidden": "16", "train.threads": 1,
    "train.epochs": 1, "train.seed": 3,
}  # fmt: skip


def test_a_group_is_trained_once_and_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = resolve("mlp", "shapes", flags=QUICK).recipe
    first = train_seeds(recipe, 2, name="g", runs_dir=tmp_path)
    runs = [RunFolder(tmp_path / "g" / f"seed{seed}") for seed in (3, 4)]
    assert [run.recipe() for run in runs] == [recipe, with_changes(recipe, {"train.seed": 4})]
    values = [run.info()["best"]["value"] for run in runs]
    assert first.values == tuple(values) and first.estimate is not None
    assert first.estimate.low < first.estimate.value < first.estimate.high  # even if both are right as often
    before = [(run.path / "run.json").read_bytes() for run in runs]
    again = train_seeds(recipe, 3, name="g", runs_dir=tmp_path)
    assert again.seeds == (3, 4, 5) and again.values[:2] == first.values
    assert [(run.path / "run.json").read_bytes() for run in runs] == before
    assert train_seeds(recipe, 1, name="g", runs_dir=tmp_path) == again  # fewer remove none
    if len(set(again.values)) > 1:
        oracle = stats.ttest_1samp(again.values, 0).confidence_interval()
        assert again.estimate is not None and again.estimate.high == pytest.approx(oracle.high)
    document = documents.opened((tmp_path / "g" / "seeds.json").read_bytes())
    assert document == again.document() and document["schema"] == "dlkit.seeds/1"
    with pytest.raises(UsageError, match=r"has another group of seeds: optimizer.lr was"):
        train_seeds(with_changes(recipe, {"optimizer.lr": 0.5}), 3, name="g", runs_dir=tmp_path)
    words = ["train", "--recipe", str(tmp_path / "g" / "recipe.yaml"), "--seeds", "3", "--name", "g"]
    assert dlkit([*words, "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'g'}\n"


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--retrain"], ["--seeds", "2", "-b", "auto"]])
def test_a_group_that_cannot_be_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit(["-q", "train", "mlp", "--dataset", "shapes", "--runs-dir", str(tmp_path), *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not list(tmp_path.iterdir())
