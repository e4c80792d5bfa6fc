"""serve: predict's own records over HTTP, from a server that bad input, bad callers and crowds leave standing."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from corpus import IMAGES, Bad, big_png, encoded, picture
from PIL import Image

import dlkit
from dlkit.errors import BusyError, DataError, ModelFileError, StorageError, UsageError
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.explanation.explain import explain
from dlkit.explanation.records import Explanation
from dlkit.runs.run_folder import RunFolder
from dlkit.serve.listener import is_loopback, listen
from dlkit.serve.model import ServedModel, Session, open_model
from dlkit.serve.server import serve
from dlkit_cli.main import run as dlkit_command

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from dlkit.serve import app as serve_app  # noqa: E402
from dlkit.serve import connections  # noqa: E402
from dlkit.serve import limits as serve_limits  # noqa: E402

LOCAL = "http://localhost:8000"
GOOD = encoded(picture(), "PNG")
WORDS = b"[MAX 2 9 ] ]"


class Client:
    """Requests to an application, without a socket."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, method: str, address: str, **options: Any) -> Any:
        async def answered() -> Any:
            async with self.opened() as client:
                return await client.request(method, address, **options)

        return asyncio.run(answered())

    def opened(self) -> Any:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=LOCAL, timeout=60)

    def post(self, address: str, content: bytes, **options: Any) -> Any:
        return self("POST", address, content=content, **options)

    def get(self, address: str, **options: Any) -> Any:
        return self("GET", address, **options)


def application(served: ServedModel, host: str = "127.0.0.1", say: Callable[[str], None] = print) -> Client:
    return Client(serve_app.application(served, host, say))


def of_run(run: RunFolder) -> Client:
    return application(open_model(run, "best", "cpu", Path("runs"), str))


def record(answer: Any) -> dict[str, Any]:
    """What JSON makes of an answer's document."""
    document: dict[str, Any] = json.loads(json.dumps(answer.document()))
    return document


@pytest.fixture(scope="module")
def client(tiny_run: RunFolder) -> Client:
    return of_run(tiny_run)


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    settings = {
        "data.options.train": 60,
        "data.options.test": 20,
        "data.options.length": 12,
        "model.options.hidden_size": 8,
    }
    runs_dir = tmp_path_factory.mktemp("text") / "runs"
    return dlkit.train("lstm", dataset="brackets", epochs=1, settings=settings, name="text", runs_dir=runs_dir)


# -- the answers


@pytest.mark.parametrize("topk", [None, 1, 8])
def test_an_image_is_answered_by_the_record_of_predict(client: Client, tiny_run: RunFolder, topk: int | None) -> None:
    (expected,) = predict(tiny_run, GOOD, topk=topk, device="cpu")
    found = client.post("/predict" if topk is None else f"/predict?topk={topk}", GOOD)
    assert found.status_code == 200 and found.json() == record(expected)
    assert list(found.json()) == ["schema", "path", "model", "predictions"]


