"""sweep: a folder of runs is all that it remembers, and it ends alike however often it was stopped."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapes_on_disk import form

import dlkit
from dlkit import atomic_io, documents
from dlkit.config import search_space, yaml_file
from dlkit.config.resolve import resolve, with_changes
from dlkit.config.schema import Recipe
from dlkit.errors import DivergedError, UsageError
from dlkit.experiments import evidence
from dlkit.experiments.proposals import Sampler, propose
from dlkit.experiments.sweep import Sweep, sweep
from dlkit.experiments.trials import FINISHED, PRUNED
from dlkit.plots import parallel_coordinates, style
from dlkit.runs.run_folder import RunFolder
from dlkit.training import train as training
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"
VARIED = [
    "optimizer.lr=log:1e-5..1e-1",
    "optimizer.name=sgd,adam",
    "optimizer.momentum=0..0.9",
    "train.batch_size=8..32",
]
TRIALS, EPOCHS = 9, 3


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    flags = {
        "data.options.train": 80, "data.options.test": 8, "model.options.hidden": "16", "train.threads": 1,
        "train.epochs": EPOCHS, "train.monitor": "val/loss",
    }  # fmt: skip
    return resolve("mlp", "shapes", flags=flags).recipe


@pytest.fixture(scope="module")
def found(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return sweep(recipe, VARIED, trials=TRIALS, runs_dir=tmp_path_factory.mktemp("sweep") / "runs", argv=["d", "sweep"])


def again(found: Sweep, **changes: Any) -> Sweep:
    return sweep(found.recipe, VARIED, **{"trials": TRIALS, "runs_dir": found.folder.parent, **changes})


# -- what it finds


def test_a_trial_is_what_its_run_folder_says(found: Sweep) -> None:
    assert len(found.trials) == TRIALS
    for trial in found.trials:
        run = RunFolder(found.folder / trial.run)
        values = {line["epoch"]: line["val/loss"] for line in run.metrics() if "val/loss" in line}
        assert (trial.value, trial.epoch) == min((value, epoch) for epoch, value in values.items())
        assert run.info()["status"] == trial.state
        for key, value in trial.parameters.items():
            assert search_space.value_in(run.recipe(), key) == value
        assert (trial.state == PRUNED) == (len(values) < EPOCHS)


def test_the_best_is_the_least_loss_of_those_that_finished_and_the_hopeless_are_ended_early(found: Sweep) -> None:
    finished = [trial for trial in found.trials if trial.state == FINISHED]
    assert found.best is not None and found.best.value == min(trial.value for trial in finished if trial.value)
    pruned = [trial for trial in found.trials if trial.state == PRUNED]
    assert pruned and finished and found.ranked[-len(pruned) :] == sorted(pruned, key=lambda trial: trial.value or 0)
    for trial in pruned:  # the median rule, by hand: its best so far against the others at its last epoch
        last = RunFolder(found.folder / trial.run).metrics()[-1]["epoch"]
        others = [
            line["val/loss"]
            for other in found.trials[: trial.number]
            if other.state == FINISHED
            for line in RunFolder(found.folder / other.run).metrics()
            if line["epoch"] == last and "val/loss" in line
        ]
        assert len(others) >= 5 and trial.value is not None and trial.value > np.median(others)


def test_a_parameter_varies_only_where_it_does_something(found: Sweep) -> None:
    names = {trial.parameters["optimizer.name"] for trial in found.trials}
    assert names == {"sgd", "adam"}
    for trial in found.trials:
        assert ("optimizer.momentum" in trial.parameters) == (trial.parameters["optimizer.name"] == "sgd")
        assert type(trial.parameters["train.batch_size"]) is int


def test_the_best_recipe_trains_the_best_run_again(found: Sweep, tmp_path: Path) -> None:
    path = found.folder / "best.yaml"
    header = yaml_file.header(path)
    assert "mlp on shapes" in header and "optimizer.lr=log:1e-5..1e-1" in header and "dlkit sweep" in header
    assert found.best is not None and f"val/loss {found.best.value:.4f}" in header
    run = dlkit.train(recipe=path, runs_dir=tmp_path)
    ends = [found.metrics()[-1]["weights_sha256"] for found in (run, RunFolder(found.folder / found.best.run))]
    assert ends[0] == ends[1]


def test_the_folder_holds_the_document_the_table_and_the_picture(found: Sweep, rendered_figures: None) -> None:
    document = dict(documents.read(found.folder / "sweep.json"))
    assert document == json.loads(json.dumps(found.document()))
    with open(found.folder / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == [trial.number for trial in found.ranked]
    assert again(found).document() == found.document()  # which draws again
    with Image.open(found.folder / "parallel.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200


def test_the_document_has_the_golden_form(found: Sweep) -> None:
    document = found.document()
    document["trials"] = [trial for trial in document["trials"] if trial["values"]]
    for trial in (*document["trials"], document["best"]):
        trial["parameters"] = {"optimizer.lr": trial["parameters"]["optimizer.lr"]}
    assert form(document) == json.loads((GOLDEN / "sweep.json").read_text())


# -- going on


def test_a_second_call_trains_nothing_and_finds_the_same(found: Sweep, no_training: None) -> None:
    assert again(found).document() == found.document()


def test_trials_that_are_asked_for_later_are_those_that_would_have_come(found: Sweep, tmp_path: Path) -> None:
    first = again(found, trials=2, runs_dir=tmp_path)
    assert first.trials == found.trials[:2]
    assert again(found, trials=4, runs_dir=tmp_path).trials == found.trials[:4]


@pytest.mark.parametrize("later", [50, pytest.param(7, marks=pytest.mark.slow)])  # hooks passed, after each death
def test_one_that_is_broken_off_anywhere_ends_like_one_that_is_not(
    later: int, found: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again, each time a little later: at steps, at log lines, and between a pruning and its note."""
    deaths = passed = 0

    class Killed(Exception):
        pass

    def kill(point: str) -> None:
        nonlocal passed
        passed += 1
        if passed == 60 + later * deaths:
            raise Killed

    monkeypatch.setattr(atomic_io, "hook", kill)
    while deaths < 200:
        passed = 0
        try:
            ended = again(found, runs_dir=tmp_path)
            break
        except Killed:
            deaths += 1
    assert 3 <= deaths < 200
    before = found.document()
    assert ended.document() == {**before, "best": {**before["best"], "recipe": str(ended.folder / "best.yaml")}}


