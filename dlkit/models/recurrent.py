"""Recurrent networks: a state carried from step to step by a simple cell, an LSTM or a GRU, in one or both directions.

Elman 1990 (rnn); Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997 (lstm); Cho et
al., "Learning phrase representations using RNN encoder–decoder", 2014 (1406.1078) (gru); Schuster and Paliwal 1997 (the
bi… forms). A sequence is read by its words or vectors, an image row by row; padding has no part in the answer.

Differs from the papers: the LSTM has the forget gate of Gers et al. 2000; the GRU resets behind its product with U, as
torch's fused kernel does, and as the paper writes it with kernel=paper; U starts orthogonal (init=torch gives torch's
own start) and the gates that keep the state start open, at forget_bias; the classes are read from the last state, or
from all of them by `pooling`: last, mean, max, attention. kernel=written computes fused's equations step by step.
`dropout` is before the output, `layer_dropout` between layers, `embedding_dropout` of the word vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dlkit.data.text.padding import Sequences
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.layers.options import check_choice, check_flag, check_number, check_whole
from dlkit.layers.pooling import pooling as pooling_named
from dlkit.layers.recurrent import Pass, RecurrentLayer, initialize_recurrent, turned_steps
from dlkit.layers.recurrent_cells import Step, gru_paper_step, gru_step, lstm_step, relu_step, tanh_step
from dlkit.layers.steps import embedding, step_size, steps_of
from dlkit.specs import ImageSpec, SequenceSpec

VARIANTS = {
    "rnn": {"cell": "rnn"},
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "bilstm": {"cell": "lstm", "bidirectional": True},
    "bigru": {"cell": "gru", "bidirectional": True},
}
TAKES = ("images", "sequences")
NATURAL = (1, 28, 28, 10)  # channels, height, width, classes


class Recurrent(nn.Module):
    """forward: images (N, C, H, W) or Sequences -> logits (N, K)."""

    feature_map = None

    def __init__(
        self,
        embedding: nn.Module,
        layers: Sequence[RecurrentLayer],
        pool: nn.Module,
        output: nn.Module,
        *,
        embedding_dropout: nn.Module,
        layer_dropout: nn.Module,
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.embedding_dropout = embedding_dropout
        self.layers = nn.ModuleList(layers)
        self.layer_dropout = layer_dropout
        self.pool = pool
        self.dropout = dropout
        self.output = output

    def forward(self, inputs: Tensor | Sequences) -> Tensor:
        values, lengths = steps_of(inputs)
        turned = None if lengths is None else turned_steps(lengths, values.shape[1])
        x = self.embedding_dropout(self.embedding(values))  # (N, T, D)
        for number, layer in enumerate(self.layers):
            x = layer(self.layer_dropout(x) if number else x, turned)  # (N, T, H), of both directions 2H
        logits: Tensor = self.output(self.dropout(self.pool(x, lengths)))
        return logits


def build(
    spec: ImageSpec | SequenceSpec,
    *,
    cell: str = "lstm",
    hidden_size: int = 128,
    layers: int = 1,
    bidirectional: bool = False,
    pooling: str = "last",
    embedding_size: int = 300,
    nonlinearity: str = "tanh",
    kernel: str = "fused",
    init: str = "xavier",
    forget_bias: float = 1.0,
    dropout: float = 0.0,
    layer_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
) -> nn.Module:
    check_choice("cell", cell, ("rnn", "lstm", "gru"))
    check_choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    check_choice("kernel", kernel, ("fused", "written", "paper"))
    check_whole("hidden_size", hidden_size)
    check_whole("layers", layers, most=64)
    check_flag("bidirectional", bidirectional)
    check_number("forget_bias", forget_bias)
    step = None if kernel == "fused" else _step(cell, nonlinearity, kernel == "paper")
    states = hidden_size * (1 + bidirectional)

    def one_pass(size: int) -> Pass:
        return Pass(_kernel(cell, size, hidden_size, nonlinearity), step)

    sizes = [step_size(spec, embedding_size), *[states] * (layers - 1)]
    model = Recurrent(
        embedding(spec, embedding_size),
        [RecurrentLayer(one_pass(size), one_pass(size) if bidirectional else None) for size in sizes],
        pooling_named(pooling, states, bidirectional),
        nn.Linear(states, spec.outputs),
        embedding_dropout=dropout_of(embedding_dropout, "embedding_dropout"),
        layer_dropout=dropout_of(layer_dropout, "layer_dropout"),
        dropout=dropout_of(dropout),
    )
    initialize(model, init, "tanh")
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            initialize_recurrent(module, init, forget_bias)
    return model


def _kernel(cell: str, size: int, hidden_size: int, nonlinearity: str) -> nn.RNNBase:
    if cell == "rnn":
        return nn.RNN(size, hidden_size, nonlinearity=nonlinearity, batch_first=True)
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    return kind(size, hidden_size, batch_first=True)


def _step(cell: str, nonlinearity: str, paper: bool) -> Step:
    if cell == "rnn":
        return tanh_step if nonlinearity == "tanh" else relu_step
    if cell == "lstm":
        return lstm_step
    return gru_paper_step if paper else gru_step
