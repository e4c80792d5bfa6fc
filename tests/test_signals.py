"""Signals: an exception wherever the main thread is, a flag for the training loop, and 128 + number as the exit code.

In the slow tests the program sends itself the signal at an event (signal_at.py), so that no clock decides.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mnist_files import made_up_mnist
from PIL import Image
from tiny_training import same_bits

import dlkit
from dlkit import signals
from dlkit.errors import StoppedError
from dlkit.runs.run_folder import RunFolder
from dlkit.training.train import resume_run

SENDER = [sys.executable, str(Path(__file__).with_name("signal_at.py"))]
LONG_S = 600  # a busy machine takes its time
HUP, INT, TERM = (int(number) for number in signals.SIGNALS)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in signals.SIGNALS]


@pytest.fixture(autouse=True)
def _as_in_a_foreground_job() -> Iterator[None]:
    """SIGINT is ignored in what a shell script starts with &, SIGHUP under nohup, and both would stay so."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGTERM)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_raises_and_the_handlers_before_are_restored() -> None:
    before = handlers()
    for number in signals.SIGNALS:
        with pytest.raises(KeyboardInterrupt) as stop, signals.handled():
            signal.raise_signal(number)
        assert isinstance(stop.value, signals.Interrupted) and stop.value.exit_code == 128 + number
        assert handlers() == before and signals.requested() == 0


