"""Tokenization: text to words, the same way for training, predictions and exported files.

The rules have names (dlkit.specs.Tokenization), which a run's spec keeps:

words     Penn Treebank words in lower case: "Don't!" is do, n't and !
unicode   words of Unicode Standard Annex 29 in lower case, without white space: "Don't!" is don't and !. Combining
          marks stay with their letters, and an emoji sequence is one word. Scripts without spaces between words (Han,
          kana, Thai, Lao, Khmer, Myanmar, …), which need a dictionary, are split into characters with their marks.
space     split at white space, otherwise unchanged

The patterns are for `re`, so that programs without dlkit can apply the one that an exported file documents.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal
from unicodedata import category, normalize

from dlkit.specs import Tokenization

TREEBANK = re.compile(
    r"\w+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b"  # contractions, split as in the treebank
    r"|\d+(?:[.,:]\d+)*\w*|\w+(?:-\w+)*|\.\.\.|--|[^\w\s]"
)
ESCAPES = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}", "``": '"', "''": '"'}
CURLY = {"‘": "'", "’": "'", "“": '"', "”": '"', "\0": " "}
# the zero-width space separates words; soft hyphens, direction marks and similar characters do not
INVISIBLE = {"\u200b": " "} | dict.fromkeys(
    "\u00ad\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff", ""
)

UNSPACED = (  # letters of scripts without spaces between words
    "\u0e00-\u0e4f\u0e81-\u0ecf\u0edc-\u0eff"  # Thai, Lao
    "\u1000-\u103f\u104a-\u108f\u109a-\u109f\ua9e0-\ua9ef\ua9fa-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17df\u1950-\u19cf\u19da-\u19df\u1a20-\u1a7f\u1aa0-\u1aaf\uaa80-\uaadf\U00011700-\U0001172f"  # Khmer, Tai
    "\u1b00-\u1b4f\ua980-\ua9cf"  # Balinese, Javanese
    "\u3005-\u3007\u3021-\u3029\u3031-\u303c\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b2ff"  # kana
    "\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00016fe0-\U00018dff\U00020000-\U0003ffff"  # Han, Tangut
)
JOINERS = "\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # also skin tones and tags of emoji
AFTER_BASE = "\u0e33\u0eb3"  # vowel signs of Thai and Lao that Unicode calls letters
MARKED_PLANES = (range(0x20000), range(0xE0100, 0xE01F0))  # all that contain combining marks


@cache
def words_pattern() -> re.Pattern[str]:
    """Matches words and symbols: each character that is not white space is in one match."""
    mark = _marks() + JOINERS + AFTER_BASE
    letter, end = rf"[^\W\d_{UNSPACED}]", rf"[{mark}]*"
    joined = (
        rf"(?:(?<=[^\W\d_])|(?<=[{mark}]))[:·.'](?={letter})"  # don't, e.g
        r"|(?<=\d)[.,;'](?=\d)"  # 3.5
        r'|(?<=[\u05d0-\u05ea])"(?=[\u05d0-\u05ea])'  # Hebrew abbreviations
    )
    plain = rf"(?:[^\W{UNSPACED}]|\d){end}"
    return re.compile(
        rf"[\U0001f1e6-\U0001f1ff]{{2}}{end}"  # flags
        r"|[0-9#*]\ufe0f?\u20e3"  # keycaps
        rf"|{plain}(?:(?:{joined})?{plain})*"
        rf"|[{UNSPACED}]{end}"
        rf"|[^\w\s]{end}(?:(?<=\u200d)[^\w\s]{end})*"  # symbols; 👩‍👧 is one
    )


def _marks() -> str:
    """Combining marks as ranges of a character class."""
    marks = [code for plane in MARKED_PLANES for code in plane if category(chr(code)).startswith("M")]
    starts = [code for code, before in zip(marks, [-1, *marks], strict=False) if code != before + 1]
    ends = [code for code, after in zip(marks, [*marks[1:], -1], strict=True) if code != after - 1]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


def tokenize(text: str, tokens: str) -> list[str]:
    """Split text into words by the rules named `tokens` (dlkit.specs.Tokenization)."""
    if tokens == "space":
        return text.split()
    rules = Tokenization.parse(tokens)
    replacements = {ord(char): other for char, other in _replacements(rules).items()}
    return _pattern(rules).findall(_normalize(text.translate(replacements), rules))


def describe_rules(tokens: str) -> dict[str, Any]:
    """The rules for programs without dlkit: the steps in order, and their arguments."""
    if tokens == "space":
        return {"split": "white space"}
    rules = Tokenization.parse(tokens)
    form = {} if rules.normalize == "none" else {"normalize": rules.normalize.upper()}
    steps = ["replace", *form, *(["lower", *form] if rules.lower else []), "find_all"]
    arguments = {"replace": _replacements(rules), **form, "lower": rules.lower, "find_all": _pattern(rules).pattern}
    return {"steps": steps, **arguments}


def unescape_word(word: str, tokens: str) -> str:
    """A treebank word with its escapes replaced: -LRB- by (, 1\\/2 by 1/2."""
    if tokens == "space":
        return word
    word = _normalize(word, Tokenization.parse(tokens))
    return ESCAPES.get(word.lower()) or word.replace("\\/", "/").replace("\\*", "*")


def _pattern(rules: Tokenization) -> re.Pattern[str]:
    return TREEBANK if rules.tokenizer == "words" else words_pattern()


def _replacements(rules: Tokenization) -> dict[str, str]:
    return CURLY if rules.tokenizer == "words" else CURLY | INVISIBLE


def _normalize(text: str, rules: Tokenization) -> str:
    """Unicode normalization before and after lower-casing, which can decompose letters."""
    text = _compose(text, rules)
    return _compose(text.lower(), rules) if rules.lower else text


def _compose(text: str, rules: Tokenization) -> str:
    if rules.normalize == "none":
        return text
    form: Literal["NFC", "NFKC"] = "NFC" if rules.normalize == "nfc" else "NFKC"
    return normalize(form, text)