def test_another_sweep_does_not_go_into_the_same_folder(found: Sweep, no_training: None) -> None:
    with pytest.raises(UsageError, match=r"has another sweep: pruning was True, is False"):
        again(found, pruner="none")
    with pytest.raises(UsageError, match=r"space.optimizer.momentum was 0..0.9, is None"):
        sweep(found.recipe, VARIED[:2], runs_dir=found.folder.parent)
    other = with_changes(found.recipe, {"train.epochs": 4})
    with pytest.raises(UsageError, match=r"train.epochs was 3, is 4"):
        sweep(other, VARIED, runs_dir=found.folder.parent)


@pytest.mark.parametrize("batch_size", [8, 128])  # at a step, and in the validation after the only step
def test_a_trial_that_diverges_is_said_and_not_tried_again(recipe: Recipe, batch_size: int, tmp_path: Path) -> None:
    wild = with_changes(recipe, {"optimizer.name": "sgd", "train.epochs": 1, "train.batch_size": batch_size})
    said: list[str] = []
    for _ in range(2):
        ended = sweep(wild, ["optimizer.lr=1e-3,1e30"], trials=4, runs_dir=tmp_path, say=said.append)
        assert {trial.state for trial in ended.trials} == {"finished", "diverged"}
    diverged = [trial for trial in ended.trials if trial.state == "diverged"]
    assert [trial.parameters["optimizer.lr"] for trial in diverged] == [1e30]
    assert all("resumes" not in RunFolder(ended.folder / trial.run).info() for trial in diverged)
    assert sum(line.startswith("warning: trial") and "diverged" in line for line in said) == 2 * len(diverged)
    with pytest.raises(DivergedError, match="none of the 1 trials"):
        sweep(wild, ["optimizer.lr=1e29,1e30"], trials=1, runs_dir=tmp_path, name="wild")


def test_a_small_space_is_covered_and_nothing_is_tried_twice(recipe: Recipe, tmp_path: Path) -> None:
    few = with_changes(recipe, {"train.epochs": 1})
    for trials, expected in ((2, 2), (9, 3)):
        ended = sweep(few, ["train.batch_size=16,32,64"], trials=trials, runs_dir=tmp_path)
        assert len(ended.trials) == len({trial.parameters["train.batch_size"] for trial in ended.trials}) == expected
    assert len(list(ended.folder.glob("trial-*"))) == 3


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_sampler_draws_without_replacement(sampler: Sampler, recipe: Recipe) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = search_space.space(
        recipe, ["train.batch_size=8..10", "optimizer.name=sgd,adam", "optimizer.momentum=0,0.9"]
    )
    study, tried = optuna.create_study(), list[search_space.Values]()
    while (values := propose(study, sampler, space, 0, tried, [])) is not None:
        study.add_trial(optuna.trial.create_trial(value=len(tried)))
        tried.append(values)
    assert len(tried) == 9  # momentum is sgd's alone: 3 x 2 and 3
    assert {json.dumps(values, sort_keys=True) for values in tried} == {
        json.dumps(values, sort_keys=True) for values in search_space.combinations(space) or ()
    }


