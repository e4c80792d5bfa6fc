"""Recipe files: what is written reads back the same, and no bytes at all crash the reader."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlkit.config import yaml_file
from dlkit.config.resolve import load
from dlkit.config.schema import Recipe
from dlkit.errors import DlkitError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HARD_TEXT = st.sampled_from([
    "", "~", "null", "no", "010", "1e3", "12:30", "a: b", "- x", "#x", "'", '"', "\\", "\n", "\u2028", "\ufeff", "\x85",
    "x\ty", "[1]", "{", "&a", "*a", "!t", "%Y", "true ", " x", "é", "\U0001f600",
])  # fmt: skip
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**50), 10**50),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    HARD_TEXT,
    st.none(),
)
OPTIONS = st.dictionaries(TEXT | HARD_TEXT, SCALARS, max_size=4)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name": draw(TEXT | HARD_TEXT), "options": draw(OPTIONS), "weights": draw(st.none() | TEXT)},
            "data": {"name": draw(TEXT), "dir": draw(st.none() | HARD_TEXT), "options": draw(OPTIONS),
                     "augment": {"scale": (draw(POSITIVE), draw(POSITIVE)), "erasing": draw(st.floats(0, 1))}},
            "optimizer": {"lr": draw(POSITIVE), "nesterov": draw(st.booleans()), "eps": draw(POSITIVE)},
            "regularizers": draw(st.dictionaries(TEXT, OPTIONS, max_size=2)),
            "train": {"seed": draw(st.integers(0, 2**63 - 1)), "patience": draw(st.none() | st.integers(1, 99))},
        }
    )  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes(), st.sampled_from(["CSafeLoader", "SafeLoader"]))
def test_a_written_recipe_reads_back_the_same(recipe: Recipe, loader: str) -> None:
    text = yaml_file.dump(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_file, "LOADER", getattr(yaml, loader, yaml.SafeLoader))
        again = yaml_file.parse(text.encode(), "recipe.yaml").values
    assert Recipe.model_validate(again) == recipe
    assert repr(Recipe.model_validate(again)) == repr(recipe)  # types too: 1 is not 1.0, -0.0 not 0.0


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Bytes flipped, cut, doubled and swapped, and words that YAML gives a meaning put in."""
    words = [
        b"*", b"&a ", b"!!", b": ", b"- ", b"[", b"{", b"\n", b"\t", b"#", b"'", b'"', b"\0", b"\xff", b"1e999", b"~",
        b"9" * 400, b"\n---\n", b"...\n", b"? ", b"| ", b"%", b"\xef\xbb\xbf", b"null", b"true", b"-1", b".nan",
    ]  # fmt: skip
    dice = random.Random(seed)
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            start = dice.randrange(len(mutant) + 1)
            end = min(len(mutant), start + dice.choice([0, 1, 1, 8, 60]))
            mutant[start:end] = dice.choice(
                [dice.choice(words), mutant[start:end] * 2, bytes([dice.randrange(256)]), b""]
            )
        yield bytes(mutant)


def check_mutants(count: int, recipe: Path) -> None:
    outcomes = set()
    for number, name in enumerate(yaml_file.shipped_names()[:5]):
        path = yaml_file.shipped_path(name)
        assert path is not None
        for mutant in mutations(path.read_bytes(), count, seed=number):
            recipe.unlink(missing_ok=True)  # a new file is quicker than one cut to nothing
            recipe.write_bytes(mutant)
            try:
                load(recipe)
                outcomes.add(0)
            except DlkitError as error:
                assert error.exit_code == 2 and "\n" not in str(error).strip(), mutant
                outcomes.add(2)
    assert outcomes == {0, 2}


def test_a_mutated_recipe_is_read_or_refused_and_never_crashes(recipe: Path) -> None:
    check_mutants(400, recipe)


@pytest.mark.slow
def test_many_mutated_recipes_are_read_or_refused_and_never_crash(recipe: Path) -> None:
    check_mutants(10_000, recipe)
