"""Tree-LSTM: an LSTM that runs up a parse tree, each node's state made from those of its children.

Tai, Socher and Manning, "Improved semantic representations from tree-structured long short-term memory networks", 2015
(1503.00075). `tree_lstm` is the N-ary form (section 3.2) over trees of ordered children, such as binary constituency
trees; `child_sum_tree_lstm` (section 3.1) adds the children up, so that a node may have any number of them, as in a
dependency tree. Words stand at the leaves or at every node; every node has logits, the root's are the sentence's.

Differs from the paper: forget gates start open (forget_bias 1); dropout of the word vectors is an option.
`leaf_encoder` lstm or bilstm reads the sentence first, its states in place of the words' vectors; `bidirectional` sends
a second LSTM from the root down to the words over the states of the first, so that a node knows what stands around it:
the N-ary form with a U for each side of the parent. `dropout` is before the output, `embedding_dropout` of the vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.data.text.tree_batches import Trees
from dlkit.errors import DataError
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.layers.options import check_choice, check_flag, check_number, check_whole
from dlkit.layers.recurrent import Pass, RecurrentLayer, initialize_recurrent, turned_steps
from dlkit.layers.steps import word_vectors
from dlkit.layers.tree_lstm import ChildSumLSTM, NaryLSTM
from dlkit.layers.tree_recursion import descent
from dlkit.specs import TreeSpec

VARIANTS = {"tree_lstm": {"composition": "nary"}, "child_sum_tree_lstm": {"composition": "child_sum"}}
TAKES = ("trees",)
NATURAL = (16_000, 5)  # words, classes


class TreeLSTM(nn.Module):
    """forward: Trees -> logits (M, K), a row for each node that is asked for."""

    feature_map = None

    def __init__(
        self,
        embedding: nn.Module,
        encoder: RecurrentLayer | None,
        up: NaryLSTM | ChildSumLSTM,
        down: NaryLSTM | None,
        output: nn.Module,
        *,
        embedding_dropout: nn.Module,
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.embedding_dropout = embedding_dropout
        self.encoder = encoder
        self.up = up
        self.down = down
        self.dropout = dropout
        self.output = output

    def forward(self, trees: Trees) -> Tensor:
        states = self._upwards(trees, self._words(trees))  # (nodes, H)
        if self.down is not None:
            states = torch.cat([states, self._downwards(trees, states, self.down)], dim=1)
        logits: Tensor = self.output(self.dropout(states.index_select(0, trees.output_nodes)))
        return logits

    def _words(self, trees: Trees) -> Tensor:
        """The vectors of the words: (nodes, D), or (leaves, D) where no inner node has a word."""
        inner_words = int(trees.lengths.sum()) > trees.levels[1]  # every leaf has one
        tokens = trees.tokens if inner_words else trees.tokens[: trees.levels[1]]
        x: Tensor = self.embedding_dropout(self.embedding(tokens))
        if self.encoder is None:
            return x
        turned = turned_steps(trees.lengths.to(x.device, non_blocking=True), trees.leaves.shape[1])
        read = self.encoder(x[trees.leaves.clamp(min=0)], turned)  # (N, T, D)
        index = trees.leaves.where(trees.leaves >= 0, len(x)).flatten()  # padding follows the last
        states: Tensor = read.new_zeros(len(x) + 1, read.shape[2]).index_copy(0, index, read.flatten(0, 1))
        return states[:-1]

    def _upwards(self, trees: Trees, x: Tensor) -> Tensor:
        """The states of the pass from the leaves up."""
        if isinstance(self.up, ChildSumLSTM):
            states: Tensor = self.up(x, trees.edges, trees.edge_levels, trees.levels)
        else:
            states = self.up(x, _columns(trees.children[trees.levels[1] :], self.up.arity), trees.levels)
        return states

    def _downwards(self, trees: Trees, states: Tensor, down: NaryLSTM) -> Tensor:
        """The states of the pass from the roots down, which reads those of the pass up."""
        way = descent(trees.parents, trees.children, trees.levels)
        above = _columns(way.parent, down.arity) if down.arity > 1 else way.parent.amax(1, keepdim=True)
        x: Tensor = down(states.index_select(0, way.order), above, way.levels)
        return x.index_select(0, way.position)


def _columns(children: Tensor, arity: int) -> Tensor:
    """(n, A) -> (n, arity), as many as the network has a U for."""
    most = children.shape[1]
    if most > arity:
        raise DataError(
            f"a node has {most} children, and this Tree-LSTM takes {arity}. Train child_sum_tree_lstm, which takes any "
            f"number, or tree_lstm with --set model.options.arity={most}."
        )
    return F.pad(children, (0, arity - most), value=-1)


def build(
    spec: TreeSpec,
    *,
    composition: str = "nary",
    arity: int = 2,
    hidden_size: int = 150,
    embedding_size: int = 300,
    leaf_encoder: str = "none",
    bidirectional: bool = False,
    init: str = "xavier",
    forget_bias: float = 1.0,
    dropout: float = 0.5,
    embedding_dropout: float = 0.0,
) -> nn.Module:
    check_choice("composition", composition, ("nary", "child_sum"))
    check_choice("leaf_encoder", leaf_encoder, ("none", "lstm", "bilstm"))
    check_whole("arity", arity, least=2, most=64)
    check_whole("hidden_size", hidden_size)
    check_whole("embedding_size", embedding_size)
    check_flag("bidirectional", bidirectional)
    check_number("forget_bias", forget_bias)
    encoder = _encoder(leaf_encoder, embedding_size, hidden_size)
    size = embedding_size if encoder is None else hidden_size * (1 + (leaf_encoder == "bilstm"))
    nary = composition == "nary"
    model = TreeLSTM(
        word_vectors(spec.vocabulary, embedding_size),
        encoder,
        NaryLSTM(size, hidden_size, arity) if nary else ChildSumLSTM(size, hidden_size),
        NaryLSTM(hidden_size, hidden_size, arity if nary else 1) if bidirectional else None,
        nn.Linear(hidden_size * (1 + bidirectional), spec.outputs),
        embedding_dropout=dropout_of(embedding_dropout, "embedding_dropout"),
        dropout=dropout_of(dropout),
    )
    initialize(model, init, "tanh")
    for module in model.modules():
        if isinstance(module, NaryLSTM | ChildSumLSTM):
            module.initialize(init, forget_bias)
        elif isinstance(module, nn.RNNBase):
            initialize_recurrent(module, init, forget_bias)
    return model


def _encoder(name: str, size: int, hidden_size: int) -> RecurrentLayer | None:
    if name == "none":
        return None
    passes = [Pass(nn.LSTM(size, hidden_size, batch_first=True)) for _ in range(1 + (name == "bilstm"))]
    return RecurrentLayer(*passes)
