"""Training runs, in process: tiny real models on made-up data."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from crash import gold_recipe
from PIL import Image
from tiny_training import in_two_processes, same_bits, tiny, weights
from torch import Tensor, nn

import dlkit
from dlkit import documents
from dlkit.data.loader import batches_in_order
from dlkit.errors import BusyError, DataError, DivergedError, ModelFileError, StorageError, UsageError
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint, inputs, loop, train
from dlkit.training import restore as restoring


def test_a_run_folder_holds_what_the_design_says(tmp_path: Path, rendered_figures: None) -> None:
    run = tiny(tmp_path)
    assert {path.name for path in run.path.iterdir()} >= {
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "checkpoints",
        "plots",
    }
    with Image.open(run.path / "plots" / "learning_curve.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
    assert os.readlink(tmp_path / "latest") == "a"
    info, last = run.info(), run.metrics()[-1]
    assert info["status"] == "finished" and info["data"]["train"]["samples"] == 72 and info["parameters"] > 0
    assert {"step", "epoch", "train/loss", "val/loss", "val/top1", "val/top5", "lr", "images_per_s"} <= last.keys()
    assert last["step"] == 10 and last["epoch"] == 2 and 0 <= last["val/top1"] <= 1


def test_the_recipe_in_a_run_repeats_it_bit_for_bit(tmp_path: Path) -> None:
    run = tiny(tmp_path, **{"train.ema": 0.9})
    again = dlkit.train(recipe=run.path / "recipe.yaml", name="b", runs_dir=tmp_path)
    assert same_bits(run, again)


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    assert not same_bits(tiny(tmp_path, "a"), tiny(tmp_path, "b", **{"train.seed": 1}))


def test_an_existing_name_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        tiny(tmp_path)
    assert (run.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("penalty", [{}, {"regularizers.l2.strength": 0.1}])
def test_accumulation_takes_the_same_steps(penalty: dict[str, float], tmp_path: Path) -> None:
    whole, parts = tiny(tmp_path, "a", **penalty), tiny(tmp_path, "b", **penalty, **{"train.accumulate": 4})
    one, four = weights(whole), weights(parts)
    for name in one:
        assert torch.allclose(one[name], four[name], atol=1e-5), name
    losses = [[line["train/loss"] for line in run.metrics()] for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_accumulation_changes_the_step_of_batch_norm_and_not_that_of_group_norm() -> None:
    """Batch norm's statistics are those of a part; the oracle is the gradient of the mean loss of the batch."""
    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(8) % 4
    for norm, changes in ((nn.BatchNorm2d(4), True), (nn.GroupNorm(2, 4), False)):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)).double()
        expected = torch.autograd.grad(
            nn.functional.cross_entropy(model(images.double()), targets), list(model.parameters())
        )
        for part in loop.Batch(images.double(), targets, torch.arange(8), total=8).parts(4):
            (nn.functional.cross_entropy(model(part.inputs), part.targets, reduction="sum") / part.total).backward()
        same = [torch.allclose(weight.grad, grad) for weight, grad in zip(model.parameters(), expected, strict=True)]  # type: ignore[arg-type]
        assert all(same) is not changes


def test_the_loss_that_is_told_holds_the_penalty(tmp_path: Path) -> None:
    still = {"optimizer.lr": 1e-12}
    plain = tiny(tmp_path, "a", **still)
    penalized = tiny(tmp_path, "b", **still, **{"regularizers.l2.strength": 0.1})
    squares = [
        value.square().sum() for name, value in weights(plain).items() if name.startswith("model/") and value.ndim > 1
    ]
    told = [run.metrics()[0]["train/loss"] for run in (plain, penalized)]
    assert told[1] - told[0] == pytest.approx(0.1 * 0.5 * float(sum(squares)), rel=1e-3) and squares


