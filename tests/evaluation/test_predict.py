"""predict: every input answered, in order, as it comes; by the same rules as eval."""

from __future__ import annotations

import codecs
import csv
import functools
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from PIL import Image
from shapes_on_disk import form, write_folder

import dlkit
from dlkit.data.inputs import Stream, inputs
from dlkit.errors import DataError, DlkitError, ModelFileError, StorageError, UsageError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Failure, Prediction
from dlkit.runs.run_folder import RunFolder
from dlkit.training.restore import restore
from dlkit_cli import console
from dlkit_cli import inputs as command_inputs
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"
Answers = list[Prediction | Failure]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's 160 test images as test/CLASS/0007.png, and a few to train on."""
    root = tmp_path_factory.mktemp("shapes")
    write_folder(root, "test")
    write_folder(root, "train", count=8)
    return root


@pytest.fixture(scope="module")
def images(folder: Path) -> list[Path]:
    return sorted((folder / "test").rglob("*.png"))


def best(answers: Answers) -> list[str]:
    return [answer.predictions[0].name for answer in answers if isinstance(answer, Prediction)]


def test_predict_over_the_test_images_has_exactly_evals_accuracy(tiny_run: RunFolder, folder: Path) -> None:
    answers = list(predict(tiny_run, folder / "test"))
    right = sum(Path(answer.path).parent.name == name for answer, name in zip(answers, best(answers), strict=True))
    found = dlkit.evaluate(tiny_run, write=False)
    assert len(answers) == found.samples and right / len(answers) == found.metrics["top1"].value


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_answers_do_not_depend_on_the_batch_size(tiny_run: RunFolder, images: list[Path], batch_size: int) -> None:
    expected, found = list(predict(tiny_run, images[:20])), list(predict(tiny_run, images[:20], batch_size=batch_size))
    assert best(found) == best(expected) and [answer.path for answer in found] == [str(path) for path in images[:20]]
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, Prediction) and isinstance(other, Prediction)
        pairs = zip(one.predictions, other.predictions, strict=True)
        assert all(a.probability == pytest.approx(b.probability, abs=1e-6) for a, b in pairs)


def test_probabilities_fall_and_sum_to_one(tiny_run: RunFolder, images: list[Path]) -> None:
    (answer,) = predict(tiny_run, images[0], topk=8)
    assert isinstance(answer, Prediction)
    probabilities = [ranked.probability for ranked in answer.predictions]
    assert sum(probabilities) == pytest.approx(1) and probabilities == sorted(probabilities, reverse=True)
    assert [ranked.rank for ranked in answer.predictions] == list(range(1, 9))
    classes = tiny_run.spec().classes
    assert all(classes[ranked.index] == ranked.name for ranked in answer.predictions)


def test_min_prob_leaves_out_what_is_less_probable(tiny_run: RunFolder, images: list[Path]) -> None:
    (whole,) = predict(tiny_run, images[0], topk=8)
    assert isinstance(whole, Prediction)
    bar = whole.predictions[2].probability
    (cut,) = predict(tiny_run, images[0], topk=8, min_prob=bar)
    (none,) = predict(tiny_run, images[0], min_prob=1.0)
    assert isinstance(cut, Prediction) and cut.predictions == whole.predictions[:3]
    assert isinstance(none, Prediction) and none.predictions == ()


