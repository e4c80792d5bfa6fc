"""torch's recurrent layers as single operations of a traced graph, for sequences of any length.

torch.export (2.14) computes a layer's shapes by unrolling it step by step, which fixes the length to the example's.
`opaque_recurrent_layers` declares the shapes instead, and the graph holds torch's fused operation, or ONNX's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._decomp import global_decomposition_table

aten = torch.ops.aten
LAYERS = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
DISPATCH_KEY = DispatchKey.CompositeImplicitAutograd


@contextmanager
def opaque_recurrent_layers() -> Iterator[None]:
    """Within this context tracing knows the output shapes of the recurrent layers without computing them."""
    table = global_decomposition_table["post_autograd"]
    before = [(layer, table.get(layer), layer.py_kernels.get(DISPATCH_KEY)) for layer in LAYERS]
    try:
        for layer in LAYERS:
            _set(layer, table, _output_shapes, _output_shapes)
        yield
    finally:
        for layer, decomposition, kernel in before:
            _set(layer, table, decomposition, kernel)


def _set(layer: Any, table: Any, decomposition: Any, kernel: Any) -> None:
    for registry, key, value in ((table, layer, decomposition), (layer.py_kernels, DISPATCH_KEY, kernel)):
        if value is None:
            registry.pop(key, None)
        else:
            registry[key] = value
    layer._dispatch_cache.clear()


def _output_shapes(
    input: Tensor,
    hx: Tensor | Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Empty tensors with the shapes of a layer's outputs: the states of all steps, and the last."""
    last = [hx] if isinstance(hx, Tensor) else list(hx)
    states = input.new_empty(*input.shape[:2], last[0].shape[2] * (1 + bidirectional))
    return (states, *(torch.empty_like(one) for one in last))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Simple recurrent layers as ONNX's operator RNN; torch's exporter translates the others."""
    return {aten.rnn_tanh.input: _translate("Tanh"), aten.rnn_relu.input: _translate("Relu")}


def _translate(activation: str) -> Callable[..., Any]:
    from onnxscript import opset18

    op: Any = opset18  # its types do not include the lists that it converts to constants

    def rnn(
        input: Any,  # (N, T, D)
        hx: Any,  # (1, N, H)
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, Any]:
        """One layer in one direction with biases, as in dlkit.layers.recurrent.Pass."""
        assert has_biases and num_layers == 1 and batch_first and not bidirectional and not train
        w, u, b = (op.Unsqueeze(part, [0]) for part in (*params[:2], op.Concat(*params[2:], axis=0)))
        steps = op.Transpose(input, perm=[1, 0, 2])
        states, last = op.RNN(steps, w, u, b, None, hx, activations=[activation], hidden_size=hx.shape[2])
        return op.Transpose(op.Squeeze(states, [1]), perm=[1, 0, 2]), last  # states (T, 1, N, H)

    return rnn
