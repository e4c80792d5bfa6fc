"""The model to explain: its shuffled copies, its layers, and the methods that fit it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlkit import registry
from dlkit.data.batches import normalize
from dlkit.data.inputs import InputLike, LoadedInput, ReadAhead, inputs
from dlkit.data.text.encoding import size
from dlkit.data.text.treebank import ParsedTree
from dlkit.errors import DataError, UsageError
from dlkit.explanation import faithfulness
from dlkit.explanation.methods._layers import select_layer, spatial_layers
from dlkit.explanation.records import suggest
from dlkit.explanation.views import ImageView, TextView, View
from dlkit.inference.torch_classifier import TextClassifier, torch_classifier
from dlkit.specs import ImageSpec, SequenceSpec
from dlkit.training.restore import Restored

REGISTRY = "explainers"
READ_AHEAD = 8  # inputs
MAX_WORDS = 1000  # of a text: the cost of occlusion grows with their square
CHEAP_OPTIONS = {"samples": 1, "steps": 1, "most": 1}  # to test whether a method fits a model

Say = Callable[[str], None]


class ExplainedModel:
    """A restored model with what explanations need of it."""

    def __init__(self, restored: Restored, seed: int | None, say: Say) -> None:
        self.restored, self.network, self.spec = restored, restored.model, restored.spec
        self.name, self.say = restored.recipe.model.name, say
        self.seed = restored.recipe.train.seed if seed is None else seed
        self._shuffled: list[nn.Module] = []
        self._random: bool | None = None

    def view(self, content: Any) -> View:
        """The view of an input's content: pixels (C, H, W), words or a tree."""
        if isinstance(self.spec, ImageSpec):
            pixels = torch.from_numpy(content[None]).to(self.restored.device)
            return ImageView(self.network, self.restored.link, self.shuffled, normalize(pixels, self.spec), content)
        classifier = torch_classifier(self.network, self.restored.device, self.spec, self.restored.link)
        assert isinstance(classifier, TextClassifier)
        return TextView.create(self.shuffled, classifier, content)

    def read(self, paths: Iterable[InputLike]) -> Iterator[LoadedInput]:
        """The inputs of the paths, in order, with a warning for each note about them."""
        with closing(ReadAhead(inputs(paths, self.spec), self.spec, READ_AHEAD)) as ahead:
            for batch in ahead.batches(1, None):
                for item in batch:
                    for note in item.notes:
                        self.say(f"warning: {note}")
                    yield self._check_length(item)

    def _check_length(self, item: LoadedInput) -> LoadedInput:
        """The item, or an error in its stead if the text is too long."""
        if not isinstance(item.content, list | ParsedTree):
            return item
        longest = self.spec.longest if isinstance(self.spec, SequenceSpec) else None
        count = min(size(item.content), longest or size(item.content))
        if count <= MAX_WORDS:
            return item
        unit = "words" if isinstance(item.content, list) else "nodes"
        return replace(item, content=DataError(f"{item.name}: {count:,} {unit}; explain takes up to {MAX_WORDS:,}."))

    def options(self, method: str, layer: str | None) -> dict[str, Any]:
        """The layer and the seed, if the method takes them."""
        known = registry.entry(REGISTRY, method).options
        return {name: value for name, value in {"layer": layer, "seed": self.seed}.items() if name in known}

    def blank_image(self) -> Tensor:
        spec = self.restored.image_spec
        return torch.zeros(1, spec.channels, spec.height, spec.width, device=self.restored.device)

    def layers(self) -> dict[str, tuple[int, int, int]]:
        return spatial_layers(self.network, self.blank_image())

    def default_layer(self) -> str | None:
        try:
            return select_layer(self.network, self.blank_image(), None)
        except UsageError:
            return None

    def check_layer(self, layer: str, flag: str = "--layer") -> None:
        """Raises: UsageError if the model has no such layer with feature maps; the message lists those that exist."""
        layers = self.layers()
        if layer not in layers:
            raise UsageError(
                f"{flag} {layer}: {self.name} has no such layer with feature maps. {suggest(layer, layers)}"
            )

    def supported_methods(self, methods: Sequence[str] | None, layer: str | None) -> list[str]:
        """Those of the methods that can explain this model; None selects its default method.

        Raises:
            UsageError: the only method given cannot explain the model.
        """
        if layer is not None:
            self.check_layer(layer)
        if methods is None:
            return [self._default_method() if layer is None else "grad_cam"]
        view = self._dummy_view()
        targets = view.inputs.new_zeros(1).long()
        supported = []
        for name in methods:
            try:
                if name != "occlusion":  # it fits every model, and has no cheap form
                    options = self.options(name, layer) | _cheap_options(name)
                    registry.load(REGISTRY, name).explain(view.model, view.inputs, targets, **options)
                supported.append(name)
            except UsageError as error:
                if len(methods) == 1:
                    raise UsageError(f"{self.name}: {error}") from None
                self.say(f"{name} is skipped: {error}")
        return supported

    def _dummy_view(self) -> View:
        """An input for testing whether a method fits."""
        if isinstance(self.spec, ImageSpec):
            return ImageView(self.network, self.restored.link, self.shuffled, self.blank_image(), None)
        return self.view(["?"] if isinstance(self.spec, SequenceSpec) else ParsedTree([None], ["?"], [-1], [0]))

    def _default_method(self) -> str:
        if not isinstance(self.spec, ImageSpec):
            return "integrated_gradients"
        if getattr(self.network, "grid", None) is None and self.default_layer() is not None:
            return "grad_cam"
        return "attention_rollout" if hasattr(self.network, "grid") else "integrated_gradients"

    def shuffled(self, count: int) -> list[nn.Module]:
        """`count` copies of the network, each with its weights in a different order."""
        for number in range(len(self._shuffled), count):
            self._shuffled.append(faithfulness.shuffle_weights(self.network, self.seed + number))
        return self._shuffled[:count]

    def has_random_weights(self) -> bool:
        """Whether the network's weights are indistinguishable from random ones; warns once if they are."""
        if self._random is None:
            self._random = faithfulness.has_random_weights(self.network, self.seed)
            if self._random:
                self.say(
                    f"warning: the weights of {self.name} are indistinguishable from random ones: its explanations are "
                    "those of an untrained network, and are flagged. Train it longer."
                )
        return self._random


def _cheap_options(method: str) -> dict[str, Any]:
    known = registry.entry(REGISTRY, method).options
    return {name: value for name, value in CHEAP_OPTIONS.items() if name in known}
