"""The options that every evaluation checks before it works: split, batch size, top-k, passes; and what gates accept."""

from __future__ import annotations

from collections.abc import Callable

from dlkit.errors import UsageError

SPLITS = ("train", "validation", "test")
DEFAULT_TOPK = 5
MAX_PASSES = 1000  # of MC dropout
MEANS = tuple(f"{kind}_{score}" for kind in ("macro", "weighted") for score in ("precision", "recall", "f1"))


def check_split(split: str) -> None:
    """Raises: UsageError if there is no such split."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}. Use {', '.join(SPLITS)}.")


def check_batch_size(batch_size: int) -> None:
    """Raises: UsageError if it is below 1."""
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: a batch has at least 1 sample.")


def resolve_topk(topk: int | None, classes: int, log: Callable[[str], None]) -> int:
    """The k of top-k: by default 5, or the number of classes less 1 if that is smaller.

    Raises:
        UsageError: k is below 1, or not below the number of classes.
    """
    if classes == 0:
        if topk:
            raise UsageError(f"--topk {topk}: the model predicts a number, not classes. Remove --topk.")
        return 0
    if topk is None:
        k = max(1, min(DEFAULT_TOPK, classes - 1))
        if k < DEFAULT_TOPK:
            log(f"top-{k} instead of top-{DEFAULT_TOPK}: the model has {classes} classes")
        return k
    if topk < 1:
        raise UsageError(f"--topk {topk}: k is at least 1.")
    if topk >= classes:
        raise UsageError(f"--topk {topk}: with {classes} classes every prediction counts. Use {classes - 1} or less.")
    return topk


def check_passes(mc_dropout: int | None) -> None:
    """Raises: UsageError if the number of passes is out of range."""
    if mc_dropout is not None and not 1 <= mc_dropout <= MAX_PASSES:
        raise UsageError(f"--mc-dropout {mc_dropout}: the number of passes is 1 to {MAX_PASSES}. Use 20 to 100.")


def gate_names(topk: int) -> tuple[str, ...]:
    """The metrics that are better when higher, for --fail-under; topk is 0 if the model predicts numbers."""
    if topk == 0:
        return ()
    return tuple(dict.fromkeys(("top1", f"top{topk}", "balanced_accuracy", *MEANS)))


def ceiling_names(topk: int, mc_dropout: int | None) -> tuple[str, ...]:
    """The metrics that are better when lower, for --fail-over; topk is 0 if the model predicts numbers."""
    if topk == 0:
        return ("mse", "rmse", "mae")
    uncertainty = () if mc_dropout is None else ("predictive_entropy", "mutual_information")
    return tuple(dict.fromkeys(("loss", "ece", "brier", "top1_error", f"top{topk}_error", *uncertainty)))
