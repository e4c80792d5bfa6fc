"""Laws that every entry of a shelf keeps; a new file on a shelf is held by them without a line here."""

from __future__ import annotations

import ast
import itertools
import re
from functools import cache
from pathlib import Path

import network_tables
import pytest
import torch
import torch.nn.functional as F
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
MOST_PARAMETERS = 5_000_000  # of a network that the fast tier builds often


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


@cache
def representatives() -> list[str]:
    """The member with the fewest parameters of every structure in every family, small ones first."""
    smallest: dict[object, str] = {}
    for name in sorted(MODELS, key=lambda name: count(without_memory(name))):
        smallest.setdefault((registry.entry("models", name).family, structure(name)), name)
    return list(smallest.values())


@cache
def small_representatives() -> list[str]:
    """Those with few parameters for small images, and at least the smallest of each family."""
    families: set[str] = set()
    small = []
    for name in representatives():
        with torch.device("meta"):
            if count(shallow(name)) <= MOST_PARAMETERS or registry.entry("models", name).family not in families:
                small.append(name)
        families.add(registry.entry("models", name).family)
    return small


def kinds(tier: str) -> list[str]:
    return small_representatives() if tier == "fast" else representatives()


both_tiers = pytest.mark.parametrize("tier", ["fast", pytest.param("all", marks=pytest.mark.slow)])


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
    for names in (representatives(), small_representatives()):
        assert {registry.entry("models", name).family for name in names} == {
            registry.entry("models", name).family for name in MODELS
        }
    assert len(small_representatives()) < len(representatives()) < len(MODELS)


@torch.no_grad()
def training_mode_does_not_change_images_in_place(model: nn.Module, spec: ImageSpec) -> None:
    images = images_for(spec)
    before = images.clone()
    model.train()(images)
    assert torch.equal(images, before)


def logits_are_finite_and_one_per_class(model: nn.Module, spec: ImageSpec) -> None:
    logits = model.eval()(images_for(spec))
    assert logits.shape == (3, len(spec.classes)) and logits.isfinite().all()


def gradient_reaches_every_trainable_parameter(model: nn.Module, spec: ImageSpec) -> None:
    F.cross_entropy(model.train()(images_for(spec)), torch.arange(3) % len(spec.classes)).backward()
    without = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    model.zero_grad()
    assert not without


@torch.inference_mode()
def logits_do_not_depend_on_the_batch(model: nn.Module, spec: ImageSpec) -> None:
    images = images_for(spec)
    alone = torch.cat([model.eval()(image[None]) for image in images])
    assert_alike(model(images), alone)


@torch.inference_mode()
def both_memory_formats_give_the_same_logits(model: nn.Module, spec: ImageSpec) -> None:
    images = images_for(spec)
    expected = model.eval()(images)
    logits = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert_alike(logits, expected)


@torch.inference_mode()
def feature_map_has_two_spatial_axes(model: nn.Module, spec: ImageSpec) -> None:
    """The path of the module that gives the last maps, which explanations look at; None if there are none."""
    path, seen = model.feature_map, []
    if path is not None:
        assert isinstance(path, str)
        model.get_submodule(path).register_forward_hook(lambda module, inputs, output: seen.append(output))
        model.eval()(images_for(spec))
        (maps,) = seen
        assert maps.ndim == 4 and len(maps) == 3


LAWS = [
    training_mode_does_not_change_images_in_place,
    logits_are_finite_and_one_per_class,
    gradient_reaches_every_trainable_parameter,
    logits_do_not_depend_on_the_batch,
    both_memory_formats_give_the_same_logits,
    feature_map_has_two_spatial_axes,
]


def name_of(size: tuple[int, int, int, int]) -> str:
    return "×".join(map(str, size))


def check_laws(names: list[str], size: tuple[int, int, int, int], subtests: pytest.Subtests) -> None:
    spec = natural_spec(*size)
    for name in names:
        model = build(name, spec)
        for law in LAWS:
            with subtests.test(f"{name}: {law.__name__}"):
                law(model, spec)


@pytest.mark.parametrize("size", [SPECS[0], SPECS[-1]], ids=name_of)
def test_small_networks_keep_the_laws(size: tuple[int, int, int, int], subtests: pytest.Subtests) -> None:
    check_laws(small_representatives(), size, subtests)


@pytest.mark.slow
@pytest.mark.parametrize("size", SPECS, ids=name_of)
def test_networks_of_every_kind_keep_the_laws(size: tuple[int, int, int, int], subtests: pytest.Subtests) -> None:
    check_laws(representatives(), size, subtests)


