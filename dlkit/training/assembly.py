"""A recipe's network and all that a step needs around it: what train, reproduce, --check and lr-find step with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dlkit import registry
from dlkit.config import schema
from dlkit.config.schema import Recipe
from dlkit.data.loader import TrainingData, batches_in_order, steps_per_epoch
from dlkit.data.splits import TreeSamples
from dlkit.data.text.word_vectors import read_vectors
from dlkit.errors import UsageError
from dlkit.privacy import use_cache_folders
from dlkit.regularizers import Plan, Regularizer
from dlkit.specs import ImageSpec, Spec
from dlkit.training import losses, optimizers, precision, transfer, weights
from dlkit.training.distributed import World
from dlkit.training.freezing import choose_frozen
from dlkit.training.inputs import Materials, Prepared, Say, silent
from dlkit.training.loop import Run
from dlkit.training.restore import build
from dlkit.training.schedules import learning_rate
from dlkit.training.smallest_share import check_share, smallest_share

VALIDATION_BATCH = 512  # images; larger than a step's, since nothing is kept for backward


def new_run(materials: Materials, say: Say) -> tuple[Run, list[str]]:
    """A run before its first step, and what of its network starts from scratch."""
    recipe, data = materials.recipe, materials.data
    model, scratch = begin(recipe, data, materials.start, say)
    if recipe.data.vectors is not None:
        start_embedding(model, data.spec, Path(recipe.data.vectors), say)
    run = assemble(recipe, data, materials.device, materials.world, model, scratch, materials.runs_dir, say)
    return run, scratch


def begin(recipe: Recipe, data: Prepared, start: transfer.Start | None, say: Say) -> tuple[nn.Module, list[str]]:
    """The network, its weights drawn by the recipe's seed or taken over; and what of it then starts from scratch."""
    torch.manual_seed(recipe.train.seed)
    model = build(recipe.model.name, data.spec, dict(recipe.model.options))
    if start is None:
        return model, []
    options = registry.resolved_options("models", recipe.model.name, recipe.model.options)
    return model, transfer.inherit(model, start, data.spec, options, say)


def start_embedding(model: nn.Module, spec: Spec, vectors: Path, say: Say) -> None:
    """Start the embedding's rows from the vectors of a file, where it has the words.

    Raises:
        UsageError: the network has no embedding.
        DataError: there is no such file, or its vectors are not as wide as the embedding.
    """
    embedding = getattr(model, "embedding", None)
    if isinstance(spec, ImageSpec) or not isinstance(embedding, nn.Embedding):
        raise UsageError("recipe.data.vectors starts an embedding of words, and this model has none. Leave it out.")
    places, rows = read_vectors(vectors, spec.words, embedding.embedding_dim)
    with torch.no_grad():
        embedding.weight[torch.from_numpy(places) + 2] = torch.from_numpy(rows)
    say(f"vectors: {vectors} has {len(places):,} of the {len(spec.words):,} words; the others start at random")


def assemble(
    recipe: Recipe,
    data: Prepared,
    device: torch.device,
    world: World,
    model: nn.Module,
    scratch: Sequence[str],
    runs_dir: Path,
    say: Say,
) -> Run:
    """Everything a step needs, built from the recipe around its network."""
    frozen = choose_frozen(model, recipe.train.freeze, recipe.train.unfreeze, scratch, say)
    frozen.freeze_for_good(model)
    dtype = precision.autocast_dtype(recipe.train.amp, device)
    wanted = recipe.train.channels_last
    if precision.trains_channels_last(model, data.spec, device, dtype) if wanted is None else wanted:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    smallest = smallest_share(model, data.spec, frozen, device)
    samples, batch_size = len(data.splits["train"]), recipe.train.batch_size
    check_share(smallest, samples, batch_size, recipe.train.accumulate, world.size)
    steps = steps_per_epoch(samples, batch_size, world.size, smallest)
    regularizers = regularize(model, recipe, data, steps, scratch, runs_dir)
    averaged = next((part.averaged for part in regularizers if part.averaged is not None), None)
    if recipe.train.ema:
        averaged = copy.deepcopy(model).requires_grad_(False)
    return Run(
        model=model,
        network=_compiled(model) if recipe.train.compile else model,
        optimizer=optimizers.build(model, recipe.optimizer, device),
        loss=losses.build(recipe.loss, _class_counts(data) if data.spec.classes else None),
        validation_loss=losses.build(schema.Loss(name=recipe.loss.name)),
        lr=learning_rate(recipe.schedule, recipe.optimizer.lr, steps * recipe.train.epochs, steps),
        regularizers=regularizers,
        settings=recipe.train,
        device=device,
        dtype=dtype,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        world=world,
        averaged=averaged,
        steps_per_epoch=steps,
        smallest_share=smallest,
        freezing=frozen,
        classes=len(data.spec.classes),
        counted="nodes" if data.spec.kind == "trees" else data.spec.kind,
    )


def _class_counts(data: Prepared) -> losses.ClassCounts:
    """The classes of the training samples; of trees those of all labeled nodes, which the loss is of."""
    samples = data.splits["train"]
    labels = samples.labels[samples.labels >= 0] if isinstance(samples, TreeSamples) else samples.targets
    return losses.ClassCounts(
        data.spec.classes, torch.from_numpy(np.bincount(labels, minlength=len(data.spec.classes)))
    )


def _compiled(model: nn.Module) -> Any:
    use_cache_folders()
    return torch.compile(model)


def regularize(
    model: nn.Module, recipe: Recipe, data: Prepared, steps_per_epoch: int, scratch: Sequence[str], runs_dir: Path
) -> list[Regularizer]:
    """The recipe's regularizers that are on, by their names' order, each having had its turn at the model."""
    found = {
        name: registry.load("regularizers", name).build(**registry.resolved_options("regularizers", name, options))
        for name, options in sorted(recipe.regularizers.items())
        if registry.is_on(name, options)
    }

    def weights_of(source: str) -> Mapping[str, torch.Tensor]:
        if source == "start":  # on a resume the checkpoint brings their values
            return {name: tensor for name, tensor in model.state_dict().items() if name not in scratch}
        found = weights.find(source, recipe.model.name, runs_dir, silent)
        return transfer.fitted(found.read(), found, model, silent)

    plan = Plan(
        data.spec,
        len(data.splits["train"]),
        steps_per_epoch,
        recipe.train.epochs,
        regularizers=frozenset(found),
        weights=weights_of,
    )
    for regularizer in found.values():
        regularizer.on_model(model, plan)
    return list(found.values())


def batches(run: Run, recipe: Recipe, data: Prepared) -> tuple[TrainingData, Callable[[], Iterator[Any]] | None]:
    """The training data, and a function that starts over the validation split."""
    channels_last = any(
        parameter.ndim == 4 and not parameter.is_contiguous() for parameter in run.model.parameters()
    ) or bool(recipe.train.channels_last)
    training = TrainingData(
        samples=data.splits["train"],
        spec=data.spec,
        augment=recipe.data.augment,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        device=run.device,
        workers=recipe.data.workers,
        rank=run.world.rank,
        world_size=run.world.size,
        channels_last=channels_last,
        smallest_share=run.smallest_share,
        balanced=recipe.data.sampler == "balanced",
    )
    if "validation" not in data.splits:
        return training, None
    return training, lambda: batches_in_order(
        data.splits["validation"],
        data.spec,
        max(VALIDATION_BATCH, recipe.train.batch_size),
        run.device,
        recipe.data.workers,
        rank=run.world.rank,
        world_size=run.world.size,
        channels_last=channels_last,
    )
