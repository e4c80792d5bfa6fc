"""Monte Carlo dropout: N passes with dropout enabled, whose mean probabilities are the prediction.

Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016: each set of dropout masks is a sample from an
approximate posterior over the weights.
Differs from the paper: all images of a pass share its masks, because the posterior is over weights
(Kirsch, van Amersfoort and Gal, "BatchBALD", NeurIPS 2019, call it consistent dropout). A mask is a function of (seed,
pass, layer, call): the prediction for an image does not depend on its batch or on the order.

Only dropout layers (nn.Dropout and its 1d, 2d and 3d forms) are enabled; batch norm, stochastic depth and dropout of
attention weights stay as in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.data.batches import normalize
from dlkit.data.link import log_probabilities
from dlkit.data.rng import fold
from dlkit.errors import UsageError
from dlkit.inference.classifier import Pixels
from dlkit.specs import ImageSpec, Link

ELEMENTS, CHANNELS = (nn.Dropout,), (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def check_model(model: nn.Module, name: str) -> None:
    """Raises: UsageError if the model has no dropout layer with p > 0."""
    if not _layers(model):
        raise UsageError(
            f"--mc-dropout needs dropout, and {name} has none. Train it with some, as in `dlkit train … --dropout 0.5`."
        )


def passes_of(model: nn.Module, inputs: Tensor, passes: int, seed: int) -> Tensor:
    """The outputs of each pass: (N, …) → (T, N, K) float64 on the CPU. The model is in eval mode."""
    with _enable_dropout(model, seed) as begin_pass:
        return torch.stack([_run_pass(model, inputs, begin_pass, index) for index in range(passes)])


def log_probabilities_of(passes: Tensor, link: Link) -> Tensor:
    """The log probabilities of each pass: (T, N, K) → (T, N, K)."""
    return torch.stack([torch.from_numpy(log_probabilities(outputs.numpy(), link)) for outputs in passes])


def _run_pass(model: nn.Module, inputs: Tensor, begin_pass: Callable[[int], None], index: int) -> Tensor:
    begin_pass(index)
    outputs: Tensor = model(inputs)
    return outputs.cpu().double()


def _layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, ELEMENTS + CHANNELS) and layer.p > 0]


@contextmanager
def _enable_dropout(model: nn.Module, seed: int) -> Iterator[Callable[[int], None]]:
    """Enable the dropout layers of a model in eval mode; yields a function that begins the pass of an index."""
    calls: dict[int, int] = {}  # layer → its calls in this pass
    current = 0

    def begin_pass(index: int) -> None:
        nonlocal current
        current = index
        calls.clear()

    def dropout_hook(layer_index: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def drop(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
            calls[layer_index] = calls.get(layer_index, 0) + 1
            return output * _mask(layer, output, fold(seed, current, layer_index, calls[layer_index]))

        return drop

    with ExitStack() as stack:
        for layer_index, layer in enumerate(_layers(model)):
            stack.callback(layer.register_forward_hook(dropout_hook(layer_index)).remove)
        yield begin_pass


def _mask(layer: nn.Module, x: Tensor, seed: int) -> Tensor:
    """0 with probability p, else 1 / (1 - p): the shape of one sample, or one value per channel."""
    shape = x.shape[1:] if isinstance(layer, ELEMENTS) else (x.shape[1], *[1] * (x.ndim - 2))
    assert isinstance(layer, ELEMENTS + CHANNELS)
    generator = torch.Generator().manual_seed(seed % 2**63)  # on the CPU: equal on all devices
    uniform = torch.rand(shape, generator=generator)
    return ((uniform >= layer.p) / (1 - layer.p)).to(x)


class McDropoutClassifier:
    """A network in eval mode on a device, with passes of MC dropout over prepared images."""

    def __init__(
        self, module: nn.Module, device: torch.device, spec: ImageSpec, passes: int, seed: int, link: Link = "softmax"
    ) -> None:
        check_model(module, f"this {type(module).__name__}")
        self.module, self.device, self.spec, self.link = module, device, spec, link
        self.count, self.seed = passes, seed

    def passes(self, pixels: Pixels) -> Tensor:
        """The log-probabilities of each pass: (N, C, H, W) uint8 → (T, N, K) float64."""
        with torch.inference_mode():
            inputs = normalize(torch.from_numpy(pixels).to(self.device), self.spec)
            return log_probabilities_of(passes_of(self.module, inputs, self.count, self.seed), self.link)