@pytest.mark.parametrize("mode", ["norm", "value"])
def test_clipping_bounds_the_gradient(mode: str) -> None:
    gradients = [torch.full((3,), 3.0), torch.full((4,), -4.0)]
    norm = torch.nn.utils.get_total_norm(gradients)
    settings = gold_recipe(**{"train.clip_grad": 0.5, "train.clip_mode": mode}).train
    loop.clip(gradients, norm, settings)
    together = torch.cat(gradients)
    assert (together.norm() if mode == "norm" else together.abs().max()).item() == pytest.approx(0.5, rel=1e-4)


def test_the_averaged_weights_follow_the_formula() -> None:
    model, averaged = nn.Linear(2, 1), nn.Linear(2, 1)
    before = averaged.weight.detach().clone()
    loop.average(averaged, model, 0.9, step=1000)
    assert torch.allclose(averaged.weight, 0.9 * before + 0.1 * model.weight)
    loop.average(averaged, model, 0.9, step=0)  # d = 1/10: early on it follows quickly
    assert torch.allclose(averaged.weight, 0.1 * (0.9 * before + 0.1 * model.weight) + 0.9 * model.weight)


def test_patience_ends_the_run_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    run = tiny(tmp_path, **{"train.epochs": 50, "train.patience": 2, "optimizer.lr": 1e-9})
    info = run.info()
    assert info["epochs"] == 3  # val/top1 never improves on the first epoch's; ties do not count as improvements
    assert info["best"]["step"] in checkpoint.saved_steps(run.checkpoints)


# (val/top1, val/loss) of each epoch, and the best epoch
EPOCHS = [
    ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),  # the monitored value decides
    ([(0.7, 1.0), (0.7, 0.5), (0.7, 0.8)], 2),  # then the lower loss
    ([(0.7, 0.5), (0.7, 0.5), (0.6, 0.5)], 2),  # then the later epoch
    ([(0.7, math.nan), (0.7, 0.5), (0.7, math.inf)], 2),
    ([(math.nan, 0.1), (0.2, 9.0)], 2),
]


@pytest.mark.parametrize(("epochs", "best"), EPOCHS)
def test_ties_go_to_the_lower_loss_and_then_to_the_later_epoch(epochs: list[tuple[float, float]], best: int) -> None:
    for monitor in ("val/top1", "val/loss"):
        run = SimpleNamespace(
            step=0, epochs_done=0, best=None, stale=0, settings=SimpleNamespace(monitor=monitor, select="best")
        )
        for top1, loss in epochs:
            run.epochs_done += 1
            loop.keep_best(run, {"val/top1": top1, "val/loss": loss})  # type: ignore[arg-type]
        if monitor == "val/top1":
            assert run.best.epoch == best
        else:
            finite = [loss for _, loss in epochs if math.isfinite(loss)]
            last = max(number for number, (_, loss) in enumerate(epochs, start=1) if loss == min(finite))
            assert run.best.epoch == last


def test_patience_counts_the_epochs_since_the_monitored_value_improved() -> None:
    run = SimpleNamespace(
        step=0, epochs_done=0, best=None, stale=0, settings=SimpleNamespace(monitor="val/top1", select="best")
    )
    for loss in (1.0, 0.9, 0.8):  # better and better, at the same accuracy
        loop.keep_best(run, {"val/top1": 0.5, "val/loss": loss})  # type: ignore[arg-type]
    assert run.stale == 2 and run.best.loss == 0.8


def test_a_checkpoint_without_the_loss_of_its_best_epoch_goes_on(tmp_path: Path) -> None:
    """As an older version wrote it."""
    run = tiny(tmp_path)
    for path in run.checkpoints.glob("*.json"):
        manifest = json.loads(path.read_text())
        if manifest["state"]["best"] is not None:
            del manifest["state"]["best"]["loss"]
        documents.write(path, {key: value for key, value in manifest.items() if key not in ("digest", "integrity")})
    train.resume_run(run, changes={"train.epochs": 3}, inexact=False, say=str, progress=False)
    assert run.info()["status"] == "finished" and run.info()["epochs"] == 3


