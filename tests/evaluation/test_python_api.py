"""dlkit from Python: images in memory, results as tables, and a run's network with its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dlkit
from dlkit.data.images import decode, in_memory
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.prediction import Failure, Prediction, Predictions
from dlkit.runs.run_folder import RunFolder


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def probabilities(answer: Prediction | Failure) -> list[tuple[str, float]]:
    assert isinstance(answer, Prediction)
    return [(ranked.name, ranked.probability) for ranked in answer.predictions]


def test_an_image_is_answered_alike_as_a_file_and_in_memory(tiny_run: RunFolder, tmp_path: Path) -> None:
    image = picture()
    image.save(tmp_path / "one.png")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)  # (C, H, W)
    forms: list[Any] = [
        tmp_path / "one.png", str(tmp_path / "one.png"), image, array, array / 255.0, tensor, tensor.float() / 255,
    ]  # fmt: skip
    (file,) = in_memory.files(image)
    expected = probabilities(next(dlkit.predict(tiny_run, file)))
    for form in forms:
        assert probabilities(next(dlkit.predict(tiny_run, form))) == expected
    for batch in (forms, np.stack([array, array]), torch.stack([tensor, tensor])):
        answers = [probabilities(answer) for answer in dlkit.predict(tiny_run, batch)]
        assert len(answers) == len(batch) and all(answer == answers[0] for answer in answers)
        assert answers[0] == [(name, pytest.approx(probability, abs=1e-5)) for name, probability in expected]


def test_images_in_memory_are_numbered_and_named_files_keep_their_path(tiny_run: RunFolder, tmp_path: Path) -> None:
    picture().save(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as opened:
        answers = list(dlkit.predict(tiny_run, [picture(), opened, np.zeros((2, 8, 8), np.uint8)[..., None]]))
    assert [answer.path for answer in answers] == ["image 1", str(tmp_path / "one.png"), "image 3", "image 4"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_a_mode_is_decoded_as_from_a_file(mode: str, tmp_path: Path) -> None:
    image = picture("L").point(lambda value: value * 256, "I").convert("I;16") if mode == "I;16" else picture(mode)
    image.save(tmp_path / "one.tif")
    (content,) = in_memory.files(image)
    assert decode.decode(content, 3).tobytes() == decode.decode(tmp_path / "one.tif", 3).tobytes()


def test_an_orientation_is_applied_to_images_in_memory() -> None:
    image = picture()
    image.getexif()[0x0112] = 6
    (content,) = in_memory.files(image)
    assert decode.decode(content, 3).size == (30, 40)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"), (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3)) + 2, "fractions"), (np.zeros((4, 4), np.int64), "fractions"), (np.zeros(4), "shape"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(array: Any, reason: str, tiny_run: RunFolder) -> None:
    with pytest.raises(UsageError, match=reason):
        list(dlkit.predict(tiny_run, array))


def test_predictions_are_a_stream_and_a_table(tiny_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    answers = dlkit.predict(tiny_run, [picture(), tmp_path / "broken.png"], topk=2)
    assert isinstance(answers, Predictions)
    documents = answers.to_dict()
    assert [document["schema"] for document in documents] == ["dlkit.predict/1"] * 2 and "error" in documents[1]
    html = answers._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 4 and "image 1" in html and "not an image" in html
    assert [answer.path for answer in answers] == ["image 1", str(tmp_path / "broken.png")]  # still there
    single = next(dlkit.predict(tiny_run, picture(), topk=3))
    assert isinstance(single, Prediction)
    assert single.to_dict() == single.document() and single._repr_html_().count("<tr>") == 4


def test_names_are_escaped_in_a_notebook(tiny_run: RunFolder) -> None:
    failure = Failure("<script>", "mlp", 4, "a & b")
    assert "&lt;script&gt;" in failure._repr_html_() and "a &amp; b" in failure._repr_html_()


def test_results_are_pandas_tables(tiny_run: RunFolder) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = dlkit.predict(tiny_run, [picture(), picture("L")], topk=2).to_pandas()
    assert list(frame["rank"]) == [1, 2, 1, 2] and {"path", "class", "probability"} <= set(frame.columns)
    result = dlkit.evaluate(tiny_run, write=False)
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame) and list(table["class"]) == [one.name for one in result.classes]
    assert "top1" in result._repr_html_() and result.to_dict() == result.document()


def test_without_pandas_its_command_is_named(tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        next(dlkit.predict(tiny_run, picture())).to_pandas()


def test_a_loaded_network_answers_as_predict_does(tiny_run: RunFolder, tmp_path: Path) -> None:
    picture().save(tmp_path / "one.png")
    model = dlkit.load(tiny_run)
    assert not model.module.training and len(model.classes) == 8
    inputs = model.preprocess([tmp_path / "one.png", picture(), np.asarray(picture())])
    assert inputs.shape == (3, 3, 28, 28) and torch.equal(inputs[0], inputs[1]) and torch.equal(inputs[0], inputs[2])
    found = model(picture())
    (answer,) = dlkit.predict(tiny_run, picture(), topk=8)
    for name, probability in probabilities(answer):
        assert found[0, model.classes.index(name)].item() == pytest.approx(probability, abs=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(model.module(inputs).softmax(1)[0].double(), found[0], rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match="nothing"):
        model.preprocess("nothing.png")
