"""A network's outputs for every batch of a split, from one pass or from passes of MC dropout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlkit.data.link import log_probabilities as apply_link
from dlkit.data.loader import batches_in_order
from dlkit.data.splits import Samples
from dlkit.errors import ModelFileError
from dlkit.evaluation.mc_dropout import log_probabilities_of, passes_of
from dlkit.metrics import mean_of_passes
from dlkit.training.losses import evaluation_losses
from dlkit.training.restore import Restored


@dataclass(frozen=True)
class BatchOutputs:
    """float64 on the CPU, like the targets and indices (N,) of the batch."""

    outputs: Tensor  # (N, K), which rank the classes
    log_probabilities: Tensor  # (N, K)
    losses: Tensor  # (N,)
    passes: Tensor | None  # (T, N, K), log probabilities of each pass of MC dropout
    targets: Tensor
    indices: Tensor


def compute_outputs(
    restored: Restored, samples: Samples, batch_size: int, workers: int, mc_dropout: int | None
) -> Iterator[BatchOutputs]:
    """Run the model over all samples in order."""
    seed, link = restored.recipe.train.seed, restored.link
    with torch.inference_mode():
        for batch in batches_in_order(samples, restored.spec, batch_size, restored.device, workers):
            if mc_dropout is None:
                outputs, passes = restored.model(batch.inputs).cpu().double(), None
                log_probabilities = torch.from_numpy(apply_link(outputs.numpy(), link))
                ranking = outputs
            else:
                of_passes = passes_of(restored.model, batch.inputs, mc_dropout, seed)
                passes = log_probabilities_of(of_passes, link)
                log_probabilities = ranking = mean_of_passes(passes)
                outputs = log_probabilities.exp().logit(1e-15) if link == "sigmoid" else of_passes.mean(dim=0)
            if not bool(outputs.isfinite().all()):
                raise ModelFileError(f"run {restored.run.name}: the model's outputs are not finite. Train it again.")
            targets = batch.targets.cpu()
            losses = evaluation_losses(outputs, log_probabilities, targets, link)
            yield BatchOutputs(ranking, log_probabilities, losses, passes, targets, batch.indices.cpu())