def test_guesses_are_tried_first(recipe: Recipe, tmp_path: Path) -> None:
    few = with_changes(recipe, {"train.epochs": 1})
    varied = ["optimizer.lr=log:1e-4..1e-1", "optimizer.betas=[0.9,0.99],[0.9,0.999]", "train.batch_size=8..64"]
    guesses = ["optimizer.lr=0.002,optimizer.betas=[0.9,0.99],train.batch_size=16", "train.batch_size=40"]
    ended = sweep(few, varied, trials=2, enqueue=guesses, runs_dir=tmp_path)
    first, second = (trial.parameters for trial in ended.trials)
    assert first == {"optimizer.lr": 0.002, "optimizer.betas": (0.9, 0.99), "train.batch_size": 16}
    assert second == {"optimizer.lr": 0.001, "optimizer.betas": (0.9, 0.999), "train.batch_size": 40}  # else its own
    for wrong, message in (("optimizer.lr=1", "optimizer.lr 1 is not in"), ("lr=0.1", "does not vary"), ("x", "vary")):
        with pytest.raises(UsageError, match=message):
            sweep(few, varied, enqueue=[wrong], runs_dir=tmp_path)


def test_fewer_trials_remove_none(found: Sweep, tmp_path: Path) -> None:
    whole = again(found, trials=3, runs_dir=tmp_path, argv=["dlkit", "sweep", "one"])
    files = [whole.folder / name for name in ("sweep.json", "sweep.csv", "best.yaml")]
    before = [path.read_bytes() for path in files]
    said: list[str] = []
    less = again(found, trials=1, runs_dir=tmp_path, argv=["dlkit", "sweep", "another"], say=said.append)
    assert less.trials == whole.trials and [path.read_bytes() for path in files] == before
    assert any("has 3 trials: --trials 1 does not remove any" in line for line in said)


def test_a_trial_under_several_seeds_has_their_mean_and_the_noise_between_them(recipe: Recipe, tmp_path: Path) -> None:
    few = with_changes(recipe, {"train.epochs": 1})
    ended = sweep(few, ["train.batch_size=8,16"], trials=2, seeds_per_trial=2, runs_dir=tmp_path)
    for trial in ended.trials:
        runs = [RunFolder(ended.folder / name) for name in (trial.run, f"{trial.run}-seed1")]
        assert [run.recipe().train.seed for run in runs] == [0, 1]
        values = [run.info()["best"]["value"] for run in runs]
        assert trial.values == tuple(values) and trial.value == pytest.approx(sum(values) / 2)
    spread = np.sqrt(np.mean([np.var(trial.values, ddof=1) for trial in ended.trials]) / 2)
    assert ended.evidence.noise == pytest.approx(spread) and ended.evidence.noise_over == "seeds"
    assert ended.evidence.optimism == pytest.approx(spread / np.sqrt(np.pi))  # the best of two: 1 / √π deviations


def test_the_best_can_be_confirmed_under_fresh_seeds(recipe: Recipe, tmp_path: Path, no_second: list[str]) -> None:
    few = with_changes(recipe, {"train.epochs": 1})
    ended = sweep(few, ["train.batch_size=16,32"], trials=2, confirm=2, runs_dir=tmp_path)
    assert [found.trial for found in ended.confirmed] == [trial.number for trial in ended.ranked]
    for found in ended.confirmed:
        values = [RunFolder(ended.folder / name).info()["best"]["value"] for name in found.runs]
        assert found.seeds == (1, 2, 3) and list(found.values) == values and found.low < found.mean < found.high
    assert ended.best is not None and ended.best.number == min(ended.confirmed, key=lambda found: found.mean).trial
    trained = list(no_second)
    assert sweep(few, ["train.batch_size=16,32"], trials=2, runs_dir=tmp_path).document() == ended.document()
    assert no_second == trained  # what was confirmed stays so


