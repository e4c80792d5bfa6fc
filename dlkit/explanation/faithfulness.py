"""Whether an explanation tells of the network: what its pixels do to the answer, and what is left without the weights.

Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018 (1806.07421): the
class's probability while the map's highest pixels are taken away (deletion: the area below it should be small) or put
in (insertion: large); of text its words. Adebayo et al., "Sanity checks for saliency maps", 2018 (1810.03292): the map
of the same network with other weights should be another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.data.link import probabilities as linked
from dlkit.explanation.methods._words import Reader
from dlkit.specs import Link

STEPS = 32  # pixels go in so many equal parts
BATCH_VALUES = 1 << 21  # of the images that go through the network at once
SURVIVES = 0.5  # rank correlation with the map of the shuffled network, from which on a map is flagged
SHUFFLES = 19  # with 19 others, chance alone puts the network itself first once in 20 times
MOST_ROWS, MOST_COLUMNS = 128, 512  # of a weight matrix, which are enough to tell


@torch.no_grad()
def deletion_and_insertion(
    model: nn.Module, image: Tensor, target: int, map: Tensor, link: Link = "softmax"
) -> tuple[float, float]:
    """The two areas under the target's probability, each 0 to 1; image (C, H, W), map (H, W).

    Deleted pixels get the data's mean colour; pixels are inserted into a blurred image.
    """
    chosen = _highest(map.flatten(), STEPS).view(-1, 1, *map.shape)  # (S + 1, 1, H, W)
    canvases = (torch.where(chosen, 0, image), torch.where(chosen, image, blurred(image)))
    deletion, insertion = (_area(probabilities(model, canvas, link)[:, target]) for canvas in canvases)
    return deletion, insertion


def of_words(reader: Reader, target: int, values: Tensor, link: Link = "softmax") -> tuple[float, float]:
    """The same of a text, values (T,): its words are taken out, or put into one that has none."""
    chosen = _highest(values, min(STEPS, len(values)))  # (S + 1, T)
    deletion, insertion = (
        _area(linked(reader.kept(keep).double(), link)[:, target]) for keep in (~chosen, chosen)
    )  # fmt: skip
    return deletion, insertion


def _highest(values: Tensor, steps: int) -> Tensor:
    """Which of the values (V,) are among the highest, in equal steps from none to all: (steps + 1, V) bool."""
    order = values.argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    counts = torch.linspace(0, len(order), steps + 1, device=order.device).round()
    return places < counts[:, None]


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor, link: Link = "softmax") -> Tensor:
    """(N, C, H, W) -> (N, K), float64."""
    size = max(1, BATCH_VALUES // images[0].numel())
    return torch.cat([linked(model(some).double(), link) for some in torch.split(images, size)])


def blurred(image: Tensor) -> Tensor:
    """By a Gaussian whose deviation is a tenth of the shorter side, borders repeated; (C, H, W)."""
    deviation = min(image.shape[1:]) / 10
    reach = max(1, round(2 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = F.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")  # (C, 1, H + 2r, W + 2r)
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def rank_correlation(one: Tensor, other: Tensor) -> float | None:
    """Spearman's, equal values sharing their mean rank; None where a map is constant or not finite."""
    if not (one.isfinite().all() and other.isfinite().all()):
        return None
    a, b = (ranks(map.flatten()) for map in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / scale if scale > 0 else None


def ranks(values: Tensor) -> Tensor:
    """From 0, float64; equal values share their mean rank."""
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Tensor = (counts.cumsum(0) - (counts + 1) / 2).double()
    return mean_ranks[places]


def shuffled(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are the same numbers in another order, within each parameter."""
    found, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in found.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return found


@torch.no_grad()
def looks_random(model: nn.Module, seed: int) -> bool:
    """Whether the order of the network's weights cannot be told from chance.

    A permutation test: learning gives weight matrices large singular values that the same numbers in another order do
    not have. The network is told from chance where it lies further out than all of 19 shuffled ones; one whose weights
    are independent draws therefore is so once in 20 times, whatever it looks at.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = [_largest(matrix, generator) for matrix in _matrices(model)]
    if not columns:
        return False
    norms = torch.stack(columns, 1)  # (1 + SHUFFLES, layers)
    outlying = (norms - norms.mean(0)) / norms.std(0).clamp(min=1e-12)
    distances = outlying.clamp(min=0).square().mean(1)
    return bool(distances[0] <= distances[1:].max())


def _matrices(model: nn.Module) -> Iterator[Tensor]:
    """A part of each layer's weights as a matrix, a row an output."""
    for weight in model.parameters():
        if weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) > 1:
            yield weight.detach().flatten(1)[:MOST_ROWS, :MOST_COLUMNS].cpu().double()


def _largest(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """The largest singular value of a matrix, then those of its shuffled copies, (1 + SHUFFLES,)."""
    values = matrix.flatten()
    orders = [torch.arange(len(values)), *(torch.randperm(len(values), generator=generator) for _ in range(SHUFFLES))]
    stack = torch.stack([values[order] for order in orders]).view(-1, *matrix.shape)
    stack = stack if matrix.shape[0] <= matrix.shape[1] else stack.mT
    squares: Tensor = torch.linalg.eigvalsh(stack @ stack.mT)  # ascending
    return squares[:, -1].clamp(min=0).sqrt()


def _area(values: Tensor) -> float:
    """Under a curve over equal steps from 0 to 1."""
    return float(torch.trapezoid(values)) / (len(values) - 1)
