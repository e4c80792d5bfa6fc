"""Transfer learning: what is taken over, what starts from scratch, what stays frozen; resumed, the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from shapes_on_disk import write_folder
from tiny_training import same_bits, weights
from torch import Tensor, nn

import dlkit
from dlkit import atomic_io, imagenet, registry
from dlkit.config import schema, yaml_file
from dlkit.config.resolve import load, resolve
from dlkit.errors import ModelFileError, UsageError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.layers.order import head, layers, matching
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec
from dlkit.training import optimizers, train, transfer
from dlkit.training.freezing import Freezing, choose_frozen
from dlkit.training.restore import build, restore
from dlkit.training.weights import Weights

SMALL = {
    "model.options.blocks": "1,1", "model.options.width": 4, "data.options.train": 80, "data.options.test": 8,
    "train.batch_size": 16, "train.epochs": 2, "train.threads": 1, "train.device": "cpu",
}  # fmt: skip
Say = list[str]


def small(runs_dir: Path, name: str, said: Say | None = None, **settings: object) -> RunFolder:
    """A tiny resnet20: batch norms, two blocks, a head. Four layers."""
    say = (lambda text: None) if said is None else said.append
    return dlkit.train(
        "resnet20", dataset="shapes", settings={**SMALL, **settings}, name=name, runs_dir=runs_dir, say=say
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small(tmp_path_factory.mktemp("source"), "source", **{"train.seed": 5})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the eight shapes, and three that the shapes' run has never heard of."""
    root = tmp_path_factory.mktemp("pictures")
    names = {"known": {}, "unknown": {"disk": "apple", "ring": "pear", "bar": "plum"}}
    for part, renamed in names.items():
        for split, count in (("train", 60), ("test", 30)):
            write_folder(root / part, split, ("disk", "ring", "bar"), count)
            for old, new in renamed.items():
                (root / part / split / old).rename(root / part / split / new)
    return root


def transferred(
    runs_dir: Path, name: str, source: RunFolder, place: Path, said: Say | None = None, **more: object
) -> RunFolder:
    settings = {key: value for key, value in SMALL.items() if not key.startswith("data.")}
    settings |= {"data.dir": str(place), "data.size": 28, "data.workers": 0, "model.weights": str(source.path), **more}
    say = (lambda text: None) if said is None else said.append
    return dlkit.train("resnet20", dataset="folder", settings=settings, name=name, runs_dir=runs_dir, say=say)


def model_weights(run: RunFolder) -> dict[str, Tensor]:
    return {name.removeprefix("model/"): tensor for name, tensor in weights(run).items() if name.startswith("model/")}


# -- layers


@pytest.mark.parametrize("name", sorted(registry.entries("models")))
def test_every_parameter_is_in_one_layer_and_the_last_is_the_head(name: str) -> None:
    module = registry.load("models", name)
    if "images" not in registry.entry("models", name).takes or not hasattr(module, "NATURAL"):
        pytest.skip("not a network for images")
    spec = natural_spec(*module.NATURAL)
    with torch.device("meta"):
        model = build(name, spec, {})
    if next(model.parameters(), None) is None:
        pytest.skip("a classical baseline, fitted and not trained")
    parameters = [parameter for layer in layers(model) for parameter in layer.parameters]
    assert sorted(parameters) == sorted(parameter for parameter, _ in model.named_parameters())
    assert layers(model)[-1].name == head(model, len(spec.classes))


@pytest.mark.parametrize(("name", "count"), [("lenet5", 5), ("resnet18", 10), ("resnet50", 18), ("vgg16_bn", 16)])
def test_a_block_is_one_layer_and_norms_belong_to_the_layer_before(name: str, count: int) -> None:
    with torch.device("meta"):
        found = layers(build(name, natural_spec(3, 224, 224, 10), {}))
    assert len(found) == count
    if name == "resnet18":
        assert found[0].parameters == ("conv1.weight", "bn1.weight", "bn1.bias")


