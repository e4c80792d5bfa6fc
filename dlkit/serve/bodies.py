"""What the body of a request holds: one image or text, or several as a form or as a JSON list."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dlkit.errors import DataError, UsageError
from dlkit.serve.limits import Refused

MAX_INPUTS = 64  # of a request
KEYS = {"images": "image"}  # of a JSON object: else text
RAW = (
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "",
)  # the second is what curl --data-binary sends


@dataclass(frozen=True)
class Inputs:
    """The inputs of a request with the names that their records carry; a list is answered by a list."""

    items: tuple[tuple[str, bytes], ...]
    is_list: bool


def parse(content_type: str, body: bytes, reads: str) -> Inputs:
    """The inputs in a body; `reads` is the kind of the model's spec.

    Raises: Refused: an unknown type, malformed JSON or form, or more than MAX_INPUTS.
    """
    kind, options = parse_options_header(content_type)
    name = kind.decode("latin-1").lower()
    if name == "multipart/form-data":
        items = _Form(options.get(b"boundary", b"")).items(body)
        return _bounded([(given or f"-:{number}", data) for number, (given, data) in enumerate(items, start=1)])
    if name == "application/json":
        return _of_json(body, KEYS.get(reads, "text"))
    if name in RAW or name.startswith(("image/", "text/")):
        return Inputs((("-", body),), False)
    what = f"a body of type {name[:60]!r} is not read. Send the file itself, a form (multipart/form-data) or JSON."
    raise Refused(415, UsageError.exit_code, what)


def _bounded(items: list[tuple[str, bytes]]) -> Inputs:
    if not 1 <= len(items) <= MAX_INPUTS:
        what = f"the request has {len(items)} inputs. Send 1 to {MAX_INPUTS}."
        raise Refused(413 if items else 422, DataError.exit_code, what)
    return Inputs(tuple(items), True)


def _of_json(body: bytes, key: str) -> Inputs:
    expected = f'{{"{key}": "…"}} or a list of them' + (", images in base64" if key == "image" else "")
    try:
        document = json.loads(body)
        if isinstance(document, list):
            return _bounded([(f"-:{n}", _decoded(entry, key)) for n, entry in enumerate(document, start=1)])
        return Inputs((("-", _decoded(document, key)),), False)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused(422, DataError.exit_code, f"the body is not the JSON expected: {expected}.") from error


def _decoded(entry: Any, key: str) -> bytes:
    text = entry[key] if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise TypeError(key)
    if key == "text":
        return text.encode()
    try:  # data:image/png;base64,… or the part behind the comma
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except binascii.Error as error:
        raise ValueError("base64") from error


@dataclass
class _Form:
    """The parts of a form, kept in memory: the body already is, and its size is bounded."""

    boundary: bytes
    parts: list[tuple[str, bytearray]] = field(default_factory=list)
    header: list[bytearray] = field(default_factory=lambda: [bytearray(), bytearray()])  # its name and its value

    def items(self, body: bytes) -> list[tuple[str, bytes]]:
        ended: list[bool] = []
        try:
            parser = MultipartParser(
                self.boundary,
                {
                    "on_part_begin": lambda: self.parts.append(("", bytearray())),
                    "on_part_data": lambda data, start, end: self.parts[-1][1].extend(data[start:end]),
                    "on_header_field": lambda data, start, end: self.header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self.header[1].extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_end": lambda: ended.append(True),
                },
            )
            parser.write(body)
        except (FormParserError, ValueError) as error:
            raise Refused(422, DataError.exit_code, f"the form is malformed: {error}.") from error
        if not ended:
            raise Refused(422, DataError.exit_code, "the form ends too early.")
        return [(name, bytes(data)) for name, data in self.parts]

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self.header)
        if name.lower() == b"content-disposition":
            filename = parse_options_header(value)[1].get(b"filename", b"").decode(errors="replace")
            self.parts[-1] = (filename, self.parts[-1][1])
        self.header = [bytearray(), bytearray()]
