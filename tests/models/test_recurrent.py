"""Recurrent networks against torch's own and against equations a number at a time; padding has no part in them."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, tanh
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import registry
from dlkit.data.text.padding import Sequences
from dlkit.errors import UsageError
from dlkit.evaluation.model_summary import natural_spec, summarize
from dlkit.layers.init import SCHEMES
from dlkit.layers.pooling import POOLINGS, AttentionPooling
from dlkit.layers.recurrent import initialize_recurrent
from dlkit.layers.recurrent_cells import CellWeights, State, gru_paper_step, gru_step, lstm_step, relu_step, tanh_step
from dlkit.models.recurrent import Recurrent
from dlkit.specs import SequenceSpec

NAMES = ("rnn", "lstm", "gru", "bilstm", "bigru")
WORDS = SequenceSpec(classes=("0", "1", "2"), vocabulary=12)
VECTORS = SequenceSpec(classes=(), features=2)  # as in the adding problem
DIGITS = natural_spec(1, 28, 28, 10)
every_name = pytest.mark.parametrize("name", NAMES)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, spec: Any = WORDS, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    options = {"hidden_size": 7, "embedding_size": 5, **options}
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, Recurrent)
    return model.eval()


def words(*lengths: int, size: int | None = None, seed: int = 1) -> Sequences:
    """Sentences of these lengths; padding behind them is not always 0, since no answer may depend on it."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(2, 12, (len(lengths), size or max(lengths)), generator=generator)
    return Sequences(values, torch.tensor(lengths))


def alone(batch: Sequences) -> list[Sequences]:
    lengths = batch.lengths.tolist()
    return [
        Sequences(batch.values[place : place + 1, :length], torch.tensor([length]))
        for place, length in enumerate(lengths)
    ]


@every_name
@every_pooling
@pytest.mark.parametrize("layers", [1, 3])
def test_logits_do_not_depend_on_batch_mates(name: str, pooling: str, layers: int) -> None:
    model, batch = build(name, pooling=pooling, layers=layers), words(4, 9, 1, 9, 6)
    expected = torch.cat([model(sentence) for sentence in alone(batch)])
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)
    other = Sequences(torch.cat([batch.values, words(*[9] * 5, size=13).values[:, 9:]], dim=1), batch.lengths)
    torch.testing.assert_close(model(other), expected, rtol=1e-5, atol=1e-5)


@every_name
@every_pooling
def test_padding_gets_no_gradient(name: str, pooling: str) -> None:
    model, batch = build(name, VECTORS, pooling=pooling, layers=2), words(4, 9, 1)
    values = torch.randn(3, 9, 2, requires_grad=True)
    model(Sequences(values, batch.lengths)).sum().backward()
    steps = torch.arange(9) < batch.lengths[:, None]
    assert values.grad is not None and not values.grad[~steps].any()
    reached = (values.grad[steps] != 0).any(1)
    assert reached.any() if pooling == "max" else reached.all()  # the largest may all stand early


def by_torch(model: Recurrent, kind: type[nn.RNNBase], batch: Sequences, **options: Any) -> Tensor:
    """The last layer's states from torch's own stack over a packed batch, with the same weights."""
    both = model.layers[0].backwards is not None
    theirs = kind(5, 7, len(model.layers), bidirectional=both, batch_first=True, **options)
    state = {}
    for number, layer in enumerate(model.layers):
        for part, suffix in [(layer.forwards, ""), *([(layer.backwards, "_reverse")] if both else [])]:
            for key, value in part.kernel.state_dict().items():
                state[key.replace("_l0", f"_l{number}{suffix}")] = value
    theirs.load_state_dict(state)
    packed = nn.utils.rnn.pack_padded_sequence(
        model.embedding(batch.values), batch.lengths, batch_first=True, enforce_sorted=False
    )
    return nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]


@every_name
@pytest.mark.parametrize("kernel", ["fused", "written"])
def test_states_are_those_of_torchs_stack_over_a_packed_batch(name: str, kernel: str) -> None:
    model, batch = build(name, layers=2, pooling="mean", kernel=kernel), words(4, 9, 1, 6)
    states: list[Tensor] = []
    model.layers[-1].register_forward_hook(lambda *call: states.append(call[2]))
    model(batch)
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[name.removeprefix("bi")]
    steps = torch.arange(9) < batch.lengths[:, None]
    torch.testing.assert_close(states[0][steps], by_torch(model, kind, batch)[steps], rtol=1e-5, atol=1e-5)


