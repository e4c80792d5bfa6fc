"""The transformer encoder against torch's own, its positions against the formula; padding has no part in it."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, sin, sqrt
from typing import Any

import pytest
import torch
from test_recurrent import DIGITS, VECTORS, WORDS, alone, words
from torch import nn

from dlkit import registry
from dlkit.data.text.padding import Sequences
from dlkit.errors import UsageError
from dlkit.layers.attention import record_attention
from dlkit.layers.pooling import POOLINGS
from dlkit.models.transformer import Transformer, sinusoids


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(spec: Any = WORDS, **options: Any) -> Transformer:
    torch.manual_seed(0)
    options = {"width": 12, "mlp_size": 20, "heads": 3, **options}
    module = registry.load("models", "transformer")
    model = module.build(spec, **registry.resolved_options("models", "transformer", options))
    assert isinstance(model, Transformer)
    return model.eval()


@pytest.mark.parametrize("width", [6, 7])
def test_positions_are_the_papers_formula(width: int) -> None:
    found = sinusoids(50, width, torch.empty(0))
    for t in (0, 1, 7, 49):
        for column in range(width):
            angle = t / 10_000 ** (column // 2 * 2 / width)
            assert found[t, column] == pytest.approx((cos if column % 2 else sin)(angle), abs=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_do_not_depend_on_batch_mates(pooling: str) -> None:
    model, batch = build(pooling=pooling), words(4, 9, 1, 9, 6)
    expected = torch.cat([model(sentence) for sentence in alone(batch)])
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)
    other = Sequences(torch.cat([batch.values, words(*[9] * 5, size=13).values[:, 9:]], dim=1), batch.lengths)
    torch.testing.assert_close(model(other), expected, rtol=1e-5, atol=1e-5)


def test_padding_gets_no_gradient() -> None:
    values, lengths = torch.randn(3, 9, 2, requires_grad=True), torch.tensor([4, 9, 1])
    build(VECTORS)(Sequences(values, lengths)).sum().backward()
    steps = torch.arange(9) < lengths[:, None]
    assert values.grad is not None and not values.grad[~steps].any() and (values.grad[steps] != 0).any(1).all()


def test_the_encoder_is_torchs_with_the_same_weights() -> None:
    model, batch = build(activation="relu"), words(4, 9, 6)
    layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0, "relu", layer_norm_eps=1e-6, batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(12, eps=1e-6), enable_nested_tensor=False).eval()
    names = {"self_attention": "self_attn", "ln_": "norm", "mlp.0": "linear1", "mlp.3": "linear2", "blocks": "layers"}
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith(("blocks", "norm")):
            for ours, torchs in names.items():
                key = key.replace(ours, torchs)
            state[key] = value
    theirs.load_state_dict(state)
    x = model.embedding(batch.values) * sqrt(12) + sinusoids(9, 12, torch.empty(0))
    states = theirs(x, src_key_padding_mask=~batch.mask)
    expected = model.output((states * batch.mask[:, :, None]).sum(1) / batch.lengths[:, None])
    torch.testing.assert_close(model(batch), expected, rtol=0, atol=1e-5)


def test_without_positions_order_would_not_matter() -> None:
    model, batch = build(), words(9)
    turned = Sequences(batch.values.flip(1), batch.lengths)
    assert not torch.allclose(model(batch), model(turned), atol=1e-4)
    x = torch.randn(1, 9, 12)
    for block in model.blocks:
        torch.testing.assert_close(block(x.flip(1)), block(x).flip(1), rtol=0, atol=1e-5)


def test_attention_weights_are_retrievable_and_none_is_on_padding() -> None:
    model = build()
    with record_attention(model) as layers:
        model(words(4, 9))
        weights = [layer.weights for layer in layers]
    assert len(weights) == 2
    for one in weights:
        assert one is not None and one.shape == (2, 3, 9, 9) and not one[0, :, :, 4:].any()
        torch.testing.assert_close(one.sum(3), torch.ones(2, 3, 9))


def test_images_are_read_row_by_row() -> None:
    model, images = build(DIGITS), torch.randn(2, 1, 28, 28)
    with record_attention(model) as layers:
        assert model(images).shape == (2, 10)
        assert layers[0].weights is not None and layers[0].weights.shape == (2, 3, 28, 28)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"heads": 5}, "model option heads is 5, which does not divide width 12."),
        ({"pooling": "sum"}, "model option pooling is 'sum'."),
        ({"attention_dropout": 1}, "model option attention_dropout is 1."),
        ({"layers": 2.5}, "model option layers is 2.5."),
    ],
    ids=str,
)
def test_wrong_options_are_told_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert text in str(caught.value)
