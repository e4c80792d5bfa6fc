"""Monte Carlo dropout: the formulas, and answers that depend on the image and the seed alone."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shapes_on_disk import form, write_folder
from torch import Tensor, nn

import dlkit
from dlkit import metrics
from dlkit.errors import UsageError
from dlkit.evaluation.mc_dropout import check_model, passes_of
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.evaluation.result import Evaluation
from dlkit.runs.run_folder import RunFolder
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"
UNCERTAINTY = ("predictive_entropy", "mutual_information")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """An mlp with dropout after one epoch over a few hundred shapes."""
    settings = {"data.options.train": 320, "data.options.test": 160, "model.options.hidden": "32"}
    yield dlkit.train(
        "mlp", dataset="shapes", epochs=1, batch_size=32, name="dropping",
        settings={**settings, "model.options.dropout": 0.5}, runs_dir=tmp_path_factory.mktemp("mc") / "runs",
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluation(run: RunFolder) -> Evaluation:
    return dlkit.evaluate(run, mc_dropout=8)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout2d(0.3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(8 * 36, 5)).eval()


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


# -- the formulas


def test_passes_that_agree_share_no_information_and_passes_that_differ_wholly_share_all_of_it() -> None:
    sure, even = [1.0, 0.0], [0.5, 0.5]
    passes = torch.tensor([[sure, even, sure], [sure[::-1], even, sure]], dtype=torch.float64).log()  # (2, 3, 2)
    assert metrics.mean_of_passes(passes).exp().tolist() == [pytest.approx(even), pytest.approx(even), sure]
    assert metrics.predictive_entropies(passes).tolist() == pytest.approx([math.log(2), math.log(2), 0])
    assert metrics.mutual_informations(passes).tolist() == pytest.approx([math.log(2), 0, 0])


def test_entropy_and_information_are_what_a_loop_by_hand_finds() -> None:
    passes = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    for sample in range(3):
        p = [[math.exp(value) for value in passes[number, sample].tolist()] for number in range(4)]
        mean = [sum(row[k] for row in p) / 4 for k in range(5)]
        entropy = -sum(value * math.log(value) for value in mean)
        expected = -sum(value * math.log(value) for row in p for value in row) / 4
        assert float(metrics.predictive_entropies(passes)[sample]) == pytest.approx(entropy)
        assert float(metrics.mutual_informations(passes)[sample]) == pytest.approx(entropy - expected)


def test_auroc_counts_pairs_and_ties_as_half() -> None:
    scores = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.5, 0.2])
    positive = torch.tensor([False, True, False, True, True, False])
    pairs = [(a, b) for a, p in zip(scores, positive, strict=True) if p
             for b, q in zip(scores, positive, strict=True) if not q]  # fmt: skip
    expected = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
    assert metrics.auroc(scores, positive) == pytest.approx(expected) and len(pairs) == 9
    assert math.isnan(metrics.auroc(scores, torch.zeros(6, dtype=torch.bool)))


# -- the passes


def test_an_image_is_answered_alike_alone_in_a_batch_and_in_another_order() -> None:
    model, order = network(), [3, 0, 5, 2, 4, 1]
    together = passes_of(model, images(), 5, seed=7)
    alone = torch.cat([passes_of(model, image[None], 5, seed=7) for image in images()], dim=1)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(passes_of(model, images()[order], 5, seed=7), together[:, order], rtol=1e-5, atol=1e-5)


def test_passes_differ_and_more_of_them_begin_with_the_same() -> None:
    model = network()
    found = passes_of(model, images(), 5, seed=7)
    assert torch.equal(found, passes_of(model, images(), 9, seed=7)[:5])
    assert not any(torch.equal(found[one], found[other]) for one in range(5) for other in range(one))
    assert not torch.equal(found, passes_of(model, images(), 5, seed=8))


def test_each_unit_drops_as_often_as_its_layer_says_and_the_mean_stays() -> None:
    seen: list[Tensor] = []
    drop = nn.Dropout(0.3)
    keep = nn.Identity()
    keep.register_forward_hook(lambda module, args, output: seen.append(output))
    passes_of(nn.Sequential(drop, keep).eval(), torch.ones(1, 50), 400, seed=0)
    units = torch.cat(seen)  # (400, 50)
    assert units.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((units == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert ((units == 0).float().mean(dim=0) - 0.3).abs().max() < 0.1  # each of them, about 4 deviations


def test_channels_drop_whole_where_the_layer_drops_channels() -> None:
    seen: list[Tensor] = []
    keep = nn.Identity()
    keep.register_forward_hook(lambda module, args, output: seen.append(output))
    passes_of(nn.Sequential(nn.Dropout2d(0.5), keep, nn.Flatten()).eval(), torch.ones(2, 16, 3, 3), 4, seed=0)
    sums = torch.stack(seen).sum(dim=(3, 4))
    assert set(sums.unique().tolist()) == {0.0, 18.0}


def test_a_layer_that_is_called_twice_draws_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.drop(x), self.drop(x)], dim=1)

    found = passes_of(Twice().eval(), torch.ones(1, 64), 1, seed=0)[0, 0]
    assert not torch.equal(found[:64], found[64:])


def test_all_but_dropout_stays_as_in_evaluation_and_nothing_is_left_behind() -> None:
    model = network()
    before, state = model(images()), {key: value.clone() for key, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    passes_of(model, images(), 3, seed=0)
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(model(images()), before) and not model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_model_without_dropout_is_refused() -> None:
    for layers in ([nn.Flatten()], [nn.Flatten(), nn.Dropout(0.0)]):
        with pytest.raises(UsageError, match="needs dropout, and it has none"):
            check_model(nn.Sequential(*layers), "it")


# -- eval and predict


def test_eval_does_not_depend_on_the_batch_size(run: RunFolder, evaluation: Evaluation) -> None:
    other = dlkit.evaluate(run, mc_dropout=8, batch_size=7, write=False)
    assert (other.confusion == evaluation.confusion).all()
    for name, metric in evaluation.metrics.items():
        assert other.metrics[name].value == pytest.approx(metric.value, abs=1e-5), name


def test_eval_measures_what_its_predictions_say(run: RunFolder, evaluation: Evaluation) -> None:
    lines = [json.loads(line) for line in (run.path / "predictions.jsonl").read_text().splitlines()]
    wrong = torch.tensor([line["predicted"] != line["target"] for line in lines])
    assert 0 < int(wrong.sum()) < len(lines) == 160
    for name in UNCERTAINTY:
        values = torch.tensor([line[name] for line in lines], dtype=torch.float64)
        assert evaluation.metrics[name].value == pytest.approx(float(values.mean()))
        assert evaluation.metrics[f"{name}_error_auroc"].value == pytest.approx(metrics.auroc(values, wrong))
    assert 0 < evaluation.metrics["mutual_information"].value < evaluation.metrics["predictive_entropy"].value


def test_the_document_gains_keys_only_where_passes_are_asked_for(run: RunFolder, evaluation: Evaluation) -> None:
    assert form(evaluation.document()) == json.loads((GOLDEN / "eval_mc_dropout.json").read_text())
    plain = dlkit.evaluate(run, write=False)
    assert form(plain.document()) == json.loads((GOLDEN / "eval.json").read_text())
    assert plain.metrics["loss"].value != evaluation.metrics["loss"].value


def test_predict_says_of_an_image_what_eval_says(run: RunFolder, evaluation: Evaluation, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (run.path / "predictions.jsonl").read_text().splitlines()]
    paths = write_folder(tmp_path, "test")[::13]
    for answer in predict(run, paths, mc_dropout=8, batch_size=5):
        assert isinstance(answer, Prediction)
        line = lines[int(Path(answer.path).stem)]
        assert answer.predictions[0].name == line["predicted"]
        assert answer.predictions[0].probability == pytest.approx(line["probability"], abs=1e-5)
        assert {name: answer.document()[name] for name in UNCERTAINTY} == pytest.approx(
            {name: line[name] for name in UNCERTAINTY}, abs=1e-5
        )


def test_predictions_gain_keys_only_where_passes_are_asked_for(run: RunFolder, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "predict.json").read_text())
    (path,) = write_folder(tmp_path, "test", count=1)
    documents = [next(iter(predict(run, path, mc_dropout=passes))).document() for passes in (None, 3)]
    assert form(documents[0]) == golden["answer"] and list(documents[1])[:4] == list(golden["answer"])
    assert form(documents[1]) == json.loads((GOLDEN / "predict_mc_dropout.json").read_text())


def test_the_commands_take_passes_and_show_the_uncertainty(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write_folder(tmp_path, "test", count=1)
    assert dlkit_command(["eval", str(run.path), "--no-write", "--mc-dropout", "3", "--format", "csv"]) == 0
    assert "\nmutual_information," in capsys.readouterr().out
    assert dlkit_command(["predict", str(path), "--run", str(run.path), "--mc-dropout", "3", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 5 and all(float(row[name]) > 0 for row in rows for name in UNCERTAINTY)


@pytest.mark.parametrize("passes", ["0", "-3", "1001"])
def test_a_number_of_passes_that_makes_no_sense_is_refused(
    run: RunFolder, passes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write_folder(tmp_path, "test", count=1)
    for command in (["eval", str(run.path)], ["predict", str(path), "--run", str(run.path)]):
        assert dlkit_command([*command, "--mc-dropout", passes]) == UsageError.exit_code
        assert f"--mc-dropout {passes}" in capsys.readouterr().err


def test_the_commands_refuse_a_run_without_dropout(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write_folder(tmp_path, "test", count=1)
    for command in (["eval", str(tiny_run.path), "--no-write"], ["predict", str(path), "--run", str(tiny_run.path)]):
        assert dlkit_command([*command, "--mc-dropout", "3"]) == UsageError.exit_code
        out, err = capsys.readouterr()
        assert len(out.splitlines()) <= 1  # a header
        assert "needs dropout" in err and len(err.strip().splitlines()) == 1
