"""Trackers: what they show is metrics.jsonl, line by line and once, and they never change or stop a training."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_training import same_bits, tiny

from dlkit import atomic_io, registry
from dlkit.config.resolve import resolve
from dlkit.errors import UsageError
from dlkit.runs.run_folder import RunFolder
from dlkit.trackers import numbers, tensorboard
from dlkit.training.train import resume_run
from dlkit_cli.main import run as dlkit_command

Point = tuple[int, str, float]  # step, metric, value
LOGGED = {"train.log_every": 2, "train.checkpoint_every": 3}  # lines and checkpoints in the midst of an epoch too


def in_tensorboard(run: RunFolder) -> list[Point]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    events = [e for path in (run.path / "tensorboard").iterdir() for e in EventFileLoader(str(path)).Load()]
    return [(e.step, value.tag, float(make_ndarray(value.tensor))) for e in events for value in e.summary.value]


def in_mlflow(run: RunFolder) -> list[Point]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(run.path.parent / "mlruns").as_uri())
    (experiment,) = [found for found in client.search_experiments() if found.name == "dlkit"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["model.name"] == "mlp"
    history = [client.get_metric_history(found.info.run_id, key) for key in found.data.metrics]
    return [(metric.step, metric.key, metric.value) for metrics in history for metric in metrics]


def in_wandb(run: RunFolder) -> list[Point]:
    """What the files of `wandb sync` hold: of each record of the history its numbers."""
    from wandb.proto.wandb_internal_pb2 import Record

    points: list[Point] = []
    for path in sorted((run.path / "wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            points += [(items["_step"], key, value) for key, value in items.items() if not key.startswith("_")]
    return points


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in blocks of 32 KiB: checksum, length, and whether it is whole (1) or a part (2, 3, 4)."""
    place, record = 7, b""  # after the file's own header
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


SHOWN: dict[str, Callable[[RunFolder], list[Point]]] = {
    "tensorboard": in_tensorboard, "mlflow": in_mlflow, "wandb": in_wandb
}  # fmt: skip
every_tracker = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "tensorboard" else pytest.mark.slow) for name in SHOWN]
)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)


def recorded(run: RunFolder) -> list[Point]:
    return [(line["step"], key, value) for line in run.metrics() for key, value in numbers(line).items()]


def alike(found: list[Point], wanted: list[Point]) -> bool:
    """Each once, in single precision, which TensorBoard stores; but for speeds: a step done again has two."""
    found, wanted = ([point for point in points if point[1] != "images_per_s"] for points in (found, wanted))
    pairs = zip(sorted(found), sorted(wanted), strict=True)
    return len(found) == len(wanted) and all(
        one[:2] == other[:2] and one[2] == pytest.approx(other[2], rel=1e-6) for one, other in pairs
    )


def test_the_sweep_sees_every_tracker() -> None:
    assert set(SHOWN) == set(registry.entries("trackers"))


@every_tracker
def test_a_run_that_was_killed_and_went_on_is_shown_once_and_has_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(registry.load("trackers", name).NEEDS[0])
    steps = 0

    class Killed(Exception):
        pass

    def kill(point: str) -> None:
        nonlocal steps
        steps += point == "step"
        if steps == 5 and point == "metrics_append":  # the epoch's line stands nowhere yet, those before it do
            raise Killed

    monkeypatch.setattr(atomic_io, "hook", kill)
    said: list[str] = []
    with pytest.raises(Killed):
        tiny(tmp_path, **LOGGED, **{"train.track": [name]})
    monkeypatch.setattr(atomic_io, "hook", None)
    run = RunFolder(tmp_path / "a")
    assert len(run.metrics()) == 2
    resume_run(run, changes={}, inexact=False, say=said.append, progress=False)
    assert not [line for line in said if line.startswith("warning")]
    assert len(run.metrics()) == 6 and alike(SHOWN[name](run), recorded(run))
    assert same_bits(run, tiny(tmp_path, "plain", **LOGGED))


def test_a_tracker_that_fails_is_told_once_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        lines = 0

        def log(self, line: Any) -> None:
            self.lines += 1
            raise ConnectionError("no route\nto it")

        def close(self, status: str) -> None:
            raise AssertionError("it was to be left alone")

    broken = Broken()
    for track, lines in ((lambda *_: broken, 1), (lambda *_: 1 / 0, 1)):
        monkeypatch.setattr(tensorboard, "track", track)
        said: list[str] = []
        run = dlkit_train(tmp_path / str(len(list(tmp_path.iterdir()))), said)
        assert run.info()["status"] == "finished" and broken.lines == lines
        (warning,) = [line for line in said if line.startswith("warning: tensorboard")]
        assert "tensorboard is told no more" in warning and "\n" not in warning


def dlkit_train(runs_dir: Path, said: list[str]) -> RunFolder:
    import dlkit

    settings = {"data.options.train": 80, "data.options.test": 8, "model.options.hidden": "16"}
    return dlkit.train(
        "mlp", dataset="shapes", epochs=1, batch_size=16, name="a", runs_dir=runs_dir, say=said.append,
        settings={**settings, "train.track": ["tensorboard"], "train.log_every": 2},
    )  # fmt: skip


@pytest.mark.parametrize(("name", "package", "extra"), [
    ("tensorboard", "tensorboard", "track"), ("mlflow", "mlflow", "mlflow"), ("wandb", "wandb", "wandb")
])  # fmt: skip
def test_a_missing_extra_is_told_with_its_command_before_anything_is_written(
    name: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(UsageError, match=rf"needs {package}: python -m pip install 'dlkit\[{extra}\]'"):
        tiny(tmp_path, **{"train.track": [name]})
    assert not list(tmp_path.iterdir())


def test_a_misspelt_tracker_gets_the_nearest_right_name() -> None:
    with pytest.raises(UsageError, match=r"tracker 'tensorbord' not found\. Did you mean 'tensorboard'"):
        resolve("mlp", "shapes", flags={"train.track": ["tensorbord"]})


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--tensorboard"], ["tensorboard"]), (["--track", "wandb, mlflow"], ["wandb", "mlflow"]),
        (["--track", "wandb", "--tensorboard"], ["wandb", "tensorboard"]), ([], []),
    ],
)  # fmt: skip
def test_flags_name_the_trackers(flags: list[str], names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dlkit_command(["train", "mlp", "--dataset", "shapes", "--dry-run", *flags]) == 0
    assert f"  track: [{', '.join(names)}]\n" in capsys.readouterr().out
