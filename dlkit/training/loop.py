"""The loop: everything a step changes, one step, and the run of all of them.

on_batch → forward → loss + Σ penalty → backward → on_gradients → lr(step) → optimizer.step → on_weights
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from dlkit import atomic_io, metrics
from dlkit.config.schema import Train
from dlkit.data.batches import Batch
from dlkit.data.loader import TrainingData
from dlkit.data.rng import fold
from dlkit.errors import DivergedError, DlkitError, StoppedError
from dlkit.layers.averaging import estimating_norms, move_towards
from dlkit.regularizers import Regularizer
from dlkit.runs.provenance import weights_sha256
from dlkit.training.distributed import World
from dlkit.training.freezing import NOTHING_FROZEN, Freezing
from dlkit.training.losses import Loss
from dlkit.training.precision import autocast, seeder

SKIPS_IN_A_ROW = 20  # steps that fp16's scaler may skip before the run counts as diverged
CLASS_AVERAGES = ("val/macro_f1", "val/balanced_accuracy")
SAY_EVERY = 30.0  # seconds between two plain progress lines


@dataclass(frozen=True)
class Best:
    """The best epoch so far by the monitored value; of equal ones that of the lower val/loss, then the later one."""

    step: int
    epoch: int
    value: float
    loss: float | None = None  # val/loss; None without validation, and in checkpoints of older versions

    def key(self, monitor: str) -> tuple[float, float]:
        """Larger is better."""
        value = -self.value if monitor.endswith("loss") else self.value
        return value, -math.inf if self.loss is None else -self.loss


@dataclass
class Window:
    """Sums over the training samples since the last line of metrics.jsonl."""

    loss: float = 0.0
    correct: int = 0
    samples: int = 0
    seconds: float = 0.0


@dataclass
class Run:
    """All that a step changes (the last block), and what it needs."""

    model: nn.Module
    network: Callable[[Any], Tensor]  # the model, or its compiled form
    optimizer: torch.optim.Optimizer
    loss: Loss
    validation_loss: Loss  # the same without label smoothing, as eval reports it
    lr: Callable[[int], float]
    regularizers: Sequence[Regularizer]
    settings: Train
    device: torch.device
    dtype: torch.dtype | None  # autocast's
    scaler: torch.amp.GradScaler
    world: World
    averaged: nn.Module | None  # EMA of the weights, or a regularizer's mean of them
    steps_per_epoch: int
    smallest_share: int = 1  # samples that the network trains on at once
    freezing: Freezing = NOTHING_FROZEN
    classes: int = 0  # 0: the one output is a number, and there are no accuracies
    counted: str = "images"  # what a sample is called; of trees it is a node
    # -- state
    step: int = 0
    epochs_done: int = 0  # validated
    best: Best | None = None
    stale: int = 0  # epochs since the monitored value improved
    skipped: int = 0  # steps in a row without an update, fp16 only
    metrics_lines: int = 0
    window: Window = field(default_factory=Window)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that validation, eval and predict use."""
        return self.model if self.averaged is None else self.averaged


@dataclass(frozen=True)
class Surroundings:
    """What the loop calls: where lines and checkpoints go, who asks it to stop, whom it tells."""

    save: Callable[[Run], None]
    log: Callable[[dict[str, Any]], None]
    stop: Callable[[], int]  # the signal that asked for the end, or 0
    say: Callable[[str], None]
    advance: Callable[[int], object]  # a progress bar's update
    plain: bool  # no bar: a line every SAY_EVERY seconds
    epochs: int | None = None  # to end after, where that is before the recipe's end