def test_the_command_predict_prints_the_same_record(
    client: Client, tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_bytes(GOOD)
    command = ["predict", str(tmp_path / "x.png"), "--run", str(tiny_run.path), "--format", "jsonl", "--device", "cpu"]
    assert dlkit_command(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {**client.post("/predict", GOOD).json(), "path": printed["path"]} == printed


def test_answers_do_not_depend_on_what_was_asked_before(client: Client, tiny_run: RunFolder) -> None:
    images = [encoded(picture(seed=seed), "PNG") for seed in range(4)]
    expected = [record(answer) for answer in predict(tiny_run, images, batch_size=1, device="cpu")]
    for order in ([0, 1, 2, 3], [3, 1, 1, 0]):
        assert [client.post("/predict", images[place]).json() for place in order] == [expected[p] for p in order]


@pytest.mark.parametrize("ending", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_exported_file_is_served_like_its_run(tiny_run: RunFolder, tmp_path: Path, ending: str) -> None:
    if ending == "onnx":
        pytest.importorskip("onnxruntime")
    from dlkit.export.export import export

    path = export(tiny_run, to=ending, output=tmp_path / f"tiny.{ending}").path
    client = application(open_model(path, "best", "cpu", Path("runs"), str))
    (expected,) = predict(None, GOOD, model=str(path), device="cpu")
    assert client.post("/predict", GOOD).json() == record(expected)
    about = client.get("/model").json()
    assert about["name"] == path.name and about["classes"] == list(tiny_run.spec().classes) and not about["explains"]
    refused = client.post("/explain", GOOD)
    assert refused.status_code == 400 and "need a run" in refused.json()["error"]["message"]


def test_an_image_is_explained_by_the_record_of_explain_with_its_picture(client: Client, tiny_run: RunFolder) -> None:
    (expected,) = explain(tiny_run, GOOD, write=False, device="cpu")
    assert isinstance(expected, Explanation)
    found = client.post("/explain", GOOD).json()
    kind, _, data = found["png"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as overlay:
        assert overlay.size == (280, 280) and overlay.mode == "RGB"
    assert {**found, "png": None} == record(expected)


def test_text_is_answered_and_explained_by_the_records_of_predict_and_explain(text_run: RunFolder) -> None:
    client = of_run(text_run)
    (expected,) = predict(text_run, WORDS, device="cpu")
    assert isinstance(expected, Prediction)
    assert client.post("/predict", WORDS).json() == record(expected)
    assert client.get("/model").json()["reads"] == "sequences"
    for wrong in (b"", b"\xff\xfe", b"word " * (1 << 17)):
        refused = client.post("/predict", wrong)
        assert refused.status_code == 422 and refused.json()["error"]["code"] == DataError.exit_code
    (explained,) = explain(text_run, WORDS, write=False, device="cpu")
    assert client.post("/explain", WORDS).json() == record(explained) and "words" in record(explained)


def test_the_model_says_what_it_reads(client: Client, tiny_run: RunFolder) -> None:
    assert client.get("/model").json() == {
        "schema": "dlkit.serve/1", "name": "tiny", "model": "mlp", "reads": "images", "channels": 3, "height": 28,
        "width": 28, "classes": list(tiny_run.spec().classes), "explains": True, "max_bytes": 32 << 20,
    }  # fmt: skip
    assert client.get("/health").json() == {"status": "ok"}


# -- bad input


@pytest.mark.parametrize("bad", [bad for bad in IMAGES if bad.row not in (8, 13, 14)], ids=str)
def test_what_is_no_image_is_refused_as_predict_refuses_it(client: Client, bad: Bad, tmp_path: Path) -> None:
    bad.make(tmp_path / "bad")
    refused = client.post("/predict", (tmp_path / "bad").read_bytes())
    assert refused.status_code == 422 and refused.json()["error"]["code"] == DataError.exit_code
    assert bad.says in refused.json()["error"]["message"]
    assert client.post("/predict", GOOD).status_code == 200


def test_a_bomb_is_refused_from_its_header_by_both_answers(client: Client) -> None:
    for address in ("/predict", "/explain"):
        refused = client.post(address, big_png(9400))
        assert refused.status_code == 422 and "megapixels" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("topk", "says"), [("0", "1 to 8"), ("9", "1 to 8"), ("-1", "1 to 8"), ("many", "topk=many"), ("1e9", "topk=1e9")]
)
def test_a_topk_that_the_model_has_not_is_refused(client: Client, topk: str, says: str) -> None:
    refused = client.post(f"/predict?topk={topk}", GOOD)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == UsageError.exit_code
    assert says in refused.json()["error"]["message"]


def test_several_images_are_answered_in_order_as_a_form_or_as_json(client: Client, tiny_run: RunFolder) -> None:
    images = [encoded(picture(seed=seed), "PNG") for seed in range(3)]
    expected = [record(answer) for answer in predict(tiny_run, images, batch_size=1, device="cpu")]
    form = client("POST", "/predict", files=[("x", (f"{n}.png", image)) for n, image in enumerate(images)])
    assert form.json() == [{**one, "path": f"{n}.png"} for n, one in enumerate(expected)]
    plain, url = base64.b64encode(images[1]).decode(), "data:image/png;base64," + base64.b64encode(images[2]).decode()
    entries = [{"image": base64.b64encode(images[0]).decode()}, plain, url]
    assert client("POST", "/predict", json=entries).json() == [
        {**one, "path": f"-:{n}"} for n, one in enumerate(expected, start=1)
    ]
    assert client("POST", "/predict", json=entries[0]).json() == expected[0], "an object is one input, not a list"


def test_of_several_images_the_bad_one_is_a_record_and_the_rest_are_answered(client: Client) -> None:
    some = client("POST", "/predict", files=[("x", ("a.png", GOOD)), ("x", ("b.png", b"text"))])
    assert some.status_code == 200 and "predictions" in some.json()[0] and some.json()[1]["error"]["code"] == 4
    none = client("POST", "/predict", files=[("x", ("b.png", b"text"))])
    assert none.status_code == 422 and none.json()[0]["path"] == "b.png"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{", 422), ("application/json", b'{"image": 1}', 422), ("application/json", b"[]", 422),
        ("application/json", b'["not base64"]', 422), ("application/json", b"[" * 100_000, 422),
        ("application/json", b"[" + b'"",' * 64 + b'""]', 413), ("application/xml", GOOD, 415),
        ("multipart/form-data", GOOD, 422), ("multipart/form-data; boundary=x", b"--x\r\n", 422),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_parsed_is_refused(client: Client, kind: str, body: bytes, status: int) -> None:
    refused = client.post("/predict", body, headers={"content-type": kind})
    assert refused.status_code == status and refused.json()["error"]["message"]


def test_what_was_skipped_is_noted_in_the_record(client: Client) -> None:
    frames = [picture(seed=seed) for seed in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    for address in ("/predict", "/explain"):
        assert "first" in client.post(address, file.getvalue()).json()["notes"][0]
        assert "notes" not in client.post(address, GOOD).json()


def test_head_is_answered_wherever_get_is_without_a_body(client: Client) -> None:
    for address in ("/", "/health", "/model", "/openapi.json", "/docs", "/metrics", "/nothing"):
        head, get = client("HEAD", address), client.get(address)
        assert head.status_code == get.status_code and head.content == b""
    assert client("HEAD", "/health").headers["content-length"] == str(len(client.get("/health").content))


def test_a_method_that_is_not_allowed_names_those_that_are(client: Client) -> None:
    for method, address, allow in (
        ("PUT", "/predict", "POST"),
        ("HEAD", "/predict", "POST"),
        ("POST", "/", "GET, HEAD"),
    ):
        refused = client(method, address)
        assert refused.status_code == 405 and refused.headers["allow"] == allow


def test_metrics_count_requests_by_status_inputs_and_errors(tiny_run: RunFolder) -> None:
    client = of_run(tiny_run)
    client("POST", "/predict", files=[("x", ("a.png", GOOD)), ("x", ("b.png", b"text"))])
    client.post("/predict?topk=0", GOOD)
    client.get("/random-path")
    found = client.get("/metrics").text
    for line in (
        'dlkit_requests_total{method="POST",path="/predict",status="200"} 1.0',
        'dlkit_requests_total{method="POST",path="/predict",status="400"} 1.0',
        'dlkit_requests_total{method="GET",path="other",status="404"} 1.0',
        'dlkit_request_seconds_count{path="/predict"} 2.0',
        "dlkit_inputs_total 1.0", 'dlkit_errors_total{code="4"} 1.0', 'dlkit_errors_total{code="2"} 1.0',
    ):  # fmt: skip
        assert line in found.splitlines(), found


@pytest.mark.parametrize("said", [None, "9", "999999999999"])
def test_a_body_is_read_no_further_than_it_may_be_long(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_limits, "MAX_BYTES", 1000)
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": bytes(300), "more_body": taken < 9}

    headers = [] if said is None else [(b"content-length", said.encode())]
    request = serve_limits.Request({"type": "http", "headers": headers}, receive)
    with pytest.raises(serve_limits.RequestError) as refused:
        asyncio.run(serve_limits.read_body(request, lambda count: None))
    assert refused.value.status == 413 and taken == (0 if said == "999999999999" else 4)


def test_a_body_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_limits, "BODY_S", 0.01)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(10)
        raise AssertionError

    with pytest.raises(serve_limits.RequestError) as refused:
        request = serve_limits.Request({"type": "http", "headers": []}, receive)
        asyncio.run(serve_limits.read_body(request, lambda count: None))
    assert refused.value.status == 408


# -- many at once


def test_the_model_answers_one_at_a_time_and_a_crowd_is_told_to_come_back(tiny_run: RunFolder) -> None:
    go_on, busiest, inside = threading.Event(), 0, 0

    def slow(given: Iterator[bytes]) -> Iterator[Prediction]:
        nonlocal busiest, inside
        for _ in given:
            inside += 1
            busiest = max(busiest, inside)
            if not go_on.wait(60):
                go_on.set()  # nobody was refused: the test fails below
            inside -= 1
            yield Prediction("-", "slow", ())

    client = application(ServedModel("slow", "slow", tiny_run.spec(), Session(slow), None))

    async def crowd() -> tuple[list[Any], Any, Any]:
        async with client.opened() as http:
            waiting = [
                asyncio.create_task(http.post("/predict", content=GOOD)) for _ in range(serve_limits.MAX_WAITING)
            ]
            while not inside:
                await asyncio.sleep(0.01)
            refused, alive = await http.post("/predict", content=GOOD), await http.get("/health")
            go_on.set()
            return await asyncio.gather(*waiting), refused, alive

    answered, refused, alive = asyncio.run(crowd())
    assert [answer.status_code for answer in answered] == [200] * serve_limits.MAX_WAITING and busiest == 1
    assert refused.status_code == 503 and refused.json()["error"]["code"] == BusyError.exit_code
    assert refused.headers["retry-after"] == "1" and alive.status_code == 200
    assert client.post("/predict", GOOD).status_code == 200, "a place is free again"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(ModelFileError("its answers are not finite."), 500, 5), (MemoryError(), 500, 9), (ValueError("shape"), 500, 1)],
)
def test_after_an_error_of_the_model_the_server_lives_and_begins_anew(
    tiny_run: RunFolder, fault: Exception, status: int, code: int
) -> None:
    begun = 0

    def breaks_once(given: Iterator[bytes]) -> Iterator[Prediction]:
        nonlocal begun
        begun += 1
        for _ in given:
            if begun == 1:
                raise fault
            yield Prediction("-", "mlp", ())

    said: list[str] = []
    client = application(ServedModel("x", "mlp", tiny_run.spec(), Session(breaks_once), None), say=said.append)
    broken = client.post("/predict", GOOD)
    assert broken.status_code == status and broken.json()["error"]["code"] == code
    assert len(said) == (code == 1)
    assert [client.post("/predict", GOOD).status_code for _ in range(3)] == [200] * 3 and begun == 2


# -- who may ask


OURS = ("localhost", "LOCALHOST:9", "127.0.0.1:8000", "127.0.0.2", "[::1]", "[::1]:8000")
FOREIGN = ("evil.example", "evil.example:8000", "127.0.0.1.nip.io", "localhost.evil.example", "", "[evil]", "10.0.0.7")


@pytest.mark.parametrize("name", OURS)
def test_this_machine_is_known_by_its_names(client: Client, name: str) -> None:
    assert client.get("/health", headers={"host": name}).status_code == 200


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("address", ["/", "/model", "/nothing"])
def test_by_another_name_nothing_is_answered(client: Client, name: str, address: str) -> None:
    refused = client.get(address, headers={"host": name})
    assert refused.status_code == 403 and refused.json()["error"]["code"] == UsageError.exit_code


def test_open_to_others_the_server_answers_to_addresses_but_not_to_strange_names(tiny_run: RunFolder) -> None:
    client = application(open_model(tiny_run, "best", "cpu", Path("runs"), str), host="0.0.0.0")
    names = {"10.0.0.7:8000": 200, "[fe80::1]:8000": 200, "localhost": 200, socket.gethostname(): 200, FOREIGN[0]: 403}
    assert {name: client.get("/health", headers={"host": name}).status_code for name in names} == names


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9", "https://localhost:8000"])
def test_a_page_from_elsewhere_may_not_ask(client: Client, origin: str) -> None:
    refused = client.post("/predict", GOOD, headers={"origin": origin})
    assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
    assert client.post("/predict", GOOD, headers={"origin": LOCAL}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_told_from_the_rest(host: str) -> None:
    assert is_loopback(host) and not is_loopback("0.0.0.0") and not is_loopback("evil.localhost.example")


# -- the page


@pytest.mark.parametrize(
    "address",
    ["/page.html", "/serve.py", "/static/x", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "//etc/passwd",
     "/page.css/../serve.py", "/predict/", "/redoc"],
)  # fmt: skip
def test_no_path_leads_to_a_file(client: Client, address: str) -> None:
    found = client.get(address)
    assert found.status_code == 404 and found.json()["error"]["code"] == UsageError.exit_code


def test_predict_takes_no_get_and_says_where_the_addresses_are_listed(client: Client) -> None:
    found = client.get("/predict")
    assert found.status_code == 405 and "/docs" in found.json()["error"]["message"]
    assert client.get("/docs").headers["location"] == "/#api"


def test_every_answer_forbids_the_page_to_ask_elsewhere(client: Client) -> None:
    for found in (client.get("/"), client.get("/nothing"), client.post("/predict", b""), client.get("/openapi.json")):
        policy = found.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "http" not in policy and "unsafe" not in policy
        assert found.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_server_and_has_no_script_of_its_own(client: Client) -> None:
    parts = {address: client.get(address).text for address in serve_app.PAGE}
    assert len(parts) == 4
    for text in parts.values():
        assert set(re.findall(r"https?://[^\s'\"]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script(?![^>]*src)|<style|\sstyle=|\son\w+=", parts["/"])  # the policy forbids them
    assert "innerHTML" not in parts["/page.js"] + parts["/draw.js"]


def test_the_page_finds_every_element_that_its_script_names() -> None:
    page, *scripts = (files("dlkit.serve").joinpath(name).read_text() for name in ("page.html", "page.js", "draw.js"))
    named = set(re.findall(r'byId\("([\w-]+)"\)', "".join(scripts)))
    assert len(named) > 20 and named <= set(re.findall(r'id="([\w-]+)"', page))


def test_programs_find_every_address_described(client: Client) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/health", "/model", "/metrics", "/predict", "/explain"}
    predict = described["paths"]["/predict"]["post"]
    assert set(predict["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "503"}
    kinds = ["application/octet-stream", "application/json", "multipart/form-data"]
    assert list(predict["requestBody"]["content"]) == kinds
    (topk,) = predict["parameters"]
    assert topk["schema"].items() >= {"type": "integer", "minimum": 1, "maximum": 8, "default": 5}.items()


# -- the command


def test_a_missing_package_is_told_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    assert dlkit_command(["serve"]) == 2
    assert "serve needs uvicorn: python -m pip install 'dlkit[serve]'" in capsys.readouterr().err


def test_a_taken_port_is_told_before_the_model_is_loaded(
    tiny_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert dlkit_command(["serve", str(tiny_run.path / "nothing"), "--port", str(port)]) == StorageError.exit_code
    err = capsys.readouterr().err
    assert f"port {port}" in err and "--port 0" in err and len(err.splitlines()) == 1


def test_an_answers_body_does_not_wait_for_its_header_to_be_acknowledged() -> None:
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--port", "65536"], 2, "0 for any"),
        (["--port", "-1"], 2, "0 for any"),
        (["--port", "0", "--host", "no such host"], 2, "is not an address of this machine"),
        (["--port", "0", "--host", "." * 300], 2, "is not an address of this machine"),
        (["--port", "0", "--host", "192.0.2.1"], 2, "is not an address of this machine"),
        (["--port", "0", "nothing"], 2, "no run 'nothing'"),
        (["--port", "0", "nothing.onnx"], 5, "nothing.onnx"),
    ],
)
def test_what_cannot_be_served_is_refused(
    arguments: list[str], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["serve", *arguments, "--runs-dir", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and len(err.splitlines()) == 1


def test_a_damaged_run_is_told_before_the_address_is_printed(tmp_path: Path, tiny_run: RunFolder) -> None:
    import shutil

    run = shutil.copytree(tiny_run.path, tmp_path / "damaged")
    for path in (run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError):
        serve(run, port=0, ready=lambda url: pytest.fail("it is ready with a damaged model"))


def started(run: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dlkit_cli", "serve", str(run), "--port", "0", "--device", "cpu", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=run.parent)


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_a_request_that_hangs_holds_no_server_and_a_second_signal_leaves_at_once(
    tiny_run: RunFolder, signals: int
) -> None:
    with started(tiny_run.path) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline().rpartition(":")[2].strip("/\n"))
            with socket.create_connection(("127.0.0.1", port)) as hanging:
                hanging.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n...")
                with httpx.Client(trust_env=False) as client:
                    client.get(f"http://127.0.0.1:{port}/health")  # by now the other has begun
                process.send_signal(signal.SIGTERM)
                if signals == 2:
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(0.5)
                    process.send_signal(signal.SIGTERM)
                assert process.wait(1.5 if signals == 2 else 60) == 143
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_server_prints_its_address_answers_and_ends_by_a_signal(tiny_run: RunFolder, number: signal.Signals) -> None:
    with started(tiny_run.path) as process:
        try:
            assert process.stdout and process.stderr
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
            port = int(url.rpartition(":")[2].strip("/"))
            with socket.create_connection(("127.0.0.1", port)) as junk:
                junk.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
                assert junk.recv(100).startswith(b"HTTP/1.1 400")
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                (expected,) = predict(tiny_run, GOOD, device="cpu")
                assert client.post("/predict", content=GOOD).json() == record(expected)
                assert client.post("/predict", content=b"text").status_code == 422
                process.send_signal(number)  # while a connection is kept open
                assert process.wait(60) == 128 + number
            assert process.stdout.read() == ""
            assert process.stderr.read() == f"dlkit: stopped by {number.name}.\n"
        finally:
            process.kill()


# -- connections


@contextmanager
def running(app: Any, logged: list[str]) -> Iterator[tuple[int, Callable[[], float]]]:
    """A server in a thread: its port, and a function that stops it and returns the seconds that this took."""
    stop = [0]
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=connections.run_until, args=(lambda: stop[0], app, listener, logged.append))
        thread.start()

        def end() -> float:
            started = time.monotonic()
            stop[0] = signal.SIGTERM
            thread.join(60)
            return time.monotonic() - started

        try:
            yield port, end
        finally:
            end()


def half_open(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-")
    return connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_half_requests_neither_silence_the_server_nor_outlive_their_time_nor_delay_its_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    logged: list[str] = []
    with running(client.app, logged) as (port, end), ExitStack() as stack:
        held = [stack.enter_context(half_open(port)) for _ in range(12)]
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        assert all(map(is_closed, held[:8])), "the oldest make room"
        monkeypatch.setattr(connections, "HEADER_S", 0.2)
        late = stack.enter_context(half_open(port))
        assert is_closed(late), "the headers did not come in time"
        monkeypatch.setattr(connections, "HEADER_S", 600)
        stack.enter_context(half_open(port))
        assert end() < 60 and not logged


def test_fifty_requests_at_once_are_queued_and_all_answered(client: Client, tiny_run: RunFolder) -> None:
    (expected,) = predict(tiny_run, GOOD, device="cpu")
    with running(client.app, []) as (port, _), ThreadPoolExecutor(50) as pool:
        post = partial(httpx.post, content=GOOD, trust_env=False, timeout=120)
        answers = list(pool.map(post, [f"http://127.0.0.1:{port}/predict"] * 50))
    assert [answer.json() for answer in answers] == [record(expected)] * 50


def test_bodies_that_wait_are_bounded_together(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_limits, "MAX_WAITING_BYTES", len(GOOD))
    refused = client.post("/predict", GOOD + b"more")
    assert refused.status_code == 503 and refused.json()["error"]["code"] == BusyError.exit_code
    assert [client.post("/predict", GOOD).status_code for _ in range(2)] == [200, 200], "the room is free again"


def test_errors_of_accept_are_logged_once_a_minute() -> None:
    now, logged = [0.0], list[str]()
    log = connections.ErrorLog(logged.append, lambda: now[0])
    loop = asyncio.new_event_loop()
    for now[0] in [0.01 * step for step in range(9000)]:
        log(
            loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
        )
    loop.close()
    assert len(logged) == 2 and "Too many open files" in logged[0]


SLEEPER = """
import signal, threading, time
from fastapi import FastAPI
from dlkit.signals import stop_flag
from dlkit.serve.server import listen
from dlkit.serve.connections import run_until

app = FastAPI()

@app.get("/")
def sleep() -> None:
    print("running", flush=True)
    time.sleep(60)

with listen("127.0.0.1", 0) as listener, stop_flag() as stop:
    print(listener.getsockname()[1], flush=True)
    run_until(stop, app, listener, print)
"""


@pytest.mark.slow
def test_a_signal_ends_the_server_though_a_thread_still_computes() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert process.stdout.readline() == "running\n"
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 143
        finally:
            process.kill()
