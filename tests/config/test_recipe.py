"""Recipes: what is read, what is refused and how, which layer wins, and that what is written reads back the same."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from dlkit.config import keys as recipe_keys
from dlkit.config import yaml_file
from dlkit.config.checks import USED_BY
from dlkit.config.resolve import Setting, changes_on_resume, load, parse_setting, resolve, with_changes
from dlkit.config.schema import MAY_CHANGE_ON_RESUME, Recipe
from dlkit.errors import StorageError, UsageError

BASE = "model: {name: mlp}\ndata: {name: shapes}\n"


def with_settings(*texts: str, model: str = "lenet5", dataset: str = "mnist") -> Recipe:
    return resolve(model, dataset, settings=[parse_setting(text) for text in texts]).recipe


def refusal(*texts: str, **names: str) -> str:
    with pytest.raises(UsageError) as caught:
        with_settings(*texts, **names)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


# corpus rows 61 to 72 and 74: the file's bytes, and what its one line of error must say
REFUSED_FILES: dict[str, tuple[bytes, str]] = {
    "61 empty": (b"", "is empty"),
    "61 only a comment": (b"# nothing\n", "is empty"),
    "61 list": (b"- model\n", "contains ['model']"),
    "61 scalar": (b"lenet5\n", "contains 'lenet5'"),
    "61 not UTF-8": (BASE.encode() + b"x: \xff\n", "recipe.yaml:3:4: byte 0xff is not UTF-8"),
    "61 UTF-16": (BASE.encode("utf-16"), "is not UTF-8"),
    "61 NUL": (BASE.encode() + b"a: \0\n", "recipe.yaml:3:4: the character U+0000"),
    "61 escape": (BASE.encode() + b"a: '\x1b[2J'\n", "U+001B"),
    "63 twice": (
        BASE.encode() + b"train:\n  epochs: 1\n  epochs: 2\n",
        "recipe.yaml:5:3: duplicate key 'epochs'",
    ),
    "63 section twice": (BASE.encode() + b"data: {name: mnist}\n", "recipe.yaml:3:1: duplicate key 'data'"),
    "64 object": (b"model: !!python/object/apply:os.system [ls]\n", "recipe.yaml:1:8: a recipe has no tags"),
    "64 own tag": (b"model: !thing {name: mlp}\n", "no tags"),
    "65 self-alias": (b"model: &x [*x]\n", "no anchors and no aliases"),
    "65 bomb": (b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", "no anchors"),
    "65 anchor alone": (b"model: &x {name: mlp}\ndata: {name: shapes}\n", "recipe.yaml:1:8: a recipe has no anchors"),
    "65 anchor on a key": (b"&x model: {name: mlp}\n", "a key is plain text"),
    "65 merge": (b"a: &a {name: mlp}\nmodel: {<<: *a}\n", "no anchors"),
    "66 nested lists": (b"model: " + b"[" * 3000, "more than 20 levels"),
    "66 nested mappings": (b"{a: " * 3000, "more than 20 levels"),
    "67 large": (b"a: [" + b"1, " * 140_000 + b"1]\n", "larger than 256 KiB"),
    "68 unknown": (BASE.encode() + b"optimizer:\n  learning_rte: 1\n", "no key 'learning_rte'. Did you mean 'lr'?"),
    "69 model as code": (b"model: os.system\ndata: {name: shapes}\n", "recipe.model is 'os.system'"),
    "69 optimizer": (BASE.encode() + b"optimizer: {name: builtins.eval}\n", "recipe.optimizer.name is 'builtins.eval'"),
    "69 _component_": (BASE.encode() + b"_component_: os.system\n", "no key '_component_'"),
    "69 _target_": (b"model: {name: mlp, _target_: os.system}\ndata: {name: shapes}\n", "no key '_target_'"),
    "69 name": (b"model: {name: os.system}\ndata: {name: shapes}\n", "model 'os.system' not found"),
    "70 many digits": (BASE.encode() + b"train: {epochs: " + b"9" * 5000 + b"}\n", "a number of 5000 digits"),
    "two documents": (BASE.encode() + b"---\na: 1\n", "recipe.yaml:3:1: a recipe is one document"),
    "broken": (BASE.encode() + b"train: {epochs: 1\n", "not valid YAML"),
    "tab": (b"model:\n\tname: mlp\n", "recipe.yaml:2:1: not valid YAML"),
    "complex key": (b"? [a]\n: 1\n", "a key is plain text"),
    "place of a value": (BASE.encode() + b"\ntrain:\n  epochs: fast\n", "recipe.yaml:5:3"),
    "two things wrong": (BASE.encode() + b"train: {epochs: 0, seed: -1}\n", "And 1 more is wrong."),
}


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("row", REFUSED_FILES)
def test_a_bad_file_is_refused_in_one_line_that_names_it(
    row: str, loader: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_file, "LOADER", getattr(yaml, loader, yaml.SafeLoader))
    data, said = REFUSED_FILES[row]
    recipe.write_bytes(data)
    started = time.thread_time()  # not by the clock: a machine with other work would fail
    with pytest.raises(UsageError) as caught:
        load(recipe)
    assert time.thread_time() - started < 5
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("key", ["train.epochs", "optimizer.lr", "train.batch_size"])
def test_a_wrong_value_is_refused_with_what_was_found_and_what_would_do(key: str) -> None:  # corpus rows 70 to 72
    values = {
        "train.epochs": [
            "-1",
            "0",
            "1.5",
            "1.0",
            "yes",
            "010",
            "0x10",
            "1_000",
            "true",
            "null",
            "'3'",
            "[3]",
            "1e3",
            "",
        ],
        "optimizer.lr": [".nan", ".inf", "-.inf", "-1", "0", "fast", "true", "null", "1e999", "'0.1'", "12:30", "[1]"],
        "train.batch_size": ["0", "1000000000000", "-8", "64.0", "9" * 99],
    }[key]
    for value in values:
        message = refusal(f"{key}={value}")
        assert message.startswith(f"recipe.{key} is ") and "; it takes a " in message
        assert message.endswith(f"(--set {key}={value})")


@pytest.mark.parametrize("text", ["train.epochs=" + "9" * 5000, "optimizer.lr=1e" + "9" * 5000, "x=" + "[" * 500])
def test_an_absurd_setting_is_refused(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5e-4", 0.0005), ("1E5", 1e5), ("+1.5e+2", 150.0), (".5", 0.5), ("3.", 3.0), ("-7", -7),
        ("0", 0),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None), ("[1, 2.5, a]", (1, 2.5, "a")),
    ],
)  # fmt: skip
def test_numbers_and_words_are_read_as_they_look(text: str, value: Any) -> None:
    found = yaml_file.parse(f"a: {text}".encode(), "r").values["a"]
    assert found == value and type(found) is type(value)
    assert parse_setting(f"a={text}").value == value


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "on", "off", "Yes", "NO", "y", "n", "True", "NULL", "010", "0o10", "0x1f", "0b11", "1_000",
     "12:30:45", "190:20:30", "2026-01-31", "2026-01-31T12:00:00Z", "1e", "e5", ".", "-", "1.2.3", "cuda:0", "~root/x",
     "$HOME/x", "file:///x", r"\\host\x", "../..", "inf", "nan"],
)  # fmt: skip
def test_text_that_yaml_would_convert_stays_text(text: str) -> None:  # corpus rows 73 and 74
    if text == "-":
        text = "'-'"
    found = yaml_file.parse(f"a: {text}".encode(), "r").values["a"]
    assert found == text.strip("'")
    assert yaml_file.parse(f"{text}: 1".encode(), "r").values == {text.strip("'"): 1}


def test_a_byte_order_mark_is_no_error(recipe: Path) -> None:
    recipe.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load(recipe).model.name == "mlp"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing", "link to itself", "long name", "below a file"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:  # corpus row 75
    path = tmp_path / "recipe.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "long name":
        path = tmp_path / ("x" * 5000)
    elif kind == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "recipe.yaml"
    started = time.thread_time()
    with pytest.raises(UsageError):
        load(path)
    with pytest.raises(UsageError):
        resolve(recipe=str(path))
    assert time.thread_time() - started < 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_a_storage_error(recipe: Path) -> None:
    recipe.write_text(BASE)
    recipe.chmod(0)
    with pytest.raises(StorageError):
        load(recipe)


def test_an_int_does_for_a_float_and_becomes_one() -> None:
    lr = with_settings("optimizer.lr=5").optimizer.lr
    assert lr == 5.0 and type(lr) is float


def test_lists_become_tuples() -> None:
    assert with_settings("data.augment.scale=[0.5, 2]").data.augment.scale == (0.5, 2.0)
    assert resolve("lenet5", "mnist", flags={"data.augment.scale": [0.5, 2.0]}).recipe.data.augment.scale == (0.5, 2.0)


@pytest.mark.parametrize("value", ["true", "1.0", "2", "x"])
def test_a_choice_of_numbers_takes_no_look_alikes(value: str) -> None:
    assert "it takes one of 1, 3, or null" in refusal(f"data.channels={value}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer.lrr=1", "recipe.optimizer has no key 'lrr'. Did you mean 'lr'?"),
        ("optmizer.lr=1", "recipe has no key 'optmizer'. Did you mean 'optimizer'?"),
        ("lr=1", "recipe has no key 'lr'. Did you mean 'optimizer.lr'?"),
        ("train.lr=1", "recipe.train has no key 'lr'. Did you mean 'optimizer.lr'?"),
        ("learning_rate=1", "Did you mean 'optimizer.lr'?"),
        ("optimizer.wd=1", "Did you mean 'weight_decay'?"),
        ("data.augment.flip=1", "There are: crop_padding, "),
        ("optimizer.name=adm", "it takes one of sgd, adam, adamw, adagrad, rmsprop. Did you mean 'adam'?"),
        ("optimizer=adam", "recipe.optimizer is 'adam'; it takes a mapping with keys such as 'name'."),
        ("optimizer.lr.x=1", "recipe.optimizer.lr is a mapping; it takes a number above 0."),
        ("model.options.droput=0.1", "model 'lenet5' has no option 'droput'. Did you mean 'dropout'?"),
        ("model.options.dropout=much", "recipe.model.options.dropout is 'much'; it takes a number, such as 0.0."),
        ("model.options.dropout=true", "it takes a number, such as 0.0."),
        ("regularizers.l3={}", "regularizer 'l3' not found"),
        ("regularizers.label_smoothing=0.1", "recipe.regularizers.label_smoothing is 0.1; it takes a mapping"),
        ("regularizers.label_smoothing.x=0.1", "it is set by recipe.loss.label_smoothing."),
        ("regularizers.mixup.alpha=-1", "recipe.regularizers.mixup.alpha is -1; it takes a number of at least 0."),
        ("regularizers.mixup.alph=1", "regularizer 'mixup' has no option 'alph'. Did you mean 'alpha'?"),
        ("regularizers.cutout.size=2.5", "it takes a whole number, such as 16."),
        ("train.device=tpu", "it takes text: auto, cpu, cuda, cuda:N or mps."),
        ("optimizer.betas=[0.9]", "it takes a list of 2, each a number of at least 0 and below 1."),
        ("train.compile=1", "it takes true or false."),
        ("data.dir=1", "it takes text, or null."),
    ],
)
def test_an_error_says_what_would_do(text: str, said: str) -> None:
    message = refusal(text)
    assert said in message and message.endswith(f"(--set {text})")


@pytest.mark.parametrize(
    "text", ["", "=", "=1", "lr", "a b=1", ".=1", "a..b=1", "a-b=1", "1=1", "a=b: c", "a=[", "a=*x", "a=!x"]
)
def test_a_malformed_setting_is_refused(text: str) -> None:
    assert refusal(text)


def test_misspelt_names_get_the_nearest_right_one() -> None:
    assert "model 'lenet6' not found. Did you mean 'lenet5'?" in refusal(model="lenet6")
    assert "data set 'minst' not found. Did you mean 'mnist'?" in refusal(dataset="minst")
    with pytest.raises(UsageError, match="Did you mean 'lenet5-mnist'"):
        resolve(recipe="lenet5-mnits")
    with pytest.raises(UsageError, match="no model given"):
        resolve(None, "mnist")
    with pytest.raises(UsageError, match="no data set given"):
        resolve("lenet5")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["data.validation=0"], "there is no val/top1"),
        (["loss.name=mse", "loss.label_smoothing=0.1"], "label_smoothing goes with cross_entropy"),
        (["optimizer.name=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "nesterov needs"),
        (["schedule.warmup_epochs=3", "train.epochs=3"], "must be less than train.epochs, 3"),
        (["schedule.name=onecycle", "schedule.warmup_epochs=1"], "onecycle has a warm-up of its own"),
        (["schedule.name=step", "schedule.milestones=[2,4]", "schedule.warmup_epochs=3"], "within the warm-up"),
        (["train.accumulate=9", "train.batch_size=8"], "more than the 8 images"),
        (["train.amp=fp16", "train.device=cpu"], "fp16 is for CUDA"),
        (["data.augment.scale=[2, 1]"], "the minimum comes first"),
        (["data.augment.resized_crop=[0.5, 1.5]"], "at most 1"),
        (["data.augment.resized_crop=[0.5, 0.25]"], "at most 1"),
        (["data.name=folder"], "needs a folder"),
        (["regularizers.gaussian_prior={}", "regularizers.l2={}"], "Leave one out"),
        (["regularizers.gaussian_prior={}", "optimizer.weight_decay=0.1"], "decay twice"),
        (["regularizers.l2={}", "optimizer.name=sgd", "optimizer.weight_decay=0.1"], "decay twice"),
        (["regularizers.gaussian_prior.mean=start"], "there is no --weights"),
        (["regularizers.swa={}", "train.ema=0.9"], "average the weights twice"),
    ],
)
def test_laws_between_keys_are_held(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve("mlp", None if "data.name=folder" in texts else "shapes", settings=[*map(parse_setting, texts)])


def test_only_a_warmup_that_the_user_asked_for_is_refused_if_it_does_not_fit(recipe: Path) -> None:
    recipe.write_text(BASE + "train: {epochs: 20}\nschedule: {warmup_epochs: 2}\n")
    short = resolve(recipe=recipe, flags={"train.epochs": 1})
    assert short.recipe.schedule.warmup_epochs == 0.1  # two of twenty epochs
    assert short.notes == (
        "warm-up: the recipe's 2 of 20 epochs do not fit into 1: shortened to 0.1 epochs, the same share of the run",
    )
    fits = resolve(recipe=recipe, flags={"train.epochs": 3})
    assert fits.recipe.schedule.warmup_epochs == 2 and not fits.notes
    with pytest.raises(UsageError, match=r"must be less than train\.epochs, 1"):
        resolve(recipe=recipe, flags={"train.epochs": 1, "schedule.warmup_epochs": 2.0})
    with pytest.raises(UsageError, match="warmup_epochs is 2, but onecycle"):
        resolve(recipe=recipe, flags={"train.epochs": 1, "schedule.name": "onecycle"})
    recipe.write_text(BASE + "train: {epochs: 2}\nschedule: {warmup_epochs: 2}\n")
    with pytest.raises(UsageError, match=r"must be less than train\.epochs, 2"):
        resolve(recipe=recipe)


def test_every_shipped_recipe_can_be_tried_for_one_epoch() -> None:
    for name in yaml_file.shipped_names():
        short = resolve(recipe=name, settings=[Setting("data.dir", "x", "")], flags={"train.epochs": 1}).recipe
        assert short.schedule.warmup_epochs < 1


def test_the_recipe_of_a_run_that_an_older_version_began_is_read_and_may_go_on(recipe: Path) -> None:
    recipe.write_text(BASE + "schedule: {name: onecycle, warmup_epochs: 1}\n")
    stored = load(recipe)
    assert with_changes(stored, {"train.epochs": 12}).schedule.warmup_epochs == 1
    with pytest.raises(UsageError, match="onecycle has a warm-up of its own"):
        resolve(recipe=recipe)


def test_regularizers_that_are_off_contradict_nothing() -> None:
    off = ["regularizers.l2.strength=0", "regularizers.swa.start=1", "optimizer.weight_decay=0.1", "train.ema=0.9"]
    assert with_settings(*off).train.ema == 0.9
    decoupled = ["regularizers.l2={}", "optimizer.name=adamw", "optimizer.weight_decay=0.1"]
    assert with_settings(*decoupled).optimizer.weight_decay == 0.1


def test_a_setting_that_the_chosen_optimizer_would_ignore_is_refused() -> None:
    message = refusal("optimizer.name=adam", "optimizer.momentum=0.5")
    assert "does nothing with optimizer 'adam'; it is for sgd, rmsprop. (--set optimizer.momentum=0.5)" in message
    assert with_settings("optimizer.name=sgd", "optimizer.momentum=0.5").optimizer.momentum == 0.5


def test_a_setting_without_effect_may_stand_in_a_file(recipe: Path) -> None:
    recipe.write_text(BASE + "optimizer: {name: adam, momentum: 0.5}\n")  # as in a run's recipe.yaml, which holds all
    assert load(recipe).optimizer.momentum == 0.5


def test_flags_win_over_settings_over_the_recipe_over_defaults(recipe: Path) -> None:
    recipe.write_text(BASE + "train: {epochs: 3, batch_size: 30, seed: 300}\noptimizer: {name: adamw}\n")
    found = resolve(
        recipe=recipe,
        settings=[parse_setting("train.batch_size=40"), parse_setting("train.seed=400")],
        flags={"train.seed": 500},
    ).recipe
    assert (found.train.keep, found.train.epochs, found.train.batch_size, found.train.seed) == (2, 3, 40, 500)
    assert (found.optimizer.name, found.optimizer.lr) == ("adamw", 0.001)  # sections are merged, not replaced


def test_the_last_of_two_settings_wins() -> None:
    assert with_settings("train.epochs=3", "train.epochs=4").train.epochs == 4


def test_a_pair_with_a_recipe_gets_it_and_one_without_gets_the_starting_point() -> None:
    assert resolve("lenet5", "mnist").source == "lenet5-mnist, shipped with dlkit"
    assert yaml_file.shipped("mlp", "cifar10") is None
    found = resolve("mlp", "cifar10")
    assert "no recipe for mlp on cifar10" in found.source
    assert (found.recipe.optimizer.name, found.recipe.schedule.name) == ("adam", "cosine")


def test_changes_on_resume_are_of_the_closed_list() -> None:
    recipe = with_settings()
    assert changes_on_resume(recipe, [parse_setting("train.epochs=99")]) == {"train.epochs": 99}
    assert with_changes(recipe, {"train.epochs": 99}).train.epochs == 99
    with pytest.raises(UsageError, match=r"--lr 1 cannot change when a run is resumed\. These can: train\.epochs"):
        changes_on_resume(recipe, [Setting("optimizer.lr", 1, "--lr 1")])
    with pytest.raises(UsageError, match=r"recipe\.train\.epochs is 0"):
        changes_on_resume(recipe, [parse_setting("train.epochs=0")])
    assert set(MAY_CHANGE_ON_RESUME) <= set(leaves())


def model_keys(schema: type[BaseModel]) -> recipe_keys.Tree:
    return {
        name: model_keys(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else None
        for name, field in schema.model_fields.items()
    }


def leaves() -> list[str]:
    return list(recipe_keys._paths(recipe_keys.tree()))


def test_the_keys_read_from_the_source_are_those_of_the_schema() -> None:
    assert recipe_keys.tree() == model_keys(Recipe)
    assert len(leaves()) > 60


def test_other_peoples_names_lead_to_keys_that_exist() -> None:
    assert set(recipe_keys.ALIASES.values()) <= set(leaves())
    assert {".".join(keys) for keys in USED_BY} <= set(leaves())


@pytest.mark.parametrize("path", leaves())
def test_every_misspelt_key_is_refused(path: str) -> None:
    *section, key = path.split(".")
    assert recipe_keys.unknown_key([*section, key]) is None
    message = recipe_keys.unknown_key([*section, key + "q"])
    assert message is not None and f"no key '{key}q'" in message and repr(key) in message


def test_a_written_recipe_holds_every_key_and_repeats_the_run(recipe: Path) -> None:
    made = with_settings("train.seed=7", "optimizer.lr=1e-5")
    recipe.write_text(yaml_file.dump(made))
    assert load(recipe) == made
    assert set(re.findall(r"^ *(\w+):", recipe.read_text(), re.MULTILINE)) == {
        path.rpartition(".")[2] for path in leaves()
    }


def test_other_readers_of_yaml_see_the_same_recipe() -> None:
    made = with_settings("optimizer.lr=0.125", "model.weights=no", "data.options={}", "train.amp=off")
    theirs = yaml.safe_load(yaml_file.dump(made))
    assert theirs["model"]["weights"] == "no" and theirs["train"]["amp"] == "off" and theirs["optimizer"]["lr"] == 0.125


def test_distances_are_not_trained_towards_zero_and_one() -> None:
    settings = [parse_setting("loss.name=mse"), parse_setting("model.options.output=rbf")]
    with pytest.raises(UsageError, match="does not fit model option output 'rbf'"):
        resolve("lenet5", "mnist", settings=settings)


def test_a_flat_mapping_has_every_value_under_its_dotted_key() -> None:
    values = {"a": {"b": {"c": 1}, "d": {}}, "e": None, "f": {}}
    assert recipe_keys.flatten(values) == {"a.b.c": 1, "a.d": {}, "e": None, "f": {}}