def test_val_loss_is_the_loss_that_eval_reports(tmp_path: Path) -> None:
    """Without label smoothing, mixed targets and penalties, of the weights that eval uses."""
    for name in ("cross_entropy", "mse"):
        smoothing = {"loss.label_smoothing": 0.3} if name == "cross_entropy" else {}
        others = {"regularizers.mixup.alpha": 0.4, "regularizers.l2.strength": 0.1, "train.ema": 0.5, "loss.name": name}
        run = tiny(tmp_path, name, **smoothing, **others)
        restored = restoring.restore(run, "last")
        made = run.recipe()
        split = inputs.prepare(made, str).splits["validation"]
        batches = batches_in_order(split, restored.spec, 512, restored.device)
        logits, targets = next((restored.model(batch.inputs), batch.targets) for batch in batches)
        if name == "mse":
            expected = nn.functional.mse_loss(logits, nn.functional.one_hot(targets, logits.shape[1]).float())
        else:
            expected = nn.functional.cross_entropy(logits, targets)
        assert run.metrics()[-1]["val/loss"] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_never_reaches_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    original, steps = loop.forward_backward, 0

    def spoilt(run: loop.Run, batch: loop.Batch) -> tuple[Tensor, Tensor]:
        nonlocal steps
        steps += 1
        losses, correct = original(run, batch)
        if steps == 7 and place == "gradient":
            next(run.model.parameters()).grad.view(-1)[0] = math.inf  # type: ignore[union-attr]
        return (losses * math.nan if steps == 7 and place == "loss" else losses), correct

    monkeypatch.setattr(loop, "forward_backward", spoilt)
    with pytest.raises(DivergedError, match=r"step 7.*lr") as caught:
        tiny(tmp_path, **{"train.checkpoint_every": 3})
    assert caught.value.exit_code == 8
    run = RunFolder(tmp_path / "a")
    assert run.info()["status"] == "diverged"
    assert checkpoint.saved_steps(run.checkpoints)[-1] == 6
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(run).values() if tensor.is_floating_point())


@pytest.mark.parametrize(  # calls of fsync: in a payload, a manifest, a folder, a line of metrics
    ("call", "code"), [(20, errno.ENOSPC), (25, errno.EIO), (31, errno.ENOSPC), (38, errno.EIO)]
)
def test_a_disk_that_fills_up_in_a_run_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, code: int
) -> None:
    settings = {"train.checkpoint_every": 2, "train.log_every": 2}
    gold = tiny(tmp_path, "gold", **settings)
    original, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(code, os.strerror(code))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        tiny(tmp_path, **settings)
    assert caught.value.exit_code == 7 and "\n" not in str(caught.value)
    monkeypatch.setattr(os, "fsync", original)  # somebody made room
    run = RunFolder(tmp_path / "a")
    assert checkpoint.newest(run.checkpoints, run.info()["run_id"], str).step < 10
    train.resume_run(run, changes={}, inexact=False, say=str, progress=False)
    assert same_bits(run, gold) and len(run.metrics()) == len(gold.metrics())


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    before = (run.path / "metrics.jsonl").read_bytes()
    train.resume_run(run, changes={}, inexact=False, say=str, progress=False)
    assert (run.path / "metrics.jsonl").read_bytes() == before and run.info()["status"] == "finished"


def test_more_epochs_on_resume_go_on_from_the_end(tmp_path: Path) -> None:
    longer = {"schedule.name": "constant", "train.epochs": 4}
    run = tiny(tmp_path, "a", **{"schedule.name": "constant"})
    train.resume_run(run, changes={"train.epochs": 4}, inexact=False, say=str, progress=False)
    assert same_bits(run, tiny(tmp_path, "b", **longer)) and run.recipe().train.epochs == 4


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_more_epochs_on_resume_report_a_learning_rate_that_changes(tmp_path: Path, schedule: str) -> None:
    run, notes = tiny(tmp_path, **{"schedule.name": schedule}), list[str]()
    train.resume_run(run, changes={"train.epochs": 4}, inexact=False, say=notes.append, progress=False)
    reported = [note for note in notes if note.startswith("learning rate:")]
    if schedule == "constant":
        assert not reported
    else:
        assert len(reported) == 1 and "now spans 4 epochs, not 2: it goes on at 0.0005" in reported[0]


