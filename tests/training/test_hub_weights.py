"""Weights from the Hugging Face hub, of which a server on this machine stands in."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dlkit.data.download import hub
from dlkit.data.download.http import UnreachableError
from dlkit.errors import ModelFileError, UsageError, VerificationError
from dlkit.specs import ImageSpec
from dlkit.training import weights
from dlkit.training.restore import build
from dlkit_cli.main import run

constants = pytest.importorskip("huggingface_hub.constants", reason="the hub's package is not installed")
REPOSITORY, COMMIT = "timm/test_resnet.r160_in1k", "0" * 40


class StandIn:
    """A hub with files by the path of their repository, and the requests that reached it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.damaged = False

    def handler(hub) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                content = hub.files.get(self.path.partition("?")[0])
                if content is None:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_body:
                    self.wfile.write(content[:-1] + b"\0" if hub.damaged else content)

            def log_message(self, format: str, *arguments: object) -> None:
                """Quiet."""

        return Handler


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    server_hub = StandIn()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), server_hub.handler())
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DLKIT_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server_hub
    server.shutdown()
    server.server_close()


def put(stand_in: StandIn, content: bytes, file: str = "model.safetensors") -> None:
    stand_in.files[f"/{REPOSITORY}/resolve/main/{file}"] = content


def test_a_file_is_fetched_once_into_the_cache_of_dlkit(stand_in: StandIn, tmp_path: Path) -> None:
    put(stand_in, b"weights")
    log: list[str] = []
    path = hub.fetch(REPOSITORY, "model.safetensors", log.append)
    assert path.read_bytes() == b"weights" and path.is_relative_to(tmp_path / "home")
    assert log == [f"fetching model.safetensors of {REPOSITORY} from the Hugging Face hub"]
    count = len(stand_in.requests)
    assert hub.fetch(REPOSITORY, "model.safetensors", log.append) == path and len(stand_in.requests) == count


def test_a_damaged_file_is_refused(stand_in: StandIn) -> None:
    put(stand_in, b"weights")
    stand_in.damaged = True
    with pytest.raises(VerificationError, match="damaged"):
        hub.fetch(REPOSITORY, "model.safetensors", print)


def test_a_file_that_is_not_there_and_a_hub_that_is_not_there_are_different_errors(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelFileError, match=r"no such file model.safetensors .* --weights none"):
        hub.fetch(REPOSITORY, "model.safetensors", print)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"cannot be reached.*--weights FILE"):
        hub.fetch(REPOSITORY, "model.safetensors", print)
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    with pytest.raises(UnreachableError, match=r"DLKIT_OFFLINE forbids .*--weights FILE"):
        hub.fetch(REPOSITORY, "model.safetensors", print)


def test_published_weights_of_timm_are_those_of_the_hub(stand_in: StandIn, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'dlkit[timm]'")
    torch.manual_seed(1)
    tensors = timm.create_model("test_resnet").state_dict()
    put(stand_in, safetensors.torch.save(tensors))
    source = weights.find("imagenet", "timm/test_resnet", tmp_path, print)
    assert isinstance(source.spec, ImageSpec) and (source.spec.height, len(source.spec.classes)) == (160, 1000)
    read = source.read()
    assert read.keys() == tensors.keys() and all(torch.equal(read[key], tensors[key]) for key in read)
    assert run(["train", "timm/test_resnet", "shapes", "--weights", "imagenet", "--dry-run"]) == 0


def test_timm_networks_know_their_last_maps_and_fit_positions_to_other_sizes(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'dlkit[timm]'")
    spec = ImageSpec(3, 64, 64, ("a", "b"), (0.5,) * 3, (0.5,) * 3)
    assert build("timm/test_resnet", spec, {}).feature_map == "layer4"
    vit = build("timm/test_vit", spec, {})
    assert vit.feature_map is None
    theirs = timm.create_model("test_vit").state_dict()  # for 160 pixels
    fitted = vit.at_this_size({name: tensor for name, tensor in theirs.items() if "head" not in name}, None)
    own = vit.state_dict()
    assert all(own[name].shape == tensor.shape for name, tensor in fitted.items())


def test_a_network_of_timm_without_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'dlkit[timm]'")
    with pytest.raises(UsageError, match=r"no weights with the tag 'nothing'\. There are: .*a1_in1k"):
        weights.find("imagenet", "timm/resnet50.nothing", tmp_path, print)
