"""torchvision/NAME: its networks, weights, preprocessing and names, held against torchvision itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import network_tables
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models as torchvisions

from dlkit import imagenet, published, registry
from dlkit.data.images import resize_crop
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.model_summary import natural, natural_spec, summarize
from dlkit.specs import ImageSpec, from_json
from dlkit.training import transfer, weights
from dlkit.training.restore import build

ARCHITECTURES = network_tables.architectures()
SMALL = ("mobilenet_v3_small", "mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1")
LARGER = (
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "swin_t",
    "vit_b_32",
)


def ours(architecture: str, spec: ImageSpec, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build(f"torchvision/{architecture}", spec, dict(options)).eval()


def theirs(architecture: str) -> nn.Module:
    """torchvision's, as dlkit builds it: GoogLeNet and Inception rescale their input and have one classifier."""
    torch.manual_seed(0)
    inception = architecture in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "transform_input": True, "init_weights": True} if inception else {}
    model: nn.Module = torchvisions.get_model(architecture, **options)
    return model.eval()


# -- the tables


def test_the_table_of_weights_is_torchvisions() -> None:
    assert network_tables.as_csv(network_tables.published_rows()) == published.TABLE.read_text(encoding="utf-8")
    assert list(published.weights()) == ARCHITECTURES and len(ARCHITECTURES) >= 80
    for name in ARCHITECTURES:
        assert published.weights()[name][0].tag == torchvisions.get_model_weights(name).DEFAULT.name


def test_published_files_are_where_they_are_fetched_and_are_for_the_same_classes() -> None:
    for name in ARCHITECTURES:
        for one in published.weights()[name]:
            entry = torchvisions.get_model_weights(name)[one.tag]
            assert entry.url == imagenet.URL + one.file
            assert tuple(entry.meta["categories"]) == imagenet.classes()


@pytest.mark.slow
def test_every_network_is_built_and_has_the_published_size_and_maps() -> None:
    """One sweep on the meta device, for the images of the recommended weights."""
    table = network_tables.SIZES.read_text(encoding="utf-8").splitlines()
    for architecture in ARCHITECTURES:
        name, meta = f"torchvision/{architecture}", torchvisions.get_model_weights(architecture).DEFAULT.meta
        summary = summarize(name)
        assert ",".join(network_tables.size_row(summary)) in table
        auxiliary = 3_326_696 if architecture == "inception_v3" else 0
        assert summary.parameters == sum(layer.parameters for layer in summary.layers) == meta["num_params"] - auxiliary
        assert summary.macs / 1e9 == pytest.approx(meta["_ops"], rel=0.005, abs=6e-4), name
        assert summary.layers[-1].output[0] == 1000
        with torch.device("meta"):
            assert_maps(build(name, natural(name), {}).eval(), natural(name))


def assert_maps(model: nn.Module, spec: ImageSpec | object) -> None:
    """feature_map is the path of a module that gives maps in space, finer than one cell."""
    assert isinstance(spec, ImageSpec)
    seen: list[torch.Tensor] = []
    if model.feature_map is None:
        assert isinstance(model, torchvisions.VisionTransformer)
        return
    model.get_submodule(str(model.feature_map)).register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    with torch.no_grad():
        model(torch.zeros(1, spec.channels, spec.height, spec.width))
    (maps,) = seen
    assert maps.ndim == 4 and maps.shape[1] > maps.shape[2] >= 6 and maps.shape[3] >= 6


# -- the networks


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)])
def test_a_network_is_torchvisions_to_the_bit(name: str) -> None:
    """The same names, initial weights from the same seed, and logits."""
    side = published.weights()[name][0].crop if name in LARGER else 96
    model, oracle = ours(name, natural_spec(3, side, side, 1000)), theirs(name)
    state, expected = model.state_dict(), oracle.state_dict()
    assert list(state) == list(expected) and all(torch.equal(state[key], expected[key]) for key in state)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(model(images), oracle(images))
    assert_maps(model, natural_spec(3, max(side, 224), max(side, 224), 1000))


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("googlenet", marks=pytest.mark.slow)])
def test_a_gray_image_is_answered_like_three_equal_channels_with_the_same_weights(name: str) -> None:
    side = 96
    source = weights.Weights("published", dict, f"torchvision/{name}")
    gray, color = ours(name, natural_spec(1, side, side, 10)), ours(name, natural_spec(3, side, side, 10))
    fitted = transfer.fitted(color.state_dict(), source, gray, lambda text: None)
    gray.load_state_dict(fitted)
    images = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(gray(images), color(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_positions_are_interpolated_to_the_size_of_the_images_and_auxiliary_classifiers_left_out() -> None:
    spec = natural_spec(3, 64, 64, 10)
    with torch.device("meta"):
        model = build("torchvision/vit_b_16", spec, {})
    tensors = {"encoder.pos_embedding": torch.randn(1, 197, 768), "AuxLogits.fc.weight": torch.zeros(1)}
    source = weights.Weights("published", dict, "torchvision/vit_b_16", spec=imagenet.spec())
    fitted = transfer.fitted(tensors, source, model, lambda text: None)
    assert {name: tuple(tensor.shape) for name, tensor in fitted.items()} == {"encoder.pos_embedding": (1, 17, 768)}


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [("inception_v3", (28, 28), "299"), ("vit_b_16", (224, 192), "square"), ("vit_b_16", (60, 60), "divisible")],
)
def test_images_that_a_network_cannot_take_are_refused_with_the_reason(
    name: str, size: tuple[int, int], reason: str
) -> None:
    with torch.device("meta"), pytest.raises(DataError, match=reason):
        ours(name, natural_spec(3, *size, 10))


def test_rates_reach_the_network_and_an_option_that_it_has_not_is_refused() -> None:
    spec = natural_spec(3, 32, 32, 10)
    with torch.device("meta"):
        model = ours("efficientnet_b0", spec, dropout=0.7)
        assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.7]
        with pytest.raises(UsageError, match="has no option stochastic_depth"):
            ours("squeezenet1_1", spec, stochastic_depth=0.1)


