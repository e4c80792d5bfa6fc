"""Laws that every entry of a shelf keeps; a new file on a shelf is held by them without a line here."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import network_tables
import pytest
import torch
import torch.nn.functional as F
from _pytest.mark import ParameterSet
from torch import Tensor, nn

import dlkit
from dlkit import registry
from dlkit.config.checks import USER_DATASETS
from dlkit.config.schema import Optimizer
from dlkit.data.download.store import about_of
from dlkit.data.splits import About
from dlkit.errors import UsageError
from dlkit.evaluation.model_summary import natural, natural_spec, summarize
from dlkit.layers.activation import ACTIVATIONS
from dlkit.layers.fusion import FUSIONS
from dlkit.layers.init import SCHEMES
from dlkit.layers.norm import NORMS
from dlkit.layers.stem import STEMS
from dlkit.specs import ImageSpec
from dlkit.training import optimizers

MODELS = sorted(  # those that read images, and learn by gradients
    name
    for name, entry in registry.entries("models").items()
    if "images" in entry.takes and not hasattr(registry.load("models", name), "fit")
)
SPECS = [(1, 28, 28, 2), (3, 32, 32, 10), (1, 64, 64, 37), (3, 28, 40, 10)]
SMALL = natural_spec(3, 32, 32, 10)
CHOICES = {"activation": ACTIVATIONS, "init": SCHEMES, "norm": NORMS, "stem": STEMS, "fusion": FUSIONS}
SLOW = 30_000_000  # parameters


def made(name: str, spec: ImageSpec, **options: object) -> nn.Module:
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, nn.Module)
    return model


def shallow(name: str, spec: ImageSpec = SMALL, **options: object) -> nn.Module:
    """With two blocks in each stage, where a network has blocks: the others are like them."""
    blocks = registry.resolved_options("models", name, {}).get("blocks")
    return made(name, spec, **{**({} if blocks is None else {"blocks": re.sub(r"\d+", "2", blocks)}), **options})


def build(name: str, spec: ImageSpec = SMALL, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return shallow(name, spec, **options)


@cache
def without_memory(name: str) -> nn.Module:
    """The whole network, for the input that it was made for."""
    with torch.device("meta"):
        return made(name, natural(name))


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def structure(name: str) -> frozenset[object]:
    """The kinds of modules that a network is made of, whatever their sizes and numbers."""
    return frozenset(
        (type(module), isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
        for module in without_memory(name).modules()
    )


def representatives() -> list[str]:
    """Of every family, and of every structure in it, the member with the fewest parameters."""
    cheapest: dict[object, str] = {}
    for name in sorted(MODELS, key=lambda name: count(without_memory(name))):
        cheapest.setdefault((registry.entry("models", name).family, structure(name)), name)
    return sorted(cheapest.values())


def marked(name: str, size: tuple[int, int, int, int], value: object) -> ParameterSet:
    """A test's parameter, slow where the network is large for images of that size."""
    with torch.device("meta"):
        large = count(shallow(name, natural_spec(*size))) > SLOW
    return pytest.param(value, marks=[pytest.mark.slow] if large else [], id=f"{name}-{'×'.join(map(str, size))}")


REPRESENTATIVES = representatives()
every_model = pytest.mark.parametrize("name", MODELS)
each_kind = pytest.mark.parametrize("name", [marked(name, (3, 32, 32, 10), name) for name in REPRESENTATIVES])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images_for(spec: ImageSpec, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, spec.channels, spec.height, spec.width, generator=generator)


def assert_alike(logits: Tensor, expected: Tensor) -> None:
    """But for rounding, which grows with the numbers: those of an untrained deep network may be large."""
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(logits / scale, expected / scale, rtol=1e-4, atol=1e-5)


def test_the_sweeps_sweep_something() -> None:
    assert {"lenet5", "lenet5_relu", "lstm", "mlp", "simple_cnn", "transformer"} <= set(MODELS)
    assert {"cifar10", "folder", "mnist", "shapes"} <= set(registry.entries("datasets"))


def test_every_family_is_represented() -> None:
    assert {registry.entry("models", name).family for name in REPRESENTATIVES} == {
        registry.entry("models", name).family for name in MODELS
    }
    assert len(REPRESENTATIVES) < len(MODELS)


@pytest.fixture(scope="module", params=[marked(name, size, (name, size)) for name in REPRESENTATIVES for size in SPECS])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, ImageSpec]:
    """One of each kind for each spec, built once for all laws that use it: pytest runs these together."""
    name, size = request.param
    spec = natural_spec(*size)
    return build(name, spec), spec


def test_logits_are_finite_and_one_a_class(network: tuple[nn.Module, ImageSpec]) -> None:
    model, spec = network
    logits = model.eval()(images_for(spec))
    assert logits.shape == (3, len(spec.classes)) and logits.isfinite().all()


def test_gradient_reaches_every_trainable_parameter(network: tuple[nn.Module, ImageSpec]) -> None:
    model, spec = network
    F.cross_entropy(model.train()(images_for(spec)), torch.arange(3) % len(spec.classes)).backward()
    without = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    model.zero_grad()
    assert not without


@torch.inference_mode()
def test_an_image_is_answered_alike_alone_and_in_a_batch(network: tuple[nn.Module, ImageSpec]) -> None:
    model, spec = network
    images = images_for(spec)
    alone = torch.cat([model.eval()(image[None]) for image in images])
    assert_alike(model(images), alone)


@torch.inference_mode()
def test_both_memory_formats_give_the_same_logits(network: tuple[nn.Module, ImageSpec]) -> None:
    model, spec = network
    images = images_for(spec)
    expected = model.eval()(images)
    logits = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert_alike(logits, expected)


