"""ablate: the effect of a part has the right sign, and what was trained once is not trained again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapes_on_disk import form

from dlkit import atomic_io, documents
from dlkit.config import ablation_parts, yaml_file
from dlkit.config.resolve import resolve
from dlkit.config.schema import Recipe
from dlkit.errors import DataError, PartialError, UsageError
from dlkit.experiments.ablate import Ablation, ablate, plan_trainings
from dlkit.plots import bars, style
from dlkit.runs.run_folder import RunFolder
from dlkit.training import train as training
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"


def write_mirrored(folder: Path) -> None:
    """A spot in the upper or the lower half, which is the class. In train the upper ones lie left and the lower ones
    right, in test the other way round: who has not seen mirrored images goes by the wrong side."""
    generator = np.random.default_rng(0)
    for split, upper_columns in (("train", (1, 5)), ("test", (7, 11))):
        for name, rows in (("upper", (1, 5)), ("lower", (7, 11))):
            low, high = upper_columns if name == "upper" else (12 - upper_columns[1], 12 - upper_columns[0])
            (folder / split / name).mkdir(parents=True)
            for number in range(40):
                pixels = generator.integers(0, 60, (12, 12), np.uint8)
                row, column = generator.integers(*rows), generator.integers(low, high)
                pixels[row - 1 : row + 2, column - 1 : column + 2] = 255
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Mirroring must help on these data, and clipping at a norm that no gradient has can do nothing."""
    folder = tmp_path_factory.mktemp("mirrored")
    write_mirrored(folder)
    flags = {
        "data.dir": str(folder), "data.workers": 0, "data.size": 12, "data.channels": 1, "data.validation": 0.2,
        "data.augment.horizontal_flip": 0.5, "model.options.hidden": "16", "optimizer.lr": 0.01,
        "train.clip_grad": 1e6, "train.epochs": 5, "train.batch_size": 8,
    }  # fmt: skip
    return resolve("mlp", "folder", flags=flags).recipe


