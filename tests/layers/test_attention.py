"""Self-attention, the encoder block and stochastic depth, against the formulas and torch's own layers."""

from __future__ import annotations

from math import exp, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.attention import SelfAttention, attention_weights, padding_mask, record_attention
from dlkit.layers.drop_path import DropPath, drop_path, drop_paths
from dlkit.layers.encoder import EncoderBlock
from dlkit.layers.init import SCHEMES, initialize

N, T, WIDTH, HEADS = 3, 7, 12, 4


def attention_and_torchs(dropout: float = 0.0) -> tuple[SelfAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours, torchs = SelfAttention(WIDTH, HEADS, dropout), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def inputs() -> Tensor:
    return torch.randn(N, T, WIDTH, generator=torch.Generator().manual_seed(1))


def padded() -> tuple[Tensor, Tensor]:
    """Lengths, and a mask by hand: True where there is no padding."""
    return torch.tensor([7, 1, 4]), torch.tensor([[True] * 7, [True] + [False] * 6, [True] * 4 + [False] * 3])


def by_hand(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """The softmax of one head, a pair of positions at a time: (T, d), (S, d) -> (T, S)."""
    weights = torch.zeros(len(queries), len(keys), dtype=torch.double)
    for i, query in enumerate(queries):
        terms = [
            exp(sum(a * b for a, b in zip(query.tolist(), key.tolist(), strict=True)) / sqrt(len(query)))
            if mask[i, j]
            else 0.0
            for j, key in enumerate(keys)
        ]
        weights[i] = torch.tensor(terms) / (sum(terms) or 1)
    return weights


def test_attention_weights_are_the_formula() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(5, 3, dtype=torch.double), torch.randn(6, 3, dtype=torch.double)
    everywhere, somewhere = torch.ones(5, 6, dtype=torch.bool), torch.rand(5, 6) < 0.5
    somewhere[2] = False  # a position that looks nowhere
    torch.testing.assert_close(attention_weights(queries, keys), by_hand(queries, keys, everywhere))
    torch.testing.assert_close(attention_weights(queries, keys, somewhere), by_hand(queries, keys, somewhere))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_attention_is_torchs_with_the_same_weights(masked: bool, keep: bool) -> None:
    ours, torchs = attention_and_torchs()
    ours.record_weights = keep
    lengths, real = padded()
    mask = padding_mask(lengths, T) if masked else None
    expected, weights = torchs(
        inputs(), inputs(), inputs(), key_padding_mask=~real if masked else None, average_attn_weights=False
    )
    torch.testing.assert_close(ours(inputs(), mask), expected, rtol=1e-4, atol=1e-4)
    if keep:
        torch.testing.assert_close(ours.weights, weights)


@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_kernel_has_the_gradients_of_the_formula(masked: bool) -> None:
    attention = attention_and_torchs()[0].double()
    mask = padding_mask(padded()[0], T) if masked else None
    upstream = torch.randn(N, T, WIDTH, dtype=torch.double)
    gradients = []
    for keep in (False, True):
        attention.record_weights = keep
        gradients.append(
            torch.autograd.grad(attention(inputs().double(), mask), list(attention.parameters()), upstream)
        )
    for fused, written in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, written)


def test_nobody_looks_at_padding() -> None:
    attention, x = attention_and_torchs()[0], inputs()
    lengths, real = padded()
    assert padding_mask(lengths, T).shape == (N, 1, 1, T)
    changed = torch.where(real[..., None], x, x + 100)
    for keep in (False, True):
        attention.record_weights = keep
        one, other = attention(x, padding_mask(lengths, T)), attention(changed, padding_mask(lengths, T))
        torch.testing.assert_close(one[real], other[real])
        assert not torch.allclose(attention(x)[real], attention(changed)[real])


@pytest.mark.parametrize("keep", [False, True])
def test_an_empty_sequence_gives_no_nan(keep: bool) -> None:
    attention, x = attention_and_torchs()[0], inputs().requires_grad_()
    attention.record_weights = keep
    output = attention(x, padding_mask(torch.tensor([7, 0, 4]), T))
    output.sum().backward()
    torch.testing.assert_close(output[1], attention.out_proj.bias.expand(T, -1))  # it looks nowhere
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in attention.parameters())


def test_attention_does_not_know_the_order_of_its_positions() -> None:
    attention, x = attention_and_torchs()[0], inputs()
    order = torch.randperm(T)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


