"""A decision tree: one pixel against one threshold at a time, fitted by `dlkit baseline`.

Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984: splits by the Gini impurity, grown
until each leaf holds one class, up to `max_depth` (0: no limit) and at least `leaf` images. A leaf's probabilities are
Laplace's, (n_k + 1) / (n + K) (Provost and Domingos 2003): none is 0, and their order is that of the counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlkit.layers.classical import Images, Targets, rows, sklearn
from dlkit.specs import ImageSpec

VARIANTS: dict[str, dict[str, object]] = {"tree": {}}
NATURAL = (1, 28, 28, 10)  # channels, height, width, classes
LIMIT = None  # images to fit to


class DecisionTree(nn.Module):
    """M nodes; a leaf leads to itself, so that `levels` steps end in a leaf for every image."""

    feature: Tensor
    threshold: Tensor
    following: Tensor
    logits: Tensor

    def __init__(self, nodes: int, levels: int, classes: int) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("threshold", torch.zeros(nodes))
        self.register_buffer("following", torch.zeros(nodes, 2, dtype=torch.long))  # below or equal, above
        self.register_buffer("logits", torch.zeros(nodes, classes))

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        x = images.flatten(1)
        node = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for _ in range(self.levels):
            above = x.gather(1, self.feature[node, None])[:, 0] > self.threshold[node]
            node = self.following[node, above.long()]
        return self.logits[node]

    def multiply_adds(self, output: Tensor) -> int:
        return 0


def build(spec: ImageSpec, *, max_depth: int = 0, leaf: int = 1, nodes: int = 1, levels: int = 0) -> nn.Module:
    """`leaf` is the minimum number of images in a leaf; `nodes` and `levels` are set by fitting."""
    return DecisionTree(nodes, levels, len(spec.classes))


def fit(
    images: Images, targets: Targets, spec: ImageSpec, seed: int, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The fitted model, and its size as options."""
    classifier = sklearn("tree").DecisionTreeClassifier(
        max_depth=options["max_depth"] or None, min_samples_leaf=options["leaf"], random_state=seed % 2**32
    )
    tree = classifier.fit(rows(images, spec), targets).tree_
    leaves, itself = tree.children_left < 0, np.arange(tree.node_count)
    model = DecisionTree(tree.node_count, tree.max_depth, len(spec.classes))
    model.feature.copy_(torch.from_numpy(np.where(leaves, 0, tree.feature)))
    model.threshold.copy_(torch.from_numpy(_floor32(np.where(leaves, 0.0, tree.threshold))))
    children = np.stack([tree.children_left, tree.children_right], axis=1)
    model.following.copy_(torch.from_numpy(np.where(leaves[:, None], itself[:, None], children)))
    model.logits.copy_(torch.from_numpy(_laplace(tree, classifier.classes_, len(spec.classes))))
    return model, {"nodes": int(tree.node_count), "levels": int(tree.max_depth)}


def _floor32(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 that is not above: float32 numbers compare with it as with the float64."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _laplace(tree: Any, present: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float64]:
    """ln of Laplace's estimate at each node: (M, K)."""
    shares = np.zeros((tree.node_count, classes))
    shares[:, present] = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True)
    samples = tree.n_node_samples[:, None]
    found: npt.NDArray[np.float64] = np.log((shares * samples + 1) / (samples + classes))
    return found