@every_name
def test_written_kernels_are_the_fused_ones_with_the_same_weights_and_gradients(name: str) -> None:
    fused, written = build(name, layers=2), build(name, layers=2, kernel="written")
    written.load_state_dict(fused.state_dict())
    batch, grads = words(4, 9, 1), []
    torch.testing.assert_close(written(batch), fused(batch), rtol=1e-5, atol=1e-5)
    for model in (fused, written):
        F.cross_entropy(model(batch), torch.tensor([0, 1, 2])).backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


STEPS = [
    (tanh_step, nn.RNNCell, {}, 1),
    (relu_step, nn.RNNCell, {"nonlinearity": "relu"}, 1),
    (lstm_step, nn.LSTMCell, {}, 2),
    (gru_step, nn.GRUCell, {}, 1),
]


@pytest.mark.parametrize(("step", "kind", "options", "states"), STEPS, ids=["tanh", "relu", "lstm", "gru"])
def test_a_step_is_torchs_cell_with_the_same_weights(step: Any, kind: Any, options: Any, states: int) -> None:
    torch.manual_seed(0)
    cell, x = kind(3, 4, **options), torch.randn(5, 3)
    state = tuple(torch.randn(5, 4) for _ in range(states))
    expected = cell(x, state if states == 2 else state[0])
    ours = step(x, state, CellWeights(*cell.parameters()))
    torch.testing.assert_close(ours, expected if states == 2 else (expected,))


def sigmoid(a: float) -> float:
    return 1 / (1 + exp(-a))


def by_numbers(x: list[float], state: list[list[float]], weights: CellWeights, cell: str) -> list[list[float]]:
    """A step of one sequence, a unit at a time."""
    H = len(state[0])

    def sums(gate: int, unit: int, h: list[float]) -> tuple[float, float]:
        row = gate * H + unit
        w, u = weights.w[row].tolist(), weights.u[row].tolist()
        of_x = sum(a * b for a, b in zip(w, x, strict=True)) + float(weights.b[row])
        return of_x, sum(a * b for a, b in zip(u, h, strict=True)) + float(weights.b_u[row])

    h, new_h, new_c = state[0], [], []
    resets = [sigmoid(sum(sums(0, unit, h))) for unit in range(H)]
    for unit in range(H):
        if cell == "lstm":
            i, f, g, o = (sum(sums(gate, unit, h)) for gate in range(4))
            new_c.append(sigmoid(f) * state[1][unit] + sigmoid(i) * tanh(g))
            new_h.append(sigmoid(o) * tanh(new_c[-1]))
            continue
        of_x, of_h = sums(2, unit, [r * a for r, a in zip(resets, h, strict=True)] if cell == "paper" else h)
        z, n = sigmoid(sum(sums(1, unit, h))), tanh(of_x + (of_h if cell == "paper" else resets[unit] * of_h))
        new_h.append(z * h[unit] + (1 - z) * n)
    return [new_h, new_c] if cell == "lstm" else [new_h]


@pytest.mark.parametrize(("step", "cell"), [(lstm_step, "lstm"), (gru_step, "gru"), (gru_paper_step, "paper")])
def test_a_step_is_the_papers_equations_a_unit_at_a_time(step: Any, cell: str) -> None:
    torch.manual_seed(0)
    gates, type = 4 if cell == "lstm" else 3, {"dtype": torch.double}
    shapes: list[tuple[int, ...]] = [(gates * 4, 3), (gates * 4, 4), (gates * 4,), (gates * 4,)]
    weights = CellWeights(*(torch.randn(shape, **type) for shape in shapes))
    x, state = torch.randn(1, 3, **type), tuple(torch.randn(1, 4, **type) for _ in range(1 + (cell == "lstm")))
    ours: State = step(x, state, weights)
    hand = by_numbers(x[0].tolist(), [part[0].tolist() for part in state], weights, cell)
    torch.testing.assert_close(torch.cat(ours), torch.tensor(hand, **type))


def test_the_papers_gru_is_another_than_torchs() -> None:
    fused, paper = build("gru"), build("gru", kernel="paper")
    with torch.no_grad():
        fused.embedding.weight.mul_(20)  # states far from 0
    paper.load_state_dict(fused.state_dict())
    assert not torch.allclose(fused(words(4, 9)), paper(words(4, 9)), atol=1e-4)


@every_name
def test_an_image_is_read_row_by_row(name: str) -> None:
    spec, images = natural_spec(3, 6, 4, 10), torch.randn(2, 3, 6, 4)
    rows = torch.stack([images[:, :, row].flatten(1) for row in range(6)], dim=1)  # (N, H, C · W)
    features = SequenceSpec(classes=spec.classes, features=12)
    expected = build(name, features)(Sequences(rows, torch.tensor([6, 6])))
    torch.testing.assert_close(build(name, spec)(images), expected)