def test_a_bad_input_is_answered_in_its_place_and_the_rest_go_on(
    tiny_run: RunFolder, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("nowhere")
    bad = [tmp_path / name for name in ("text.png", "none.png", "empty.jpg", "folder.png", "pipe.png", "link.png")]
    mixed: list[str | Path | bytes] = [images[0], *bad, images[1], str(tmp_path / "*.gif"), b"", images[2].read_bytes()]
    answers = list(predict(tiny_run, mixed, batch_size=4))
    assert [isinstance(answer, Failure) for answer in answers] == [False, *[True] * 6, False, True, True, False]
    for path, answer in zip(bad, answers[1:], strict=False):
        assert isinstance(answer, Failure) and answer.code == DataError.exit_code
        assert answer.path == str(path) and str(path) in answer.message
    assert answers[-1].path == "-" and best(answers)[-1] == best(list(predict(tiny_run, images[2])))[0]


def test_an_animation_is_answered_by_its_first_frame_and_one_warning(
    tiny_run: RunFolder, images: list[Path], tmp_path: Path
) -> None:
    with Image.open(images[0]) as first, Image.open(images[1]) as second:
        first.save(tmp_path / "two.png", save_all=True, append_images=[second])
    said: list[str] = []
    answers = list(predict(tiny_run, tmp_path / "two.png", say=said.append))
    assert best(answers) == best(list(predict(tiny_run, images[0])))
    assert len([line for line in said if line.startswith("warning: ")]) == 1


def test_folders_and_globs_are_searched_in_order(tiny_run: RunFolder, images: list[Path], tmp_path: Path) -> None:
    names = [
        "b/2.png",
        "b/10.PNG",
        "a.png",
        "c/d/e.png",
        ".hidden/x.png",
        "c/.x.png",
        "c/notes.txt",
        "__MACOSX/c/x.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images[0], tmp_path / name)
    found = [answer.path for answer in predict(tiny_run, str(tmp_path))]
    assert found == [str(tmp_path / name) for name in ("a.png", "b/10.PNG", "b/2.png", "c/d/e.png")]
    assert [answer.path for answer in predict(tiny_run, f"{tmp_path}/[a-c]/**/*.png")] == [
        str(tmp_path / name) for name in ("b/2.png", "c/d/e.png")
    ]
    shutil.copy(images[0], tmp_path / "a[1].png")
    assert [answer.path for answer in predict(tiny_run, f"{tmp_path}/a[1].png")] == [f"{tmp_path}/a[1].png"]


def test_the_first_answer_does_not_wait_for_the_last_path(tiny_run: RunFolder, images: list[Path]) -> None:
    answered = threading.Event()

    def slow() -> Iterator[Path]:
        yield images[0]
        assert answered.wait(60), "the second path was wanted before the first was answered"
        yield images[1]

    answers = predict(tiny_run, slow())
    first = next(answers)
    answered.set()
    assert [first.path, *(answer.path for answer in answers)] == [str(images[0]), str(images[1])]


def test_an_endless_source_is_read_only_a_little_ahead(tiny_run: RunFolder, images: list[Path]) -> None:
    before = reading_threads()  # other tests of this process may have left readers that wait for their source
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield images[0]

    answers = predict(tiny_run, endless(), batch_size=4)
    assert len([next(answers) for _ in range(8)]) == 8
    time.sleep(0.3)  # the reader has run as far as it may
    assert 8 <= taken <= 8 + 4 * 4
    answers.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while (remaining := reading_threads() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not remaining, "the threads go on after their reader has left"


def reading_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(("read", "decode"))}


def test_a_fault_of_the_source_is_raised_after_what_came_before_it(tiny_run: RunFolder, images: list[Path]) -> None:
    def broken() -> Iterator[Path]:
        yield images[0]
        raise OSError("the tape is torn")

    answers = predict(tiny_run, broken())
    assert isinstance(next(answers), Prediction)
    with pytest.raises(OSError, match="torn"):
        next(answers)


def test_records_have_the_golden_form(tiny_run: RunFolder, images: list[Path], tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "predict.json").read_text())
    answer, failure = (answer.document() for answer in predict(tiny_run, [images[0], tmp_path / "none.png"]))
    assert form(answer) == golden["answer"] and form(failure) == golden["failure"]
    assert list(answer) == list(golden["answer"]) and answer["model"] == "mlp"


@pytest.mark.parametrize(
    "options",
    [{"topk": 0}, {"topk": 9}, {"min_prob": 1.5}, {"min_prob": float("nan")}, {"batch_size": 0}, {"model": "mlp"},
     {"weights": "imagenet"}, {"model": "mpl", "weights": "x"}, {"dataset": "shapes"}],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_anything_is_read(tiny_run: RunFolder, options: dict[str, Any]) -> None:
    run = None if "model" in options or "weights" in options else tiny_run
    with pytest.raises(UsageError):
        predict(run, iter(()), runs_dir=tiny_run.path.parent, **options)


# -- the model by name and weights


@pytest.fixture(scope="module")
def weights(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's weights as a bare file."""
    path = tmp_path_factory.mktemp("weights") / "mlp.safetensors"
    safetensors.torch.save_file(restore(tiny_run, device="cpu").model.state_dict(), path)
    return path


def test_a_model_by_name_takes_weights_from_a_run_or_its_checkpoint(tiny_run: RunFolder, images: list[Path]) -> None:
    expected = list(predict(tiny_run, images[:4], checkpoint="last"))
    newest = max(tiny_run.checkpoints.glob("*.safetensors"))
    for source in (tiny_run.path, "tiny", newest):
        found = predict(None, images[:4], model="mlp", weights=source, checkpoint="last", runs_dir=tiny_run.path.parent)
        assert list(found) == expected
    with pytest.raises(ModelFileError, match="holds 'mlp'"):
        predict(None, images[:1], model="lenet5", weights=newest)


def test_weights_that_do_not_fit_are_refused_with_their_names(weights: Path, images: list[Path]) -> None:
    with pytest.raises(UsageError, match="--dataset"):
        predict(None, images[:1], model="mlp", weights=weights)
    with pytest.raises(ModelFileError, match="no such"):
        predict(None, images[:1], model="mlp", weights="nowhere.safetensors")
    answers = predict(None, images[:1], model="lenet5_relu", weights=weights, dataset="shapes")
    with pytest.raises(ModelFileError, match=r"\d+ missing: .*\d+ unexpected: "):
        next(answers)


# -- the network


@pytest.fixture
def server(images: list[Path]) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(images[0].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_url_is_fetched_and_its_password_kept_to_itself(
    tiny_run: RunFolder, images: list[Path], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLKIT_OFFLINE")
    nobody = socket.create_server(("127.0.0.1", 0))
    urls = [f"http://user:secret@{server}/{images[0].name}", f"http://127.0.0.1:{nobody.getsockname()[1]}/none.png"]
    nobody.close()
    found, missing = predict(tiny_run, urls)
    assert found.path == f"http://{server}/{images[0].name}" and best([found]) == best(
        list(predict(tiny_run, images[0]))
    )
    assert isinstance(missing, Failure) and missing.code == StorageError.exit_code and "refused" in missing.message


def test_offline_a_url_is_refused(tiny_run: RunFolder, server: str) -> None:
    (answer,) = predict(tiny_run, f"http://{server}/0000.png")
    assert isinstance(answer, Failure) and "DLKIT_OFFLINE" in answer.message


# -- the command


def command(tiny_run: RunFolder, *arguments: str) -> int:
    return dlkit_command(["predict", "--run", str(tiny_run.path), *arguments])


def test_exit_codes_tell_none_some_and_all_failed(
    tiny_run: RunFolder, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = str(images[0]), str(tmp_path / "none.png")
    assert command(tiny_run, good, "--format", "jsonl") == 0
    assert "could not be read" not in capsys.readouterr().err
    assert command(tiny_run, good, bad, "--format", "jsonl") == 3
    out, err = capsys.readouterr()
    assert ["error" in json.loads(line) for line in out.splitlines()] == [False, True]
    assert "1 input could not be read" in err and len(err.splitlines()) == 1
    assert command(tiny_run, bad) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_json_is_one_array_and_csv_is_long(
    tiny_run: RunFolder, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(images[0]), str(tmp_path / "none.png"), str(images[1])]
    assert command(tiny_run, *files, "--json", "--topk", "2") == 3
    document = json.loads(capsys.readouterr().out)
    assert [record["path"] for record in document] == files
    assert command(tiny_run, *files, "--format", "csv", "--topk", "2") == 3
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["path", "rank", "class", "index", "probability", "error"]
    assert [row[:2] for row in rows] == [
        [files[0], "1"],
        [files[0], "2"],
        [files[1], ""],
        [files[2], "1"],
        [files[2], "2"],
    ]
    assert "no such file" in rows[2][5] and float(rows[0][4]) == document[0]["predictions"][0]["probability"]
    assert command(tiny_run, files[0], "--format", "tsv", "--min-prob", "1") == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t") == [files[0], "", "", "", "", ""]


@pytest.mark.parametrize(
    "arguments", [[], ["-0"], ["-0", "x.png"], ["-", "-"], ["--stdin-image", "x.png"], ["x.png", "--topk", "99"]]
)
def test_a_command_that_makes_no_sense_is_refused(
    tiny_run: RunFolder, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_inputs, "_stdin_chunks", lambda: iter(()))
    assert command(tiny_run, *arguments) == (0 if arguments == ["-0"] else 2)


def test_without_any_run_the_way_to_one_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dlkit_command(["predict", "x.png", "--runs-dir", str(tmp_path)]) == 7
    assert "dlkit train" in (err := capsys.readouterr().err) and "--weights" in err


@pytest.mark.parametrize("separator", [b"\0", b"\n"])
def test_paths_on_stdin_survive_any_cut_and_any_byte(separator: bytes) -> None:
    names = [b"a b.png", b"\xff\xfe.png", "größe.png".encode(), b"two\nlines.png" if separator == b"\0" else b"x\0.png"]
    text = separator.join([*names, b""]) + names[0]  # the last one without its end, one empty
    for size in (1, 2, 7, 1000):
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        given = inputs([Stream(pieces, separator)], natural_spec(3, 8, 8, 2))
        found = [os.fsencode(str(item.source)) for item in given]
        assert found == [*names, names[0]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_list_of_lines_may_end_as_windows_does_and_begin_with_a_mark(encoding: str) -> None:
    names = ["a.png", "été/b.png", "c.png"]
    data = "".join(f"{name}\r\n" for name in names).encode(encoding)
    data = codecs.BOM_UTF16_LE + data if encoding == "utf-16-le" else data
    for cut in (1, 2, len(data)):
        chunks = [data[start : start + cut] for start in range(0, len(data), cut)]
        given = inputs([Stream(chunks)], natural_spec(3, 8, 8, 2))
        assert [item.name for item in given] == names


def test_a_file_that_is_called_with_a_return_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a\r").touch()
    given = inputs([Stream([os.fsencode(tmp_path / "a"), b"\r\n"])], natural_spec(3, 8, 8, 2))
    assert [item.name for item in given] == [str(tmp_path / "a\r")]


def test_links_to_folders_are_followed_and_a_loop_is_one_error(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "classes").symlink_to(images[0].parent.parent)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "loop").symlink_to(tmp_path)
    found = list(inputs([tmp_path], natural_spec(3, 8, 8, 2)))
    good = [item for item in found if not isinstance(item.source, DlkitError)]
    assert [item.name for item in good] == [str(tmp_path / "classes" / path.parent.name / path.name) for path in images]
    assert [str(item.source) for item in found if item not in good] == [
        f"{inside / 'loop'}: is a link to a folder that contains it. Remove the link."
    ]


def test_strange_names_come_out_readable(
    tiny_run: RunFolder, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [b"two\nlines.png", b"\xff.png", "größe 😀.png".encode()]
    for name in names:
        shutil.copy(images[0], os.fsencode(tmp_path) + b"/" + name)
    console.prepare_streams()
    assert command(tiny_run, str(tmp_path), "--format", "jsonl", "--topk", "1") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(os.fsencode(record["path"]).rpartition(b"/")[2] for record in records) == sorted(names)


def test_a_pipe_given_as_an_argument_is_read_and_a_named_one_is_refused_with_the_way(
    tiny_run: RunFolder, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.write(writer, images[0].read_bytes())
    os.close(writer)
    named = tmp_path / "x.png"
    os.mkfifo(named)
    given = [str(images[1]), f"/dev/fd/{reader}", str(named), str(images[0])]
    assert command(tiny_run, *given, "--format", "jsonl") == 3
    os.close(reader)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["path"] for record in records] == given
    assert records[1]["predictions"] == records[3]["predictions"] and "--stdin-image" in records[2]["error"]["message"]


def test_the_program_answers_each_line_as_it_comes_and_without_torchvision(
    tiny_run: RunFolder, images: list[Path]
) -> None:
    program = (
        "import sys; from dlkit_cli.main import run; code = run(sys.argv[1:]); print('torchvision' in sys.modules)"
    )
    arguments = ["predict", "--run", str(tiny_run.path), "-", "--format", "jsonl", "--topk", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        for path in images[:3]:  # each is written only when the one before has been answered
            process.stdin.write(os.fsencode(path) + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["path"] == str(path)
        process.stdin.close()
        assert process.stdout.read() == b"False\n"
        assert process.stderr.read() == b"" and process.wait(60) == 0


def test_a_missing_run_is_said_without_torch(tmp_path: Path) -> None:
    program = "import sys; from dlkit_cli.main import run; print(run(sys.argv[1:]), 'torch' in sys.modules)"
    arguments = ["predict", "x.png", "--runs-dir", str(tmp_path)]
    found = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert found.stdout == "7 False\n" and len(found.stderr.splitlines()) == 1