# -- preprocessing


def test_images_are_prepared_as_by_the_published_transforms() -> None:
    """Every combination of resize, crop and filter that torchvision publishes, on images of odd sizes."""
    presets = {
        (one.resize, one.crop, one.interpolation): (name, one)
        for name in ARCHITECTURES
        for one in published.weights()[name]
    }
    rng = np.random.default_rng(0)
    for name, one in presets.values():
        transforms = torchvisions.get_model_weights(name)[one.tag].transforms()
        spec = one.spec(imagenet.classes())
        mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
        for width, height in ((500, 333), (97, 211)):
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            expected = ((transforms(image) * std + mean) * 255).round().to(torch.uint8).numpy()
            assert (resize_crop.prepare(image, spec) == expected).all(), (name, one.tag)
            assert tuple(transforms.mean) == spec.mean and tuple(transforms.std) == spec.std


def test_the_filter_is_kept_in_documents_and_older_ones_are_bilinear() -> None:
    spec = published.select("swin_t", None).spec(("a", "b"))
    assert spec.interpolation == "bicubic" and from_json(spec.to_json()) == spec
    assert "interpolation" not in replace(spec, interpolation="bilinear").to_json()


# -- weights


def test_recommended_weights_are_the_default_and_tags_choose_others() -> None:
    assert imagenet.find("torchvision/resnet50")[0] == "resnet50-11ad3fa6.pth"
    for tag in ("IMAGENET1K_V1", "V1", "v1"):
        assert imagenet.find("torchvision/resnet50", tag)[0] == imagenet.FILES["resnet50"]
    with pytest.raises(UsageError, match=r"no published weights 'V3'. There are: IMAGENET1K_V2, IMAGENET1K_V1"):
        imagenet.find("torchvision/resnet50", "V3")
    with pytest.raises(UsageError, match="Leave :V1 out"):
        imagenet.find("resnet50", "V1")


def test_a_published_file_is_loaded_with_its_images_and_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up file under a name with its SHA-256, in the cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.device("meta"):
        shapes = torchvisions.squeezenet1_1().state_dict()
    tensors = {name: torch.randn(tensor.shape) for name, tensor in shapes.items()}
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(tensors, hub / "made-up.pth")
    name = f"squeezenet1_1-{hashlib.sha256((hub / 'made-up.pth').read_bytes()).hexdigest()[:8]}.pth"
    (hub / "made-up.pth").rename(hub / name)
    row = replace(published.select("squeezenet1_1", None), file=name)
    monkeypatch.setattr(published, "weights", lambda: {"squeezenet1_1": (row,)})
    for source in (
        weights.find("imagenet", "torchvision/squeezenet1_1", tmp_path, print),
        weights.find(hub / name, None, tmp_path, print),
    ):
        assert source.model == "torchvision/squeezenet1_1" and source.spec == row.spec(imagenet.classes())
        read = source.read()
        assert read.keys() == tensors.keys() and all(torch.equal(read[key], tensors[key]) for key in read)


# -- names


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("swin_t", "torchvision/swin_t"), ("mobilenetv3_small", "torchvision/mobilenet_v3_small"),
        ("torchvision/swint", "torchvision/swin_t"), ("resnt18", "resnet18"),
        ("resnext50", "torchvision/resnext50_32x4d"), ("efficientnet", "torchvision/efficientnet_b0"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_brings_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{suggestion}'"):
        registry.entry("models", name)


def test_names_are_listed_once() -> None:
    names = registry.names("models")
    assert len(set(names)) == len(names) and {"lenet5", "torchvision/resnet50"} <= set(names)