@pytest.fixture
def no_second(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that are trained."""
    names: list[str] = []
    train_recipe = training.train_recipe

    def noted(recipe: Recipe, **named: Any) -> RunFolder:
        names.append(named["name"])
        return train_recipe(recipe, **named)

    monkeypatch.setattr(training, "train_recipe", noted)
    return names


def test_trials_made_with_other_packages_are_refused_or_tried_again(recipe: Recipe, tmp_path: Path) -> None:
    few = with_changes(recipe, {"train.epochs": 1})
    ended = sweep(few, ["optimizer.lr=1e-4..1e-2"], trials=2, runs_dir=tmp_path)
    run = RunFolder(ended.folder / "trial-000")
    run.update(versions=run.info()["versions"] | {"dlkit": "0.0.1"})
    with pytest.raises(UsageError, match=r"trial-000 is not comparable .*package dlkit was 0.0.1"):
        sweep(few, ["optimizer.lr=1e-4..1e-2"], trials=3, runs_dir=tmp_path)
    assert sweep(few, ["optimizer.lr=1e-4..1e-2"], trials=2, runs_dir=tmp_path, retrain=True).trials == ended.trials
    assert run.info()["versions"]["dlkit"] != "0.0.1"


@pytest.mark.slow
def test_a_hyperband_sweep_that_was_stopped_ends_like_one_that_was_not(
    found: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = again(found, trials=8, pruner="hyperband", runs_dir=tmp_path / "whole")
    assert PRUNED in {trial.state for trial in whole.trials}
    for trials in (2, 5, 8):
        parts = again(found, trials=trials, pruner="hyperband", runs_dir=tmp_path / "parts")
    assert parts.trials == whole.trials


def test_noise_is_not_taken_for_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "PERMUTATIONS", 59)
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = (
        search_space.Range("a", "", 0.0, 1.0, False, False),
        search_space.Range("b", "", 0.0, 1.0, False, False),
    )
    generator = np.random.default_rng(0)
    chance = evidence.Evidence(importance_p={"a": 0.4, "b": 0.9})
    for effect in (0.0, 10.0):
        study = optuna.create_study()
        for _ in range(24):
            trial = study.ask()
            value = trial.suggest_float("a", 0, 1) * effect + trial.suggest_float("b", 0, 1) * 0 + generator.normal()
            study.tell(trial, value)
        shares, p_values = evidence.importance(study, space, 0)
        assert (p_values["a"] < 0.05) == bool(effect) and p_values["b"] > 0.05 and bool(shares) == bool(effect)
    assert evidence.importance_sentence(chance) == "what mattered: not distinguishable from chance"


# -- the space

REFUSED = {
    "": "what is to be varied?",
    "optimizer.lr": "--param takes KEY=LOW..HIGH",
    "optimizer.lrr=0..1": "no key 'lrr'. Did you mean 'lr'?",
    "model.options.droput=0..1": "no option 'droput'. Did you mean 'dropout'?",
    "optimizer.lr=0..1": "recipe.optimizer.lr is 0; it takes a number above 0. (--param optimizer.lr=0..1)",
    "optimizer.lr=log:0..1": "both ends are above 0",
    "optimizer.lr=1..0.1": "the least comes first",
    "optimizer.lr=1e-4..": "leaves no choice",
    "optimizer.lr=log:0.1,0.2": "leaves no choice",
    "optimizer.name=sgd": "leaves no choice",
    "optimizer.name=sgd,sgd": "names a value twice",
    "optimizer.name=sgd,adma": "Did you mean 'adam'?",
    "optimizer.momentum=0..0.9": "does nothing with optimizer 'adam'",
    "optimizer.name=adam,adamw optimizer.momentum=0..0.9": "does nothing with any optimizer.name that is varied",
    "train.batch_size=16..64.5": "it takes a whole number",
    "train.epochs=1..5 schedule.warmup_epochs=0..2": "must be less than train.epochs, 1",
    "train.seed=1..3": "the same validation samples",
    "data.options.train=80,160": "the same validation samples",
    "data.on_bad_image=error,skip": "the same validation samples",
    "loss.name=cross_entropy,mse": "--param loss.name cannot vary beside --monitor val/loss",
    "train.monitor=val/loss,val/top1": "what trials are compared by",
    "optimizer.lr=0.1..1 optimizer.lr=0.1..0.2": "optimizer.lr twice",
    "model.options.dropout=0..1.5": "not including, 1. (--param model.options.dropout=0..1.5)",
    "model.options.activation=relu,rleu": "'relu'",
    "regularizers.mixup.alpha=-1..1": "at least 0",
    "regularizers.mixpu.alpha=0..1": "Did you mean 'mixup'?",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_the_recipe_does_not_take_is_refused_before_anything_runs(
    words: str, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        sweep(recipe, words.split(), runs_dir=tmp_path)
    assert REFUSED[words] in str(refused.value) and not list(tmp_path.iterdir())


def test_a_range_is_of_whole_numbers_only_where_the_key_takes_no_fraction(recipe: Recipe) -> None:
    words = ["model.options.dropout=0..1", "train.batch_size=8..64", "train.clip_grad=log:1..10"]
    found = search_space.space(recipe, words)
    assert [(varied.kind, varied.ends) for varied in found] == [
        ("numbers", (0.0, 1.0)), ("whole numbers", (8, 64)), ("log numbers", (1.0, 10.0)),
    ]  # fmt: skip


def test_a_choice_takes_what_yaml_says(recipe: Recipe) -> None:
    words = ["optimizer.betas=[0.9,0.99],[0.9,0.999]", "train.clip_grad=null,1.0", "model.options.hidden='8,8','16'"]
    betas, clip, hidden = search_space.space(recipe, words)
    assert betas.ends == ((0.9, 0.99), (0.9, 0.999)) and clip.ends == (None, 1.0) and hidden.ends == ("8,8", "16")
    assert isinstance(clip, search_space.Choice) and clip.named(clip.name_of(None)) is None


# -- the picture


def test_a_trace_crosses_each_axis_at_its_value(tmp_path: Path, recipe: Recipe) -> None:
    lr, name = search_space.space(recipe, ["optimizer.lr=log:0.01..1", "train.amp=off,auto"])
    axis, choice = parallel_coordinates.parameter_axis(lr), parallel_coordinates.parameter_axis(name)
    assert [axis.height(value) for value in (0.01, 0.1, 1.0)] == pytest.approx([0, 0.5, 1])
    assert axis.height(None) < 0 and choice.height("auto") > choice.height("off")
    trials = [
        parallel_coordinates.TrialLine([0.1, "off"], 0.5, True),
        parallel_coordinates.TrialLine([1.0, "auto"], None, False),
    ]
    for value, best_lr in ((0.4, 0.1), (0.6, 0.01)):
        shown = [*trials, parallel_coordinates.TrialLine([0.01, "off"], value, True)]
        with style.styled() as figure:
            parallel_coordinates.draw_parallel(figure, [axis, choice], shown, "t", "val/top1", lower_is_better=False)
            lines = figure.axes[0].get_lines()[: len(shown)]
        (broadest,) = [line for line in lines if line.get_linewidth() == max(line.get_linewidth() for line in lines)]
        assert broadest.get_ydata()[0] == axis.height(best_lr) and lines[-1] is broadest
        assert sorted(len(line.get_ydata()) for line in lines) == [2, 3, 3]  # without a value it ends before the last


# -- the command


@pytest.fixture
def arguments(recipe: Recipe, tmp_path: Path) -> Iterator[list[str]]:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml_file.dump(recipe))
    yield ["sweep", str(path), "--runs-dir", str(tmp_path / "runs"), "--epochs", "1"]


def test_the_command_prints_the_trials_the_best_first(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*arguments, "--param", "optimizer.lr=log:1e-4..1e-1", "--trials", "2"]
    assert dlkit_command([*asked, "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(out.splitlines()))
    assert float(rows[0]["val/loss"]) < float(rows[1]["val/loss"]) and {row["trial"] for row in rows} == {"0", "1"}
    assert f"best: {rows[0]['run']}" in err and "best.yaml" in err.splitlines()[-1]
    assert dlkit_command([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.sweep/1" and document["best"]["number"] == int(rows[0]["trial"])
    assert dlkit_command(["train", "--recipe", document["best"]["recipe"], "--dry-run"]) == 0


def test_a_dry_run_says_what_would_vary_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command([*arguments, "--param", "train.batch_size=8..64", "--dry-run", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "key,kind,values\ntrain.batch_size,whole numbers,8..64\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lenet5-mnits"], "recipe or model 'lenet5-mnits' not found. Did you mean 'lenet5-mnist'?"),
        (["mlp-mnist", "--recipe", "lenet5-mnist"], "two recipes"),
        (["lenet5-mnist", "--trials", "0", "--param", "optimizer.lr=0.1..1"], "--trials 0"),
        (["lenet5-mnist"], "what is to be varied?"),
        (["lenet5-mnist", "--parm", "a=1"], "Did you mean '--param'?"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["-q", "sweep", *words, "--runs-dir", str(tmp_path / "runs")]) == UsageError.exit_code
    out, err = capsys.readouterr()
    assert not out and said in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_without_optuna_the_command_that_installs_it_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else find(name, *rest)
    )
    with pytest.raises(UsageError, match=r"python -m pip install 'dlkit\[sweep\]'"):
        sweep(recipe, VARIED, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())
