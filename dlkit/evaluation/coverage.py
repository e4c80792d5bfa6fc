"""How much of a text a model reads: words that its vocabulary lacks, and words beyond its longest sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlkit.data.inputs import LoadedInput
from dlkit.data.text.treebank import ParsedTree
from dlkit.specs import ImageSpec, SequenceSpec, Spec


@dataclass(frozen=True)
class Limits:
    unknown: int | None = None  # None: not a text
    truncated: int | None = None
    notes: tuple[str, ...] = ()


class Coverage:
    """Counts both for each text; a kind of note is logged once, and is in the record of every text."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._known = frozenset() if isinstance(spec, ImageSpec) else frozenset(spec.words)
        self._logged: set[str] = set()

    def __call__(self, read: LoadedInput, say: Callable[[str], None]) -> Limits:
        words = self._words(read)
        if words is None:
            return Limits()
        longest = self.spec.longest if isinstance(self.spec, SequenceSpec) else None
        used = words[:longest]
        unknown, truncated = sum(word not in self._known for word in used), len(words) - len(used)
        notes = {}
        if truncated:
            notes["truncated"] = f"{read.name}: truncated: of {len(words):,} words the first {longest} are read."
        if used and unknown == len(used):
            notes["unknown"] = f"{read.name}: no word is in the model's vocabulary."
        for kind in notes.keys() - self._logged:
            self._logged.add(kind)
            say(f"warning: {notes[kind]} Further ones are in the records only.")
        return Limits(unknown, truncated, tuple(notes.values()))

    def _words(self, read: LoadedInput) -> list[str] | None:
        from dlkit.data.text.tokenization import unescape_word

        if isinstance(self.spec, ImageSpec):
            return None
        if isinstance(read.content, ParsedTree):
            return [unescape_word(word, self.spec.tokens) for word in read.content.words if word is not None]
        return read.content if isinstance(read.content, list) else None
