"""The link function: the loss defines the probability, and every command and exported graph computes the same one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from corpus import encoded, picture

import dlkit
from dlkit.config.resolve import resolve
from dlkit.data.batches import normalize
from dlkit.data.images import decode, resize_crop
from dlkit.data.link import log_probabilities, probabilities
from dlkit.errors import UsageError
from dlkit.evaluation.evaluate import evaluate
from dlkit.evaluation.exported_file import evaluate_file
from dlkit.evaluation.predict import predict
from dlkit.experiments.baseline import fit_baseline
from dlkit.explanation.explain import explain
from dlkit.export.export import export
from dlkit.export_metadata import ExportMetadata
from dlkit.runs.run_folder import RunFolder
from dlkit.serve.model import open_model
from dlkit.specs import LINKS, Link
from dlkit.training.restore import restore

OUTPUTS = torch.tensor(
    [[2.0, -1.0, 0.5], [0.0, 0.0, 3.0], [-1.0, -0.2, -5.0], [0.3, 0.9, 0.0], [1e3, -1e3, 0.0]], dtype=torch.float64
)
PICTURES = [encoded(picture(seed=seed), "PNG") for seed in range(3)]


@pytest.mark.parametrize(
    ("link", "oracle"),
    [
        ("softmax", lambda x: torch.softmax(x, 1)),
        ("sigmoid", torch.sigmoid),
        ("clip", lambda x: torch.tensor([[2 / 3, 0, 1 / 3], [0, 0, 1], [1 / 3] * 3, [0.25, 0.75, 0], [1, 0, 0]])),
    ],
)
def test_each_link_is_its_formula_in_torch_and_in_numpy(link: Link, oracle: Callable[[Any], Any]) -> None:
    expected = oracle(OUTPUTS).double()
    torch.testing.assert_close(probabilities(OUTPUTS, link), expected, rtol=1e-7, atol=1e-12)
    with np.errstate(all="raise", under="ignore"):
        logs = log_probabilities(OUTPUTS.numpy(), link)
    np.testing.assert_allclose(np.exp(logs), expected, rtol=1e-7, atol=1e-12)
    broken = OUTPUTS.clone()
    broken[0, 1] = torch.nan
    assert probabilities(broken, link)[0].isnan().any() and np.isnan(log_probabilities(broken.numpy(), link)[0]).any()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """One of each loss; its dropout is so rare that Monte Carlo dropout answers like the network itself."""
    folder = tmp_path_factory.mktemp("links") / "runs"
    settings = {"data.options.train": 160, "data.options.test": 80, "model.options.hidden": "16"}
    return {
        loss: dlkit.train(
            "mlp", dataset="shapes", epochs=1, batch_size=32, name=loss, runs_dir=folder,
            settings={**settings, "loss.name": loss, "model.options.dropout": 1e-9},
        )
        for loss in LINKS
    }  # fmt: skip


def expected_probabilities(run: RunFolder, pixels: Any) -> torch.Tensor:
    restored = restore(run, device="cpu")
    with torch.inference_mode():
        outputs = restored.model(normalize(torch.from_numpy(pixels), restored.image_spec)).double()
    return probabilities(outputs, restored.link)


def prepared(run: RunFolder) -> Any:
    spec = restore(run, device="cpu").image_spec
    return np.stack([resize_crop.prepare(decode.decode(data, 3), spec) for data in PICTURES])


def rows_of(answers: Any, classes: int) -> torch.Tensor:
    """Probabilities in the order of the classes, (N, K)."""
    rows = torch.zeros(len(PICTURES), classes, dtype=torch.float64)
    for row, answer in zip(rows, answers, strict=True):
        for ranked in answer.predictions:
            row[ranked.index] = ranked.probability
    return rows


@pytest.mark.parametrize("loss", LINKS)
def test_all_commands_give_the_same_probabilities(loss: str, runs: dict[str, RunFolder]) -> None:
    run = runs[loss]
    expected = expected_probabilities(run, prepared(run))
    k = expected.shape[1]
    served = open_model(run, "best", "cpu", run.path.parent, str)
    found = {
        "predict": predict(run, PICTURES, topk=k),
        "mc_dropout": predict(run, PICTURES, topk=k, mc_dropout=2),
        "serve": (served.predict.process(data) for data in PICTURES),
        "weights": predict(None, PICTURES, model="mlp", weights=run.path, topk=k),
    }
    for name, answers in found.items():
        assert abs(rows_of(answers, k) - expected).max() <= 1e-6, name
    explained = explain(run, PICTURES, method="saliency", write=False)
    assert [answer.probability for answer in explained] == pytest.approx(expected.amax(1).tolist(), abs=1e-6)


@pytest.mark.parametrize("loss", LINKS)
def test_eval_gives_the_loss_of_training_with_and_without_passes(loss: str, runs: dict[str, RunFolder]) -> None:
    plain, passes = (evaluate(runs[loss], split="validation", write=False, mc_dropout=n).metrics for n in (None, 2))
    trained = runs[loss].metrics()[-1]
    assert (plain["loss"].value, plain["top1"].value) == pytest.approx((trained["val/loss"], trained["val/top1"]))
    for name in ("loss", "brier"):
        assert passes[name].value == pytest.approx(plain[name].value, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("loss", LINKS)
def test_exported_files_give_the_probabilities_and_the_figures_of_the_run(
    loss: str, runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    run = runs[loss]
    pixels = prepared(run)
    expected = expected_probabilities(run, pixels)
    figures = {name: asdict(metric) for name, metric in evaluate(run).metrics.items()}
    for to, name in (("onnx", "m.onnx"), ("safetensors", "m.safetensors")):
        path = export(run, to=to, output=tmp_path / name).path
        rows = rows_of(predict(None, PICTURES, model=str(path), topk=expected.shape[1]), expected.shape[1])
        assert abs(rows - expected).max() <= 1e-6, name
        of_file = {name: asdict(metric) for name, metric in evaluate_file(path).metrics.items()}
        assert of_file.keys() == figures.keys()
        for metric, values in figures.items():
            assert of_file[metric] == pytest.approx(values, abs=1e-5), (name, metric)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    of_graph = session.run(["probabilities"], {"images": pixels.transpose(0, 2, 3, 1)})[0]
    assert abs(of_graph - expected.numpy()).max() <= 1e-6
    assert len(session.get_outputs()) == (1 if loss == "cross_entropy" else 2)
    for options in ({"quantize": "int8"}, {"raw": True}, {"resize": True}, {"to": "torch_export"}):
        suffix = ".pt2" if "to" in options else ".onnx"
        assert export(run, output=tmp_path / f"other{suffix}", **options).entry["verified"]  # type: ignore[arg-type]


def test_a_file_without_a_link_is_read_as_softmax(tmp_path: Path, runs: dict[str, RunFolder]) -> None:
    document = ExportMetadata("mlp", runs["mse"].spec(), link="clip").document()
    assert ExportMetadata.from_json(json.dumps(document)).link == "clip"
    del document["output"]["link"]
    assert ExportMetadata.from_json(json.dumps(document)).link == "softmax"


def test_a_baseline_refuses_a_loss_that_it_is_not_fitted_by(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"loss.name is 'mse', but knn is fitted"):
        fit_baseline(
            resolve("knn", "shapes", flags={"loss.name": "mse"}).recipe,
            limit=None, name=None, runs_dir=tmp_path, argv=[], say=print,
        )  # fmt: skip
