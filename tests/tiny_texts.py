"""Texts and trees in which one word alone decides the class: "gem" or "dull" among words that mean nothing."""

from __future__ import annotations

import csv
import random
from pathlib import Path

DECIDING = {"good": "gem", "bad": "dull"}
FILLERS = ("a", "film", "of", "the", "it", "is", "story", "one", "and", "we", "see", "time")


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    """(text, class), 4 to 10 words each."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        label = draw.choice(list(DECIDING))
        words = draw.choices(FILLERS, k=draw.randint(3, 9))
        words.insert(draw.randrange(len(words) + 1), DECIDING[label])
        found.append((" ".join(words), label))
    return found


def tree(text: str, label: str, draw: random.Random) -> str:
    """The text as a binary tree in brackets, cut at random; every node has the class where the word is below it."""
    words = text.split()

    def node(words: list[str]) -> str:
        name = label if DECIDING[label] in words else "none"
        if len(words) == 1:
            return f"({name} {words[0]})"
        cut = draw.randrange(1, len(words))
        return f"({name} {node(words[:cut])} {node(words[cut:])})"

    return node(words)


def write_table(path: Path, count: int, seed: int) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *texts(count, seed)])


def write_trees(path: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    path.write_text("".join(tree(text, label, draw) + "\n" for text, label in texts(count, seed)))
