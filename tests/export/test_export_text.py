"""export of networks that read text: the file answers as its run does, from words to probabilities."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_texts
import torch
from shapes_on_disk import form

import dlkit
from dlkit import registry
from dlkit.data.text import tokenization
from dlkit.errors import DataError, ModelFileError, UsageError
from dlkit.evaluation.exported_file import evaluate_file
from dlkit.evaluation.model_file import open_model_file
from dlkit.evaluation.predict import predict
from dlkit.evaluation.prediction import Prediction
from dlkit.export.export import export
from dlkit.export.formats import onnx as onnx_exporter
from dlkit.export.formats import safetensors as safetensors_exporter
from dlkit.export.formats import torch_export
from dlkit.export.verification import verify
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.torch_classifier import torch_classifier
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import TOKENIZATIONS, SequenceSpec
from dlkit_cli.main import run as dlkit_command

LINES = [written.encode() for written, _ in tiny_texts.texts(40, seed=5)]
LINES += [b"Gem!", "we don't KNOW this “dull” word".encode()]
SPEC = SequenceSpec(("a", "b", "c"), 12, words=tuple(f"w{index}" for index in range(10)), tokens="space")


@pytest.fixture(scope="module")
def onnx_file(text_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(text_run, output=tmp_path_factory.mktemp("onnx") / "texts.onnx").path


@pytest.fixture(scope="module")
def weights_file(text_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(text_run, to="safetensors", output=tmp_path_factory.mktemp("weights") / "texts.safetensors").path


def answered(answers: Any) -> list[tuple[str, float]]:
    found = list(answers)
    assert found and all(isinstance(answer, Prediction) for answer in found)
    return [(answer.predictions[0].name, answer.predictions[0].probability) for answer in found]


def alike(ours: list[tuple[str, float]], theirs: list[tuple[str, float]]) -> bool:
    return [name for name, _ in ours] == [name for name, _ in theirs] and bool(
        np.allclose([p for _, p in ours], [p for _, p in theirs], atol=1e-4)
    )


def test_it_is_verified_on_256_texts_and_more(onnx_file: Path, weights_file: Path) -> None:
    for path in (onnx_file, weights_file):
        found = verify(path).entry["verified"]
        assert found["texts"] == 256 and found["split"] == "validation"
        assert found["max_difference"] <= 1e-4 and found["top1_agreement"] == 1 and found["top1"] > 0.9


def test_predict_and_eval_of_the_file_take_text_and_answer_as_the_run(
    text_run: RunFolder, onnx_file: Path, weights_file: Path
) -> None:
    ours = answered(predict(text_run, LINES))
    assert len({name for name, _ in ours}) == 2
    expected = dlkit.evaluate(text_run, write=False)
    for path in (onnx_file, weights_file):
        assert alike(answered(predict(None, LINES, model=str(path))), ours)
        found = evaluate_file(path, data_dir=text_run.recipe().data.dir)
        run_only = {"run_id": None, "weights_sha256": None}  # a file does not know them
        assert (found.confusion == expected.confusion).all()
        assert form(found.document()) == form(expected.document() | run_only)
        assert found.metrics["loss"].value == pytest.approx(expected.metrics["loss"].value, abs=1e-5)


SCRIPT = """
import json, re, sys, unicodedata
import numpy, onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["dlkit"])
rules = about["input"]
ids = {word: index for index, word in enumerate(rules["words"].split(" "), start=rules["first_word"])}
for line in sys.stdin:
    reading = rules["reading"]
    for step in reading["steps"]:
        if step == "replace":
            for one, other in reading["replace"].items():
                line = line.replace(one, other)
        elif step == "normalize":
            line = unicodedata.normalize(reading["normalize"], line)
        elif step == "lower":
            line = line.lower()
    words = re.findall(reading["find_all"], line)
    tokens = numpy.array([[ids.get(word, rules["unknown"]) for word in words[:rules["longest"]]]])
    (probabilities,) = session.run(None, {"tokens": tokens, "lengths": numpy.array([tokens.size])})[0]
    print(about["classes"][probabilities.argmax()], probabilities.max(), sep="\\t")