def test_poolings_are_what_they_are_called() -> None:
    states, lengths = torch.randn(2, 5, 4), torch.tensor([3, 5])
    for pooling in POOLINGS:
        model = build("bilstm", pooling=pooling, hidden_size=2)
        pooled = model.pool(states, lengths)
        for row, (steps, length) in enumerate(zip(states, lengths.tolist(), strict=True)):
            real = steps[:length]
            if pooling == "attention":
                scores = torch.stack([model.pool.score(model.pool.hidden(h).tanh()) for h in real])
                expected = (scores.softmax(0) * real).sum(0)
            else:
                last = torch.cat([real[-1, :2], real[0, 2:]])  # backwards ends at the first step
                expected = {"last": last, "mean": real.mean(0), "max": real.max(0).values}[pooling]
            torch.testing.assert_close(pooled[row], expected)


def test_attention_weights_are_kept_on_demand_and_none_is_on_padding() -> None:
    model = build("lstm", pooling="attention")
    assert isinstance(model.pool, AttentionPooling)
    model(words(4, 9))
    assert model.pool.weights is None
    model.pool.record_weights = True
    model(words(4, 9))
    weights = model.pool.weights
    assert weights is not None and weights.shape == (2, 9) and not weights[0, 4:].any()
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_a_regression_has_one_output() -> None:
    model = build("gru", VECTORS)
    assert model(Sequences(torch.randn(3, 8, 2), torch.tensor([8, 5, 2]))).shape == (3, 1)


def test_dropout_between_layers_is_in_training_only_and_not_before_the_first() -> None:
    one, two = build("lstm", layer_dropout=0.5).train(), build("lstm", layers=2, layer_dropout=0.5).train()
    assert torch.equal(one(words(4, 9)), one(words(4, 9)))
    assert not torch.equal(two(words(4, 9)), two(words(4, 9)))
    assert torch.equal(two.eval()(words(4, 9)), two(words(4, 9)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_forget_gates_start_open_and_states_are_kept_orthogonal(scheme: str) -> None:
    torch.manual_seed(0)
    kernel = nn.LSTM(3, 8, batch_first=True)
    before = [parameter.clone() for parameter in kernel.parameters()]
    initialize_recurrent(kernel, scheme, forget_bias=1.0)
    w, u, b, b_u = kernel.all_weights[0]
    if scheme == "torch":
        assert torch.equal(w, before[0]) and torch.equal(u, before[1])
        torch.testing.assert_close(b[8:16], before[2][8:16] + 1)
        return
    assert b.view(4, 8)[[0, 2, 3]].eq(0).all() and b.view(4, 8)[1].eq(1).all() and not b_u.any()
    for gate in u.split(8):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=0, atol=1e-5)
    if scheme == "xavier":
        assert 0.8 < w.abs().max() / (6 / (3 + 8)) ** 0.5 <= 1


def test_a_grus_update_gate_starts_open_and_a_simple_cell_has_none() -> None:
    b, b_u = build("gru", hidden_size=8, forget_bias=2.0).layers[0].forwards.kernel.all_weights[0][2:]
    assert b.view(3, 8)[1].eq(2).all() and not b.view(3, 8)[[0, 2]].any() and not b_u.any()
    assert not build("rnn", forget_bias=2.0).layers[0].forwards.kernel.bias_ih_l0.any()


def test_the_summary_counts_both_directions_of_every_layer() -> None:
    found = summarize("bilstm", DIGITS, {"layers": 2, "hidden_size": 10})
    first, second = 4 * (28 * 10 + 10 * 10), 4 * (20 * 10 + 10 * 10)  # products a step, of one direction
    assert found.macs == 2 * 28 * (first + second) + 20 * 10
    assert found.parameters == 2 * (first + second + 2 * 2 * 4 * 10) + 20 * 10 + 10
    assert summarize("lstm", WORDS, {"embedding_size": 30}).layers[0].name == "embedding"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cell": "lstn"}, "model option cell is 'lstn'. Did you mean 'lstm'?"),
        ({"pooling": "sum"}, "model option pooling is 'sum'."),
        ({"layers": 0}, "model option layers is 0."),
        ({"bidirectional": 1}, "model option bidirectional is 1."),
        ({"layer_dropout": -1}, "model option layer_dropout is -1."),
        ({"kernel": "cudnn"}, "model option kernel is 'cudnn'."),
        ({"forget_bias": True}, "model option forget_bias is True."),
    ],
    ids=str,
)
def test_wrong_options_are_told_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        build("lstm", **options)
    assert text in str(caught.value)