def test_a_second_trainer_of_a_run_is_refused(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    with run.locked(), pytest.raises(BusyError):
        train.resume_run(run, changes={}, inexact=False, say=str, progress=False)


def test_other_data_other_torch_and_no_checkpoint_are_refused_on_resume(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    info = run.info()
    broken = {
        DataError: {"data": {**info["data"], "train": {"samples": 72, "sha256": "0" * 64}}},
        ModelFileError: {"versions": {**info["versions"], "torch": "1.0"}},
    }
    for error, change in broken.items():
        run.update(**change)
        with pytest.raises(error):
            train.resume_run(run, changes={}, inexact=False, say=str, progress=False)
        run.update(**info)
    run.update(versions={**info["versions"], "torch": "1.0"})
    train.resume_run(run, changes={}, inexact=True, say=str, progress=False)
    assert run.info()["inexact"] is True
    run.update(**info)
    for path in run.checkpoints.glob("*.json"):
        path.unlink()
    with pytest.raises(ModelFileError):
        train.resume_run(run, changes={}, inexact=False, say=str, progress=False)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="not a folder"):
        tiny(tmp_path / "file" / "runs")
    with pytest.raises(UsageError):
        tiny(tmp_path, "../outside")
    assert os.listdir(tmp_path) == ["file"]


def test_bf16_and_channels_last_train_too(tmp_path: Path) -> None:
    run = dlkit.train(
        "simple_cnn",
        dataset="shapes",
        epochs=1,
        settings={"data.options.train": 80, "train.amp": "bf16", "train.channels_last": True, "train.threads": 1},
        name="a",
        runs_dir=tmp_path,
    )
    assert run.info()["precision"] == "bfloat16" and math.isfinite(run.metrics()[-1]["val/loss"])


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "bce"])
def test_every_loss_learns(tmp_path: Path, name: str) -> None:
    run = tiny(tmp_path, **{"loss.name": name, "train.epochs": 8, "train.monitor": "train/loss"})
    losses = [line["train/loss"] for line in run.metrics()]
    assert losses[-1] < losses[0]


def test_an_l2_penalty_is_in_the_loss_and_shrinks_the_weights(tmp_path: Path) -> None:
    plain, held = tiny(tmp_path, "a"), tiny(tmp_path, "b", **{"regularizers.l2.strength": 1.0})
    assert held.metrics()[-1]["train/loss"] > plain.metrics()[-1]["train/loss"]
    lengths = [
        sum(t.square().sum().item() for n, t in weights(run).items() if n.startswith("model/")) for run in (plain, held)
    ]
    assert lengths[1] < lengths[0]
    assert same_bits(plain, tiny(tmp_path, "c", **{"regularizers.l2.strength": 0.0}))


@pytest.mark.slow
def test_two_gloo_processes_end_like_one(tmp_path: Path) -> None:
    alike = {f"regularizers.{name}": {} for name in ("gradient_noise", "max_norm", "sam")}
    one = tiny(tmp_path, "one", **{"train.ema": 0.9, "data.augment.horizontal_flip": 0.5, **alike})
    two = in_two_processes(one)
    assert two.info()["world_size"] == 2
    first, second = weights(one), weights(two)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    for ours, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert ours["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-6) and ours["step"] == theirs["step"]


def test_the_norm_of_all_gradients_is_torchs() -> None:
    gradients = [torch.randn(3, 4), torch.randn(5), torch.randn(())]
    torch.testing.assert_close(loop.total_norm(gradients), torch.nn.utils.get_total_norm(gradients))
    assert loop.total_norm([]) == 0


def test_metrics_are_json_lines_with_increasing_steps(tmp_path: Path) -> None:
    run = tiny(tmp_path, **{"train.log_every": 2})
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5, 6, 8, 10]
    assert [line["epoch"] for line in lines] == [1, 1, 1, 2, 2, 2]
