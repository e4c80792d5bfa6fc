"""explain: images and records in the run folder, from the shell and from Python."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapes_on_disk import form, write_folder

import dlkit
from dlkit import documents, registry
from dlkit.errors import DataError, ModelFileError, StorageError, UsageError
from dlkit.explanation.explain import Explanation, Failure, explain, features, layers
from dlkit.explanation.methods import grad_cam
from dlkit.runs.run_folder import RunFolder
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"
METHODS = sorted(registry.entries("explainers"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small convolutional network after two epochs over shapes."""
    return dlkit.train(
        "simple_cnn",
        dataset="shapes",
        epochs=2,
        batch_size=32,
        settings={"data.options.train": 640, "data.options.test": 40},
        name="cnn",
        runs_dir=tmp_path_factory.mktemp("explain") / "runs",
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folder(tmp_path_factory.mktemp("shapes"), "test", count=6)


def explained(*arguments: Any, **options: Any) -> list[Explanation]:
    answers = list(explain(*arguments, **options))
    assert answers and all(isinstance(answer, Explanation) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Explanation)]


def test_an_explanation_is_of_the_predicted_class_and_is_in_the_run_folder(run: RunFolder, files: list[Path]) -> None:
    (answer,) = dlkit.predict(run, files[0], topk=1)
    (result,) = explained(run, files[0])
    best = answer.document()["predictions"][0]
    assert (result.target, result.predicted) == (best["class"], best["class"])
    assert result.probability == pytest.approx(best["probability"], abs=1e-6)
    assert result.method == "grad_cam" and result.layer == "squash"
    assert result.png == run.path / "explanations" / f"{files[0].stem}-grad_cam.png"
    with Image.open(result.png) as picture:
        assert picture.width > 3 * 280 and picture.height > 280
    assert documents.read(result.png.with_suffix(".json")) == result.document()


