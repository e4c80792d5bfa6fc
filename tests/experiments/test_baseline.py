"""baseline: what is stored answers as scikit-learn does, and needs it no more."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapes_on_disk import write_folder
from torch import Tensor, nn

import dlkit
from dlkit import registry
from dlkit.config.resolve import resolve
from dlkit.data.splits import MemoryImages
from dlkit.datasets import shapes
from dlkit.errors import UsageError
from dlkit.evaluation.model_summary import natural_spec, summarize
from dlkit.experiments.baseline import fit_baseline, names
from dlkit.layers.classical import rows
from dlkit.models import decision_tree, knn
from dlkit.runs.run_folder import RunFolder
from dlkit.runs.summary import listing
from dlkit.specs import ImageSpec
from dlkit.training.restore import restore
from dlkit_cli.main import run as dlkit_command

KINDS = ("knn", "logistic", "svm", "tree")
SMALL = {"data.options.train": 320, "data.options.test": 160, "data.options.size": 12}


def needs_sklearn(kind: str) -> None:
    if kind != "knn":
        pytest.importorskip("sklearn", reason="the extra [baseline] is not installed")


def problem(classes: int) -> tuple[MemoryImages, MemoryImages, ImageSpec]:
    """Shapes of these many classes, 12 pixels a side, to fit to and to answer."""
    found = shapes.load(train=400, test=300, size=12)
    spec = ImageSpec(3, 12, 12, shapes.CLASSES[:classes], mean=(0.4, 0.5, 0.6), std=(0.3, 0.34, 0.2))
    parts = []
    for samples in (found.train, found.test):
        assert isinstance(samples, MemoryImages)
        kept = samples.targets < classes
        parts.append(MemoryImages(samples.images[kept], samples.targets[kept]))
    return parts[0], parts[1], spec


def fitted(kind: str, train: MemoryImages, spec: ImageSpec, **options: Any) -> nn.Module:
    """Fitted, taken apart and put together again, as through a run folder."""
    module = registry.load("models", kind)
    resolved = registry.resolved_options("models", kind, options)
    model, sizes = module.fit(train.images, train.targets, spec, 0, resolved)
    again: nn.Module = module.build(spec, **{**resolved, **sizes})
    again.load_state_dict(model.state_dict())
    return again.eval()


def answers(model: nn.Module, samples: MemoryImages, spec: ImageSpec) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.from_numpy(rows(samples.images, spec)).view(samples.images.shape))
    return found


def oracle(kind: str, x: np.ndarray, classes: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "knn": lambda: KNeighborsClassifier(3, algorithm="brute"),
        "logistic": lambda: LogisticRegression(C=0.01, max_iter=200, tol=1e-3),
        "svm": lambda: SVC(C=5.0, gamma=1 / (x.shape[1] * float(x.var())), break_ties=classes > 2),
        "tree": lambda: DecisionTreeClassifier(random_state=0),
    }[kind]()


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_form_predicts_as_scikit_learn_does(kind: str, classes: int) -> None:
    pytest.importorskip("sklearn", reason="the extra [baseline] is not installed")
    train, test, spec = problem(classes)
    theirs = oracle(kind, rows(train.images, spec), classes).fit(rows(train.images, spec), train.targets)
    ours = answers(fitted(kind, train, spec), test, spec)
    expected = theirs.predict(rows(test.images, spec))
    assert (ours.argmax(dim=1).numpy() == expected).all() and len(set(expected.tolist())) == classes
    if kind == "logistic":
        probabilities = theirs.predict_proba(rows(test.images, spec))
        np.testing.assert_allclose(ours.softmax(dim=1), probabilities, atol=1e-5)
    if kind == "svm" and classes > 2:
        np.testing.assert_allclose(ours, theirs.decision_function(rows(test.images, spec)), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_finite_and_alike_alone_and_in_a_batch(kind: str) -> None:
    needs_sklearn(kind)
    train, test, spec = problem(8)
    model = fitted(kind, train, spec)
    together = answers(model, test, spec)
    assert together.isfinite().all()
    some = MemoryImages(test.images[:5], test.targets[:5])
    alone = torch.cat([answers(model, MemoryImages(image[None], some.targets[:1]), spec) for image in some.images])
    torch.testing.assert_close(alone, together[:5], rtol=1e-4, atol=1e-4)
    x = torch.from_numpy(rows(some.images, spec)).view(some.images.shape).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), together[:5], rtol=1e-4, atol=1e-4)


def test_neighbours_do_not_depend_on_how_many_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, spec = problem(8)
    model = fitted("knn", train, spec, neighbors=5)
    whole = answers(model, test, spec)
    monkeypatch.setattr(knn, "BLOCK", 13)
    assert torch.equal(answers(model, test, spec), whole)
    monkeypatch.setattr(knn, "BLOCK", 1)
    assert torch.equal(answers(model, MemoryImages(test.images[:3], test.targets[:3]), spec), whole[:3])


def test_of_equal_neighbours_the_first_are_asked_and_of_equal_votes_the_first_class_wins() -> None:
    images = np.zeros((5, 1, 2, 2), np.uint8)
    spec = natural_spec(1, 2, 2, 3)
    model = fitted("knn", MemoryImages(images, np.array([2, 1, 0, 0, 0])), spec, neighbors=2)
    found = answers(model, MemoryImages(images[:1], np.array([0])), spec)[0]
    assert found.exp().tolist() == pytest.approx([(0 + 1 / 3) / 3, (1 + 1 / 3) / 3, (1 + 1 / 3) / 3])
    assert int(found.argmax()) == 1


def test_a_threshold_between_two_float32_divides_them_as_its_float64_does() -> None:
    below, above = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    near_above = float(below) + 0.9 * (float(above) - float(below))  # rounds up to `above`
    thresholds = np.array([float(below), near_above, -near_above, 0.0])
    found = decision_tree._floor32(thresholds)
    for threshold, rounded in zip(thresholds, found, strict=True):
        for x in (below, above, -below, -above, np.float32(0)):
            assert (x > rounded) == (float(x) > threshold)


@pytest.mark.parametrize("kind", KINDS)
def test_a_summary_of_it_can_be_had(kind: str) -> None:
    assert summarize(kind).layers[-1].output == (10,)


# -- the run


def baseline(kind: str, runs_dir: Path, **given: Any) -> RunFolder:
    limit, said = given.pop("limit", None), given.pop("say", lambda text: None)
    recipe = resolve(kind, "shapes", flags={**SMALL, **given}).recipe
    return fit_baseline(recipe, limit=limit, name=kind, runs_dir=runs_dir, argv=[], say=said)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of each kind."""
    pytest.importorskip("sklearn", reason="the extra [baseline] is not installed")
    folder = tmp_path_factory.mktemp("baselines") / "runs"
    for kind in KINDS:
        baseline(kind, folder)
    yield folder