def test_a_pattern_fits_names_and_what_lies_below_them() -> None:
    names = ["conv1.weight", "conv10.weight", "layer1.0.bias", "fc.weight"]
    assert matching(names, "conv1") == ["conv1.weight"]
    assert matching(names, "conv1*") == ["conv1.weight", "conv10.weight"]
    assert matching(names, "layer1.*, fc.weight") == ["layer1.0.bias", "fc.weight"]


# -- what is taken over


def known(classes: tuple[str, ...], model: nn.Module, **spec: Any) -> Weights:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Weights("the source", lambda: tensors, "mlp", {}, replace(natural_spec(3, 8, 8, 2), classes=classes, **spec))


def inherited(source: Weights, spec: ImageSpec, init_layers: str | None = None) -> tuple[nn.Module, list[str], Say]:
    said: Say = []
    torch.manual_seed(3)
    model = build("mlp", spec, {})
    options = registry.resolved_options("models", "mlp", {})
    start = transfer.Start("mlp", source, source.read(), init_layers)
    return model, transfer.inherit(model, start, spec, options, said.append), said


def test_the_head_follows_the_classes_by_name_and_never_by_position() -> None:
    torch.manual_seed(0)
    spec = replace(natural_spec(3, 8, 8, 4), classes=("ant", "bee", "cat", "dog"))
    theirs, images = build("mlp", spec, {}), torch.randn(5, 3, 8, 8)
    ours, scratch, _ = inherited(known(spec.classes, theirs), replace(spec, classes=("dog", "ant", "cat", "bee")))
    assert scratch == [] and torch.equal(ours(images), theirs(images)[:, [3, 0, 2, 1]])
    some, scratch, said = inherited(known(spec.classes, theirs), replace(spec, classes=("cat", "ant")))
    torch.testing.assert_close(some(images), theirs(images)[:, [2, 0]])
    assert scratch == [] and "keeps the rows" in " ".join(said)


@pytest.mark.parametrize("classes", [("ant", "bee", "cat", "eel"), ("ant", "bee", "cat", "dog", "eel"), ("1", "2")])
def test_a_class_that_the_source_does_not_know_brings_a_new_head(classes: tuple[str, ...]) -> None:
    spec = replace(natural_spec(3, 8, 8, 4), classes=("ant", "bee", "cat", "dog"))
    theirs, ours_spec = build("mlp", spec, {}), replace(spec, classes=classes)
    ours, scratch, said = inherited(known(spec.classes, theirs), ours_spec)
    torch.manual_seed(3)
    fresh = build("mlp", ours_spec, {}).state_dict()
    name = head(ours, len(classes))
    assert scratch == [f"{name}.weight", f"{name}.bias"] and "new head" in " ".join(said)
    for key, tensor in ours.state_dict().items():
        assert torch.equal(tensor, fresh[key] if key in scratch else theirs.state_dict()[key]), key


def test_positions_of_a_vision_transformer_are_interpolated_and_it_is_said() -> None:
    classes, small = ("ant", "bee", "cat"), {"depth": 1, "width": 12, "heads": 3, "patch_size": 4}
    theirs = build("vit_mini_4", replace(natural_spec(3, 16, 16, 3), classes=classes), small)
    source = replace(known(classes, theirs), spec=natural_spec(3, 16, 16, 3), model="vit_mini_4", options=small)
    larger = replace(natural_spec(3, 24, 24, 3), classes=natural_spec(3, 16, 16, 3).classes)
    said: list[str] = []
    start, model = transfer.Start("vit_mini_4", source, theirs.state_dict()), build("vit_mini_4", larger, small)
    assert transfer.inherit(model, start, larger, small, said.append) == []
    assert "interpolated from 17 to 37 positions" in " ".join(said)
    expected = model.at_this_size(theirs.state_dict(), None)  # type: ignore[operator]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_file_without_names_keeps_its_head_only_for_as_many_classes() -> None:
    spec = natural_spec(3, 8, 8, 4)
    theirs = build("mlp", spec, {})
    bare = replace(known(spec.classes, theirs), spec=None, model=None)
    assert inherited(bare, spec)[1] == [] and "in their order" in " ".join(inherited(bare, spec)[2])
    assert len(inherited(bare, natural_spec(3, 8, 8, 5))[1]) == 2