assert not {"dlkit", "torch"} & sys.modules.keys()
"""


def test_a_script_with_onnxruntime_and_no_dlkit_answers_as_predict(
    text_run: RunFolder, onnx_file: Path, tmp_path: Path
) -> None:
    """The file holds the vocabulary and how text becomes words."""
    given = b"\n".join(LINES).decode()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(onnx_file)], input=given, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = [(name, float(p)) for name, p in (line.split("\t") for line in done.stdout.splitlines())]
    assert alike(found, answered(predict(text_run, LINES)))


def test_the_rule_in_words_is_the_rule() -> None:
    import re

    for line in (*LINES, "Don't “go” it’s 1,000th--mid-level...\0end U\u0308bel ﬁlm 很好 ½".encode()):
        for name in TOKENIZATIONS:
            rule, text = tokenization.describe_rules(name), line.decode()
            for step in rule["steps"]:
                if step == "replace":
                    for one, other in rule["replace"].items():
                        text = text.replace(one, other)
                elif step == "find_all":
                    assert re.findall(rule["find_all"], text) == tokenization.tokenize(line.decode(), name)
                else:
                    text = text.lower() if step == "lower" else unicodedata.normalize(rule["normalize"], text)


def test_what_stands_behind_a_length_has_no_effect(onnx_file: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_file)
    rng = np.random.default_rng(0)
    lengths = np.array([3, 9, 1, 6])
    tokens = rng.integers(1, 14, (4, 9))
    padded = np.where(np.arange(9) < lengths[:, None], tokens, 0)
    found = session.run(None, {"tokens": padded, "lengths": lengths})[0]
    assert np.allclose(session.run(None, {"tokens": tokens, "lengths": lengths})[0], found, atol=1e-6)
    for row, length, answer in zip(tokens, lengths, found, strict=True):
        alone = session.run(None, {"tokens": row[None, :length], "lengths": np.array([length])})[0]
        assert np.allclose(alone[0], answer, atol=1e-6)


PROBE = """
import contextlib, io, json, sys
from dlkit_cli.main import run
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = run(["predict", "-", "--model", sys.argv[1], "--format", "jsonl"])
print(json.dumps([code, sorted({"torch", "rich"} & sys.modules.keys()), *map(json.loads, out.getvalue().splitlines())]))
"""


def test_lines_through_a_pipe_are_answered_without_torch(onnx_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(onnx_file)]
    done = subprocess.run(command, input=b"a gem of a film\n\nit is dull\n", capture_output=True, cwd=tmp_path)
    code, heavy, first, empty, last = json.loads(done.stdout)
    assert (code, heavy) == (3, []), done.stderr
    assert [first["path"], first["predictions"][0]["class"]] == ["-:1", "good"]
    assert empty["error"]["code"] == DataError.exit_code and last["predictions"][0]["class"] == "bad"


# -- trees and numbers


def test_trees_go_to_safetensors_and_nothing_else(
    tree_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for to in ("onnx", "torch_export"):
        assert dlkit_command(["export", str(tree_run.path), "--to", to, "-o", str(tmp_path)]) == UsageError.exit_code
        err = capsys.readouterr().err
        assert "the computation of trees depends on each batch" in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    path = export(tree_run, to="safetensors", output=tmp_path).path
    lines = (Path(str(tree_run.recipe().data.dir)) / "test.txt").read_bytes().splitlines()
    ours = [answer.document() for answer in predict(tree_run, lines, nodes=True)]
    theirs = [answer.document() for answer in predict(None, lines, model=str(path), nodes=True)]
    assert len(ours) == 60 and ours == theirs and "nodes" in ours[0]
    expected = dlkit.evaluate(tree_run, write=False)
    found = evaluate_file(path, data_dir=tree_run.recipe().data.dir)
    assert (found.confusion == expected.confusion).all()


def test_numbers_are_refused(tmp_path: Path) -> None:
    made = dlkit.train(
        "gru", dataset="adding", epochs=1, batch_size=32, name="numbers", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 8, "data.options.steps": 4},
    )  # fmt: skip
    for to in registry.entries("exporters"):
        with pytest.raises(UsageError, match="sequences of numbers"):
            export(made, to=to)


@pytest.mark.parametrize("options", [{"resize": True}, {"quantize": "int8"}])
def test_options_of_images_are_refused(text_run: RunFolder, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is for models of images; run texts takes sequences"):
        export(text_run, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"words": "a b"}, {"words": 3}, {"words": "a  b"}, {"vocabulary": 10**9}, {"vocabulary": True},
        {"tokens": "bytes"}, {"longest": 0}, {"longest": "x"}, {"feed": "prepared"}, {"feed": "x"}, {"reading": 3},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_file_says_of_its_words_is_not_believed_blindly(onnx_file: Path, change: dict[str, Any]) -> None:
    about = open_model_file(onnx_file).about
    document = about.document()
    document["input"] |= change
    with pytest.raises(ModelFileError):
        ExportMetadata.from_json(json.dumps(document))
    assert ExportMetadata.from_json(about.to_json()) == about


def test_more_words_than_the_network_has_vectors_for_is_an_error_of_the_file(onnx_file: Path, tmp_path: Path) -> None:
    import onnx

    about = open_model_file(onnx_file).about
    assert isinstance(about.spec, SequenceSpec)
    words = (*about.spec.words, "more")
    spec = SequenceSpec(about.spec.classes, len(words) + 2, words=words, longest=about.spec.longest)
    path = tmp_path / "more.onnx"
    path.write_bytes(onnx_exporter.serialize(onnx.load_model(onnx_file), about.with_(spec=spec)))
    with pytest.raises(ModelFileError, match="cannot run it"):
        list(predict(None, [b"a gem and more"], model=str(path)))


# -- every network, in every format

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {}), ("rnn", {"nonlinearity": "relu", "pooling": "max"}), ("lstm", {"pooling": "attention"}),
    ("gru", {"layers": 2, "pooling": "mean"}), ("bilstm", {"layers": 2}), ("transformer", {"layers": 1}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=str)
def test_every_network_of_text_answers_alike_in_every_format(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    resolved = registry.resolved_options("models", name, options)
    model = registry.load("models", name).build(SPEC, **resolved).eval()
    about = ExportMetadata(name, SPEC, resolved, feed="tokens")
    rng = np.random.default_rng(0)
    texts = [[f"w{index}" for index in rng.integers(0, 14, length)] for length in (4, 1, 9, 2, 30)]
    expected = np.exp(torch_classifier(model, torch.device("cpu"), SPEC)(texts))
    for exporter in (onnx_exporter, torch_export, safetensors_exporter):
        classify = exporter.classifier(exporter.export(model, SPEC, about), about, "cpu")
        assert abs(np.exp(classify(texts)) - expected).max() <= 1e-5
        for index in range(len(texts)):
            assert abs(np.exp(classify(texts[index : index + 1])) - expected[index]).max() <= 1e-5


@pytest.mark.slow
def test_a_network_that_is_computed_step_by_step_is_refused_with_the_reason() -> None:
    resolved = registry.resolved_options("models", "gru", {"kernel": "paper"})
    model = registry.load("models", "gru").build(SPEC, **resolved).eval()
    with pytest.raises(UsageError, match="its code fixes the batch size"):
        onnx_exporter.export(model, SPEC, ExportMetadata("gru", SPEC, resolved, feed="tokens"))


@pytest.mark.slow
def test_torch_export_of_text_is_verified(text_run: RunFolder, tmp_path: Path) -> None:
    found = export(text_run, to="torch_export", raw=True, output=tmp_path / "texts.pt2")
    assert found.entry["verified"]["texts"] == 256 and found.entry["verified"]["max_difference"] <= 1e-4
    verify(found.path)