@both_tiers
@torch.inference_mode()
def test_a_seed_repeats_the_weights_and_a_state_dict_restores_them(tier: str, subtests: pytest.Subtests) -> None:
    for name in kinds(tier):
        with subtests.test(name):
            one, same = build(name).eval(), build(name).state_dict()
            torch.manual_seed(7)
            other = shallow(name).eval()
            state = one.state_dict()
            assert all(torch.equal(state[key], same[key]) for key in state)
            assert any(not torch.equal(state[key], value) for key, value in other.state_dict().items())
            other.load_state_dict(state)
            assert torch.equal(other(images_for(SMALL)), one(images_for(SMALL)))


@both_tiers
def test_an_init_scheme_reaches_the_weights(tier: str, subtests: pytest.Subtests) -> None:
    for name in kinds(tier):
        if "init" in registry.entry("models", name).options:
            weights = [list(build(name, init=scheme).parameters()) for scheme in SCHEMES]
            with subtests.test(name):
                for pair in itertools.combinations(weights, 2):
                    assert any(not torch.equal(one, other) for one, other in zip(*pair, strict=True))


@both_tiers
@torch.inference_mode()
def test_an_activation_reaches_the_logits(tier: str, subtests: pytest.Subtests) -> None:
    images = images_for(SMALL, 2)
    for name in kinds(tier):
        if "activation" in registry.entry("models", name).options:
            with subtests.test(name):
                logits = [build(name, activation=one, init="torch").eval()(images) for one in ACTIVATIONS]
                assert not any(torch.equal(one, other) for one, other in itertools.combinations(logits, 2))


@both_tiers
@pytest.mark.parametrize("option", ["norm", "stem", "fusion"])
def test_each_choice_of_a_common_option_is_built(tier: str, option: str, subtests: pytest.Subtests) -> None:
    for name in kinds(tier):
        for choice in CHOICES[option] if option in registry.entry("models", name).options else ():
            with subtests.test(f"{name}: {choice}"), torch.device("meta"):
                model = shallow(name, natural_spec(3, 64, 64, 10), **{option: choice})
                assert model(torch.empty(2, 3, 64, 64)).shape == (2, 10)


def test_a_misspelt_choice_of_a_common_option_gets_the_right_one(subtests: pytest.Subtests) -> None:
    for name in representatives():
        for option in CHOICES.keys() & registry.entry("models", name).options.keys():
            right = next(iter(CHOICES[option]))
            with subtests.test(f"{name}: {option}"), torch.device("meta"), pytest.raises(UsageError, match=right):
                shallow(name, **{option: right[:-1]})


@torch.inference_mode()
def test_large_images_that_are_not_square_give_logits(subtests: pytest.Subtests) -> None:
    for name in representatives():
        recurrent = len(registry.entry("models", name).takes) > 1  # slow on meta, which runs each step in Python
        with subtests.test(name), torch.device("cpu" if recurrent else "meta"):
            logits = shallow(name, natural_spec(1, 230, 250, 12))(torch.zeros(2, 1, 230, 250))
            assert logits.shape == (2, 12)


def test_decay_is_kept_off_biases_and_norms_and_on_weights(subtests: pytest.Subtests) -> None:
    settings = Optimizer(name="sgd", weight_decay=0.1)
    for name in MODELS:
        model = without_memory(name)
        groups = optimizers.build(model, settings, torch.device("meta")).param_groups
        decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
        with subtests.test(name):
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    assert id(module.weight) in decayed and id(module.bias) not in decayed
                elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
                    assert not decayed & {id(module.weight), id(module.bias)}
            assert decayed


@both_tiers
def test_the_summary_counts_every_parameter_once(tier: str, subtests: pytest.Subtests) -> None:
    table = network_tables.SIZES.read_text(encoding="utf-8").splitlines()
    for name in MODELS if tier == "all" else representatives():
        with subtests.test(name):
            summary = summarize(name)
            built = count(without_memory(name))
            assert summary.parameters == sum(layer.parameters for layer in summary.layers) == built
            assert summary.macs > 0 and summary.layers[-1].output == (summary.classes,)
            assert ",".join(network_tables.size_row(summary)) in table


def test_a_model_says_what_it_is_and_on_which_paper_it_stands(subtests: pytest.Subtests) -> None:
    for name in MODELS:
        entry = registry.entry("models", name)
        with subtests.test(name):
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