def test_imagenets_classes_are_the_same_by_name_and_by_wordnet_id() -> None:
    ids = [f"n{number:08}" for number in range(1000)]
    assert imagenet.same_classes(imagenet.classes()) and imagenet.same_classes(ids)
    assert not imagenet.same_classes(ids[::-1]) and not imagenet.same_classes(ids[:-1])
    assert not imagenet.same_classes(imagenet.classes()[::-1])


def test_partial_initialization_takes_what_fits_the_pattern_and_draws_the_rest(
    source: RunFolder, tmp_path: Path
) -> None:
    said: Say = []
    settings = {"model.weights": str(source.path), "model.init_layers": "conv1,bn1,layer1", "optimizer.lr": 1e-12}
    run = small(tmp_path, "a", said, **settings)
    plain, ours = model_weights(small(tmp_path, "b", **{"optimizer.lr": 1e-12})), model_weights(run)
    theirs = restore(source, device="cpu").model.state_dict()
    taken = ("conv1", "bn1", "layer1")
    assert run.info()["from_scratch"] == [
        name for name, _ in restore(run).model.named_parameters() if not name.startswith(taken)
    ]
    assert "from run source: 9 of 17 tensors, 420 of 1,388 parameters; from scratch: layer2.0" in " ".join(said)
    for name, tensor in ours.items():
        if tensor.is_floating_point() and "running" not in name:
            expected = theirs if name.startswith(taken) else plain
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5)


