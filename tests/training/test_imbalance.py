"""Losses and samplers against class imbalance: each equals its formula, an oracle, or a loop by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import in_two_processes, same_bits, tiny

from dlkit.config import schema
from dlkit.config.ablation_parts import parts, without
from dlkit.config.resolve import resolve
from dlkit.errors import UsageError
from dlkit.runs.run_folder import RunFolder
from dlkit.training import losses
from dlkit.training.losses import ClassCounts, build, class_weights, focal
from dlkit.training.train import resume_run

CLASSES = ClassCounts(("a", "b", "c"), torch.tensor([90, 9, 1]))
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 3, generator=GENERATOR)
TARGETS = torch.randint(0, 3, (40,), generator=GENERATOR)


def weights(**settings: Any) -> torch.Tensor:
    found = class_weights(schema.Loss(**settings), CLASSES)
    assert found is not None
    return found


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    oracle = pytest.importorskip("sklearn.utils.class_weight")
    targets = np.repeat([0, 1, 2], CLASSES.counts)
    expected = oracle.compute_class_weight("balanced", classes=np.arange(3), y=targets)
    assert weights(class_weights="balanced").tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_sqrt_and_effective_weights_follow_their_formulas(beta: float) -> None:
    counts = CLASSES.counts.tolist()
    formulas = {"sqrt": [n**-0.5 for n in counts], "effective": [(1 - beta) / (1 - beta**n) for n in counts]}
    for kind, raw in formulas.items():
        scale = sum(counts) / sum(n * w for n, w in zip(counts, raw, strict=True))
        found = weights(class_weights=kind, effective_beta=beta)
        assert found.tolist() == pytest.approx([scale * w for w in raw], rel=1e-5), kind


@pytest.mark.parametrize("kind", ["balanced", "sqrt", "effective"])
def test_the_mean_weight_of_a_training_sample_is_1_and_an_absent_class_has_none(kind: str) -> None:
    counts = ClassCounts("abcd", torch.tensor([50, 0, 3, 7]))
    found = class_weights(schema.Loss(class_weights=kind), counts)  # type: ignore[arg-type]
    assert found is not None and found[1] == 0
    assert float((found * counts.counts).sum() / counts.counts.sum()) == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_weighted_cross_entropy_is_torchs(smoothing: float) -> None:
    own = {"a": 0.5, "b": 2.0, "c": 3.0}
    loss = build(schema.Loss(class_weights=own, label_smoothing=smoothing), CLASSES)
    oracle = torch.nn.CrossEntropyLoss(torch.tensor([0.5, 2.0, 3.0]), reduction="none", label_smoothing=smoothing)
    assert torch.equal(loss(LOGITS, TARGETS), oracle(LOGITS, TARGETS))


@pytest.mark.parametrize("name", ["mse", "bce"])
def test_other_losses_are_multiplied_by_the_weight_of_the_target(name: str) -> None:
    weighted = build(schema.Loss(name=name, class_weights={"a": 0.5, "b": 2.0, "c": 3.0}), CLASSES)  # type: ignore[arg-type]
    plain = build(schema.Loss(name=name))  # type: ignore[arg-type]
    expected = plain(LOGITS, TARGETS) * torch.tensor([0.5, 2.0, 3.0])[TARGETS]
    assert torch.allclose(weighted(LOGITS, TARGETS), expected)


def test_focal_loss_equals_a_loop_by_hand_and_at_gamma_0_the_cross_entropy() -> None:
    found = build(schema.Loss(focal_gamma=2.0))(LOGITS, TARGETS).tolist()
    for row, target, value in zip(LOGITS.tolist(), TARGETS.tolist(), found, strict=True):
        p = math.exp(row[target]) / sum(map(math.exp, row))
        assert value == pytest.approx(-((1 - p) ** 2) * math.log(p), rel=1e-4)
    for smoothing in (0.0, 0.3):
        plain = build(schema.Loss(label_smoothing=smoothing))(LOGITS, TARGETS)
        assert torch.allclose(focal(LOGITS, TARGETS, 0.0, smoothing), plain, atol=1e-6)


def test_focal_loss_has_finite_gradients_where_the_answer_is_certain() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    build(schema.Loss(focal_gamma=0.5))(logits, torch.tensor([0, 0])).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_logit_adjustment_is_the_cross_entropy_of_shifted_logits() -> None:
    loss = build(schema.Loss(logit_adjustment=1.5), CLASSES)
    shift = 1.5 * torch.log(torch.tensor([0.90, 0.09, 0.01]))
    expected = torch.nn.functional.cross_entropy(LOGITS + shift, TARGETS, reduction="none")
    assert torch.allclose(loss(LOGITS, TARGETS), expected, atol=1e-6)


@pytest.mark.parametrize(("strength", "expected"), [(0.0, [0.90, 0.09, 0.01]), (1.0, [1 / 3, 1 / 3, 1 / 3])])
def test_logit_adjustment_learns_the_answer_of_balanced_classes(strength: float, expected: list[float]) -> None:
    """Logits that do not depend on the input learn ln π from the cross entropy, and equal logits if it is adjusted."""
    targets = torch.repeat_interleave(torch.arange(3), CLASSES.counts)
    loss, logits = build(schema.Loss(logit_adjustment=strength), CLASSES), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits.expand(len(targets), 3), targets).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert logits.detach().softmax(dim=0).tolist() == pytest.approx(expected, abs=0.005)


def test_the_validation_loss_has_no_weights(tmp_path: Path) -> None:
    """Of a network that does not learn, as its lr is tiny, val/loss is the same with every correction of train/loss."""
    lines = []
    for name, settings in (("plain", {}), ("weighted", {"loss.class_weights": "balanced", "loss.focal_gamma": 2.0})):
        run = tiny(tmp_path, name, **settings, **{"optimizer.lr": 1e-12, "train.epochs": 1})
        lines.append(run.metrics()[-1])
    assert lines[0]["val/loss"] == pytest.approx(lines[1]["val/loss"], abs=1e-5)
    assert lines[0]["train/loss"] > 1.1 * lines[1]["train/loss"]


def test_macro_f1_and_balanced_accuracy_are_those_of_eval_and_choose_the_best_epoch(tmp_path: Path) -> None:
    import dlkit

    for metric in ("macro_f1", "balanced_accuracy"):
        monitor = f"val/{metric}"
        run = tiny(tmp_path, metric, **{"train.monitor": monitor, "train.epochs": 4, "data.validation": 0.4})
        values = [line[monitor] for line in run.metrics()]
        assert run.info()["best"]["value"] == max(values) and run.info()["monitor"] == monitor
        found = dlkit.evaluate(run, split="validation", write=False, checkpoint="last")
        assert found.metrics[metric].value == pytest.approx(values[-1], abs=1e-12)


@pytest.mark.slow
def test_two_ranks_log_the_class_averages_of_one(tmp_path: Path) -> None:
    one = tiny(tmp_path, "one", **{"train.monitor": "val/macro_f1", "data.sampler": "balanced"})
    two = in_two_processes(one)
    first, second = one.metrics()[0], two.metrics()[0]
    assert first["val/balanced_accuracy"] == pytest.approx(second["val/balanced_accuracy"], abs=0.13)
    assert 0 <= second["val/macro_f1"] <= 1


def test_a_run_with_a_balanced_sampler_that_was_stopped_in_mid_epoch_ends_bit_for_bit_alike(tmp_path: Path) -> None:
    from dataclasses import replace

    from dlkit.errors import StoppedError
    from dlkit.training.train import NOBODY, train_recipe

    settings: dict[str, Any] = {
        "data.sampler": "balanced", "loss.focal_gamma": 1.0, "data.augment.crop_padding": 2, "train.epochs": 3
    }  # fmt: skip
    whole = tiny(tmp_path, "whole", **settings)
    with pytest.raises(StoppedError):
        train_recipe(
            whole.recipe(), name="cut", runs_dir=tmp_path, argv=[], say=str, progress=False,
            watch=replace(NOBODY, steps=7),
        )  # fmt: skip
    cut = RunFolder(tmp_path / "cut")
    assert cut.checkpoint_step("last") == 7
    resume_run(cut, changes={}, inexact=False, say=str, progress=False)
    assert same_bits(whole, cut)


def test_a_file_of_weights_is_written_into_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    names = ("circle", "square", "triangle")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("class", "weight"), *((name, number) for number, name in enumerate(names, 1))])
    recipe = resolve("mlp", "shapes", flags={"loss.class_weights": str(path)}).recipe
    path.unlink()
    assert recipe.loss.class_weights == {"circle": 1.0, "square": 2.0, "triangle": 3.0}
    assert schema.Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no class weights"),
        ("a,1\nb\n", ":2: 'b' is no class"),
        ("a,-1\nb,2\n", ":1: 'a,-1' is no class"),
        ("a,1\na,2\n", ":2: 'a,2' is the second of its class"),
        ("a,1\nb,nan\n", ":2: 'b,nan' is no class and weight"),
    ],
)
def test_a_bad_file_of_weights_is_one_line_that_names_it(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        resolve("mlp", "shapes", flags={"loss.class_weights": str(path)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.class_weights": "balancd"}, "Did you mean 'balanced'"),
        ({"loss.class_weights": "balanced", "data.sampler": "balanced"}, "correct twice"),
        ({"loss.logit_adjustment": 1.0, "data.sampler": "balanced"}, "correct twice"),
        ({"loss.focal_gamma": 2.0, "loss.name": "mse"}, "goes with cross_entropy"),
        ({"loss.logit_adjustment": 2.0, "loss.name": "bce"}, "goes with cross_entropy"),
        ({"data.sampler": "balance"}, "Did you mean 'balanced'"),
        ({"train.monitor": "val/macrof1"}, "Did you mean 'val/macro_f1'"),
    ],
)
def test_contradictions_and_typos_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("mlp", "shapes", flags=settings)


def test_weights_of_other_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="has no class 'z'"):
        losses.class_weights(schema.Loss(class_weights={"z": 1.0}), CLASSES)
    with pytest.raises(UsageError, match="no weight for 2 of the classes: b, c"):
        losses.class_weights(schema.Loss(class_weights={"a": 1.0}), CLASSES)


def test_an_ablation_can_leave_each_of_them_out() -> None:
    for settings in ({"loss.class_weights": "sqrt", "loss.focal_gamma": 1.0}, {"loss.logit_adjustment": 1.0}):
        recipe = resolve("mlp", "shapes", flags=settings).recipe
        for key in settings:
            name = key.split(".")[1]
            assert getattr(without(recipe, parts(recipe)[name]).loss, name) == getattr(schema.Loss(), name)
    recipe = resolve("mlp", "shapes", flags={"data.sampler": "balanced"}).recipe
    assert without(recipe, parts(recipe)["sampler"]).data.sampler == "uniform"