def test_a_loop_that_polls_goes_on_until_the_second_signal_and_a_hang_up_never_hurries() -> None:
    with signals.handled() as flag, signals.stop_flag() as stop:
        assert stop is flag and stop() == 0
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop() == signals.requested() == signal.SIGHUP
        with flag.held():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(signals.Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored_and_other_threads_need_no_handlers() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handled() as flag:
            signal.raise_signal(signal.SIGHUP)
            assert flag() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    ran: list[int] = []

    def poll() -> None:
        with signals.stop_flag() as stop:
            ran.append(stop())

    thread = threading.Thread(target=poll)
    thread.start()
    thread.join()
    assert ran == [0]


def train(tmp_path: Path, say: Any, epochs: int = 2) -> RunFolder:
    settings = {"data.options.train": 96, "data.options.test": 24, "train.batch_size": 32}
    return dlkit.train("mlp", dataset="shapes", epochs=epochs, settings=settings, runs_dir=tmp_path, name="a", say=say)


def test_from_python_the_first_signal_saves_and_the_second_raises_without_ending_the_interpreter(
    tmp_path: Path,
) -> None:
    before, sent = handlers(), list[int]()

    def send(text: str) -> None:
        if text.startswith("epoch 1/"):
            for number in sent:
                signal.raise_signal(number)

    for folder, numbers, error, code in (
        ("one", [HUP], StoppedError, 129),
        ("two", [INT, INT], KeyboardInterrupt, 130),
    ):
        sent[:] = numbers
        with pytest.raises(error) as stop:
            train(tmp_path / folder, send)
        assert getattr(stop.value, "exit_code", 0) == code and handlers() == before
        run = RunFolder(tmp_path / folder / "a")
        assert run.info()["status"] == "stopped" and run.metrics()[-1]["epoch"] == 1
    resumed = resume_run(run, changes={}, inexact=False, say=str, progress=False)
    assert same_bits(resumed, train(tmp_path / "gold", str))


TRAIN = [
    "train", "mlp", "--dataset", "shapes", "--epochs", "2", "--name", "a", "--set", "data.options.train=192",
    "--set", "data.options.test=24", "--set", "train.batch_size=32", "--set", "train.checkpoint_every=2",
]  # fmt: skip


def send_at(what: str, event: str, folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SENDER, what, event, *arguments], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


class Warm:
    """signal_at.py as a server: a trial takes a fork instead of seconds of imports."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "out", folder / "err"
        self.process = subprocess.Popen(
            [*SENDER, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def send_at(self, what: str, event: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
        """The exit code, what was written on stdout, and what on stderr."""
        if event.startswith("import:"):
            process = send_at(what, event, folder, *arguments)
            out, err = process.communicate(timeout=LONG_S)
            return process.returncode, out, err
        for path in self.files:
            path.write_text("")
        assert self.process.stdin is not None and self.process.stdout is not None
        names = [str(path) for path in self.files]
        request = {"folder": str(folder), "out": names[0], "err": names[1], "words": [what, event, *arguments]}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), self.files[0].read_text(), self.files[1].read_text()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    server = Warm(tmp_path_factory.mktemp("warm"))
    yield server
    server.process.communicate()


def test_a_signal_during_the_imports_ends_with_its_own_code_and_one_line(tmp_path: Path) -> None:
    process = send_at(str(TERM), "import:typer", tmp_path, "models")
    out, err = process.communicate(timeout=LONG_S)
    assert (process.returncode, out, err) == (143, "", "dlkit: stopped by SIGTERM.\n")


START = ("import:typer", "import:torch", "call:dlkit.training.inputs:prepare")  # there is no run yet
MIDDLE = (
    "call:dlkit.runs.run_creation:create", "point:before_fsync:1", "point:mid_write:1", "point:step:1",
    "point:step:9", "point:eval:1", "point:metrics_append:1", "point:after_rename:6", "point:after_manifest:3",
)  # fmt: skip
END = ("call:dlkit.training.train:learning_curve",)  # the last epoch is saved


def check_run(folder: Path, event: str, gold: RunFolder, hurried: bool = False) -> None:
    """The status is right, nothing is half-written, and the resume ends like the run that nobody stopped."""
    assert not [path for path in folder.rglob(".*.tmp")]
    if event in START or (hurried and event in MIDDLE[:3]):  # the run was never there, or was being created
        assert not (folder / "runs" / "a").exists()
        return
    run = RunFolder(folder / "runs" / "a")
    assert run.info()["status"] == ("finished" if event in END else "stopped")
    if event not in END:
        run = resume_run(run, changes={}, inexact=True, say=str, progress=False)
    assert same_bits(run, gold)


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("gold")
    subprocess.run([sys.executable, "-m", "dlkit_cli", *TRAIN], cwd=folder, check=True, capture_output=True)
    return RunFolder(folder / "runs" / "a")


@pytest.mark.slow
@pytest.mark.parametrize("event", [*START, *MIDDLE, *END])
@pytest.mark.parametrize("sent", [(HUP,), (TERM,), (INT, INT), (HUP, HUP)], ids=str)
def test_train_ends_with_the_signals_code_saved_whenever_it_comes(
    sent: tuple[int, ...], event: str, tmp_path: Path, gold: RunFolder, warm: Warm
) -> None:
    code, out, err = warm.send_at("+".join(map(str, sent)), event, tmp_path, *TRAIN)
    assert code == 128 + sent[0] and out == "" and "Traceback" not in err, err
    assert "stopped" in err.splitlines()[-1], err
    check_run(tmp_path, event, gold, hurried=sent == (INT, INT))


@pytest.mark.slow
@pytest.mark.parametrize("event", [*START[:2], "point:step:9", "point:eval:1", *END])
def test_a_closed_terminal_saves(event: str, tmp_path: Path, gold: RunFolder) -> None:
    ours, theirs = pty.openpty()
    reached = tmp_path / "reached"
    process = subprocess.Popen(
        [*SENDER, str(reached), event, *TRAIN], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=take_terminal, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(theirs)
    while not reached.exists():
        assert process.poll() is None
        if select.select([ours], [], [], 0.05)[0]:
            os.read(ours, 1 << 16)  # a terminal that nobody reads blocks its writers
    os.close(ours)
    assert process.wait(LONG_S) == 129
    reached.unlink()
    check_run(tmp_path, event, gold)


def take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


COMMANDS = {
    "eval a": ("import:torch", "call:dlkit.data.loader:batches_in_order", "point:before_fsync:1"),
    "predict x.png": ("call:dlkit.data.images.decode:load", "call:dlkit.evaluation.predict:_ranked"),
    "export a --to onnx -o m.onnx": ("import:onnx", "point:before_fsync:1"),
    "explain x.png": ("call:dlkit.data.images.decode:load",),
    "report a": ("point:before_fsync:1",),
    "lr-find mlp --dataset shapes": ("call:dlkit.training.lr_find:measured",),
    "sweep mlp --dataset shapes --epochs 1 --trials 2 --param optimizer.lr=log:0.001..0.1": (
        "import:optuna", "point:step:3"
    ),
    "ablate mlp --dataset shapes --epochs 1 --seeds 2 --drop init": ("point:step:3", "point:eval:1"),
    "baseline knn --dataset shapes": ("point:before_fsync:1",),
    "dataset check photos -j 2": ("import:numpy", "call:dlkit.data.checks.scan:scan_image"),
    "dataset pack photos -o packed": ("point:before_fsync:1",),
    "dataset download mnist --from files": (
        "call:dlkit.data.download.download:_copy", "call:dlkit.data.download.download:_verify",
    ),
    "reproduce a": ("point:step:2",),
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, gold: RunFolder) -> Path:
    """A folder with a run, an image and a data set of images."""
    folder = tmp_path_factory.mktemp("folder")
    shutil.copytree(gold.path, folder / "runs" / "a")
    image = Image.new("RGB", (28, 28), "red")
    image.save(folder / "x.png")
    (folder / "files").mkdir()
    for name in made_up_mnist(folder / "files"):
        path = folder / "files" / name
        path.rename(path.with_name(f"{name}.gz"))  # the signal comes before anybody reads them
    for number in range(12):
        (folder / "photos" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        image.putpixel((number, 0), (0, 0, 255))
        image.save(folder / "photos" / f"class{number % 2}" / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "event"), [(command, event) for command in COMMANDS for event in COMMANDS[command]]
)
def test_every_command_ends_with_the_signals_code_and_leaves_nothing_half_written(
    command: str, event: str, pictures: Path, warm: Warm
) -> None:
    code, _, err = warm.send_at(str(TERM), event, pictures, *command.split())
    assert code == 143 and "Traceback" not in err, err
    assert "stopped" in err.splitlines()[-1], err
    assert not [path for path in pictures.rglob(".*.tmp")]
    assert not {path.name for path in pictures.iterdir()} - {"runs", "x.png", "photos", "files"}