@torch.inference_mode()
def test_the_feature_map_is_one_of_space(network: tuple[nn.Module, ImageSpec]) -> None:
    """The path of the module that gives the last maps, which explanations look at; None where there are none."""
    model, spec = network
    path, seen = model.feature_map, []
    if path is not None:
        assert isinstance(path, str)
        model.get_submodule(path).register_forward_hook(lambda module, inputs, output: seen.append(output))
        model.eval()(images_for(spec))
        (maps,) = seen
        assert maps.ndim == 4 and len(maps) == 3


@each_kind
def test_a_seed_repeats_the_weights_and_another_changes_them(name: str) -> None:
    one, same = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    torch.manual_seed(1)
    other = shallow(name).state_dict()
    assert any(not torch.equal(one[key], other[key]) for key in one)


@each_kind
def test_an_init_scheme_reaches_the_weights(name: str) -> None:
    if "init" in registry.entry("models", name).options:
        weights = [list(build(name, init=scheme).parameters()) for scheme in SCHEMES]
        for pair in itertools.combinations(weights, 2):
            assert any(not torch.equal(one, other) for one, other in zip(*pair, strict=True))


@each_kind
@torch.inference_mode()
def test_an_activation_reaches_the_logits(name: str) -> None:
    if "activation" in registry.entry("models", name).options:
        images = images_for(SMALL, 2)
        logits = [build(name, activation=one, init="torch").eval()(images) for one in ACTIVATIONS]
        assert not any(torch.equal(one, other) for one, other in itertools.combinations(logits, 2))


@each_kind
@pytest.mark.parametrize("option", ["norm", "stem", "fusion"])
def test_each_choice_of_a_common_option_is_built(name: str, option: str) -> None:
    for choice in CHOICES[option] if option in registry.entry("models", name).options else ():
        with torch.device("meta"):
            model = shallow(name, natural_spec(3, 64, 64, 10), **{option: choice})
            assert model(torch.empty(2, 3, 64, 64)).shape == (2, 10)


@each_kind
def test_a_misspelt_choice_of_a_common_option_gets_the_right_one(name: str) -> None:
    for option in CHOICES.keys() & registry.entry("models", name).options.keys():
        right = next(iter(CHOICES[option]))
        with torch.device("meta"), pytest.raises(UsageError, match=right):
            shallow(name, **{option: right[:-1]})


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_large_images_that_are_not_square_give_logits(name: str) -> None:
    with torch.device("meta"):
        logits = shallow(name, natural_spec(1, 230, 250, 12))(torch.empty(2, 1, 230, 250))
    assert logits.shape == (2, 12)


@each_kind
def test_training_mode_does_not_change_images_in_place(name: str) -> None:
    images = images_for(SMALL)
    before = images.clone()
    build(name)(images)
    assert torch.equal(images, before)


@each_kind
@torch.inference_mode()
def test_weights_return_from_a_state_dict(name: str) -> None:
    model, images = build(name).eval(), images_for(SMALL)
    torch.manual_seed(7)
    other = shallow(name).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


@every_model
def test_decay_is_kept_off_biases_and_norms_and_on_weights(name: str) -> None:
    model = without_memory(name)
    settings = Optimizer(name="sgd", weight_decay=0.1)
    groups = optimizers.build(model, settings, torch.device("meta")).param_groups
    decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert id(module.weight) in decayed and id(module.bias) not in decayed
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            assert not decayed & {id(module.weight), id(module.bias)}
    assert decayed


@every_model
def test_the_summary_counts_every_parameter_once(name: str) -> None:
    summary = summarize(name)
    built = count(without_memory(name))
    assert summary.parameters == sum(layer.parameters for layer in summary.layers) == built
    assert summary.macs > 0 and summary.layers[-1].output == (summary.classes,)
    assert ",".join(network_tables.size_row(summary)) in network_tables.SIZES.read_text(encoding="utf-8").splitlines()


@every_model
def test_a_model_says_what_it_is_and_on_which_paper_it_stands(name: str) -> None:
    entry = registry.entry("models", name)
    assert entry.summary.endswith(".") and len(entry.summary) <= 120
    assert any(f" {year}" in entry.document for year in range(1943, 2100)) or "No paper:" in entry.document


@pytest.mark.parametrize("shelf", ["models", "datasets"])
def test_every_file_of_a_shelf_is_on_it(shelf: str) -> None:
    files = {path.stem for path in (Path(dlkit.__file__).parent / shelf).glob("[!_]*.py")}
    assert {entry.family for entry in registry.entries(shelf).values()} == files


@pytest.mark.parametrize("shelf", ["models", "datasets"])
def test_defaults_that_the_catalog_reads_are_those_that_python_uses(shelf: str) -> None:
    for entry in registry.entries(shelf).values():
        maker = getattr(registry.load(shelf, entry.name), registry.FACTORIES[shelf])
        assert (maker.__kwdefaults__ or {}) == dict(entry.options)
        assert set(entry.fixed) <= set(entry.options)


def test_every_data_set_describes_itself() -> None:
    for name in registry.entries("datasets"):
        about = about_of(name)
        assert isinstance(about, About) or name in USER_DATASETS
        if about is not None:
            assert about.title and about.citation and about.sizes["train"] > 0
            assert about.classes > 1 or registry.entry("datasets", name).numbers


def test_no_shelf_file_imports_another_shelf() -> None:
    root = Path(dlkit.__file__).parent
    for shelf, other in itertools.permutations(("models", "datasets", "regularizers"), 2):
        for path in (root / shelf).glob("*.py"):
            modules = [
                node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
            ]
            assert not [module for module in modules if module.startswith(f"dlkit.{other}")], path
