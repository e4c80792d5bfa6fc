"""Documents that carry their own digest: any change of what a reader would use is damage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dlkit import documents
from dlkit.errors import ModelFileError

CONTENT: dict[str, Any] = {
    "schema": "x/1", "step": 12, "lr": 0.1, "best": None, "on": True, "mean": [0.5, 1.0],
    "classes": ["ä", "b\udc80", "c"], "state": {"window": {"loss": 1e-7, "count": 3}},
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    documents.write(tmp_path / "a.json", CONTENT)
    return tmp_path / "a.json"


def test_what_was_written_comes_back_and_a_rewritten_layout_is_no_damage(path: Path) -> None:
    assert documents.read(path, "x/1") == CONTENT
    text = path.read_bytes().decode(errors="surrogateescape")
    path.write_text(json.dumps(json.loads(text)))
    assert documents.read(path, "x/1") == CONTENT


def test_every_mutation_is_damage_or_changes_nothing(path: Path) -> None:
    """Flipped bits, cuts, deleted bytes and keys, other numbers; never another content, never another error."""
    whole, draw, detected = path.read_bytes(), random.Random(0), 0
    keys = list(json.loads(whole.decode(errors="surrogateescape")))
    for trial in range(600):
        at = draw.randrange(len(whole))
        if trial % 3 == 0:
            changed = whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :]
        elif trial % 3 == 1:
            changed = whole[:at] + whole[draw.choice((at + 1, len(whole))) :]
        else:
            document = json.loads(whole.decode(errors="surrogateescape"))
            key = draw.choice(keys)
            document.pop(key) if draw.random() < 0.5 else document.update({key: draw.choice((0, "", None, [], 13))})
            changed = json.dumps(document).encode()
        path.write_bytes(changed)
        try:
            assert documents.read(path) == CONTENT, changed
        except ModelFileError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            detected += 1
    assert detected > 500


def test_a_document_of_an_older_dlkit_is_accepted_and_one_whose_digest_was_lost_is_not(path: Path) -> None:
    document = json.loads(path.read_bytes().decode(errors="surrogateescape"))
    del document["digest"]
    path.write_text(json.dumps(document))
    with pytest.raises(ModelFileError, match="digest"):
        documents.read(path)
    del document["integrity"]
    path.write_text(json.dumps(document))
    assert documents.read(path)["step"] == 12


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 50_000, b'{"a": ' * 50_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff\xfe", b'{"a": 1'],
    ids=["empty", "list", "deep list", "deep objects", "long number", "not UTF-8", "cut"],
)  # fmt: skip
def test_no_bytes_raise_another_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        documents.read(path, advice="Do this.")
    assert str(path) in str(caught.value) and str(caught.value).endswith("Do this.") and len(str(caught.value)) < 300


def test_a_missing_key_is_damage_of_the_file(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"a\.json is damaged: it has no 'threads'"):
        documents.read(path)["threads"]