def test_weights_of_another_shape_are_told_with_what_may_explain_it(source: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"of another shape: conv1\.weight .* built with --set model.options.width=4"
    ):
        small(tmp_path, "a", **{"model.weights": str(source.path), "model.options.width": 8})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.name": "mlp", "model.options": {}}, "holds 'resnet20', not 'mlp'"),
        ({"model.weights": "nothing"}, "no such run or file"),
    ],
)
def test_weights_of_another_network_are_exit_5(
    source: RunFolder, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    chosen = {"model.weights": str(source.path), **SMALL, **settings}
    if "model.name" in settings:
        chosen = {key: value for key, value in chosen.items() if not key.startswith("model.options.")}
    with pytest.raises(ModelFileError, match=message):
        dlkit.train(settings.get("model.name", "resnet20"), dataset="shapes", settings=chosen, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_pixels_are_normalised_as_the_weights_were_trained_for(
    source: RunFolder, pictures: Path, tmp_path: Path
) -> None:
    said: Say = []
    run = transferred(tmp_path, "a", source, pictures / "known", said)
    assert run.spec().mean == source.spec().mean != imagenet.MEAN and run.spec().height == 28
    assert any(line.startswith("pixels are normalised as for run source") for line in said)
    found = dlkit.evaluate(run, split="validation", write=False)
    best = max(line["val/top1"] for line in run.metrics() if "val/top1" in line)
    assert found.metrics["top1"].value == pytest.approx(best)


def test_words_keep_the_rows_of_the_embedding_that_they_were_trained_with(tmp_path: Path) -> None:
    texts = {"a": "good film,pos\nbad film,neg\n", "b": "new book,up\ngood book,down\n"}
    runs: dict[str, RunFolder] = {}
    for name, rows in texts.items():
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows * 20)
        more = {"model.weights": str(runs["a"].path), "train.freeze": "embedding"} if runs else {}
        settings = {"train.epochs": 1, "train.device": "cpu", "model.options.hidden_size": 4, **more}
        file = tmp_path / f"{name}.csv"
        runs[name] = dlkit.train(
            "lstm", dataset="text_csv", data_dir=file, settings=settings, name=name, runs_dir=tmp_path / "runs"
        )
    first, second = (restore(run, device="cpu") for run in runs.values())
    assert not isinstance(second.spec, ImageSpec) and second.spec.words == first.spec.words  # type: ignore[union-attr]
    assert torch.equal(first.model.embedding.weight, second.model.embedding.weight)  # type: ignore[union-attr,arg-type]
    assert second.spec.classes == ("down", "up")


# -- freezing


def test_frozen_layers_and_their_norms_keep_every_bit(source: RunFolder, pictures: Path, tmp_path: Path) -> None:
    said: Say = []
    run = transferred(
        tmp_path, "a", source, pictures / "unknown", said, **{"train.freeze": 2, "optimizer.weight_decay": 0.1}
    )
    before, after = restore(source, device="cpu").model.state_dict(), model_weights(run)
    frozen = {name for name in after if name.startswith(("conv1", "bn1", "layer1"))}
    assert before.keys() == after.keys() and frozen
    for name in after:
        kept = after[name].shape == before[name].shape and torch.equal(after[name], before[name])
        assert kept == (name in frozen), name
    assert any(line.startswith("frozen: 2 of 4 layers") for line in said)
    assert run.info()["from_scratch"] == ["fc.weight", "fc.bias"]


def test_what_starts_from_scratch_is_never_frozen(source: RunFolder, pictures: Path, tmp_path: Path) -> None:
    run = transferred(tmp_path, "a", source, pictures / "unknown", **{"train.freeze": "*"})
    before, after = restore(source, device="cpu").model.state_dict(), model_weights(run)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("freeze", "message"), [(4, "there are 4 layers: conv1, "), ("*", "leaves nothing"), ("cnov1", "begin with: ")]
)
def test_a_freezing_that_makes_no_sense_is_refused(
    source: RunFolder, tmp_path: Path, freeze: int | str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        small(tmp_path, "a", **{"model.weights": str(source.path), "train.freeze": freeze})
    assert not list(tmp_path.iterdir())


def test_frozen_layers_thaw_from_the_last_to_the_first() -> None:
    groups = (("a",), ("b",), ("c",))
    every = Freezing(groups, 2)
    assert [len(every.frozen(epoch)) for epoch in range(8)] == [3, 3, 2, 2, 1, 1, 0, 0]
    listed = Freezing(groups, (1, 4))
    assert [sorted(listed.frozen(epoch)) for epoch in (0, 1, 3, 4, 9)] == [
        ["a", "b", "c"],
        *[["a", "b"]] * 2,
        *[["a"]] * 2,
    ]
    assert Freezing(groups).frozen(100) == {"a", "b", "c"}


def test_a_thawed_norm_learns_its_statistics_again() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    freezing = choose_frozen(model, 1, 1, [], lambda text: None)
    for epoch, trains in ((0, False), (1, True)):
        freezing.apply(model.train(), epoch)
        assert model[1].training == model[1].weight.requires_grad == model[0].weight.requires_grad == trains
        assert model[2].weight.requires_grad


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def killing() -> Iterator[Any]:
    """A function that lets a run die when it has done so many steps."""

    def kill_after(steps: int) -> None:
        def hook(point: str) -> None:
            nonlocal steps
            steps -= point == "step"
            if point == "step" and steps == 0:
                raise Killed

        atomic_io.hook = hook

    yield kill_after
    atomic_io.hook = None


def test_gradual_unfreezing_resumes_to_the_same_bits_without_its_source(
    source: RunFolder, pictures: Path, tmp_path: Path, killing: Any
) -> None:
    lent = RunFolder(tmp_path / "lent")
    shutil.copytree(source.path, lent.path)
    settings: dict[str, Any] = {
        "train.freeze": "*", "train.unfreeze": 1, "train.epochs": 3, "train.checkpoint_every": 1, "train.batch_size": 8,
        "optimizer.layer_decay": 0.5, "regularizers.gaussian_prior.mean": "start", "optimizer.weight_decay": 0,
    }  # fmt: skip
    gold = transferred(tmp_path, "gold", lent, pictures / "unknown", **settings)
    steps, before, after = (
        gold.metrics()[-1]["step"],
        restore(source, device="cpu").model.state_dict(),
        model_weights(gold),
    )
    moved = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"fc", "layer2", "layer1"}  # conv1 and bn1 would thaw after the third epoch
    killed = 0
    for step in range(1, steps, 3):
        name = f"killed-{step}"
        shutil.copytree(source.path, lent.path, dirs_exist_ok=True)
        killing(step)
        with pytest.raises(Killed):
            transferred(tmp_path, name, lent, pictures / "unknown", **settings)
        atomic_io.hook = None
        killed += 1
        shutil.rmtree(lent.path)
        run = RunFolder(tmp_path / name)
        train.resume_run(run, changes={}, inexact=False, say=lambda text: None, progress=False)
        assert same_bits(run, gold), f"killed after step {step}"
    assert killed == 3 and steps == 9