@pytest.fixture
def without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)


@pytest.mark.parametrize("kind", KINDS)
def test_eval_and_predict_read_it_and_need_no_scikit_learn(
    runs_dir: Path, kind: str, without_sklearn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = RunFolder(runs_dir / kind).metrics()[-1]
    found = dlkit.evaluate(runs_dir / kind, split="validation", write=False)
    assert found.metrics["top1"].value == line["val/top1"] and not found.warnings
    assert found.metrics["loss"].value == pytest.approx(line["val/loss"])
    paths = [str(path) for path in write_folder(tmp_path, "test", count=4)]
    assert dlkit_command(["predict", *paths, "--run", str(runs_dir / kind), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert all(sum(ranked["probability"] for ranked in answer["predictions"]) <= 1 + 1e-9 for answer in answers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_predicts_as_scikit_learn_fitted_to_the_same_split(runs_dir: Path, kind: str) -> None:
    from dlkit.training.inputs import prepare

    recipe = resolve(kind, "shapes", flags=SMALL).recipe
    data = prepare(recipe, lambda text: None)
    train, validation = data.splits["train"], data.splits["validation"]
    assert isinstance(data.spec, ImageSpec)
    assert isinstance(train, MemoryImages) and isinstance(validation, MemoryImages)
    x = rows(train.images, data.spec)
    expected = oracle(kind, x, 8).fit(x, train.targets).predict(rows(validation.images, data.spec))
    model = restore(RunFolder(runs_dir / kind), device="cpu").model
    assert (answers(model, validation, data.spec).argmax(dim=1).numpy() == expected).all()


def test_runs_lists_them_with_their_accuracy(runs_dir: Path) -> None:
    summaries = {summary.model: summary for summary in listing(runs_dir)}
    assert set(summaries) == set(KINDS)
    for kind, summary in summaries.items():
        assert summary.status == "finished" and summary.epochs == 1
        assert summary.best == RunFolder(runs_dir / kind).metrics()[-1]["val/top1"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_holds_tensors_and_text_alone(runs_dir: Path, kind: str) -> None:
    files = [path for path in (runs_dir / kind).rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jsonl", ".yaml"}


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_twice_gives_the_same_numbers(runs_dir: Path, kind: str, tmp_path: Path) -> None:
    again = baseline(kind, tmp_path / "again")
    one, other = (restore(run, device="cpu").model.state_dict() for run in (RunFolder(runs_dir / kind), again))
    assert one and all(torch.equal(one[name], other[name]) for name in one)


def test_images_in_files_are_fitted_to_like_those_in_memory(tmp_path: Path) -> None:
    write_folder(tmp_path, "train")
    write_folder(tmp_path, "test", count=40)
    flags = {"data.dir": str(tmp_path), "data.size": 28, "data.workers": 0}
    recipe = resolve("knn", "folder", flags=flags).recipe
    run = fit_baseline(recipe, limit=None, name="files", runs_dir=tmp_path / "runs", argv=[], say=lambda text: None)
    model = restore(run, device="cpu").model
    assert isinstance(model, knn.NearestNeighbours) and len(model.images) == 144
    assert dlkit.evaluate(run, write=False).samples == 40


def test_a_limit_takes_of_each_class_its_share_and_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    run = baseline("knn", tmp_path, limit=80, say=said.append)
    model = restore(run, device="cpu").model
    assert isinstance(model, knn.NearestNeighbours)
    assert model.targets.bincount().tolist() == [10] * 8 and run.info()["fitted_to"] == 80
    assert "fitting knn to 80 of 288 images" in said


def test_an_svm_is_fitted_to_a_stated_part_by_default() -> None:
    assert registry.load("models", "svm").LIMIT == 10_000
    assert all(registry.load("models", kind).LIMIT is None for kind in ("knn", "logistic", "tree"))


# -- what is refused


def test_the_extra_that_is_missing_is_one_line_with_the_command(
    without_sklearn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    for kind in ("logistic", "svm", "tree"):
        arguments = ["-q", "baseline", kind, "--dataset", "shapes", "--runs-dir", str(tmp_path / "runs"), *settings]
        assert dlkit_command(arguments) == UsageError.exit_code
        out, err = capsys.readouterr()
        assert not out and "pip install 'dlkit[baseline]'" in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    baseline("knn", tmp_path / "runs")  # which needs none


def test_what_is_fitted_is_not_trained_and_what_is_trained_is_not_fitted(tmp_path: Path) -> None:
    assert names() == list(KINDS)
    with pytest.raises(UsageError, match="dlkit baseline knn --dataset shapes"):
        dlkit.train("knn", dataset="shapes", runs_dir=tmp_path)
    recipe = resolve("mlp", "shapes").recipe
    with pytest.raises(UsageError, match="dlkit train mlp"):
        fit_baseline(recipe, limit=None, name=None, runs_dir=tmp_path, argv=[], say=lambda text: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        ["smv"],
        ["mlp"],
        ["knn", "--limit", "0"],
        ["knn", "--set", "model.options.neighbors=0"],
        ["knn", "--name", "a/b"],
    ],
)
def test_the_command_refuses_in_one_line(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-q", "baseline", *wrong, "--dataset", "shapes", "--runs-dir", str(tmp_path)]
    assert (
        dlkit_command([*arguments, *(f"--set={key}={value}" for key, value in SMALL.items())]) == UsageError.exit_code
    )
    out, err = capsys.readouterr()
    assert not out and len(err.strip().splitlines()) == 1


def test_the_command_prints_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    given = ["-q", "baseline", "knn", "--dataset", "shapes", "--runs-dir", str(tmp_path), "--name", "near", *settings]
    assert dlkit_command(given) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'near'}\n"
    assert dlkit_command(given) == UsageError.exit_code  # it exists
