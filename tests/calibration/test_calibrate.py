"""dlkit calibrate: fitted on validation, stored under the checkpoint's digest, used by every command and refused
elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapes_on_disk import write_folder

import dlkit
from dlkit import metrics
from dlkit.calibration import conformal, record
from dlkit.errors import DataError, ModelFileError, UsageError
from dlkit.evaluation.calibrate import calibrate
from dlkit.evaluation.prediction import Prediction
from dlkit.export.export import export
from dlkit.runs.run_folder import RunFolder
from dlkit.training.restore import restore
from dlkit_cli.main import run as dlkit_command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An mlp that has overfitted a few hundred shapes: it is overconfident."""
    settings: dict[str, object] = {"data.options.train": 600, "data.options.test": 300, "data.validation": 0.5}
    settings |= {"model.options.hidden": "48"}
    return dlkit.train(
        "mlp", dataset="shapes", epochs=12, batch_size=32, lr=0.003, settings=settings, name="a",
        runs_dir=tmp_path_factory.mktemp("calibrated") / "runs",
    )  # fmt: skip


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(trained.path, tmp_path / "runs" / "a", symlinks=True)))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    return [str(path) for path in write_folder(tmp_path / "photos", "test", count=24)]


def answers(found: Any) -> list[Prediction]:
    predictions = list(found)
    assert all(isinstance(one, Prediction) for one in predictions)
    return predictions


def test_temperature_halves_the_calibration_error_and_leaves_every_answer(run: RunFolder) -> None:
    before = dlkit.evaluate(run, write=False)
    fitted = calibrate(run)
    after = dlkit.evaluate(run)
    assert after.metrics["ece"].value <= 0.5 * before.metrics["ece"].value
    assert after.metrics["ece_uncalibrated"].value == pytest.approx(before.metrics["ece"].value, abs=1e-6)
    assert after.metrics["top1"] == before.metrics["top1"] and (after.confusion == before.confusion).all()
    assert after.metrics["loss"].value < before.metrics["loss"].value
    assert fitted.ece_after.value < fitted.ece_before.value
    assert after.document()["calibration"] == "temperature" and before.document()["calibration"] is None


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_outputs_are_those_of_the_network_times_the_scale_plus_the_bias(run: RunFolder, method: str) -> None:
    entry = calibrate(run, method=method).calibration
    assert entry is not None
    inputs = torch.randn(5, 3, 28, 28)
    plain, scaled = (restore(run, calibrated=flag).model(inputs) for flag in (False, True))
    assert torch.allclose(plain * torch.tensor(entry.scale) + torch.tensor(entry.bias), scaled, atol=1e-6)
    assert restore(run).model.state_dict().keys() == restore(run, calibrated=False).model.state_dict().keys()


