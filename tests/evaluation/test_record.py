"""evaluation.json: a value of a wrong type is damage, also where the document's digest fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlkit import documents
from dlkit.errors import ModelFileError
from dlkit.evaluation.record import EVALUATION, read_evaluation
from dlkit.runs.run_folder import RunFolder

GOOD = {"schema": "dlkit.eval/1", "run_id": "a", "step": 3, "samples": 8, "metrics": {"top1": {"value": 1, "low": 0.5}}}


@pytest.mark.parametrize(
    "change", [{"metrics": 10**400}, {"metrics": {"top1": []}}, {"samples": -1}, {"step": "3"}, {"split": 7}], ids=str
)
def test_a_value_of_a_wrong_type_is_damage(change: dict[str, object], tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    documents.write(tmp_path / EVALUATION, GOOD)
    assert read_evaluation(run)["samples"] == 8
    documents.write(tmp_path / EVALUATION, GOOD | change)
    with pytest.raises(ModelFileError, match=rf"'{next(iter(change))}.*wrong type"):
        read_evaluation(run)
