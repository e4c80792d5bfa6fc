"""Parsing of a request's body: one image or text, or several as a form or a JSON list."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dlkit.errors import DataError, UsageError
from dlkit.serve.limits import RequestError

MAX_INPUTS = 64  # of a request
KEYS = {"images": "image"}  # of a JSON object: else text
RAW = (
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "",
)  # the second is message curl --data-binary sends


@dataclass(frozen=True)
class RequestInputs:
    """The inputs of a request with the names for their records; the response to a list is a list."""

    items: tuple[tuple[str, bytes], ...]
    is_list: bool


def parse(content_type: str, body: bytes, reads: str) -> RequestInputs:
    """The inputs in a body; `reads` is the kind of the model's spec.

    Raises: RequestError: an unknown type, malformed JSON or form, or more than MAX_INPUTS.
    """
    kind, options = parse_options_header(content_type)
    name = kind.decode("latin-1").lower()
    if name == "multipart/form-data":
        items = _Form(options.get(b"boundary", b"")).items(body)
        return _check_count(
            [(filename or f"-:{number}", data) for number, (filename, data) in enumerate(items, start=1)]
        )
    if name == "application/json":
        return _parse_json(body, KEYS.get(reads, "text"))
    if name in RAW or name.startswith(("image/", "text/")):
        return RequestInputs((("-", body),), False)
    message = (
        f"a body of type {name[:60]!r} is not supported. Send the file itself, a form (multipart/form-data) or JSON."
    )
    raise RequestError(415, UsageError.exit_code, message)


def _check_count(items: list[tuple[str, bytes]]) -> RequestInputs:
    if not 1 <= len(items) <= MAX_INPUTS:
        message = f"the request has {len(items)} inputs. Send 1 to {MAX_INPUTS}."
        raise RequestError(413 if items else 422, DataError.exit_code, message)
    return RequestInputs(tuple(items), True)


def _parse_json(body: bytes, key: str) -> RequestInputs:
    expected = f'{{"{key}": "…"}} or a list of them' + (", images in base64" if key == "image" else "")
    try:
        document = json.loads(body)
        if isinstance(document, list):
            return _check_count([(f"-:{n}", _decode(entry, key)) for n, entry in enumerate(document, start=1)])
        return RequestInputs((("-", _decode(document, key)),), False)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RequestError(422, DataError.exit_code, f"the body is not the expected JSON: {expected}.") from error


def _decode(entry: Any, key: str) -> bytes:
    text = entry[key] if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise TypeError(key)
    if key == "text":
        return text.encode()
    try:  # data:image/png;base64,… or the part after the comma
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except binascii.Error as error:
        raise ValueError("base64") from error


@dataclass
class _Form:
    """The parts of a form in memory, where the body already is; its size is bounded."""

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
            raise RequestError(422, DataError.exit_code, f"the form is malformed: {error}.") from error
        if not ended:
            raise RequestError(422, DataError.exit_code, "the form is incomplete.")
        return [(name, bytes(data)) for name, data in self.parts]

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self.header)
        if name.lower() == b"content-disposition":
            filename = parse_options_header(value)[1].get(b"filename", b"").decode(errors="replace")
            self.parts[-1] = (filename, self.parts[-1][1])
        self.header = [bytearray(), bytearray()]
