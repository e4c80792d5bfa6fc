"""Valid bytes and documents with something wrong in them, drawn by Hypothesis.

A mutant is a valid file with one to five edits: bits flipped, blocks deleted, repeated, exchanged or inserted, the end
cut off, a part of another valid file put in, numbers replaced by extreme ones. Of a JSON document, keys are deleted or
renamed and values replaced, so that the result is still JSON.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

MOST_EDITS = 5
TEXT_NUMBER = re.compile(rb"\d+")
TEXT_NUMBERS = [b"0", b"-1", b"1e999", b"NaN", b"9" * 5000, b"9223372036854775808", b"4294967295", b"1.5", b"-0"]
BINARY_NUMBERS = [b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 3 + b"\x7f", b"\x80" + b"\0" * 7, b"\1" * 4]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "\0",
    "\n", "é\u202e", "../../etc/passwd", "a" * 10_000, [], [[]], {}, {"": ""}, [None] * 50, "\ud800",
]  # fmt: skip


@st.composite
def mutants(draw: Draw, valid: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of the valid files with one to five edits; `words` are what a format gives a meaning to."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, MOST_EDITS))):
        _edit(draw, data, valid, words)
    return bytes(data)


@st.composite
def json_mutants(draw: Draw, documents: Sequence[Any], finish: Callable[[Any], bytes]) -> bytes:
    """One of the documents with one to three values or keys changed; `finish` writes it, with a new digest if any."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        document = _edited(draw, document)
    return finish(document)


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _edit(draw: Draw, data: bytearray, valid: Sequence[bytes], words: Sequence[bytes]) -> None:
    start = draw(_positions(len(data)))
    end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 4, 8, 60, 500])))
    kinds = ["flip", "overwrite", "delete", "insert", "repeat", "cut", "exchange", "splice", "number", "word"]
    kind = draw(st.sampled_from(kinds))
    if kind == "flip" and start < len(data):
        data[start] ^= 1 << draw(st.integers(0, 7))
    elif kind == "overwrite":
        data[start:end] = draw(st.binary(min_size=end - start, max_size=end - start)) if end - start < 9 else b"\0" * 60
    elif kind == "delete":
        del data[start:end]
    elif kind == "insert":
        data[start:start] = draw(st.binary(min_size=1, max_size=8))
    elif kind == "repeat":
        data[start:end] = bytes(data[start:end]) * draw(st.sampled_from([2, 3, 50]))
    elif kind == "cut":
        del data[start:]
    elif kind == "exchange":
        other = draw(_positions(len(data)))
        size = min(end - start, abs(other - start), len(data) - other)
        data[start : start + size], data[other : other + size] = data[other : other + size], data[start : start + size]
    elif kind == "splice":
        source = draw(st.sampled_from(valid))
        first = draw(_positions(len(source)))
        data[start:end] = source[first : first + draw(st.sampled_from([1, 16, 200, 5000]))]
    elif kind == "number":
        _edit_number(draw, data, start)
    elif words:
        data[start:end] = draw(st.sampled_from(words))


def _positions(size: int) -> st.SearchStrategy[int]:
    """Anywhere, and more often in the header."""
    return st.integers(0, size) | st.integers(0, min(size, 100))


def _edit_number(draw: Draw, data: bytearray, start: int) -> None:
    """A number written in digits, or in the bytes of an integer, becomes an extreme one."""
    match = TEXT_NUMBER.search(data, start)
    if match is not None and match.start() - start < 200:
        data[match.start() : match.end()] = draw(st.sampled_from(TEXT_NUMBERS))
    else:
        size = draw(st.sampled_from([1, 2, 4, 8]))
        data[start : start + size] = draw(st.sampled_from(BINARY_NUMBERS))[:size]


def _edited(draw: Draw, document: Any) -> Any:
    """The document with one value somewhere inside it deleted, renamed, replaced, repeated or nested deeply."""
    holder: Any = [document]
    top, key, value = holder, 0, document
    while isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        holder = value
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        value = holder[key]
    kind = draw(st.sampled_from(["delete", "rename", "replace", "replace", "nest", "repeat", "near"]))
    if kind == "delete" and holder is not top:
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["", "x", f"{key}s", "__class__"]))] = holder.pop(key)
    elif kind == "nest":
        for _ in range(draw(st.sampled_from([1, 30]))):
            value = [value]
        holder[key] = value
    elif kind == "repeat" and isinstance(value, list | str):
        holder[key] = value * 2
    elif kind == "near" and isinstance(value, int | float):
        holder[key] = draw(st.sampled_from([value + 1, -value, value * 2, str(value), [value]]))
    else:
        holder[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return top[0]
