"""What is looked at before a training: that it finds what is wrong, says nothing else, and changes no bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import TINY, same_bits, tiny
from torch import Tensor, nn

from dlkit.config.resolve import resolve
from dlkit.training import assembly, forecast, memory, preflight, train
from dlkit_cli import main

GOLDEN = Path(__file__).parents[1] / "golden"


class Broken(nn.Module):
    """A linear classifier with one fault."""

    def __init__(self, fault: str, classes: int) -> None:
        super().__init__()
        self.fault = fault
        self.output = nn.Linear(3 * 28 * 28, classes)
        self.unused = nn.Linear(4, 4) if fault == "unused" else None

    def forward(self, images: Tensor) -> Tensor:
        logits = self.output(images.flatten(1))
        return {"loud": logits * 100, "deaf": logits * 0}.get(self.fault, logits)


def use(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "build", lambda name, spec, options: Broken(fault, len(spec.classes)))


def looked_at(**settings: object) -> preflight.Preflight:
    return preflight.preflight(resolve("mlp", "shapes", flags={**TINY, **settings}).recipe, runs_dir=Path("."))


def results(found: preflight.Preflight) -> dict[str, str]:
    return {check.check: check.result for check in found.checks}


def test_a_good_recipe_passes_every_check() -> None:
    found = looked_at(**{"data.options.train": 1000})
    assert set(results(found).values()) == {"ok"} and len(found.checks) == 8 and found.failed == []
    assert found.epoch_s > 0 and found.run_s >= found.epoch_s and found.checkpoint_bytes > 1000
    document = found.document()
    golden = json.loads((GOLDEN / "check.json").read_text())
    assert {key: type(value).__name__ for key, value in document.items() if key != "checks"} == golden["document"]
    assert [list(row) for row in document["checks"]] == [golden["check"]] * 8


@pytest.mark.parametrize(
    ("fault", "check", "result"),
    [
        ("loud", "initial loss", "warning"), ("unused", "gradients", "warning"), ("deaf", "one batch", "failed"),
        ("deaf", "dead parameters", "warning"),
    ],
)  # fmt: skip
def test_each_fault_is_found(fault: str, check: str, result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(fault, monkeypatch)
    assert results(looked_at())[check] == result


def test_a_learning_rate_that_diverges_fails_on_one_batch() -> None:
    found = looked_at(**{"optimizer.lr": 1e30, "optimizer.name": "sgd"})
    assert "diverged" in next(check.found for check in found.failed)


def test_the_first_loss_of_a_guess_is_ln_classes() -> None:
    trial = small_trial()
    assert preflight.guessed(trial) == pytest.approx(math.log(8), abs=1e-6)
    assert preflight.first_loss(trial, math.nan, started=False).result == "warning"
    assert preflight.first_loss(trial, 0.1, started=False).result == "warning"
    assert preflight.first_loss(trial, 0.1, started=True).result == "ok"


def small_trial() -> preflight.Trial:
    from dlkit.training.distributed import World
    from dlkit.training.inputs import gather

    made = resolve("mlp", "shapes", flags=TINY).recipe
    return preflight.small_trial(gather(made, torch.device("cpu"), World(), Path(), str))


@pytest.mark.parametrize(("samples", "result"), [(1, "warning"), (99, "warning"), (100, "ok"), (5000, "ok")])
def test_a_validation_split_too_small_to_rank_epochs_is_reported(samples: int, result: str) -> None:
    """100 samples: the 95 % Wilson interval of an accuracy is at most 20 points wide."""
    for monitor in ("val/top1", "val/loss", "train/loss"):
        chosen = SimpleNamespace(train=SimpleNamespace(monitor=monitor, select="best"))
        data = SimpleNamespace(splits={"validation": range(samples)})
        checks = preflight.validation_size(SimpleNamespace(recipe=chosen, data=data))  # type: ignore[arg-type]
        assert [check.result for check in checks] == ([] if monitor == "train/loss" else [result])


@pytest.mark.parametrize(("smoothing", "classes"), [(0.1, 10), (0.3, 2), (0.0, 5)])
def test_the_least_loss_with_smoothed_labels_is_that_of_their_own_distribution(smoothing: float, classes: int) -> None:
    target = torch.full((classes,), smoothing / classes, dtype=torch.float64)
    target[0] += 1 - smoothing
    logits = target.clamp(min=1e-300).log()[None]
    loss = nn.functional.cross_entropy(logits, torch.tensor([0]), label_smoothing=smoothing)
    assert preflight.smoothing_entropy(smoothing, classes) == pytest.approx(loss.item(), abs=1e-9)


def test_a_glance_comes_before_every_run_says_only_what_is_wrong_and_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"model.options.dropout": 0.3, "train.ema": 0.9, "regularizers.mixup.alpha": 0.3}
    glances = counted(monkeypatch, train, "glance")
    looked = tiny(tmp_path, "a", **settings)
    assert len(glances) == 1
    monkeypatch.setattr(train, "glance", lambda *given: None)
    assert same_bits(looked, tiny(tmp_path, "b", **settings))
    said: list[str] = []
    monkeypatch.undo()
    train.train("mlp", dataset="shapes", settings={**TINY, "train.epochs": 1}, runs_dir=tmp_path, say=said.append)
    warnings = [line for line in said if line.startswith("warning")]  # of 80 images 8 are for validation
    assert len(warnings) == 1 and warnings[0].startswith("warning: validation: 8 samples: the 95 % interval")
    use("unused", monkeypatch)
    train.train("mlp", dataset="shapes", settings={**TINY, "train.epochs": 1}, runs_dir=tmp_path, say=said.append)
    assert [line for line in said if line.startswith("warning: gradients: none reaches unused.weight, unused.bias")]


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    calls: list[Any] = []
    original: Callable[..., Any] = getattr(module, name)

    def noted(*given: Any) -> Any:
        calls.append(given)
        return original(*given)

    monkeypatch.setattr(module, name, noted)
    return calls


def test_a_disk_without_room_for_two_checkpoints_is_told_before_a_run_and_before_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny(tmp_path)
    payload = max(path.stat().st_size for path in run.checkpoints.glob("*.safetensors"))
    said: list[str] = []

    def resumed(free: int) -> list[str]:
        monkeypatch.setattr(forecast, "free_at", lambda place: free)
        said.clear()
        train.resume_run(run, changes={}, inexact=False, say=said.append, progress=False)
        return [line for line in said if line.startswith("warning: disk: ")]

    assert len(resumed(payload)) == 1 and resumed(3 * payload) == []
    monkeypatch.setattr(forecast, "free_at", lambda place: 0)
    train.train("mlp", dataset="shapes", settings={**TINY, "train.epochs": 1}, runs_dir=tmp_path, say=said.append)
    assert [line for line in said if line.startswith("warning: disk: 0 MiB are free at ")]


def test_the_command_prints_a_table_writes_nothing_and_exits_12_where_a_check_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "mlp", "--dataset", "shapes", "--check", "--set", "data.options.train=80"]
    assert main.run(words) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[0] == "check\tresult\tfound\texpected" and len(out.splitlines()) == 9
    use("deaf", monkeypatch)
    assert main.run([*words, "--json"]) == 12
    out, err = capsys.readouterr()
    assert json.loads(out)["schema"] == "dlkit.check/1" and "1 of 8 checks failed: one batch: " in err
    assert list(tmp_path.iterdir()) == []


def test_the_peak_of_memory_is_seen_and_forgotten() -> None:
    device = torch.device("cpu")
    memory.forget_peak(device)
    free, taken = memory.available(device), memory.taken(device)
    if free is None or taken is None:
        pytest.skip("this system does not tell")
    torch.ones(64 << 20, dtype=torch.uint8)
    peak = memory.peak(device)
    assert peak is not None and peak >= taken + (60 << 20)
    memory.forget_peak(device)
    after = memory.peak(device)
    assert after is not None and after <= peak - (50 << 20)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.034, "0.034 s"), (9.96, "10 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_told_in_words(seconds: float, text: str) -> None:
    assert forecast.lasting(seconds) == text
