"""Frozen layers: they keep the weights they start from, until they thaw.

A frozen parameter gets no gradient, no decay and no moments; a batch norm whose parameters are all frozen keeps its
statistics too, and uses them. What started from scratch is never frozen. Gradual unfreezing thaws the last frozen layer
first (Howard and Ruder, "Universal language model fine-tuning for text classification", 1801.06146). What is frozen is
a function of the epoch, so that a resume needs no state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from dlkit.errors import UsageError
from dlkit.layers.order import NamedLayer, layers, matching

Say = Callable[[str], None]
Unfreeze = int | Sequence[int] | None  # epochs between two thaws, or those after which one comes


@dataclass(frozen=True)
class Freezing:
    """The frozen parameters of a network by name, a group a layer, first to last, and when they thaw."""

    groups: tuple[tuple[str, ...], ...] = ()
    unfreeze: Unfreeze = None

    def frozen(self, epoch: int) -> set[str]:
        """The parameters that do not train in this epoch (from 0)."""
        if self.unfreeze is None:
            thawed = 0
        elif isinstance(self.unfreeze, int):
            thawed = epoch // self.unfreeze
        else:
            thawed = sum(epoch >= done for done in self.unfreeze)
        return {name for group in self.groups[: max(len(self.groups) - thawed, 0)] for name in group}

    def freeze_for_good(self, model: nn.Module) -> None:
        """Freeze what never thaws: an optimizer that is built now leaves it out."""
        if self.unfreeze is None:
            self.apply(model, 0)

    def apply(self, model: nn.Module, epoch: int) -> None:
        """Let train what trains in this epoch, the network being in train mode; norms without it go to eval mode."""
        if not self.groups:
            return
        frozen = self.frozen(epoch)
        named = dict(model.named_parameters())
        for name in (name for group in self.groups for name in group):
            named[name].requires_grad_(name not in frozen)
        for prefix, module in model.named_modules():
            names = {name for name, _ in module.named_parameters(prefix, recurse=False)}
            if names and names <= frozen and getattr(module, "running_mean", None) is not None:
                module.eval()


NOTHING_FROZEN = Freezing()


def choose_frozen(
    model: nn.Module, freeze: int | str | None, unfreeze: Unfreeze, scratch: Sequence[str], say: Say
) -> Freezing:
    """What a recipe freezes in a network: its first layers by their number, or the parameters that a pattern fits.

    Raises:
        UsageError: it would freeze nothing, or all.
    """
    if freeze is None:
        return NOTHING_FROZEN
    found = layers(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad} - set(scratch)
    if isinstance(freeze, int) and freeze >= len(found):
        raise UsageError(f"train.freeze is {freeze}, and there are {len(found)} layers: {_named(found)}.")
    chosen = found[:freeze] if isinstance(freeze, int) else found
    groups = []
    for layer in chosen:
        names = layer.parameters if isinstance(freeze, int) else matching(layer.parameters, freeze)
        groups.append(tuple(name for name in names if name in trained))
    result = Freezing(tuple(group for group in groups if group), unfreeze)
    _check_freezing(model, result, freeze, found)
    _tell_freezing(model, result, len(found), say)
    return result


def _check_freezing(model: nn.Module, result: Freezing, freeze: int | str, found: Sequence[NamedLayer]) -> None:
    if not result.groups:
        raise UsageError(f"train.freeze {freeze} freezes nothing that was taken over. The layers: {_named(found)}.")
    if all(name in result.frozen(0) for name, parameter in model.named_parameters() if parameter.requires_grad):
        raise UsageError(f"train.freeze {freeze} leaves nothing to train. The layers: {_named(found)}.")


def _tell_freezing(model: nn.Module, result: Freezing, count: int, say: Say) -> None:
    frozen, sizes = result.frozen(0), {name: weight.numel() for name, weight in model.named_parameters()}
    numbers = f"{sum(sizes[name] for name in frozen):,} of {sum(sizes.values()):,} parameters"
    thaws = "" if result.unfreeze is None else "; the last of them thaws first"
    say(f"frozen: {len(result.groups)} of {count} layers, {numbers}{thaws}")


def _named(found: Sequence[NamedLayer]) -> str:
    names = [layer.name for layer in found]
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:9])}, … {', '.join(names[-2:])}"
