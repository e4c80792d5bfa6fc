"""Measures of an explanation's quality: deletion and insertion, and sanity checks with randomized weights.

Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018 (1806.07421): the
probability of the class as the pixels with the highest values are removed (deletion: the area under the curve should be
small) or inserted (insertion: it should be large); for text, its words. Adebayo et al., "Sanity checks for saliency
maps", 2018 (1810.03292): the map of the same network with other weights should differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.data.link import probabilities as apply_link
from dlkit.explanation.methods._word_vectors import WordVectorModel
from dlkit.specs import Link

STEPS = 32  # of deletion and insertion
BATCH_VALUES = 1 << 21  # input values per forward pass
MIN_SURVIVING_CORRELATION = 0.5  # rank correlation with the map of the shuffled network at which a map is flagged
SHUFFLES = 19  # with 19 others, the network itself ranks first by chance once in 20 times
MAX_ROWS, MAX_COLUMNS = 128, 512  # of a weight matrix; a larger sample changes nothing


@torch.no_grad()
def deletion_and_insertion(
    model: nn.Module, image: Tensor, target: int, map: Tensor, link: Link = "softmax"
) -> tuple[float, float]:
    """The two areas under the target's probability, each 0 to 1; image (C, H, W), map (H, W).

    Deleted pixels take the data's mean color; pixels are inserted into a blurred image.
    """
    masks = _highest(map.flatten(), STEPS).view(-1, 1, *map.shape)  # (S + 1, 1, H, W)
    batches = (torch.where(masks, 0, image), torch.where(masks, image, blur(image)))
    deletion, insertion = (_area(probabilities(model, batch, link)[:, target]) for batch in batches)
    return deletion, insertion


def word_deletion_and_insertion(
    model: WordVectorModel, target: int, values: Tensor, link: Link = "softmax"
) -> tuple[float, float]:
    """The same for a text, values (T,): its words are removed, or inserted into an empty text."""
    masks = _highest(values, min(STEPS, len(values)))  # (S + 1, T)
    deletion, insertion = (
        _area(apply_link(model.masked_logits(mask).double(), link)[:, target]) for mask in (~masks, masks)
    )  # fmt: skip
    return deletion, insertion


def _highest(values: Tensor, steps: int) -> Tensor:
    """Masks of the highest of the values (V,), in equal steps from none to all: (steps + 1, V) bool."""
    order = values.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    counts = torch.linspace(0, len(order), steps + 1, device=order.device).round()
    return rank < counts[:, None]


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor, link: Link = "softmax") -> Tensor:
    """(N, C, H, W) -> (N, K), float64."""
    size = max(1, BATCH_VALUES // images[0].numel())
    return torch.cat([apply_link(model(batch).double(), link) for batch in torch.split(images, size)])


def blur(image: Tensor) -> Tensor:
    """Gaussian blur with a deviation of a tenth of the shorter side, borders replicated; (C, H, W)."""
    deviation = min(image.shape[1:]) / 10
    radius = max(1, round(2 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")  # (C, 1, H + 2r, W + 2r)
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's correlation, ties sharing their mean rank; None if a map is constant or not finite."""
    if not (first.isfinite().all() and second.isfinite().all()):
        return None
    a, b = (ranks(map.flatten()) for map in (first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / scale if scale > 0 else None


def ranks(values: Tensor) -> Tensor:
    """Ranks from 0, float64; ties share their mean rank."""
    _, index, counts = torch.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Tensor = (counts.cumsum(0) - (counts + 1) / 2).double()
    return mean_ranks[index]


def shuffle_weights(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model with the values of each parameter in random order."""
    result, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in result.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return result


@torch.no_grad()
def has_random_weights(model: nn.Module, seed: int) -> bool:
    """Whether the order of the network's weights is indistinguishable from chance.

    A permutation test: learning gives weight matrices large singular values that the same numbers in another order do
    not have. The weights count as learned if they are more extreme than all of 19 shuffled copies; a network of
    independent random weights therefore passes once in 20 times, whatever its architecture.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = [_largest_singular_values(matrix, generator) for matrix in _weight_matrices(model)]
    if not columns:
        return False
    norms = torch.stack(columns, 1)  # (1 + SHUFFLES, layers)
    z_scores = (norms - norms.mean(0)) / norms.std(0).clamp(min=1e-12)
    distances = z_scores.clamp(min=0).square().mean(1)
    return bool(distances[0] <= distances[1:].max())


def _weight_matrices(model: nn.Module) -> Iterator[Tensor]:
    """A part of each layer's weights as a matrix with a row for each output."""
    for weight in model.parameters():
        if weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) > 1:
            yield weight.detach().flatten(1)[:MAX_ROWS, :MAX_COLUMNS].cpu().double()


def _largest_singular_values(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """The largest singular value of a matrix, then those of its shuffled copies, (1 + SHUFFLES,)."""
    values = matrix.flatten()
    orders = [torch.arange(len(values)), *(torch.randperm(len(values), generator=generator) for _ in range(SHUFFLES))]
    stack = torch.stack([values[order] for order in orders]).view(-1, *matrix.shape)
    stack = stack if matrix.shape[0] <= matrix.shape[1] else stack.mT
    squares: Tensor = torch.linalg.eigvalsh(stack @ stack.mT)  # ascending
    return squares[:, -1].clamp(min=0).sqrt()


def _area(values: Tensor) -> float:
    """The area under a curve over equal steps from 0 to 1."""
    return float(torch.trapezoid(values)) / (len(values) - 1)