def fit(run: Run, data: TrainingData, validation: Callable[[], Iterator[Batch]] | None, around: Surroundings) -> None:
    """Train until the last epoch or until patience ends; a run that was restored goes on where it stood.

    Raises:
        StoppedError: a signal came; the step was finished and everything saved.
        DivergedError: a loss or gradient is not finite; no weight has seen it.
    """
    said = time.monotonic()
    for epoch in range(run.epochs_done, min(run.settings.epochs, around.epochs or run.settings.epochs)):
        if out_of_patience(run):
            return
        if run.world.size == 1 and around.stop():  # several ranks stop after a step, all after the same one
            stop(run, around)
        run.freezing.apply(run.model.train(), epoch)
        begun = time.monotonic()
        for batch in started(run, data.epoch(epoch, run.step - epoch * data.steps_per_epoch), around):
            asked = train_step(run, batch, around.stop())
            run.window.seconds += time.monotonic() - begun
            around.advance(1)
            last = run.step == (epoch + 1) * data.steps_per_epoch
            if run.step % run.settings.log_every == 0 and not last:
                log(run, epoch, {}, around)
            if asked or (run.world.size == 1 and around.stop()):
                stop(run, around)
            if run.step % run.settings.checkpoint_every == 0 and not last:
                around.save(run)
            if around.plain and time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                around.say(f"epoch {epoch + 1}/{run.settings.epochs}  step {run.step:,}")
            begun = time.monotonic()
        finish_epoch(run, epoch, data, validation, around)


def train_step(run: Run, batch: Batch, asked: int = 0) -> bool:
    """One update of the weights from one batch, the model in train mode; returns whether any rank was sent a signal."""
    seed(run, run.world.rank)  # what dropout draws from
    for regularizer in run.regularizers:
        batch = regularizer.on_batch(batch)
    sharper = next((regularizer for regularizer in run.regularizers if regularizer.sharpens), None)
    sums = forward_backward(run, batch) if sharper is None else sharpened(run, batch, sharper)
    run.scaler.unscale_(run.optimizer)
    gradients = gradients_of(run.optimizer)
    run.world.sum_gradients_(gradients)
    if run.regularizers:
        seed(run)  # alike on every rank, as the gradients are
    for regularizer in run.regularizers:
        regularizer.on_gradients(run.model, run.step)
    norm = total_norm(gradients)
    loss, correct, anyone = run.world.sum_(torch.stack([*sums, sums[0].new_tensor(float(asked))])).tolist()
    lr = run.lr(run.step)
    refuse_non_finite(run, batch, loss / batch.total, float(norm), lr)
    clip(gradients, norm, run.settings)
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    drop_gradients(run.optimizer)
    for regularizer in run.regularizers:
        regularizer.on_weights(run.model, run.step)
    run.step += 1
    if run.averaged is not None and run.settings.ema:
        average(run.averaged, run.model, run.settings.ema, run.step)
    atomic_io.point("step")
    run.window.loss += loss
    run.window.correct += int(correct)
    run.window.samples += batch.total
    return bool(anyone)


def seed(run: Run, *numbers: int) -> None:
    """Set the random stream to what belongs to this step and these numbers."""
    seeder(run.device)(fold(run.settings.seed, run.step, *numbers) % 2**63)


def gradients_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def drop_gradients(optimizer: torch.optim.Optimizer) -> None:
    """The optimizer's zero_grad, without its 50 µs."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients as one vector; torch's get_total_norm takes twice as long for a small network's."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) if gradients else torch.zeros(())


def sharpened(run: Run, batch: Batch, regularizer: Regularizer) -> tuple[Tensor, Tensor]:
    """forward_backward of sharpness-aware minimisation: the gradients are of other weights, the sums of these."""
    seed(run, run.world.rank, 1)
    sums = forward_backward(run, batch)
    run.world.sum_gradients_(gradients_of(run.optimizer))
    with regularizer.ascended(run.model):
        drop_gradients(run.optimizer)
        seed(run, run.world.rank, 1)  # the same dropout masks
        forward_backward(run, batch)
    return sums


def forward_backward(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients of the batch's mean loss, computed in parts; returns the sum of losses and the right answers."""
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    penalties = [regularizer.penalty(run.model) for regularizer in run.regularizers]
    terms = [value for value in penalties if value is not None]
    penalty = sum(terms[1:], terms[0]) if terms else None
    for number, part in enumerate(batch.parts(run.settings.accumulate, run.smallest_share)):
        with autocast(run.dtype, run.device):
            logits = run.network(part.inputs)
        total = run.loss(logits.float(), part.targets).sum()
        objective = total / batch.total
        if number == 0 and penalty is not None:
            objective = objective + penalty / run.world.size  # ranks add up
        run.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        answers = part.targets if part.targets.ndim == 1 else part.targets.argmax(dim=1)
        losses.append(total.detach() if penalty is None else total.detach() + penalty.detach() * len(part))
        correct.append((logits.detach().argmax(dim=1) == answers).sum())
    return sum(losses[1:], losses[0]), sum(correct[1:], correct[0]).float()


