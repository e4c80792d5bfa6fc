"""The program from outside: help, mistakes, exit codes, and that each flag reaches the recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_folders
import yaml

import dlkit
from dlkit import errors, registry
from dlkit.config import yaml_file
from dlkit.config.resolve import resolve
from dlkit.runs import run_folder
from dlkit.specs import ImageSpec
from dlkit_cli import console, main, recipe_flags, train

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())
    yield


def dlkit_says(capsys: Captured, line: str) -> tuple[int, str, str]:
    code = main.run(line.split())
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def one_run(tmp_path: Path) -> run_folder.RunFolder:
    """A run as train leaves it, without the training."""
    recipe = resolve("mlp", "shapes").recipe
    spec = ImageSpec(3, 32, 32, ("circle", "square"), (0.5,) * 3, (0.5,) * 3)
    info = {"model": "mlp", "dataset": "shapes", "epochs": 2, "spec": spec.to_json()}
    run = run_folders.create(tmp_path / "runs", "first", recipe, info)
    for epoch, top1 in ((1, 0.5), (2, 0.75)):
        run.append_metrics({"step": epoch * 10, "epoch": epoch, "val/top1": top1, "val/loss": 1 - top1})
    return run


COMMANDS = [
    "train", "eval", "predict", "dataset", "dataset list", "dataset download", "dataset info", "dataset verify",
    "dataset unpack", "dataset check", "dataset pack", "dataset bundle", "dataset unbundle", "ablate", "sweep", "plot",
    "baseline", "explain", "export", "report", "serve", "lr-find", "reproduce",
    "models", "models list", "models show", "recipes", "recipes list", "recipes show", "calibrate",
    "recipes regularizers",
    "runs", "runs list", "runs show", "runs compare", "runs prune", "runs rm",
]  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    for flag in ("--help", "-h"):
        code, out, err = dlkit_says(capsys, f"{command} {flag}")
        assert code == 0 and err == ""
        assert out.startswith(f"Usage: dlkit {command}".rstrip())


@pytest.mark.parametrize("group", ["", "dataset", "models", "recipes", "runs"])
def test_a_group_by_itself_shows_its_help(group: str, capsys: Captured) -> None:
    code, out, err = dlkit_says(capsys, group)
    assert (code, err) == (0, "") and "Commands:" in out


def test_help_lists_every_command_with_a_line_about_it(capsys: Captured) -> None:
    _, out, _ = dlkit_says(capsys, "--help")
    listed = re.findall(r"^  ([\w-]+) +\S", out.partition("Commands:")[2].partition("Examples:")[0], re.MULTILINE)
    assert sorted(listed) == sorted({command.split()[0] for command in COMMANDS})


def test_version_is_the_packages(capsys: Captured) -> None:
    assert dlkit_says(capsys, "--version") == (0, f"dlkit {dlkit.__version__}\n", "")


MISTAKES = {
    "trian": "dlkit has no command 'trian'. Did you mean 'train'?",
    "xyzzy": "dlkit has no command 'xyzzy'. There are: train, eval",
    "recipes lst": "dlkit recipes has no command 'lst'. Did you mean 'list'?",
    "--verson": "dlkit has no option '--verson'. Did you mean '--version'?",
    "-q": "Missing command",
    "train --epoch 3": "dlkit train has no option '--epoch'. Did you mean '--epochs'?",
    "train --data mnist": "dlkit train has no option '--data'.",
    "train --batch 3": "dlkit train has no option '--batch'. Did you mean '--batch-size'?",
    "train -z": "dlkit train has no option '-z'.",
    "train --epochs": "requires an argument",
    "train lenet5 mnist --dataset shapes": "mnist and --dataset shapes are two data sets",
    "train lenet5 mnist more": "unexpected extra argument",
    "train lenet5 minst": "Did you mean 'mnist'?",
    "train lenet5 --dataset mnist --format xml": "'xml' is not one of 'auto'",
    "train": "no model given",
    "train lenet5": "no data set given",
    "train lenet6 --dataset mnist": "Did you mean 'lenet5'?",
    "train lenet5 --dataset minst": "Did you mean 'mnist'?",
    "train lenet5 --dataset mnist --set optimizer.lrr=1": "recipe.optimizer has no key 'lrr'. Did you mean 'lr'?",
    "train lenet5 --dataset mnist --set lr": "--set takes KEY=VALUE",
    "train lenet5 --dataset mnist --lr fast": "recipe.optimizer.lr is 'fast'; it takes a number above 0. (--lr fast)",
    "train lenet5 --dataset mnist --opt sdg": "Did you mean 'sgd'? (--opt sdg)",
    "train lenet5 --dataset mnist --seed -1": "recipe.train.seed is -1",
    "train lenet5 --dataset mnist --seed 18446744073709551616": "recipe.train.seed is 18446744073709551616",
    "train lenet5 --dataset mnist --workers 1000000": "is 1000000; it takes a whole number from 0 to 256",
    "train lenet5 --dataset mnist --device cuda:x": "recipe.train.device is 'cuda:x'",
    "train lenet5 --dataset mnist --epochs 010": "recipe.train.epochs is '010'",
    "train lenet5 --dataset mnist --recipe lenet5-mnits": "Did you mean 'lenet5-mnist'?",
    "train --recipe /dev/zero": "is a device",
    "train lenet5 --dataset mnist --inexact": "--inexact goes with --resume",
    "train lenet5 --dataset mnist --name a/b --dry-run -q": "cannot name a run",
    "train lenet5 --dataset folder": "give --data-dir",
    "train --resume": "there are no runs in runs",
    "train --resume=": "names no run",
    "train --resume nothing": "no run 'nothing'",
    "train --resume --name other": "it does not go with --name",
    "train --resume first --recipe mlp-mnist": "it does not go with --recipe",
    "train --resume first --check": "it does not go with --check",
    "train mlp --dataset shapes --batch-size aut": "recipe.train.batch_size is 'aut'",
    "lr-find lenet5": "no data set given",
    "lr-find lenet5 --dataset mnist --low 1": "dlkit lr-find has no option '--low'. Did you mean '--lowest'?",
    "reproduce": "there are no runs in runs",
    "recipes show lenet5-mnits": "Did you mean 'lenet5-mnist'?",
    "runs show": "there are no runs in runs",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_exit_2(line: str, capsys: Captured, tmp_path: Path) -> None:
    code, out, err = dlkit_says(capsys, line)
    assert code == 2 and out == ""
    assert MISTAKES[line] in err
    assert len(err.splitlines()) == 1 and err.startswith("dlkit")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_byte_in_an_argument_does_not_reach_the_terminal(capsys: Captured) -> None:
    assert main.run(["train", "lenet5\x1b[2J", "--dataset", "mnist"]) == 2
    assert main.run(["tr\x1b[2Jn"]) == 2
    assert "\x1b" not in capsys.readouterr().err


ERRORS = [
    *(kind("it went wrong") for kind in (
        errors.UsageError, errors.PartialError, errors.DataError, errors.ModelFileError, errors.VerificationError,
        errors.StorageError, errors.DivergedError, errors.OutOfMemoryError, errors.WorkerLostError, errors.BusyError,
        errors.GateError)),
    errors.StoppedError("it went wrong", 2), errors.StoppedError("it went wrong", 15),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((error, error.exit_code) for error in ERRORS),
        (MemoryError("it went wrong"), 9), (KeyboardInterrupt(), 130), (console.ReaderGone(), 141),
        (RuntimeError("it went wrong"), 1),
    ],
    ids=repr,
)  # fmt: skip
def test_every_way_to_fail_has_its_exit_code(
    error: BaseException, code: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(yaml_file, "shipped_names", fail)
    found, out, err = dlkit_says(capsys, "recipes list")
    assert found == code and out == ""
    assert "Traceback" not in err and len(err.splitlines()) == (0 if code == 141 else 1)
    assert ("a bug in dlkit: RuntimeError: it went wrong. --debug shows" in err) == (code == 1)


def test_the_exit_codes_are_those_of_the_contract() -> None:
    assert sorted({error.exit_code for error in ERRORS}) == [*range(2, 13), 130, 143]


@pytest.mark.parametrize("line", ["--debug recipes list", "recipes --debug list", "recipes list --debug"])
def test_debug_anywhere_shows_the_traceback(line: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "shipped_names", lambda: 1 / 0)
    code, out, err = dlkit_says(capsys, line)
    assert (
        code == 1
        and out == ""
        and "Traceback" in err
        and err.splitlines()[-1].startswith("dlkit: a bug in dlkit: Zero")
    )


def test_quiet_anywhere_drops_the_notes(capsys: Captured) -> None:
    _, _, err = dlkit_says(capsys, "train mlp --dataset shapes --dry-run")
    assert "recipe: " in err
    for line in ("--quiet train mlp --dataset shapes --dry-run", "train mlp --dataset shapes --dry-run -q"):
        code, out, err = dlkit_says(capsys, line)
        assert code == 0 and err == "" and out.startswith("model:\n")


def test_flags_after_two_dashes_are_arguments(capsys: Captured) -> None:
    code, _, err = dlkit_says(capsys, "recipes show -- --debug")
    assert code == 2 and "no recipe is called '--debug'" in err


# ---- train

FLAGS: dict[str, tuple[str, str, Any]] = {
    "--epochs": ("7", "train.epochs", 7),
    "--batch-size": ("9", "train.batch_size", 9),
    "--lr": ("1e-4", "optimizer.lr", 1e-4),
    "--momentum": ("0.5", "optimizer.momentum", 0.5),
    "--weight-decay": ("1e-5", "optimizer.weight_decay", 1e-5),
    "--label-smoothing": ("0.1", "loss.label_smoothing", 0.1),
    "--mixup": ("0.2", "regularizers.mixup.alpha", 0.2),
    "--cutmix": ("1", "regularizers.cutmix.alpha", 1),
    "--clip-grad": ("2", "train.clip_grad", 2.0),
    "--warmup-epochs": ("1", "schedule.warmup_epochs", 1.0),
    "--model-ema": ("0.99", "train.ema", 0.99),
    "--compile": ("", "train.compile", True),
    "--channels-last": ("", "train.channels_last", True),
    "--workers": ("3", "data.workers", 3),
    "--loader-timeout": ("5", "data.loader_timeout", 5.0),
    "--seed": ("11", "train.seed", 11),
    "--patience": ("4", "train.patience", 4),
    "--accumulate": ("2", "train.accumulate", 2),
    "--validation": ("0.2", "data.validation", 0.2),
    "--dropout": ("0.3", "model.options.dropout", 0.3),
    "--dataset": ("shapes", "data.name", "shapes"),
    "--data-dir": ("/010", "data.dir", "/010"),
    "--weights": ("null", "model.weights", "null"),
    "--init-layers": ("fc.*", "model.init_layers", "fc.*"),
    "--freeze": ("3", "train.freeze", 3),
    "--layer-decay": ("0.75", "optimizer.layer_decay", 0.75),
    "--opt": ("rmsprop", "optimizer.name", "rmsprop"),
    "--sched": ("step", "schedule.name", "step"),
    "--amp": ("bf16", "train.amp", "bf16"),
    "--device": ("cpu", "train.device", "cpu"),
    "--monitor": ("val/loss", "train.monitor", "val/loss"),
    "--aa": ("trivial", "data.augment.policy", "trivial"),
    "--on-bad-image": ("skip", "data.on_bad_image", "skip"),
    "--img-size": ("48", "data.size", 48),
    "--classes": ("3,cat", "data.classes", ("3", "cat")),
    "--class-weights": ("sqrt", "loss.class_weights", "sqrt"),
    "--focal-gamma": ("2", "loss.focal_gamma", 2.0),
}


def test_every_flag_reaches_its_key(capsys: Captured) -> None:
    elsewhere = {
        "model",
        "text_column",
        "path_column",
        "label_column",
        "test_split",
        "logit_adjustment",
    }  # an argument, your own data's, and one that excludes class weights
    assert len(FLAGS) == len((recipe_flags.FLAGS | recipe_flags.TEXT_FLAGS).keys() - elsewhere)
    line = " ".join(f"{flag} {text}" for flag, (text, _, _) in FLAGS.items())
    code, out, _ = dlkit_says(capsys, f"train mlp {line} --dry-run")
    assert code == 0
    recipe = yaml_file.parse(out.encode(), "stdout").values
    assert recipe["model"]["name"] == "mlp"
    for flag, (_, key, wanted) in FLAGS.items():
        found: Any = recipe
        for part in key.split("."):
            found = found[part]
        assert found == wanted and type(found) is type(wanted), flag


def test_logit_adjustment_reaches_its_key(capsys: Captured) -> None:
    code, out, _ = dlkit_says(capsys, "train mlp --dataset shapes --logit-adjustment 1 --dry-run")
    assert code == 0 and yaml.safe_load(out)["loss"]["logit_adjustment"] == 1.0


def test_short_and_second_names_of_flags(capsys: Captured) -> None:
    code, out, _ = dlkit_says(capsys, "train mlp --dataset shapes -b 17 -j 5 --wd 0.25 --no-channels-last --dry-run")
    assert code == 0
    for said in ("batch_size: 17", "workers: 5", "weight_decay: 0.25", "channels_last: false"):
        assert said in out


def test_a_flag_wins_over_a_setting(capsys: Captured) -> None:
    _, out, _ = dlkit_says(
        capsys, "train mlp --dataset shapes --epochs 3 --set train.epochs=5 --set train.seed=6 --dry-run"
    )
    assert "epochs: 3\n" in out and "seed: 6\n" in out


def test_a_dry_run_prints_a_recipe_that_repeats_itself_and_writes_nothing(capsys: Captured, tmp_path: Path) -> None:
    _, out, err = dlkit_says(capsys, "train lenet5 --dataset mnist --lr 0.5 --dry-run")
    assert "recipe: lenet5-mnist, shipped with dlkit\n" in err
    assert re.search(r"^run folder: runs/lenet5-mnist-\d{8}-\d{6}$", err, re.MULTILINE)
    assert re.search(r"^steps: about \d+ an epoch", err, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "again.yaml").write_text(out)
    assert dlkit_says(capsys, "train --recipe again.yaml --dry-run")[1] == out
    assert yaml.safe_load(out)["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("line", "resumed"),
    [
        ("train --resume", "latest"), ("train --resume --epochs 3", "latest"), ("train --epochs 3 --resume", "latest"),
        ("train --resume first", "first"), ("train --resume=first", "first"),
        ("train --resume first --epochs 3", "first"),
        ("train --resume runs/first/", "runs/first/"), ("train --resume -q", "latest"),
    ],
)  # fmt: skip
def test_resume_takes_a_run_or_stands_alone(
    line: str, resumed: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch, one_run: run_folder.RunFolder
) -> None:
    seen = []

    def resume(name: str, *rest: Any) -> run_folder.RunFolder:
        seen.append(name)
        return one_run

    monkeypatch.setattr(train, "_resume", resume)
    code, out, _ = dlkit_says(capsys, line)
    assert (code, out) == (0, f"{one_run.path}\n") and seen == [resumed]


def test_resume_changes_only_what_may_change(capsys: Captured, one_run: run_folder.RunFolder) -> None:
    for line, said in (
        ("--lr 0.1", "--lr 0.1 cannot change when a run is resumed. These can: train.epochs"),
        ("--set optimizer.lr=0.1", "--set optimizer.lr=0.1 cannot change"),
        ("--epochs 0", "recipe.train.epochs is 0"),
        ("--dataset mnist", "data.name cannot change"),
        ("--name other", "does not go with --name"),
    ):
        code, out, err = dlkit_says(capsys, f"train --resume first {line}")
        assert code == 2 and out == "" and said in err


def test_an_existing_run_is_never_trained_over(capsys: Captured, one_run: run_folder.RunFolder) -> None:
    code, _, err = dlkit_says(capsys, "train mlp --dataset shapes --name first --dry-run")
    assert code == 2 and "--resume first" in err


# ---- recipes and runs


def test_recipes_are_listed_and_shown_as_written(capsys: Captured) -> None:
    code, out, _ = dlkit_says(capsys, "recipes list --json")
    rows = json.loads(out)
    assert code == 0 and [row["name"] for row in rows] == yaml_file.shipped_names()
    assert all(row["schema"] == "dlkit.recipes/1" and row["about"] and row["model"] and row["dataset"] for row in rows)
    path = yaml_file.shipped_path("lenet5-mnist")
    assert path is not None
    assert dlkit_says(capsys, "recipes show lenet5-mnist") == (0, path.read_text(), "")


def test_regularizers_are_listed_with_their_options(capsys: Captured) -> None:
    code, out, _ = dlkit_says(capsys, "recipes regularizers --json")
    found = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and list(found) == sorted(registry.entries("regularizers"))
    l2 = {"schema": "dlkit.regularizers/1", "options": {"strength": 0.0005}, "off": {"strength": 0.0}}
    assert l2.items() <= found["l2"].items() and found["l2"]["summary"].startswith("L2: ")


def test_runs_are_listed_with_their_best(capsys: Captured, one_run: run_folder.RunFolder) -> None:
    code, out, err = dlkit_says(capsys, "runs list --format jsonl")
    row = json.loads(out)
    assert code == 0 and err == "" and row["schema"] == "dlkit.runs/1"
    assert (row["name"], row["model"], row["dataset"], row["status"]) == ("first", "mlp", "shapes", "killed")
    assert (row["epochs"], row["metric"], row["best"]) == (2, "val/top1", 0.75)
    assert dlkit_says(capsys, "runs list")[1].startswith(
        "name\tmodel\tdataset\tstatus\tepochs\tmetric\tbest\twhen\tkind\tmembers\ttags\nfirst\t"
    )


def test_a_run_is_shown_by_name_by_path_or_as_the_newest(capsys: Captured, one_run: run_folder.RunFolder) -> None:
    found = [dlkit_says(capsys, f"runs show {name} --json") for name in ("", "first", "runs/first")]
    assert [code for code, _, _ in found] == [0, 0, 0]
    assert found[0][2] == "run: runs/first\n" and found[1][2] == ""
    documents = [json.loads(out) for _, out, _ in found]
    assert documents[0] == documents[1] == documents[2]
    assert documents[0]["summary"]["best"] == 0.75 and documents[0]["recipe"]["model"]["name"] == "mlp"
    code, _, err = dlkit_says(capsys, "runs show frist")
    assert code == 2 and "Did you mean 'first'?" in err


def test_a_damaged_run_is_said_and_the_others_are_listed(
    capsys: Captured, one_run: run_folder.RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "runs/second").mkdir()
    (tmp_path / "runs/second/run.json").write_text('{"schema": "dlkit.run/9"}')
    code, out, err = dlkit_says(capsys, "runs list")
    assert code == 0 and "first\t" in out and "second\t\t\tdamaged" in out and "dlkit: warning: " in err
    assert "second" in err
