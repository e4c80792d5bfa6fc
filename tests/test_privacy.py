"""Nothing phones home: no telemetry, no connection with DLKIT_OFFLINE=1, no file outside the run and the cache."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus import encoded, picture

from dlkit import privacy
from dlkit.errors import StorageError
from dlkit.runs.run_folder import RunFolder
from dlkit.training import tracking
from dlkit_cli.main import run as dlkit_command

NUMBERS = {"x86_64": 41, "aarch64": 198}  # of the system call socket()

# A seccomp filter on socket(AF_INET | AF_INET6): kills the process, whichever library opens an internet socket.
NO_INTERNET = """
import ctypes, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 4, {number}), (0x20, 0, 0, 16), (0x15, 1, 0, 2), (0x15, 0, 1, 10),
         (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(filter))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
"""
COMMAND = "from dlkit_cli.main import main; sys.argv[0] = 'dlkit'; main()"


def python(program: str, *arguments: str, cwd: Path | None = None, **environment: str) -> Any:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})


def test_importing_dlkit_disables_telemetry_whatever_the_environment_says() -> None:
    program = (
        "import dlkit, json, os, sys; assert 'onnxruntime' not in sys.modules; print(json.dumps(dict(os.environ)))"
    )
    found = json.loads(python(program, ORT_DISABLE_TELEMETRY="0").stdout)
    assert privacy.NO_TELEMETRY.items() <= found.items() and found["HF_HUB_OFFLINE"] == "1"


def test_offline_a_connection_of_any_library_is_refused_and_loopback_is_not() -> None:
    program = """
import dlkit, socket, urllib.request
from dlkit.errors import StorageError
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    pass
for attempt in (lambda: socket.create_connection(("192.0.2.1", 80), 1), lambda: socket.getaddrinfo("example.com", 80),
                lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=1)):
    try:
        attempt()
    except StorageError as error:
        print(error)
"""
    done = python(program)
    assert done.stdout.count("DLKIT_OFFLINE forbids the network") == 3, done.stderr


@pytest.mark.parametrize(
    "host", ["192.0.2.1", b"example.com", "::ffff:192.0.2.1", "evil.localhost.example", "fe80::1%lo"]
)
def test_only_this_machine_is_local(host: str | bytes) -> None:
    with pytest.raises(StorageError, match="DLKIT_OFFLINE"):
        privacy._refuse_connection("socket.getaddrinfo", (host, 80))
    for local in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "", None, socket.gethostname()):
        privacy._refuse_connection("socket.getaddrinfo", (local, 80))
    privacy._refuse_connection("socket.connect", (None, "/run/a.sock"))


def test_offline_a_url_and_a_tracking_server_are_refused_with_the_way_out(
    tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["predict", "https://user:secret@example.com/x.png", "--run", str(tiny_run.path)]) == 7
    out, err = capsys.readouterr()
    assert not out and "DLKIT_OFFLINE" in err and "secret" not in err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    with pytest.raises(StorageError, match="DLKIT_OFFLINE"):
        tracking.need(["mlflow"])


def test_what_libraries_print_goes_to_stderr() -> None:
    program = """
import os, sys
from dlkit_cli import console, main
answer = console.write_rows
def noisy(*arguments, **options):
    os.write(1, b"noise of C\\n")
    print("noise of Python", flush=True)
    answer(*arguments, **options)
console.write_rows = noisy
sys.argv = ["dlkit", "recipes", "list", "--json"]
main.main()
"""
    done = python(program)
    assert len(json.loads(done.stdout)) > 10
    assert "noise of C" in done.stderr and "noise of Python" in done.stderr


def test_an_onnx_file_answers_without_a_trace(onnx_file: Any, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(picture(), "PNG"))
    if platform.machine() in NUMBERS:
        dead = python(NO_INTERNET.format(number=NUMBERS[platform.machine()]) + "import socket; socket.socket()")
        assert dead.returncode == -signal.SIGSYS, "the filter that this test relies on works"
    answered = _offline(tmp_path, "predict", "x.png", "--model", str(onnx_file.path), "--json")
    assert json.loads(answered.stdout)[0]["predictions"]
    assert _written(tmp_path) == []


@pytest.mark.slow
def test_no_command_opens_an_internet_socket_or_writes_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(picture(), "PNG"))
    fast = ["--set", "data.options.train=300", "--epochs", "1", "--set", "train.threads=1", "-j", "0"]
    for command in (
        ["train", "mlp", "--dataset", "shapes", "--name", "a", "--set", "train.track=[tensorboard]", *fast],
        ["train", "mlp", "--dataset", "shapes", "--name", "c", "--compile", *fast],
        ["eval", "a"], ["explain", "x.png", "--run", "a"], ["report", "a"], ["plot", "a"],
        ["export", "a", "--to", "onnx", "-o", "m.onnx"], ["dataset", "info", "shapes"], ["models", "list"],
    ):  # fmt: skip
        done = _offline(tmp_path, *command)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stderr[-300:]}"
    assert _written(tmp_path) == []


@pytest.mark.slow
def test_trackers_leave_nothing_outside_the_run_and_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    done = _offline(
        tmp_path, "train", "mlp", "--dataset", "shapes", "--epochs", "1", "--set", "data.options.train=300",
        "--set", "train.track=[mlflow,wandb]", sockets=True,
    )  # fmt: skip
    assert done.returncode == 0 and "is told no more" not in done.stderr, done.stderr
    assert _written(tmp_path) == []


def _offline(folder: Path, *words: str, sockets: bool = False) -> Any:
    """A command in an empty home, killed if it opens an internet socket."""
    number = NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
    prelude = "import sys\n" if sockets or number is None else NO_INTERNET.format(number=number)
    home = folder / "home"
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "TMPDIR": str(folder / "tmp")}
    return python(prelude + COMMAND, *words, cwd=folder, **places, DLKIT_HOME=str(folder / "cache"))


def _written(folder: Path) -> list[str]:
    return [str(path) for name in ("home", "tmp") for path in (folder / name).rglob("*") if path.is_file()]
