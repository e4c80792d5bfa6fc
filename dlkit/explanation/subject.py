"""The network that is asked for reasons: its shuffled copies, its layers, and the methods that fit it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlkit import registry
from dlkit.data.batches import normalize
from dlkit.data.inputs import Ahead, Given, Read, inputs
from dlkit.data.text.encoding import size
from dlkit.data.text.treebank import Parsed
from dlkit.errors import DataError, UsageError
from dlkit.explanation import faithfulness
from dlkit.explanation.methods._layers import chosen_layer, spatial_layers
from dlkit.explanation.records import hints
from dlkit.explanation.views import ImageView, TextView, View
from dlkit.inference.torch_classifier import TextClassifier, torch_classifier
from dlkit.specs import ImageSpec, SequenceSpec
from dlkit.training.restore import Restored

SHELF = "explainers"
READ_AHEAD = 8  # inputs
MOST_WORDS = 1000  # of a text: what is left out in turn costs the square of them

Say = Callable[[str], None]


class Subject:
    """The network, its shuffled copies, and what is known of them."""

    def __init__(self, restored: Restored, seed: int | None, say: Say) -> None:
        self.restored, self.model, self.spec = restored, restored.model, restored.spec
        self.name, self.say = restored.recipe.model.name, say
        self.seed = restored.recipe.train.seed if seed is None else seed
        self._shuffled: list[nn.Module] = []
        self._random: bool | None = None

    def view(self, content: Any) -> View:
        """An input that was read: pixels (C, H, W), words or a tree."""
        if isinstance(self.spec, ImageSpec):
            pixels = torch.from_numpy(content[None]).to(self.restored.device)
            return ImageView(self.model, self.restored.link, self.shuffled, normalize(pixels, self.spec), content)
        classifier = torch_classifier(self.model, self.restored.device, self.spec, self.restored.link)
        assert isinstance(classifier, TextClassifier)
        return TextView.of(self.shuffled, classifier, content)

    def reads(self, paths: Iterable[Given]) -> Iterator[Read]:
        """The inputs that paths stand for, in order; what was forgiven in them is said."""
        with closing(Ahead(inputs(paths, self.spec), self.spec, READ_AHEAD)) as ahead:
            for batch in ahead.batches(1, None):
                for read in batch:
                    for note in read.notes:
                        self.say(f"warning: {note}")
                    yield self._bounded(read)

    def _bounded(self, read: Read) -> Read:
        """A text that is too long is an error."""
        if not isinstance(read.content, list | Parsed):
            return read
        longest = self.spec.longest if isinstance(self.spec, SequenceSpec) else None
        count = min(size(read.content), longest or size(read.content))
        if count <= MOST_WORDS:
            return read
        what = "words" if isinstance(read.content, list) else "nodes"
        return replace(read, content=DataError(f"{read.name}: {count:,} {what}; explain takes up to {MOST_WORDS:,}."))

    def options(self, method: str, layer: str | None) -> dict[str, Any]:
        """Of the layer and the seed, what a method takes."""
        known = registry.entry(SHELF, method).options
        return {name: value for name, value in {"layer": layer, "seed": self.seed}.items() if name in known}

    def blank(self) -> Tensor:
        spec = self.restored.image_spec
        return torch.zeros(1, spec.channels, spec.height, spec.width, device=self.restored.device)

    def layers(self) -> dict[str, tuple[int, int, int]]:
        return spatial_layers(self.model, self.blank())

    def default_layer(self) -> str | None:
        try:
            return chosen_layer(self.model, self.blank(), None)
        except UsageError:
            return None

    def check_layer(self, layer: str, flag: str = "--layer") -> None:
        """Raises: UsageError where no such layer gives maps; the nearest and the others are told."""
        found = self.layers()
        if layer not in found:
            raise UsageError(f"{flag} {layer}: {self.name} has no such layer that gives maps. {hints(layer, found)}")

    def fitting(self, methods: Sequence[str] | None, layer: str | None) -> list[str]:
        """The methods that can explain this network: those named, or None for its own.

        Raises:
            UsageError: a method that was named alone cannot.
        """
        if layer is not None:
            self.check_layer(layer)
        if methods is None:
            return [self._own_method() if layer is None else "grad_cam"]
        view = self._trial()
        targets = view.inputs.new_zeros(1).long()
        fits = []
        for name in methods:
            try:
                if name != "occlusion":  # which fits all, and has no cheap form
                    given = self.options(name, layer) | _cheapest(name)
                    registry.load(SHELF, name).explain(view.model, view.inputs, targets, **given)
                fits.append(name)
            except UsageError as error:
                if len(methods) == 1:
                    raise UsageError(f"{self.name}: {error}") from None
                self.say(f"{name} is left out: {error}")
        return fits

    def _trial(self) -> View:
        """What methods are tried on."""
        if isinstance(self.spec, ImageSpec):
            return ImageView(self.model, self.restored.link, self.shuffled, self.blank(), None)
        return self.view(["?"] if isinstance(self.spec, SequenceSpec) else Parsed([None], ["?"], [-1], [0]))

    def _own_method(self) -> str:
        if not isinstance(self.spec, ImageSpec):
            return "integrated_gradients"
        if self.default_layer() is not None and getattr(self.model, "grid", None) is None:
            return "grad_cam"
        return "attention_rollout" if hasattr(self.model, "grid") else "integrated_gradients"

    def shuffled(self, count: int) -> list[nn.Module]:
        """So many copies of the network, the weights of each in an order of its own."""
        for number in range(len(self._shuffled), count):
            self._shuffled.append(faithfulness.shuffled(self.model, self.seed + number))
        return self._shuffled[:count]

    def looks_random(self) -> bool:
        if self._random is None:
            self._random = faithfulness.looks_random(self.model, self.seed)
            if self._random:
                self.say(
                    f"warning: the weights of {self.name} cannot be told from random ones: its explanations show what "
                    "any untrained network's would, and are flagged. Train it longer."
                )
        return self._random


def _cheapest(method: str) -> dict[str, Any]:
    """Options with which a method costs least, to see whether it fits the network."""
    least = {"samples": 1, "steps": 1, "most": 1}
    return {name: value for name, value in least.items() if name in registry.entry(SHELF, method).options}