def refuse_non_finite(run: Run, batch: Batch, loss: float, norm: float, lr: float) -> None:
    """Stop before the optimizer sees a loss or gradient that is not finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        run.skipped = 0
        return
    run.skipped += 1
    if run.scaler.is_enabled() and math.isfinite(loss) and run.skipped < SKIPS_IN_A_ROW:
        return  # fp16 overflowed: the scaler skips this step and lowers its scale
    samples = ", ".join(str(int(index)) for index in batch.indices[:8])
    raise DivergedError(
        f"training diverged at step {run.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, lr {lr:.4g} (samples "
        f"{samples}, …). The weights are untouched and the last checkpoint is kept. Try a lower --lr or --clip-grad 1."
    )


def clip(gradients: Sequence[Tensor], norm: Tensor, settings: Train) -> None:
    """Clip by the norm of all gradients together, or each number by value."""
    if settings.clip_grad is None or not gradients:
        return
    if settings.clip_mode == "value":
        torch._foreach_clamp_max_(list(gradients), settings.clip_grad)
        torch._foreach_clamp_min_(list(gradients), -settings.clip_grad)
    else:
        torch._foreach_mul_(list(gradients), torch.clamp(settings.clip_grad / (norm + 1e-6), max=1.0))


def average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """EMA: averaged ← d · averaged + (1 − d) · model, with d = min(decay, (1 + step) / (10 + step)) early on."""
    move_towards(averaged, model, 1 - min(decay, (1 + step) / (10 + step)))


@torch.no_grad()
def validate(run: Run, batches: Iterator[Batch], stop: Callable[[], int]) -> dict[str, float] | None:
    """Loss, top-1 and top-5 accuracy over a split, as eval reports them, or None if a signal came meanwhile.

    Where one is monitored, also macro F1 and balanced accuracy.
    """
    model, per_class = run.evaluated.eval(), run.settings.monitor in CLASS_AVERAGES
    confusion = torch.zeros((run.classes,) * 2, dtype=torch.int64)
    sums = torch.zeros(5, dtype=torch.float64)  # loss, top-1, top-5, samples, signals
    for batch in batches:
        with autocast(run.dtype, run.device):
            logits = model(batch.inputs)
        logits, targets = logits.float().cpu(), batch.targets.cpu()
        sums[0] += run.validation_loss(logits, targets).double().sum()
        if run.classes:
            sums[1] += metrics.topk_correct(logits, targets, 1).sum()
            sums[2] += metrics.topk_correct(logits, targets, min(5, logits.shape[1])).sum()
        if per_class:
            confusion += metrics.confusion_matrix(targets, metrics.ranked(logits, 1)[:, 0], run.classes)
        sums[3] += len(batch)
        atomic_io.point("eval")
        if stop() and run.world.size == 1:
            return None
    sums[4] = stop()
    if run.world.size > 1:
        sums = run.world.sum_(sums.to(run.device))
    loss, top1, top5, samples, signals = sums.tolist()
    if signals:
        return None
    accuracies = {"val/top1": top1 / samples, "val/top5": top5 / samples} if run.classes else {}
    if per_class:
        accuracies |= class_averages(run.world.sum_(confusion.to(run.device)))
    return {"val/loss": loss / samples, **accuracies}


def class_averages(confusion: Tensor) -> dict[str, float]:
    """What counts all classes alike, from a confusion matrix (K, K)."""
    scores = metrics.class_scores(confusion.cpu().numpy())
    return dict(zip(CLASS_AVERAGES, (metrics.macro_means(scores).f1, metrics.balanced_accuracy(scores)), strict=True))


@torch.no_grad()
def estimate_norms(run: Run, batches: Iterator[Batch], count: int, around: Surroundings) -> None:
    """Batch norm's statistics for the averaged weights from the first `count` batches, alike on every rank."""
    with estimating_norms(run.evaluated, run.model) as statistics, closing(started(run, batches, around)) as opened:
        for batch in islice(opened, count):
            with autocast(run.dtype, run.device):
                run.evaluated(batch.inputs)
            atomic_io.point("eval")
            if run.world.size == 1 and around.stop():
                stop(run, around)  # they are estimated anew after the resume
    for tensor in statistics:
        run.world.sum_(tensor).div_(run.world.size)