def test_weights_are_kept_only_where_asked_for() -> None:
    network = nn.Sequential(SelfAttention(WIDTH, HEADS), nn.Linear(WIDTH, WIDTH), SelfAttention(WIDTH, 2)).eval()
    expected = network(inputs())
    with record_attention(network) as layers:
        torch.testing.assert_close(network(inputs()), expected)
        weights = [layer.weights for layer in layers]
    assert [one.shape for one in weights if one is not None] == [(N, HEADS, T, T), (N, 2, T, T)]
    assert all(torch.allclose(one.sum(-1), torch.ones(())) for one in weights if one is not None)
    network(inputs())
    assert all(layer.weights is None and not layer.record_weights for layer in layers)
    assert weights[0] is not None and weights[0].requires_grad  # explanations weight it by its gradient


@pytest.mark.parametrize("keep", [False, True])
def test_attention_drops_weights_while_training_only(keep: bool) -> None:
    attention, plain = attention_and_torchs(0.5)[0], attention_and_torchs()[0]
    attention.record_weights = keep
    expected = plain(inputs())
    assert not torch.allclose(attention(inputs()), expected)
    torch.testing.assert_close(attention.eval()(inputs()), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        mean = torch.stack([attention.train()(inputs()) for _ in range(1000)]).mean(0)
    assert (mean - expected).norm() < 0.06 * expected.norm()  # dropping keeps the expectation


def test_attention_starts_as_torchs() -> None:
    torch.manual_seed(0)
    ours = SelfAttention(64, 4)
    torchs = nn.MultiheadAttention(64, 4)
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    assert ours.in_proj_weight.std().item() == pytest.approx(torchs.in_proj_weight.std().item(), rel=0.03)
    assert ours.in_proj_weight.abs().max().item() == pytest.approx(torchs.in_proj_weight.abs().max().item(), rel=0.01)
    assert not ours.in_proj_bias.any() and not ours.out_proj.bias.any()


def test_every_init_scheme_draws_q_k_and_v() -> None:
    drawn = []
    for scheme in SCHEMES:
        torch.manual_seed(0)
        attention = SelfAttention(64, 4)
        initialize(attention, scheme)
        drawn.append(attention.in_proj_weight.std().item())
    expected = {"lecun": 2.4 / 64 / sqrt(3), "xavier": sqrt(2 / (64 + 192)), "he": sqrt(1 / 64)}
    for scheme, std in expected.items():
        assert drawn[SCHEMES.index(scheme)] == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize("training", [False, True])
def test_an_encoder_block_is_torchs_with_the_same_weights(training: bool) -> None:
    torch.manual_seed(0)
    ours = EncoderBlock(WIDTH, HEADS, 20, nn.GELU()).train(training)
    torchs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 20, 0.0, F.gelu, layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).train(training)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    names = {"ln_1": "norm1", "ln_2": "norm2", "self_attention": "self_attn", "mlp.0": "linear1", "mlp.3": "linear2"}
    weights = ours.state_dict()
    for here, there in names.items():
        weights = {key.replace(here, there): weight for key, weight in weights.items()}
    torchs.load_state_dict(weights)
    lengths, real = padded()
    torch.testing.assert_close(ours(inputs()), torchs(inputs()), rtol=1e-4, atol=1e-4)
    ours_masked = ours(inputs(), padding_mask(lengths, T))
    torch.testing.assert_close(
        ours_masked[real], torchs(inputs(), src_key_padding_mask=~real)[real], rtol=1e-4, atol=1e-4
    )


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(20_000, 2, 3), 0.25)
    per_sample = dropped.flatten(1)
    assert per_sample.eq(per_sample[:, :1]).all()
    assert per_sample.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert per_sample[:, 0].eq(0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_drop_path_is_no_layer_in_eval_or_at_0() -> None:
    layer, x = DropPath(0.5), torch.randn(8, 4)
    assert torch.equal(layer.eval()(x), x) and not torch.equal(layer.train()(x), x)
    assert all(isinstance(one, nn.Identity) for one in drop_paths(0, 3))


def test_drop_path_rises_by_the_papers_rule() -> None:
    layers = drop_paths(0.5, 5)
    assert [round(one.probability, 9) for one in layers if isinstance(one, DropPath)] == [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("value", [-0.1, 1, "0.5", True, None, float("nan")])
def test_an_impossible_drop_path_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="drop_path"):
        drop_paths(value, 3)
