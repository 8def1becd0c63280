"""How much of a long text decides its first tokens.

A tokenizer is local when the text beyond a few words no longer changes the tokens before them. Two structures are
recognised in its serialised form; every other tokenizer is given whole texts.

* Words: normaliser and pre-tokenizer look ahead over a bounded number of words, and the model sees one pre-token at a
  time. A regular expression looks ahead over a bounded number of words when it repeats single characters or classes
  only, and no repeated class takes both letters (or digits) and blanks: every element of the expression then crosses
  at most one place where a letter is followed by a blank.
* Pieces: the model sees the whole text, but no entry of its vocabulary goes on beyond a blank. Then no segmentation
  has a token over such a place, and what stands before it is segmented on its own: merges of BPE cannot cross it, and
  a best path of Unigram is made of the best paths of both sides.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

SPARE_WORDS = 16  # beyond what the structure needs
_BLANK = "▁"  # what SentencePiece writes for a space
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt", "Prepend", "Strip",
                "ByteLevel", "Precompiled"}  # fmt: skip
_PRE_TOKENIZERS = {"ByteLevel", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation", "Digits",
                   "Metaspace", "CharDelimiterSplit"}  # fmt: skip
_SHORT = 8  # characters of a literal that is replaced or split at
_END_OF_WORD = re.compile(r"[^\W_][ \t\r\n]")
_END_OF_WORD_BEFORE_SPACE = re.compile(r"[^\W_] ")


@dataclass(frozen=True)
class Locality:
    """words: how many words after a token make sure of it. pieces: no vocabulary entry goes on beyond a blank."""

    words: int
    pieces: bool

    def settles(self, encoding: Any, text: str, keep: int) -> bool:
        """Whether the first ``keep`` tokens of text, whose ``tokenizers.Encoding`` this is, stay whatever follows."""
        if len(encoding.ids) <= keep:
            return False
        end = max((end for _, end in encoding.offsets[:keep]), default=0)
        if self.pieces:
            return _holds(_END_OF_WORD_BEFORE_SPACE, text, end, self.words)
        pre_tokens = {word for word in encoding.word_ids[keep:] if word is not None}
        return len(pre_tokens) > self.words and _holds(_END_OF_WORD, text, end, self.words)


def _holds(pattern: re.Pattern[str], text: str, begin: int, times: int) -> bool:
    return sum(1 for _ in pattern.finditer(text, begin)) >= times


def locality(tokenizer: Any) -> Locality | None:
    """The locality of a fast tokenizer; None when it is slow, has code of its own or no structure that proves any."""
    if not tokenizer.is_fast or type(tokenizer).__module__.partition(".")[0] != "transformers":
        return None
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    normalizers = _flat(spec["normalizer"], "normalizers")
    splits = _flat(spec["pre_tokenizer"], "pretokenizers")
    if spec["model"].get("dropout") or not all(map(_local_normalizer, normalizers)):
        return None
    if not all(map(_local_pre_tokenizer, splits)) or not _expressions_see_blanks(normalizers, splits):
        return None
    expressions = [split["pattern"]["Regex"] for split in splits if "Regex" in split.get("pattern", {})]
    added = max((len(token["content"].split()) for token in spec["added_tokens"]), default=0)
    words = SPARE_WORDS + added + sum(map(len, expressions))
    return Locality(words, _pieces_end_at_blanks(spec["model"], normalizers, splits))


def _expressions_see_blanks(normalizers: list[dict[str, Any]], splits: list[dict[str, Any]]) -> bool:
    """Whether no expression is applied where blanks have become other characters, as ▁ or the Ġ of bytes."""
    blanks = not any(
        node["type"] == "ByteLevel" or (node["type"] == "Replace" and _replaces_blanks(node)) for node in normalizers
    )
    for split in splits:
        expression = "Regex" in split.get("pattern", {}) or split.get("use_regex", False)
        if expression and not blanks:
            return False
        blanks = blanks and split["type"] not in {"ByteLevel", "Metaspace"}
    return True


def _replaces_blanks(node: dict[str, Any]) -> bool:
    literal = node["pattern"].get("String")
    return node["content"] != " " and (literal is None or any(map(str.isspace, literal)))


def _flat(node: dict[str, Any] | None, inside: str) -> list[dict[str, Any]]:
    if node is None:
        return []
    return [one for part in node[inside] for one in _flat(part, inside)] if node["type"] == "Sequence" else [node]


def _local_normalizer(node: dict[str, Any]) -> bool:
    if node["type"] == "Replace":
        literal = node["pattern"].get("String")
        return is_local(node["pattern"]["Regex"]) if literal is None else len(literal) <= _SHORT
    return node["type"] in _NORMALIZERS


def _local_pre_tokenizer(node: dict[str, Any]) -> bool:
    if node["type"] == "Split":
        literal = node["pattern"].get("String")
        short = is_local(node["pattern"]["Regex"]) if literal is None else len(literal) <= _SHORT
        return short and node["behavior"] != "Contiguous"
    return node["type"] in _PRE_TOKENIZERS


def _pieces_end_at_blanks(model: dict[str, Any], normalizers: list[dict], splits: list[dict]) -> bool:
    """Whether spaces become ▁ and no entry of the vocabulary of BPE or Unigram holds ▁ after another character."""
    spaces = [node for node in normalizers if node["type"] == "Replace" and node["pattern"].get("String") == " "]
    if model["type"] not in {"BPE", "Unigram"} or splits or [node["content"] for node in spaces] != [_BLANK]:
        return False
    vocabulary = [entry[0] for entry in model["vocab"]] if isinstance(model["vocab"], list) else list(model["vocab"])
    return _BLANK in vocabulary and not any(re.search(f"[^{_BLANK}]{_BLANK}", entry) for entry in vocabulary)


# Categories and scripts, of which none has both letters and blanks, unlike Any, ASCII or Assigned.
_PROPERTY = r"\\[pP]\{\^?(?:[LNPSMZC][a-z]?|Han|Hangul|Hiragana|Katakana|Latin|Greek|Cyrillic|Arabic|Hebrew|Thai)\}"
_ELEMENT = re.compile(
    rf"""(?P<group>\((?:\?(?:i?:|!\\S\))|(?!\?)))  # ( or (?: or (?i: and the look-ahead (?!\S)
      | (?P<end>\))
      | (?P<class>\[\^?(?:{_PROPERTY}|\\[^pP]|[^\]\[\\])+\])
      | (?P<atom>{_PROPERTY}|\\[pP][LNPSMZC]|\\u[0-9a-fA-F]{{4}}|\\x[0-9a-fA-F]{{2}}|\\[sSwWdDrnt]|\\[^\w]
          |[^\\.$^()\[\]{{}}*+?|])
      | (?P<or>\|)""",
    re.VERBOSE | re.DOTALL,
)
_REPEATED = re.compile(r"(?:\?|(?P<many>[*+]|\{\d*,?\d*\}))[?+]?")
_PARTS = re.compile(_PROPERTY + r"|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\.|.-.|.", re.DOTALL)
_ONLY_BLANKS = {r"\s", r"\r", r"\n", r"\t", " "}


def is_local(expression: str) -> bool:
    """Whether a match of the expression looks ahead over no more words than it has characters; False when in doubt."""
    at = 0
    while at < len(expression):
        element = _ELEMENT.match(expression, at)
        if element is None:
            return False
        at = element.end()
        repeated = _REPEATED.match(expression, at)
        if repeated is None:
            continue
        at = repeated.end()
        many = repeated["many"] is not None
        if many and (element["end"] or element["group"] or element["or"] or not _one_kind(element[0])):
            return False
    return True


def _one_kind(element: str) -> bool:
    """Whether a class or character does not take both letters (or digits) and blanks."""
    if not element.startswith("["):
        return re.match(r"\\[DP]|\\p\{\^", element) is None
    inside = element[1:-1]
    if inside.startswith("^"):
        return r"\s" in _PARTS.findall(inside)
    others = set(_PARTS.findall(inside)) - _ONLY_BLANKS
    blanks = len(others) < len(set(_PARTS.findall(inside))) or any(map(_may_be_blank, others))
    return not blanks or not any(map(_may_be_letter, others))


def _may_be_blank(part: str) -> bool:
    if len(part) == 3 and part[1] == "-":
        return ord(part[0]) <= 0x20 or any(part[0] <= blank <= part[2] for blank in "\x85\xa0\u1680\u2028\u3000")
    return part.isspace() or re.match(r"\\[DSWPux]|\\p\{[\^ZC]", part) is not None


def _may_be_letter(part: str) -> bool:
    return len(part) == 3 or part.isalnum() or re.match(r"\\[pPdDwWSux]", part) is not None