def finish_epoch(
    run: Run,
    epoch: int,
    data: TrainingData,
    validation: Callable[[], Iterator[Batch]] | None,
    around: Surroundings,
) -> None:
    """Validate, log, remember the best, save."""
    for regularizer in run.regularizers:
        count = regularizer.norm_batches(run.step)
        if count:
            estimate_norms(run, data.epoch(epoch), count, around)
    results: dict[str, Any] | None = {}
    if validation is not None:
        run.world.share_buffers_(run.evaluated)  # rank 0's are saved: a resumed run validates with the same
        with closing(started(run, validation(), around)) as batches:
            results = validate(run, batches, around.stop)
    if results is None:  # this epoch's validation is made up for after the resume
        stop(run, around)
    receipt = {"weights_sha256": weights_sha256(run.model, run.averaged)} if run.world.leads else {}
    line = log(run, epoch, results | receipt, around)
    run.epochs_done = epoch + 1
    keep_best(run, line)
    around.say(epoch_line(run, line))
    around.save(run)


def keep_best(run: Run, line: dict[str, Any]) -> None:
    """Compare this epoch with the best; a value that is not finite is never the best. Patience counts no ties.

    With train.select=last the last epoch counts as the best.
    """
    monitor, loss = run.settings.monitor, line.get("val/loss", math.nan)
    epoch = Best(run.step, run.epochs_done, line.get(monitor, math.nan), loss if math.isfinite(loss) else None)
    best, finite = run.best, math.isfinite(epoch.value)
    improved = finite and (best is None or epoch.key(monitor)[0] > best.key(monitor)[0])
    run.stale = 0 if improved else run.stale + 1
    if finite and (best is None or run.settings.select == "last" or epoch.key(monitor) >= best.key(monitor)):
        run.best = epoch


def out_of_patience(run: Run) -> bool:
    return run.settings.patience is not None and run.stale >= run.settings.patience


def log(run: Run, epoch: int, results: dict[str, Any], around: Surroundings) -> dict[str, Any]:
    """Write one line of metrics.jsonl and begin a new window."""
    window = run.window
    samples = max(window.samples, 1)
    line = {
        "step": run.step,
        "epoch": epoch + 1,
        "train/loss": window.loss / samples,
        **({"train/top1": window.correct / samples} if run.classes else {}),
        **{name: value for part in run.regularizers for name, value in part.metrics(run.model).items()},
        **results,
        "lr": run.lr(max(run.step - 1, 0)),
        f"{run.counted}_per_s": round(window.samples / window.seconds, 1) if window.seconds else 0.0,
    }
    run.metrics_lines += 1
    run.window = Window()
    around.log(line)
    return line


def epoch_line(run: Run, line: dict[str, Any]) -> str:
    """epoch 3/10  train loss 0.0512  val loss 0.0433  top-1 98.72 %  12,345 images/s  best."""
    parts = [f"epoch {line['epoch']}/{run.settings.epochs}", f"train loss {line['train/loss']:.4f}"]
    if "val/loss" in line:
        parts.append(f"val loss {line['val/loss']:.4f}")
    if "val/top1" in line:
        parts.append(f"val top-1 {100 * line['val/top1']:.2f} %")
    if (monitor := run.settings.monitor) in CLASS_AVERAGES and monitor in line:
        parts.append(f"{monitor.replace('/', ' ').replace('_', ' ')} {100 * line[monitor]:.2f} %")
    parts.append(f"{line[f'{run.counted}_per_s']:,.0f} {run.counted}/s")
    is_best = run.best is not None and run.best.epoch == line["epoch"]
    return "  ".join(parts + (["best"] if is_best else []))


def started(run: Run, batches: Iterator[Batch], around: Surroundings) -> Generator[Batch]:
    """The batches; if reading one fails, the run is saved first. A worker's death may be the stop itself."""
    try:
        yield from batches
    except DlkitError:
        if around.stop():
            stop(run, around)
        around.save(run)
        raise


def stop(run: Run, around: Surroundings) -> NoReturn:
    """Save, and end with the signal's own code."""
    around.save(run)
    message = f"stopped at step {run.step}; everything is saved. Go on with --resume."
    raise StoppedError(message, around.stop() or signal.SIGTERM)  # or: another rank was sent it
