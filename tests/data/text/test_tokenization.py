"""Laws of tokenize: Unicode's word boundaries, one cut for one text in every form, and old runs' words as they were."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit.config.resolve import Setting, data_for, load, resolve
from dlkit.data import library
from dlkit.data.text.tokenization import tokenize, unescape_word
from dlkit.errors import ModelFileError, UsageError
from dlkit.specs import TOKENIZATIONS, SequenceSpec, Tokenization, from_json
from dlkit.training.transfer import Start, read_alike
from dlkit.training.weights import Weights

UNICODE = "unicode-nfc"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Don't go!", "do n't go !"),
        ("It’s the director's 1,000th flop...", "it 's the director 's 1,000th flop ..."),
        ("“Mid-level” (really)", '" mid-level " ( really )'),
        ("can't\twon't\nwe'll", "ca n't wo n't we 'll"),
        ("Amélie 日本", "amélie 日本"),
        ("", ""),
    ],
)
def test_text_is_cut_into_the_treebanks_words(written: str, words: str) -> None:
    assert tokenize(written, "words") == tokenize(written, "words-nfc") == words.split()


def test_a_treebanks_escapes_are_the_words_that_text_is_cut_into() -> None:
    assert [unescape_word(word, "words") for word in ("-LRB-", "1\\/2", "``", "Gem")] == ["(", "1/2", '"', "gem"]
    assert (
        unescape_word("U\u0308bel", "words-nfc-cased") == "\u00dcbel"
        and unescape_word("-LRB-", "words-nfc-cased") == "("
    )


@pytest.mark.parametrize(
    ("written", "words"),
    [  # as segmented by UAX 29 (checked against the regex module's word boundaries, \b with the flag w)
        ("Don’t stop: 3.5 or 1,000; e.g. x", "don't stop : 3.5 or 1,000 ; e.g . x"),
        ("well-known foo_bar a3b :-)", "well - known foo_bar a3b : - )"),
        ("हिन्दी में किताब अच्छी है।", "हिन्दी में किताब अच्छी है ।"),
        ("الكِتَابُ جَمِيلٌ می\u200cخواهم", "الكِتَابُ جَمِيلٌ می\u200cخواهم"),
        ('צה"ל வணக்கம் 한국어', 'צה"ל வணக்கம் 한국어'),
        ("👩\u200d👧❤\ufe0f🇩🇪🇫🇷1\ufe0f\u20e3👍🏽!", "👩\u200d👧 ❤\ufe0f 🇩🇪 🇫🇷 1\ufe0f\u20e3 👍🏽 !"),
        # scripts without blanks: characters, each with its marks
        ("这部电影很好。123", "这 部 电 影 很 好 。 123"),
        ("ひらがなカタ\u3099", "ひ ら が な カ ダ"),
        ("ภาษาน้ำ มา", "ภ า ษ า น้ำ ม า"),
        ("ខ្ញុំ မြန်မာ", "ខ្ ញុំ မြ န် မာ"),
        # what cannot be seen parts nothing, the zero-width space aside
        ("\ufeffso\u00adft\u200bx\0y", "soft x y"),
        ("U\u0308BEL Cafe\u0301 I\u0323\u0307", "\u00fcbel caf\u00e9 \u1ecb\u0307"),
        ("", ""),
    ],
)
def test_text_is_cut_into_unicodes_words(written: str, words: str) -> None:
    assert tokenize(written, UNICODE) == words.split(" ") if words else tokenize(written, UNICODE) == []


def test_compatible_letters_and_case_are_options() -> None:
    assert tokenize("ﬁlm Ｇｏｏｄ ℌ", "unicode-nfkc") == ["film", "good", "h"]
    assert tokenize("ﬁlm Good", "unicode-nfc-cased") == ["ﬁlm", "Good"]
    assert Tokenization.parse("unicode-nfkc-cased") == Tokenization("unicode", "nfkc", lower=False)


TEXT = st.text() | st.lists(
    st.sampled_from(["e\u0301", "好", "กำ", "👩\u200d👧", "\u200d", "\ufe0f", "'", ".", "3", "A", " ", "\u0130\u0323"])
).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_words_hold_all_but_blanks_and_are_the_same_in_every_form_of_the_text(text: str) -> None:
    for name, rules in TOKENIZATIONS.items():
        words = tokenize(text, name)
        assert not any(char.isspace() for word in words for char in word), "a vocabulary is stored between blanks"
        if rules.normalize != "none":
            for form in ("NFC", "NFD"):
                assert tokenize(unicodedata.normalize(form, text), name) == words
        if rules.tokenizer == "unicode" and rules.normalize == "none" and not rules.lower:
            kept = [char for char in "".join(words) if char not in "'\"‘’“”"]
            assert kept == [char for char in text if not char.isspace() and char not in _dropped()]


def _dropped() -> str:
    from dlkit.data.text.tokenization import INVISIBLE

    return "".join(INVISIBLE) + "\0'\"‘’“”"


def test_runs_made_before_there_was_a_choice_read_text_as_they_did(tmp_path: Path) -> None:
    """Their spec names "words", their recipe no tokenizer: no normalization, and the treebank's words."""
    spec = from_json({"kind": "sequences", "classes": ["a", "b"], "vocabulary": 3, "features": None, "words": "u",
                      "tokens": "words", "longest": 9})  # fmt: skip
    assert isinstance(spec, SequenceSpec) and tokenize("u\u0308 don't 很好", spec.tokens) == [
        "u",
        "\u0308",
        "do",
        "n't",
        "很好",
    ]
    table = tmp_path / "t.csv"
    table.write_text("text,label\nu\u0308bel 很好,a\nu\u0308bel don't,b\n", encoding="utf-8")
    old = tmp_path / "recipe.yaml"
    old.write_text(f"model: {{name: gru}}\ndata: {{name: text_csv, dir: {table}}}\n")
    for recipe in (load(old), resolve(recipe=old).recipe, resolve("lstm", recipe=old).recipe):
        assert library.splits(recipe.data).spec.tokens == "words"  # type: ignore[union-attr]
    new = resolve("gru", f"text_csv:{table}").recipe
    assert new.data.options == {"tokenizer": "unicode", "normalize": "nfc"}, "stored with the run"
    assert library.splits(new.data).spec.tokens == UNICODE  # type: ignore[union-attr]
    cased = [Setting("data.options.lower", False, ""), Setting("data.options.normalize", "nfkc", "")]
    chosen = resolve("gru", f"text_csv:{table}", settings=cased).recipe
    assert library.splits(chosen.data).spec.tokens == "unicode-nfkc-cased"  # type: ignore[union-attr]
    assert resolve("gru", f"text_csv:{table}", recipe="gru-sst").recipe.data.options["tokenizer"] == "unicode"
    assert "tokenizer" not in resolve("gru", "sst").recipe.data.options
    assert data_for("gru", f"text_csv:{table}", None, {}).options == {}, "another data set is read as the model's own"
    assert data_for("gru", f"text_csv:{table}").options == new.data.options


def test_weights_of_another_tokenization_are_refused_with_the_options_that_fit() -> None:
    old, new = (
        SequenceSpec(("a", "b"), 3, words=(word,), tokens=tokens) for word, tokens in (("u", "words"), ("v", UNICODE))
    )
    start = Start("gru", Weights("old", dict, "gru", spec=old), {}, None)
    with pytest.raises(ModelFileError, match=r"--set data\.options\.tokenizer=words .*normalize=none .*lower=true"):
        read_alike(new, start, print)


def test_an_unknown_tokenizer_is_refused(tmp_path: Path) -> None:
    recipe = resolve("gru", f"text_csv:{tmp_path}", settings=[Setting("data.options.tokenizer", "unicod", "")]).recipe
    with pytest.raises(UsageError, match=r"no tokenizer 'unicod'\. .*unicode"):
        library.splits(recipe.data)