def test_thresholds_are_those_of_the_half_that_the_temperature_has_not_seen(run: RunFolder) -> None:
    from dlkit.data.rng import permutation
    from dlkit.evaluation.matching import load_split
    from dlkit.evaluation.outputs import compute_outputs
    from dlkit.runs.data_of_run import data_of_run

    entry = calibrate(run, coverage=0.8, sets="aps", unfamiliar=0.1).calibration
    assert entry is not None and entry.sets is not None and entry.familiarity is not None
    part = load_split(run, data_of_run(run, run.recipe().data, None), "validation", run.spec(), str)
    batches = list(compute_outputs(restore(run), part.samples, 64, 0, None))  # scaled
    logs, outputs, targets = (
        torch.cat([getattr(batch, name) for batch in batches]).numpy()
        for name in ("log_probabilities", "outputs", "targets")
    )
    second = permutation(run.recipe().train.seed, 0, len(targets))[len(targets) // 2 :]
    own = conformal.scores(logs, "aps")[np.arange(len(targets)), targets][second]
    assert entry.sets.thresholds[0] == pytest.approx(conformal.threshold(own, 0.8), abs=1e-5)
    energies = -np.log(np.exp(outputs[second]).sum(axis=1))
    assert entry.familiarity.threshold == pytest.approx(conformal.threshold(energies, 0.9), abs=1e-4)
    assert entry.samples == len(targets) // 2 and entry.sets.samples == len(second)


def test_eval_reports_the_decisions_that_it_writes(run: RunFolder) -> None:
    calibrate(run, method="none", coverage=0.8, max_error=0.6, unfamiliar=0.1)
    found = dlkit.evaluate(run)
    lines = [json.loads(line) for line in (run.path / "predictions.jsonl").read_text().splitlines()]
    accepted = [line for line in lines if not line["abstained"]]
    wrong = [line for line in accepted if line["predicted"] != line["target"]]
    assert found.metrics["set_coverage"].value == sum(line["target"] in line["set"] for line in lines) / len(lines)
    assert found.metrics["set_size"].value == pytest.approx(sum(len(line["set"]) for line in lines) / len(lines))
    assert found.metrics["accepted"].value == len(accepted) / len(lines)
    assert found.metrics["selective_risk"].value == len(wrong) / len(accepted)
    assert found.metrics["unfamiliar"].value == sum(line["unfamiliar"] for line in lines) / len(lines)
    assert abs(found.metrics["set_coverage"].value - 0.8) < 0.12
    assert "ece_uncalibrated" not in found.metrics and (run.path / "plots" / "risk_coverage.png").is_file()


def test_records_of_predict_have_the_decision_and_abstain_leaves_out_classes(
    run: RunFolder, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(run, method="none", coverage=0.8, max_error=0.6, unfamiliar=0.1)
    documents = [one.document() for one in answers(dlkit.predict(run, images))]
    assert all({"set", "abstained", "unfamiliar"} <= document.keys() for document in documents)
    assert {document["abstained"] for document in documents} == {True, False}
    kept = [one.document() for one in answers(dlkit.predict(run, images, abstain=True))]
    assert [not document["predictions"] for document in kept] == [document["abstained"] for document in documents]

    capsys.readouterr()
    assert dlkit_command(["predict", "--run", str(run.path), *images[:2], "--topk", "1", "--format", "csv"]) == 0
    header, first, _ = capsys.readouterr().out.splitlines()
    assert header == "path,rank,class,index,probability,set,abstained,unfamiliar,error"
    assert first.split(",")[5] == "|".join(documents[0]["set"])


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_exported_files_answer_as_the_calibrated_run(
    run: RunFolder, images: list[str], method: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    calibrate(run, method=method)
    expected = [one.predictions[0].probability for one in answers(dlkit.predict(run, images))]
    files = [export(run, to=to, output=tmp_path / f"m.{to}") for to in ("onnx", "safetensors")]
    files += [export(run, to="onnx", raw=True, output=tmp_path / "raw.onnx")]
    export(run, to="torch_export", output=tmp_path / "m.pt2")  # is compared with the run before it is kept
    for file in files:
        found = [one.predictions[0].probability for one in answers(dlkit.predict(None, images, model=str(file.path)))]
        assert found == pytest.approx(expected, abs=1e-4), file.path.name


def test_a_calibration_of_another_checkpoint_is_refused_by_name(run: RunFolder, images: list[str]) -> None:
    from dlkit.training.train import resume_run

    calibrate(run, checkpoint="last")
    if run.checkpoint_step("best") != run.checkpoint_step("last"):
        with pytest.raises(ModelFileError, match=r"calibration.json is the calibration of the checkpoint of step"):
            dlkit.evaluate(run, write=False)
    resume_run(run, changes={"train.epochs": 13}, inexact=False, say=str, progress=False)
    with pytest.raises(ModelFileError, match=r"not of that of step 130.*dlkit calibrate .* --checkpoint last"):
        list(dlkit.predict(run, images, checkpoint="last"))
    calibrate(run, checkpoint="last")
    assert answers(dlkit.predict(run, images, checkpoint="last"))


def test_a_calibration_of_another_run_or_a_changed_byte_is_refused(run: RunFolder, tmp_path: Path) -> None:
    calibrate(run)
    path = run.path / record.FILE
    document = dict(record.documents.read(path))
    path.write_text(path.read_text().replace('"method": "temperature"', '"method": "none"'))
    with pytest.raises(ModelFileError, match="does not match its digest"):
        restore(run)
    record.documents.write(path, {**document, "run_id": "another"})
    with pytest.raises(ModelFileError, match="calibration of another run"):
        restore(run)


def test_none_removes_the_calibration_and_an_evaluation_before_it_is_stale(run: RunFolder) -> None:
    from dlkit.evaluation.record import read_evaluation, staleness

    plain = dlkit.evaluate(run)
    assert staleness(run, read_evaluation(run)) == ""
    calibrate(run)
    assert "calibrated" in staleness(run, read_evaluation(run))
    assert calibrate(run, method="none").calibration is None
    assert not (run.path / record.FILE).exists() and staleness(run, read_evaluation(run)) == ""
    assert dlkit.evaluate(run, write=False).metrics == plain.metrics


def test_the_test_split_is_never_read(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlkit.evaluation import calibrate as module

    splits = []
    original = module.load_split

    def noted(run: RunFolder, data: Any, split: str, *others: Any) -> Any:
        splits.append(split)
        return original(run, data, split, *others)

    monkeypatch.setattr(module, "load_split", noted)
    calibrate(run, coverage=0.8)
    assert splits == ["validation"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"coverage": 0.999}, DataError, r"--coverage 0.999 needs 1,998 validation samples \(999 beside as many"),
        ({"coverage": 0.999, "method": "none"}, DataError, r"0.999 needs 999 validation samples, and there are 3"),
        ({"max_error": 0.01, "method": "none"}, DataError, r"--max-error 0.01 needs 597 validation samples"),
        ({"max_error": 0.05, "method": "none"}, DataError, r"no threshold bounds the error rate by 0.05: the best"),
        ({"unfamiliar": 0.001}, DataError, "--unfamiliar 0.001 needs"),
        ({"coverage": 0.98, "class_conditional": True, "method": "none"}, DataError, "needs 49 validation samples"),
        ({"coverage": 1.0}, UsageError, "--coverage 1: it is a share"),
        ({"max_error": 0.0}, UsageError, "--max-error 0: it is a share"),
        ({"class_conditional": True}, UsageError, "Add --coverage"),
        ({"method": "platt"}, UsageError, "--method platt: there is none"),
        ({"sets": "lacc"}, UsageError, "Did you mean 'lac'"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line_with_the_number_needed(
    run: RunFolder, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        calibrate(run, **options)
    assert not (run.path / record.FILE).exists()


def test_abstaining_without_a_threshold_and_networks_without_logits_are_refused(
    run: RunFolder, images: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--abstain needs a threshold"):
        dlkit.predict(run, images, abstain=True)
    settings = {"data.options.train": 80, "data.options.test": 8, "model.options.hidden": "8", "loss.name": "mse"}
    squared = dlkit.train("mlp", dataset="shapes", epochs=1, settings=settings, name="mse", runs_dir=tmp_path)
    with pytest.raises(UsageError, match="trained with mse"):
        calibrate(squared)


def test_a_network_of_independent_classes_is_calibrated(tmp_path: Path) -> None:
    settings = {"data.options.train": 300, "model.options.hidden": "32", "loss.name": "bce", "data.validation": 0.5}
    run = dlkit.train("mlp", dataset="shapes", epochs=10, lr=0.003, settings=settings, name="b", runs_dir=tmp_path)
    before = dlkit.evaluate(run, write=False)
    calibrate(run, coverage=0.8, sets="aps", unfamiliar=0.1)
    after = dlkit.evaluate(run, write=False)
    assert after.metrics["loss"].value < before.metrics["loss"].value
    assert abs(after.metrics["set_coverage"].value - 0.8) < 0.1 and "unfamiliar" in after.metrics


def test_ece_of_eval_is_that_of_netcal(run: RunFolder) -> None:
    oracle = pytest.importorskip("netcal.metrics")
    confidences, correct = torch.rand(500, dtype=torch.float64), torch.rand(500) < 0.5
    expected = oracle.ECE(bins=metrics.CALIBRATION_BINS).measure(confidences.numpy(), correct.numpy().astype(int))
    found = metrics.expected_calibration_error(metrics.calibration_bins(confidences, correct))
    assert found == pytest.approx(expected, abs=1e-6)
