"""The link function: from a network's outputs (N, K) to class probabilities, as the loss that it was trained with
defines them.

    softmax   cross_entropy   p_k = exp(z_k) / Σ_j exp(z_j)
    sigmoid   bce             p_k = 1 / (1 + exp(-z_k)): K independent probabilities, which need not sum to 1
    clip      mse             p_k = c_k / Σ_j c_j with c_k = min(max(z_k, 0), 1); uniform if all c_k are 0

`probabilities` is made of tensor operations, so that exported graphs contain it; `log_probabilities` is the same
function in float64, for what is computed by torch or by any other runtime. No torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit.specs import Link

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]


def probabilities(outputs: Tensor, link: Link) -> Tensor:
    """(N, K) -> (N, K), in the dtype of the outputs."""
    if link == "softmax":
        return outputs.softmax(dim=1)
    if link == "sigmoid":
        return outputs.sigmoid()
    clipped = outputs.clamp(0, 1)
    clipped = clipped.where(clipped.sum(dim=1, keepdim=True) != 0, 1.0)
    return clipped / clipped.sum(dim=1, keepdim=True)


def log_probabilities(outputs: Floats, link: Link) -> Floats:
    """(N, K) -> (N, K); -inf for a probability of 0, NaN if an output is NaN."""
    if link == "softmax":
        shifted: Floats = outputs - outputs.max(axis=1, keepdims=True)
        logs: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs
    if link == "sigmoid":
        with np.errstate(invalid="ignore"):  # of NaN
            logs = -np.logaddexp(0, -outputs)
        return logs
    clipped = outputs.clip(0, 1)
    clipped = np.where(clipped.sum(axis=1, keepdims=True) != 0, clipped, 1.0)
    with np.errstate(divide="ignore"):
        logs = np.log(clipped / clipped.sum(axis=1, keepdims=True))
    return logs