def test_the_record_has_its_documented_form(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    (result,) = explained(run, files[0], method="integrated_gradients", output=tmp_path / "a.png")
    assert form(result.document()) == json.loads((GOLDEN / "explain.json").read_text())


def test_the_same_call_gives_the_same_bytes_and_another_seed_other_ones(
    run: RunFolder, files: list[Path], tmp_path: Path
) -> None:
    maps = {}
    for name, seed in (("one", None), ("same", None), ("other", 7)):
        (result,) = explained(run, files[0], method="smoothgrad", seed=seed, output=tmp_path / f"{name}.png")
        maps[name] = result.map
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert not np.array_equal(maps["one"], maps["other"])


def test_all_supported_methods_are_used_and_others_reported(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    messages: list[str] = []
    result = explained(run, files[0], method="all", output=tmp_path, say=messages.append)
    expected = [method for method in METHODS if method != "attention_rollout"]
    assert [answer.method for answer in result] == expected
    assert any(line.startswith("attention_rollout is skipped") for line in messages)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.json"))) == len(result)
    complete = {answer.method: answer.completeness_error for answer in result}
    assert complete.pop("integrated_gradients") < 0.01 and set(complete.values()) == {None}  # type: ignore[operator]


def test_a_montage_is_one_image(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    methods_in_one = explained(run, files[:2], method="all", montage=True, output=tmp_path / "m.png")
    assert {answer.png for answer in methods_in_one} == {tmp_path / "m.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_a_class_can_be_selected(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    classes = run.spec().classes
    for target in classes[:3]:
        (result,) = explained(run, files[0], target=target, output=tmp_path)
        assert (result.target, result.target_index) == (target, classes.index(target))


def test_two_inputs_of_the_same_name_get_two_images(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(files[0], tmp_path / folder / "x.png")
    result = explained(run, [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"], output=tmp_path)
    assert [answer.png and answer.png.name for answer in result] == ["x-grad_cam.png", "x-grad_cam-2.png"]


def test_an_untrained_network_is_flagged(files: list[Path], tmp_path: Path) -> None:
    made = dlkit.train(
        "simple_cnn", dataset="shapes", epochs=1, batch_size=32, lr=1e-12, name="fresh", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 40},
    )  # fmt: skip
    messages: list[str] = []
    (result,) = explained(made, files[0], say=messages.append)
    assert result.sanity.random_weights and result.sanity.flagged
    assert any(line.startswith("warning: ") and "random" in line for line in messages)


def test_an_empty_map_is_reported(
    run: RunFolder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Grad-CAM, if the layer has only evidence against the class."""
    monkeypatch.setattr(grad_cam, "explain", lambda model, images, targets, **_: images.new_zeros(1, *images.shape[2:]))
    messages: list[str] = []
    later: list[str] = []
    (result,) = explained(run, files[0], output=tmp_path / "a.png", say=messages.append)
    assert result.empty and result.document()["empty"] and result.sanity.correlation is None
    note = f"note: {files[0]}: grad_cam has no evidence for {result.target} at squash. Try another --layer."
    assert note in messages
    (full,) = explained(run, files[0], method="saliency", output=tmp_path / "b.png", say=later.append)
    assert not full.empty and not any(line.startswith("note: ") for line in later)


def test_a_vision_transformer_is_explained_by_its_attention(files: list[Path], tmp_path: Path) -> None:
    made = dlkit.train(
        "vit_mini_4", dataset="shapes", epochs=1, batch_size=32, name="vit", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 40, "model.options.depth": 1},
    )  # fmt: skip
    (result,) = explained(made, files[0])
    assert result.method == "attention_rollout" and result.layer is None
    with pytest.raises(UsageError, match="no feature maps"):
        explain(made, files[0], method="grad_cam")


def test_bad_images_are_failures_and_the_rest_continue(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    answers = list(explain(run, [tmp_path / "text.png", files[0], tmp_path / "none.png"], output=tmp_path))
    assert [isinstance(answer, Failure) for answer in answers] == [True, False, True]
    assert isinstance(answers[0], Failure) and answers[0].code == DataError.exit_code


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "gradcam"}, "Did you mean 'grad_cam'.*occlusion"),
        ({"target": "dusk"}, "Did you mean 'disk'.*star"),
        ({"layer": "squish"}, "Did you mean 'squash'.*conv"),
        ({"layer": "output"}, "There are: .*squash"),
        ({"method": "saliency", "layer": "squash"}, "--layer is for grad_cam, grad_cam_pp"),
        ({"method": "attention_rollout"}, "vision transformers"),
        ({"output": "x.jpg"}, "end"),
    ],
)
def test_a_wrong_name_is_reported_with_the_valid_ones(
    run: RunFolder, files: list[Path], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        explain(run, files[0], **options)


def test_output_never_overwrites_the_inputs(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    shutil.copy(files[0], tmp_path / "a.png")
    shutil.copy(files[0], tmp_path / "a-grad_cam.png")
    with pytest.raises(UsageError, match="input image itself"):
        explain(run, tmp_path / "a.png", output=tmp_path / "a.png")
    given = [tmp_path / "a.png", tmp_path / "a-grad_cam.png"]
    before = (tmp_path / "a-grad_cam.png").read_bytes()
    explained(run, given, output=tmp_path)
    assert (tmp_path / "a-grad_cam.png").read_bytes() == before


def test_one_file_holds_one_image(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--montage"):
        list(explain(run, files[:2], output=tmp_path / "a.png"))
    with pytest.raises(StorageError, match="does not exist"):
        explain(run, files[0], output=tmp_path / "none" / "a.png")


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    made = dlkit.train(
        "gru", dataset="adding", epochs=1, batch_size=32, name="seq", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 8, "data.options.steps": 4},
    )  # fmt: skip
    with pytest.raises(UsageError, match="explain is for models of images, text and trees; run seq takes"):
        explain(made, "x.png")
    with pytest.raises(UsageError, match="for models of images; run seq takes sequences"):
        layers(made)


def test_layers_are_listed_in_order_with_the_default(run: RunFolder) -> None:
    result = layers(run)
    assert [layer.path for layer in result] == ["conv", "pool", "squash"]
    assert [layer.path for layer in result if layer.default] == ["squash"]
    assert (result[0].kind, result[0].channels, result[0].height) == ("Conv2d", 32, 26)


def test_features_are_an_image_of_filters_and_maps(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    (result,) = features(run, files[0], layer="pool", output=tmp_path)
    assert not isinstance(result, Failure)
    assert (result.channels, result.height, result.width, result.shown) == (32, 13, 13, 32)
    assert result.png.name == f"{files[0].stem}-features-pool.png"
    with Image.open(result.png) as picture:
        assert picture.width > 600
    with pytest.raises(UsageError, match="Did you mean 'pool'"):
        features(run, files[0], layer="pol")


def test_the_command_prints_records_and_its_exit_codes_are_those_of_predict(
    run: RunFolder, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["explain", str(files[0]), "--run", str(run.path), "-o", str(tmp_path), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["schema"] == "dlkit.explain/1" and Path(record["png"]).is_file()
    bad = [str(files[0]), "none.png", "--run", str(run.path), "-o", str(tmp_path)]
    assert dlkit_command(["explain", *bad]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:3] == ["path", "method", "layer"] and lines[2].endswith("none.png: no such file.")
    assert dlkit_command(["explain", *bad[1:]]) == DataError.exit_code
    assert dlkit_command(["explain", *bad[:1], *bad[2:], "--method", "gradcam"]) == 2
    assert "grad_cam_pp" in capsys.readouterr().err
    assert dlkit_command(["explain", "--run", str(run.path)]) == 2
    assert dlkit_command(["explain", "--run", str(run.path), "--list-layers", "--format", "tsv"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "squash\tReLU\t32\t13\t13\ttrue"


def test_an_image_comes_through_a_pipe(
    run: RunFolder,
    files: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(files[0].read_bytes())))
    line = ["explain", "--stdin-image", "--run", str(run.path), "-o", str(tmp_path / "a.png")]
    assert dlkit_command(line) == 0 and (tmp_path / "a.png").is_file()
    assert capsys.readouterr().out.splitlines()[1].startswith("-\tgrad_cam\tsquash\t")


def test_a_damaged_checkpoint_is_reported(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "broken")
    for path in (tmp_path / "broken" / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFileError):
        explain(tmp_path / "broken", files[0])
