"""Monte Carlo dropout: a network's dropout left on, N answers of N thinned networks in place of one.

Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016: a network trained with dropout is, each time its
masks are drawn, a draw from an approximate posterior over the weights; the mean of their probabilities is the answer.
Differs from the paper: a pass draws its masks once for all images and not for each, as the posterior is over weights
(Kirsch, van Amersfoort and Gal, "BatchBALD", NeurIPS 2019, call it consistent dropout). A mask is a function of (seed,
pass, layer, call): an image's answer is the same alone and in any batch, and does not depend on the order.

Only dropout layers (nn.Dropout and its 1d, 2d and 3d forms) are on; batch norm, stochastic depth and the dropout of
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
    """Raises: UsageError where the model has no dropout layer that does anything."""
    if not _layers(model):
        raise UsageError(
            f"--mc-dropout needs dropout, and {name} has none. Train it with some, as in `dlkit train … --dropout 0.5`."
        )


def passes_of(model: nn.Module, inputs: Tensor, passes: int, seed: int) -> Tensor:
    """The outputs of each pass: (N, …) → (T, N, K) float64 on the CPU. The model is in eval mode."""
    with _dropping(model, seed) as begin:
        return torch.stack([_one_pass(model, inputs, begin, number) for number in range(passes)])


def log_probabilities_of(passes: Tensor, link: Link) -> Tensor:
    """The log probabilities of each pass: (T, N, K) → (T, N, K)."""
    return torch.stack([torch.from_numpy(log_probabilities(outputs.numpy(), link)) for outputs in passes])


def _one_pass(model: nn.Module, inputs: Tensor, begin: Callable[[int], None], number: int) -> Tensor:
    begin(number)
    outputs: Tensor = model(inputs)
    return outputs.cpu().double()


def _layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, ELEMENTS + CHANNELS) and layer.p > 0]


@contextmanager
def _dropping(model: nn.Module, seed: int) -> Iterator[Callable[[int], None]]:
    """While the block runs the dropout layers drop, though in eval mode; call what it gives with a pass's number."""
    calls: dict[int, int] = {}  # layer → how often this pass has come through it
    current = 0

    def begin(number: int) -> None:
        nonlocal current
        current = number
        calls.clear()

    def hook_of(place: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def drop(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
            calls[place] = calls.get(place, 0) + 1
            return output * _mask(layer, output, fold(seed, current, place, calls[place]))

        return drop

    with ExitStack() as stack:
        for place, layer in enumerate(_layers(model)):
            stack.callback(layer.register_forward_hook(hook_of(place)).remove)
        yield begin


def _mask(layer: nn.Module, x: Tensor, seed: int) -> Tensor:
    """0 with probability p, else 1 / (1 - p): the shape of one sample, one number a channel where channels drop."""
    shape = x.shape[1:] if isinstance(layer, ELEMENTS) else (x.shape[1], *[1] * (x.ndim - 2))
    assert isinstance(layer, ELEMENTS + CHANNELS)
    generator = torch.Generator().manual_seed(seed % 2**63)  # on the CPU, so that all devices drop alike
    numbers = torch.rand(shape, generator=generator)
    return ((numbers >= layer.p) / (1 - layer.p)).to(x)


class ThinnedClassifier:
    """A network in eval mode, on that device, answering prepared images in passes with dropout on."""

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