@pytest.fixture(scope="module")
def ablation(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    runs_dir = tmp_path_factory.mktemp("ablation") / "runs"
    return ablate(recipe, ["augment", "clip_grad"], seeds=2, split="test", runs_dir=runs_dir)


def again(ablation: Ablation, **changes: Any) -> Ablation:
    given = {"seeds": 2, "split": "test", "runs_dir": ablation.folder.parent, **changes}
    return ablate(ablation.recipe, ["augment", "clip_grad"], **given)


# -- what it finds


def test_a_planted_effect_is_found_with_its_sign_and_a_part_that_does_nothing_has_none(ablation: Ablation) -> None:
    mirroring, clipping = ablation.effects
    assert mirroring.part == "augment" and mirroring.pairs == 2
    assert mirroring.effect_pp is not None and mirroring.effect_pp > 30
    assert mirroring.top1_with is not None and mirroring.top1_with > 0.9
    half = 12.7062 * (1 / 6) ** 0.5 / 80 / 2**0.5  # two seeds that agree leave the rounding of two counts of 80 images
    assert clipping.effect_pp == 0 and clipping.high_pp == pytest.approx(100 * half, rel=1e-4)
    assert (clipping.p_value, clipping.p_holm, clipping.verdict, clipping.over) == (1, 1, "unclear", "seeds")


def test_one_seed_is_judged_by_the_samples(ablation: Ablation, no_training: None) -> None:
    found = again(ablation, seeds=1)
    mirroring, clipping = found.effects
    assert found.interval == "matched samples" and mirroring.pairs == 1
    assert mirroring.low_pp is not None and mirroring.low_pp > 0  # 80 images are enough
    assert clipping.low_pp is not None and clipping.high_pp is not None and clipping.low_pp < 0 < clipping.high_pp
    assert mirroring.p_value is not None and mirroring.p_holm == 2 * mirroring.p_value < 0.05
    assert (mirroring.over, mirroring.verdict, clipping.verdict) == ("images", "helps", "unclear")


def test_effects_are_differences_of_what_the_runs_reached(ablation: Ablation) -> None:
    document = ablation.document()
    top1 = {(run["left_out"], run["seed"]): run["top1"] for run in document["runs"]}
    for run in document["runs"]:
        evaluation = json.loads((ablation.folder / run["run"] / "evaluation.json").read_text())
        assert (evaluation["split"], evaluation["metrics"]["top1"]["value"]) == ("test", run["top1"])
    for effect in document["effects"]:
        differences = [100 * (top1[None, seed] - top1[effect["part"], seed]) for seed in (0, 1)]
        assert effect["effect_pp"] == pytest.approx(sum(differences) / 2)
        rounding = 100 / 80 / 6**0.5  # the least deviation of a difference of two counts of 80 images
        half = 12.7062 * max(abs(differences[0] - differences[1]) / 2, rounding / 2**0.5)
        assert effect["high_pp"] - effect["effect_pp"] == pytest.approx(half, rel=1e-4)


def test_the_folder_holds_the_document_the_table_and_the_chart(ablation: Ablation, rendered_figures: None) -> None:
    document = dict(documents.read(ablation.folder / "ablation.json"))
    assert document == ablation.document() or document["seeds"] == [0]  # another test may have asked for one seed
    assert list(document) == list(json.loads((GOLDEN / "ablate.json").read_text()))
    with open(ablation.folder / "ablation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == ["augment", "clip_grad"]
    assert float(rows[0]["effect_pp"]) == document["effects"][0]["effect_pp"]
    assert again(ablation).document() == ablation.document()  # which draws again
    with Image.open(ablation.folder / "effects.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200


def test_the_document_has_the_golden_form(ablation: Ablation) -> None:
    document = ablation.document()
    assert all(effect.pop("changes") for effect in document["effects"])
    assert document["runs"].pop(0)["left_out"] is None
    document["runs"] = [run for run in document["runs"] if run["left_out"]]
    assert form(document) == json.loads((GOLDEN / "ablate.json").read_text())


def test_only_the_part_differs_between_two_runs(ablation: Ablation) -> None:
    complete = RunFolder(ablation.folder / "all-seed1").recipe()
    for part, changes in ablation_parts.select(ablation.recipe, ["augment", "clip_grad"]).items():
        assert RunFolder(ablation.folder / f"no-{part}-seed1").recipe() == ablation_parts.without(complete, changes)
    assert complete == ablation_parts.without(ablation.recipe, {"train.seed": 1})


# -- going on


def test_a_second_call_trains_nothing_and_finds_the_same(ablation: Ablation, no_training: None) -> None:
    assert again(ablation).document() == ablation.document()


def test_more_seeds_use_the_runs_that_are_there(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ablation_parts.without(recipe, {"train.epochs": 1})
    names: list[str] = []
    train_recipe = training.train_recipe

    def noted(recipe: Recipe, **named: Any) -> RunFolder:
        names.append(named["name"])
        return train_recipe(recipe, **named)

    monkeypatch.setattr(training, "train_recipe", noted)
    ablate(quick, ["augment"], runs_dir=tmp_path)
    assert names == ["all-seed0", "no-augment-seed0"]
    found = ablate(quick, ["clip_grad", "augment"], seeds=2, runs_dir=tmp_path)
    assert names[2:] == ["no-clip_grad-seed0", "all-seed1", "no-clip_grad-seed1", "no-augment-seed1"]
    assert found.split == "validation" and [effect.part for effect in found.effects] == ["clip_grad", "augment"]


@pytest.mark.parametrize("step", [7, pytest.param(40, marks=pytest.mark.slow)])  # 40 steps make a training
def test_one_that_is_broken_off_ends_like_one_that_is_not(
    ablation: Ablation, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = 0

    class Broken(Exception):
        pass

    def stop(point: str) -> None:
        nonlocal counted
        counted += point == "step"
        if counted == step:
            raise Broken

    monkeypatch.setattr(atomic_io, "hook", stop)
    with pytest.raises(Broken):
        again(ablation, seeds=1, runs_dir=tmp_path)
    monkeypatch.setattr(atomic_io, "hook", None)
    found = again(ablation, seeds=1, runs_dir=tmp_path).document()
    assert found["runs"] == ablation.document()["runs"][:3]


def test_runs_made_with_other_data_or_packages_are_refused_or_trained_again(
    ablation: Ablation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ablation_parts.without(ablation.recipe, {"data.dir": str(tmp_path / "data"), "train.epochs": 1})
    shutil.copytree(str(ablation.recipe.data.dir), tmp_path / "data")
    first = ablate(recipe, ["clip_grad"], runs_dir=tmp_path)
    assert "top1" in first.document()["runs"][0]
    run = RunFolder(first.folder / "all-seed0")
    versions = run.info()["versions"]
    run.update(versions=versions | {"numpy": "1.0"})
    with pytest.raises(UsageError, match=r"all-seed0 is not comparable .*package numpy was 1.0, is .*--retrain"):
        ablate(recipe, ["clip_grad"], runs_dir=tmp_path)
    run.update(versions=versions)
    altered = sorted((tmp_path / "data" / "train" / "upper").iterdir())[:2]
    for path in altered:
        Image.new("L", (12, 12)).save(path)
    with pytest.raises(DataError, match=r"the data changed \(2 altered: "):  # before anything is trained
        ablate(recipe, ["clip_grad"], seeds=2, runs_dir=tmp_path)
    assert not (first.folder / "all-seed1").exists()
    before = [(first.folder / name / "run.json").read_bytes() for name in ("all-seed0", "no-clip_grad-seed0")]
    again = ablate(recipe, ["clip_grad"], runs_dir=tmp_path, retrain=True)
    after = [(first.folder / name / "run.json").read_bytes() for name in ("all-seed0", "no-clip_grad-seed0")]
    assert again.effects[0].pairs == 1 and before[0] != after[0] and before[1] != after[1]


def test_an_evaluation_on_other_test_images_is_made_again(ablation: Ablation, tmp_path: Path) -> None:
    recipe = ablation_parts.without(ablation.recipe, {"data.dir": str(tmp_path / "data"), "train.epochs": 1})
    shutil.copytree(str(ablation.recipe.data.dir), tmp_path / "data")
    before = ablate(recipe, ["clip_grad"], split="test", runs_dir=tmp_path)
    for path in sorted((tmp_path / "data" / "test" / "upper").iterdir())[:30]:
        path.unlink()
    after = ablate(recipe, ["clip_grad"], split="test", runs_dir=tmp_path)
    sizes = [len(run.correct) for found in (before, after) for run in found.runs if run.correct is not None]
    assert sizes == [80, 80, 50, 50]


def test_another_recipe_does_not_go_into_the_same_folder(ablation: Ablation, no_training: None) -> None:
    other = ablation_parts.without(ablation.recipe, {"train.epochs": 6})
    with pytest.raises(UsageError, match=r"train\.epochs was 5, is 6"):
        ablate(other, ["augment"], split="test", runs_dir=ablation.folder.parent)


def test_a_training_that_diverges_is_said_and_its_pair_left_out(recipe: Recipe, tmp_path: Path) -> None:
    wild = ablation_parts.without(
        recipe, {"optimizer.name": "sgd", "optimizer.lr": 1e30, "train.clip_grad": 1e-30, "train.epochs": 1}
    )
    said: list[str] = []
    for _ in range(2):  # the second time it is not tried again
        found = ablate(wild, ["clip_grad", "augment"], runs_dir=tmp_path, say=said.append)
        assert found.diverged == ("no-clip_grad-seed0",)
        clipping, mirroring = found.effects
        assert clipping.effect_pp is None and clipping.pairs == 0 and mirroring.pairs == 1
    assert "resumes" not in RunFolder(found.folder / "no-clip_grad-seed0").info()
    assert sum(line.startswith("warning: training 2 of 3") and "diverged" in line for line in said) == 2
    assert dict(documents.read(found.folder / "ablation.json"))["effects"][0]["effect_pp"] is None


# -- parts that can be removed


def test_every_part_of_every_shipped_recipe_can_be_left_out_and_is_then_gone() -> None:
    swept = set()
    for name in yaml_file.shipped_names():
        recipe = resolve(recipe=name, flags={"data.dir": "somewhere"}).recipe
        for part, changes in ablation_parts.parts(recipe).items():
            less = ablation_parts.without(recipe, changes)
            assert less != recipe and part not in ablation_parts.parts(less), (name, part)
            swept.add(part)
    assert {"augment", "init", "schedule"} <= swept


def test_a_part_is_there_where_the_recipe_uses_it() -> None:
    flags: dict[str, Any] = {
        "optimizer.weight_decay": 0.1, "loss.label_smoothing": 0.1, "train.ema": 0.9, "train.clip_grad": 1.0,
        "schedule.warmup_epochs": 1, "model.options.dropout": 0.1, "data.augment.rotation": 5.0,
        "regularizers.l2.strength": 0.1,
    }  # fmt: skip
    names = {key: key.split(".")[-1] for key in flags}
    names |= {"schedule.warmup_epochs": "warmup", "regularizers.l2.strength": "l2"}
    for key, value in flags.items():
        there = ablation_parts.parts(resolve("mlp", "shapes", flags={key: value}).recipe)
        assert names[key] in there and not set(names.values()) - {names[key]} & set(there)
    off = resolve("mlp", "shapes", flags={"regularizers.l2.strength": 0.0}).recipe
    assert "l2" not in ablation_parts.parts(off)


@pytest.mark.parametrize(("drop", "word"), [([], "with --drop"), (["lrn"], "--drop lrn"), (["augmnt"], "augment")])
def test_what_the_recipe_does_not_use_is_refused_with_what_it_does(recipe: Recipe, drop: list[str], word: str) -> None:
    with pytest.raises(UsageError, match=word) as refused:
        plan_trainings(recipe, drop, 1)
    assert "uses: init, clip_grad, schedule, augment, horizontal_flip." in str(refused.value)


def test_a_number_of_seeds_or_a_split_that_there_is_not_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seeds 0"):
        ablate(recipe, ["augment"], seeds=0, runs_dir=tmp_path)
    alone = ablation_parts.without(recipe, {"data.validation": 0.0, "train.monitor": "train/loss"})
    with pytest.raises(UsageError, match="no validation split"):
        ablate(alone, ["augment"], runs_dir=tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(Path(str(recipe.data.dir)) / "train")
    without_test = ablation_parts.without(recipe, {"data.dir": str(tmp_path / "data")})
    with pytest.raises(DataError, match="no test split"):
        ablate(without_test, ["augment"], split="test", runs_dir=tmp_path)
    assert not list(tmp_path.glob("ablation-*"))


# -- the chart


def test_bars_are_as_long_as_their_effects_and_colored_by_their_sign() -> None:
    shown = [bars.Bar("helps", 4.0), bars.Bar("harms", -2.0, -3.0, -1.0), bars.Bar("diverged", None)]
    with style.styled() as figure:
        bars.draw_effects(figure, shown, "title", "effect")
        (axes,) = figure.axes
    helps, harms = axes.patches
    assert (helps.get_width(), harms.get_width()) == (4, -2)
    assert helps.get_facecolor() != harms.get_facecolor() and harms.get_hatch()
    (whisker,) = (segments.get_segments()[0] for bar in axes.containers[2:] for segments in bar[2])
    assert whisker.tolist() == [[-3, 1], [-1, 1]]
    assert [text.get_text() for text in axes.texts] == ["+4.00", "-2.00", "not measured"]


# -- the command


@pytest.fixture
def arguments(recipe: Recipe, tmp_path: Path) -> Iterator[list[str]]:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml_file.dump(recipe))
    yield ["ablate", "--recipe", str(path), "--runs-dir", str(tmp_path / "runs"), "--epochs", "1"]


def test_the_command_prints_the_effects(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dlkit_command([*arguments, "--drop", "augment, clip_grad", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.ablate/1" and len(document["effects"]) == 2
    assert dlkit_command([*arguments, "--drop", "augment", "--format", "csv"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(row["effect_pp"]) == document["effects"][0]["effect_pp"]


def test_a_dry_run_lists_the_trainings_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command([*arguments, "--drop", "augment", "--seeds", "2", "--dry-run", "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    repeated = [*arguments, "--drop", "augment", "--drop", "clip_grad", "--dry-run", "--format", "csv"]
    assert dlkit_command(repeated) == 0
    names = [row["run"] for row in csv.DictReader(capsys.readouterr().out.splitlines())]
    assert names == ["all-seed0", "no-augment-seed0", "no-clip_grad-seed0"]
    assert [row["run"] for row in rows] == ["all-seed0", "no-augment-seed0", "all-seed1", "no-augment-seed1"]
    assert rows[1]["changes"] == "data.augment.horizontal_flip=0.0" and not (tmp_path / "runs").exists()


def test_the_command_ends_with_3_where_a_training_diverged(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["--opt", "sgd", "--lr", "1e30", "--clip-grad", "1e-30", "--drop", "clip_grad"]
    assert dlkit_command([*arguments, *wild, "--format", "csv"]) == PartialError.exit_code
    out, err = capsys.readouterr()
    assert "clip_grad,,,,,,0,,,," in out and "no-clip_grad-seed0" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "wrong", [["--drop", "lrn"], [], ["--drop", "augment", "--seeds", "0"], ["--set", "trian.lr=1"]]
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["-q", *arguments, *wrong]) == UsageError.exit_code
    out, err = capsys.readouterr()
    assert not out and len(err.strip().splitlines()) == 1
