"""The laws of tests/test_registry.py for models that read sequences or trees; a new file is held by them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trees_by_hand import SPEC as BRACKETED
from trees_by_hand import as_batch, binary

from dlkit import registry
from dlkit.data.text.padding import Sequences
from dlkit.data.text.tree_batches import Trees
from dlkit.evaluation.model_summary import natural, summarize
from dlkit.layers.init import SCHEMES
from dlkit.specs import ImageSpec, SequenceSpec, Spec, TreeSpec

SPECS: dict[str, Spec] = {
    "words": SequenceSpec(classes=("0", "1", "2"), vocabulary=30),
    "vectors": SequenceSpec(classes=("0", "1"), features=3),
    "regression": SequenceSpec(classes=(), features=2),
    "trees": BRACKETED,
}
CASES = [
    (name, kind)
    for name, entry in registry.entries("models").items()
    for kind, spec in SPECS.items()
    if spec.kind in entry.takes
]


def build(name: str, kind: str, seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = registry.load("models", name).build(SPECS[kind], **registry.resolved_options("models", name, options))
    assert isinstance(model, nn.Module)
    return model


def inputs_for(kind: str, lengths: tuple[int, ...] = (3, 7, 1, 5)) -> Sequences | Trees:
    draw, generator, spec = random.Random(1), torch.Generator().manual_seed(1), SPECS[kind]
    if isinstance(spec, TreeSpec):
        return as_batch([binary(draw, length) for length in lengths], outputs="roots")
    assert isinstance(spec, SequenceSpec)
    values = [
        torch.randint(2, spec.vocabulary, (length,), generator=generator)
        if spec.vocabulary
        else torch.randn(length, spec.features or 0, generator=generator)
        for length in lengths
    ]
    return Sequences(nn.utils.rnn.pad_sequence(values, batch_first=True), torch.tensor(lengths))


def tensors(inputs: Sequences | Trees) -> list[Tensor]:
    return [value for value in vars(inputs).values() if isinstance(value, Tensor)]


def test_the_sweep_sweeps_something() -> None:
    assert {("lstm", "regression"), ("transformer", "words"), ("tree_lstm", "trees")} <= set(CASES)
    kinds = {spec.kind for spec in (ImageSpec, SequenceSpec, TreeSpec)}
    for name, entry in registry.entries("models").items():
        assert entry.takes and set(entry.takes) <= kinds, name


def logits_are_finite_and_one_a_class(name: str, kind: str) -> None:
    logits = build(name, kind).eval()(inputs_for(kind))
    assert logits.shape == (4, SPECS[kind].outputs) and logits.isfinite().all()


def gradient_reaches_every_trainable_parameter(name: str, kind: str) -> None:
    model, classes = build(name, kind), len(SPECS[kind].classes)
    logits = model(inputs_for(kind))
    (F.cross_entropy(logits, torch.arange(4) % classes) if classes else logits.square().mean()).backward()
    without = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not without


def an_input_is_answered_alike_alone_and_in_a_batch(name: str, kind: str) -> None:
    model, inputs = build(name, kind).eval(), inputs_for(kind)
    alone = []
    for part, length in zip(inputs.chunk(4), inputs.lengths.tolist(), strict=True):
        alone.append(model(part if isinstance(part, Trees) else Sequences(part.values[:, :length], part.lengths)))
    torch.testing.assert_close(model(inputs), torch.cat(alone), rtol=1e-5, atol=1e-6)


def training_mode_does_not_change_inputs_in_place(name: str, kind: str) -> None:
    inputs = inputs_for(kind)
    before = [tensor.clone() for tensor in tensors(inputs)]
    build(name, kind)(inputs)
    assert all(torch.equal(one, other) for one, other in zip(tensors(inputs), before, strict=True))


def a_seed_repeats_the_weights_and_another_changes_them(name: str, kind: str) -> None:
    one, same, other = (build(name, kind, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def weights_return_from_a_state_dict(name: str, kind: str) -> None:
    model, other, inputs = build(name, kind).eval(), build(name, kind, seed=7).eval(), inputs_for(kind)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))


def an_init_scheme_reaches_the_logits(name: str, kind: str) -> None:
    logits = [build(name, kind, init=scheme).eval()(inputs_for(kind)) for scheme in SCHEMES]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(logits, 2))


def words_have_vectors_by_the_name_embedding(name: str, kind: str) -> None:
    embedding, spec = build(name, kind).get_submodule("embedding"), SPECS[kind]
    if isinstance(spec, ImageSpec) or not getattr(spec, "vocabulary", None):
        assert isinstance(embedding, nn.Identity)
    else:
        assert isinstance(embedding, nn.Embedding) and len(embedding.weight) == spec.vocabulary  # type: ignore[union-attr]
        assert not embedding.weight[0].any() and embedding.weight[1:].any(dim=1).all()


def the_summary_counts_every_parameter_once(name: str, kind: str) -> None:
    summary = summarize(name, SPECS[kind])
    built = sum(weight.numel() for weight in build(name, kind).parameters())
    assert summary.parameters == sum(layer.parameters for layer in summary.layers) == built
    assert (
        summary.macs > 0 and summary.layers[-1].output == (SPECS[kind].outputs,) and summary.reads == SPECS[kind].kind
    )


LAWS = [
    logits_are_finite_and_one_a_class,
    gradient_reaches_every_trainable_parameter,
    an_input_is_answered_alike_alone_and_in_a_batch,
    training_mode_does_not_change_inputs_in_place,
    a_seed_repeats_the_weights_and_another_changes_them,
    weights_return_from_a_state_dict,
    an_init_scheme_reaches_the_logits,
    words_have_vectors_by_the_name_embedding,
    the_summary_counts_every_parameter_once,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_models_of_sequences_and_trees_keep_the_laws(
    law: Callable[[str, str], None], subtests: pytest.Subtests
) -> None:
    for name, kind in CASES:
        with subtests.test(f"{name} {kind}"):
            law(name, kind)


def test_a_summary_without_a_spec_is_of_what_the_model_was_made_for() -> None:
    for name, entry in registry.entries("models").items():
        assert natural(name).kind == entry.takes[0]