# -- layer-wise learning rates


def test_each_layer_learns_at_a_fixed_part_of_the_next_ones_rate() -> None:
    model = build("lenet5_relu", natural_spec(1, 28, 28, 10), {})
    settings = schema.Optimizer(weight_decay=0.1, layer_decay=0.5)
    optimizer = optimizers.build(model, settings, torch.device("cpu"))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    factors = {named[id(p)]: group["lr_factor"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"c1": 1 / 16, "c3": 1 / 8, "c5": 1 / 4, "f6": 1 / 2, "output": 1.0}
    assert factors == {f"{name}.{kind}": rate for name, rate in expected.items() for kind in ("weight", "bias")}


def test_the_first_step_of_each_layer_is_as_long_as_its_rate_says(tmp_path: Path) -> None:
    settings = {"optimizer.name": "sgd", "optimizer.momentum": 0.0, "train.epochs": 1, "train.batch_size": 72}
    still, plain, decayed = (
        model_weights(small(tmp_path, name, **settings, **more))
        for name, more in (
            ("still", {"optimizer.lr": 1e-30}),
            ("plain", {"optimizer.lr": 0.1}),
            ("decayed", {"optimizer.lr": 0.1, "optimizer.layer_decay": 0.5}),
        )
    )
    for name, factor in (("conv1.weight", 1 / 8), ("layer1.0.conv1.weight", 1 / 4), ("fc.weight", 1.0)):
        moved = plain[name] - still[name]
        torch.testing.assert_close(decayed[name] - still[name], moved * factor, rtol=1e-3, atol=1e-6)


# -- the recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.freeze": 2}, "no weights to start from"),
        ({"model.init_layers": "conv1"}, "no weights to start from"),
        ({"train.unfreeze": 2}, "no effect without train.freeze"),
        ({"model.weights": "imagenet"}, "no ImageNet weights for 'mlp'"),
        ({"optimizer.layer_decay": 0}, "above 0"),
        ({"optimizer.layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"model.weights": "a", "train.freeze": 0}, "train.freeze is 0"),
        ({"model.weights": "a", "train.freeze": ""}, "train.freeze is ''"),
        ({"model.weights": "a", "train.freeze": True}, "train.freeze is true"),
        ({"model.weights": "a", "train.freeze": 1, "train.unfreeze": [1, 0]}, "unfreeze is"),
    ],
)
def test_a_recipe_that_transfers_nothing_is_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("mlp", "mnist", flags=settings)


def test_the_keys_of_transfer_come_back_from_a_written_recipe(tmp_path: Path) -> None:
    settings = {"model.weights": "a", "model.init_layers": "*", "train.freeze": "c*,[ab]", "train.unfreeze": [1, 3]}
    made = resolve("mlp", "shapes", flags=settings).recipe
    (tmp_path / "recipe.yaml").write_text(yaml_file.dump(made))
    assert load(tmp_path / "recipe.yaml") == made and made.train.unfreeze == (1, 3)


def test_a_bare_state_dict_of_other_classes_trains_on_with_a_new_head(
    source: RunFolder, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(restore(source, device="cpu").model.state_dict(), file)
    run = transferred(tmp_path, "a", source, pictures / "unknown", **{"model.weights": str(file)})
    assert run.info()["from_scratch"] == ["fc.weight", "fc.bias"]
