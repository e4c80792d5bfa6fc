"""Text into words, the same way for training, predictions and exported files.

The rules have names (dlkit.specs.Tokenization), which a run's spec keeps:

words     those of the Penn Treebank, in lower case: "Don't!" is do, n't and !
unicode   those of Unicode Standard Annex 29 in lower case, less the blanks: "Don't!" is don't and !. Marks stay with
          their letters, and an emoji sequence is one word. Scripts that put no blanks between words (Han, kana, Thai,
          Lao, Khmer, Myanmar, …), for which the annex asks a dictionary, are cut into characters with their marks.
space     what stands between blanks, as it is

Written for `re`, so that a program without dlkit can apply the pattern that an exported file documents.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal
from unicodedata import category, normalize

from dlkit.specs import Tokenization

TREEBANK = re.compile(
    r"\w+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b"  # contractions, as the treebank parts them
    r"|\d+(?:[.,:]\d+)*\w*|\w+(?:-\w+)*|\.\.\.|--|[^\w\s]"
)
ESCAPES = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}", "``": '"', "''": '"'}
CURLY = {"‘": "'", "’": "'", "“": '"', "”": '"', "\0": " "}
# invisible: the zero-width space, which parts words, and soft hyphens, direction marks and the like, which do not
INVISIBLE = {"\u200b": " "} | dict.fromkeys(
    "\u00ad\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff", ""
)

UNSPACED = (  # letters of scripts without blanks between words
    "\u0e00-\u0e4f\u0e81-\u0ecf\u0edc-\u0eff"  # Thai, Lao
    "\u1000-\u103f\u104a-\u108f\u109a-\u109f\ua9e0-\ua9ef\ua9fa-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17df\u1950-\u19cf\u19da-\u19df\u1a20-\u1a7f\u1aa0-\u1aaf\uaa80-\uaadf\U00011700-\U0001172f"  # Khmer, Tai
    "\u1b00-\u1b4f\ua980-\ua9cf"  # Balinese, Javanese
    "\u3005-\u3007\u3021-\u3029\u3031-\u303c\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b2ff"  # kana
    "\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00016fe0-\U00018dff\U00020000-\U0003ffff"  # Han, Tangut
)
JOINERS = "\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # and skin tones and tags of emoji
AFTER_BASE = "\u0e33\u0eb3"  # vowel signs of Thai and Lao that Unicode calls letters
MARKED_PLANES = (range(0x20000), range(0xE0100, 0xE01F0))  # all that hold combining marks


@cache
def words_pattern() -> re.Pattern[str]:
    """A match for each word and each symbol: every character but blanks is in one."""
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


def words_of(text: str, tokens: str) -> list[str]:
    """Text cut into words by the rules of that name."""
    if tokens == "space":
        return text.split()
    rules = Tokenization.parse(tokens)
    replaced = {ord(char): other for char, other in _replaced(rules).items()}
    text = _normalized(text.translate(replaced), rules)
    if rules.lower:
        text = _normalized(text.lower(), rules)
    return _pattern(rules).findall(text)


def rule(tokens: str) -> dict[str, Any]:
    """The same for a program that has no dlkit: the steps in their order, and what they take."""
    if tokens == "space":
        return {"split": "white space"}
    rules = Tokenization.parse(tokens)
    form = {} if rules.normalize == "none" else {"normalize": rules.normalize.upper()}
    steps = ["replace", *form, *(["lower", *form] if rules.lower else []), "find_all"]
    found = {"replace": _replaced(rules), **form, "lower": rules.lower, "find_all": _pattern(rules).pattern}
    return {"steps": steps, **found}


def plain_word(word: str, tokens: str) -> str:
    """A word of a treebank without its escapes: -LRB- is (, 1\\/2 is 1/2."""
    if tokens == "space":
        return word
    rules = Tokenization.parse(tokens)
    word = _normalized(word, rules)
    if rules.lower:
        word = _normalized(word.lower(), rules)
    return ESCAPES.get(word.lower()) or word.replace("\\/", "/").replace("\\*", "*")


def _pattern(rules: Tokenization) -> re.Pattern[str]:
    return TREEBANK if rules.tokenizer == "words" else words_pattern()


def _replaced(rules: Tokenization) -> dict[str, str]:
    return CURLY if rules.tokenizer == "words" else CURLY | INVISIBLE


def _normalized(text: str, rules: Tokenization) -> str:
    if rules.normalize == "none":
        return text
    form: Literal["NFC", "NFKC"] = "NFC" if rules.normalize == "nfc" else "NFKC"
    return normalize(form, text)
