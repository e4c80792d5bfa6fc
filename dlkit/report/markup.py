"""HTML put together so that nothing a file or a class is called can become a part of it.

An element's children and attributes are escaped unless they are Markup already, and only `element` and `raw` make
Markup. Control characters, lone surrogates, and marks that reorder text are shown as �.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
VOID = frozenset({"br", "col", "img", "line", "circle", "rect", "path", "polyline", "meta", "link"})
IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


class Markup(str):
    """Text that is HTML already."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """One element; class_ is class, data_value data-value; an attribute that is None or False is left out."""
    given = "".join(
        f" {_name(name)}" if value is True else f' {_name(name)}="{_text(value)}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{given}/>" if tag in VOID else f"<{tag}{given}>{joined(children)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """The parts one behind the other; None is nothing."""
    return Markup("".join(_text(part) for part in parts if part is not None))


def raw(text: str) -> Markup:
    """Our own HTML, taken as it is."""
    return Markup(text)


def clean(text: str) -> str:
    """Text without what could drive or reorder what is around it."""
    return UNSAFE.sub("�", text)


def script_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(re.sub("[<>&]", lambda found: IN_SCRIPT[found[0]], text))


def _name(name: str) -> str:
    return {"class_": "class", "for_": "for"}.get(name, name.replace("_", "-"))


def _text(value: object) -> str:
    return value if isinstance(value, Markup) else escape(clean(str(value)))
