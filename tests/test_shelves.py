"""Laws that every entry of a shelf keeps; a new file on a shelf is held by them without a line here."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dlkit
from dlkit import catalog
from dlkit.data.samples import About
from dlkit.nn.activation import ACTIVATIONS
from dlkit.nn.init import SCHEMES
from dlkit.specs import ImageSpec
from dlkit.verbs.summary import natural_spec, summarize

MODELS = sorted(catalog.entries("models"))
SPECS = [(1, 28, 28, 2), (3, 32, 32, 10), (1, 64, 64, 37), (3, 28, 40, 10)]
every_model = pytest.mark.parametrize("name", MODELS)
every_spec = pytest.mark.parametrize("size", SPECS, ids=str)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, spec: ImageSpec, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = catalog.load("models", name).build(spec, **catalog.resolved_options("models", name, options))
    assert isinstance(model, nn.Module)
    return model


def images_for(spec: ImageSpec, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, spec.channels, spec.height, spec.width, generator=generator)


def test_the_sweeps_sweep_something() -> None:
    assert {"lenet5", "lenet5_relu", "mlp", "simple_cnn"} <= set(MODELS)
    assert {"cifar10", "folder", "mnist", "shapes"} <= set(catalog.entries("datasets"))


@every_model
@every_spec
def test_logits_are_finite_and_one_a_class(name: str, size: tuple[int, int, int, int]) -> None:
    spec = natural_spec(*size)
    logits = build(name, spec).eval()(images_for(spec))
    assert logits.shape == (5, len(spec.classes)) and logits.isfinite().all()


@every_model
@every_spec
def test_gradient_reaches_every_trainable_parameter(name: str, size: tuple[int, int, int, int]) -> None:
    spec = natural_spec(*size)
    model = build(name, spec)
    F.cross_entropy(model(images_for(spec)), torch.arange(5) % len(spec.classes)).backward()
    without = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


@every_model
@every_spec
def test_an_image_is_answered_alike_alone_and_in_a_batch(name: str, size: tuple[int, int, int, int]) -> None:
    spec = natural_spec(*size)
    model, images = build(name, spec).eval(), images_for(spec)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-5, atol=1e-5)


@every_model
@every_spec
def test_both_memory_formats_give_the_same_logits(name: str, size: tuple[int, int, int, int]) -> None:
    spec = natural_spec(*size)
    model, images = build(name, spec).eval(), images_for(spec)
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)
    logits = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@every_model
def test_a_seed_repeats_the_weights_and_another_changes_them(name: str) -> None:
    spec = natural_spec(*catalog.load("models", name).NATURAL)
    one, same = build(name, spec).state_dict(), build(name, spec).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    torch.manual_seed(1)
    other = catalog.load("models", name).build(spec, **catalog.resolved_options("models", name, {})).state_dict()
    assert any(not torch.equal(one[key], other[key]) for key in one)


@every_model
def test_an_init_scheme_reaches_the_weights(name: str) -> None:
    if "init" in catalog.entry("models", name).options:
        spec = natural_spec(*catalog.load("models", name).NATURAL)
        first = [next(build(name, spec, init=scheme).parameters()) for scheme in SCHEMES]
        assert not any(torch.equal(one, other) for one, other in itertools.combinations(first, 2))


@every_model
def test_an_activation_reaches_the_logits(name: str) -> None:
    if "activation" in catalog.entry("models", name).options:
        spec = natural_spec(*catalog.load("models", name).NATURAL)
        logits = [build(name, spec, activation=one, init="torch").eval()(images_for(spec)) for one in ACTIVATIONS]
        assert not any(torch.equal(one, other) for one, other in itertools.combinations(logits, 2))


@every_model
def test_training_mode_does_not_change_images_in_place(name: str) -> None:
    spec = natural_spec(*catalog.load("models", name).NATURAL)
    images = images_for(spec)
    before = images.clone()
    build(name, spec)(images)
    assert torch.equal(images, before)


@every_model
def test_weights_return_from_a_state_dict(name: str) -> None:
    spec = natural_spec(*catalog.load("models", name).NATURAL)
    model = build(name, spec).eval()
    torch.manual_seed(7)
    other = catalog.load("models", name).build(spec, **catalog.resolved_options("models", name, {})).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images_for(spec)), model(images_for(spec)))


@every_model
def test_the_summary_counts_every_parameter_once(name: str) -> None:
    spec = natural_spec(*catalog.load("models", name).NATURAL)
    summary = summarize(name)
    built = sum(weight.numel() for weight in build(name, spec).parameters())
    assert summary.parameters == sum(layer.parameters for layer in summary.layers) == built
    assert summary.macs > 0 and summary.layers[-1].output == (len(spec.classes),)


@every_model
def test_a_model_says_what_it_is_and_on_which_paper_it_stands(name: str) -> None:
    entry = catalog.entry("models", name)
    assert entry.summary.endswith(".") and len(entry.summary) <= 120
    assert any(f" {year}" in entry.document for year in range(1943, 2100)) or "No paper:" in entry.document


@pytest.mark.parametrize("shelf", ["models", "datasets"])
def test_every_file_of_a_shelf_is_on_it(shelf: str) -> None:
    files = {path.stem for path in (Path(dlkit.__file__).parent / shelf).glob("*.py")} - {"__init__"}
    assert {entry.family for entry in catalog.entries(shelf).values()} == files


@pytest.mark.parametrize("shelf", ["models", "datasets"])
def test_defaults_that_the_catalog_reads_are_those_that_python_uses(shelf: str) -> None:
    for entry in catalog.entries(shelf).values():
        maker = getattr(catalog.load(shelf, entry.name), catalog.MAKERS[shelf])
        assert (maker.__kwdefaults__ or {}) == dict(entry.options)
        assert set(entry.fixed) <= set(entry.options)


def test_every_data_set_describes_itself() -> None:
    for name in catalog.entries("datasets"):
        about = getattr(catalog.load("datasets", name), "ABOUT", None)
        assert isinstance(about, About) or name == "folder"
        if about is not None:
            assert about.title and about.citation and about.classes > 1 and about.sizes["train"] > 0


def test_no_shelf_file_imports_another_shelf() -> None:
    root = Path(dlkit.__file__).parent
    for shelf, other in itertools.permutations(("models", "datasets", "regularizers"), 2):
        for path in (root / shelf).glob("*.py"):
            modules = [
                node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
            ]
            assert not [module for module in modules if module.startswith(f"dlkit.{other}")], path
