"""Configuration to typed values: what is built, and each mistake with the config path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import pytest

from rbp_lab.config.build import OPEN, at_least, build, read
from rbp_lab.errors import LabError

HERE = f"{__name__}."


class Plain:
    """A class of a user's own, without annotations."""

    def __init__(self, size, *, kind="a"):
        if kind not in "abc":
            raise LabError(f"{kind} is no kind" if size else f"size must be more than 0, got {size}")
        self.size, self.kind = size, kind


class Open:
    def __init__(self, **fields):
        self.fields = fields


@dataclass(frozen=True)
class Inner:
    number: int = 3
    word: str = "w"


@dataclass(frozen=True)
class Whole:
    inner: Inner
    count: Annotated[int, at_least(1)] = 2
    share: Annotated[float, at_least(0)] = 0.5
    made: Annotated[Plain, OPEN] | None = None
    words: list[str] | None = None
    flag: bool | None = None
    by_name: dict[str, float] | None = None
    numbers: tuple[int, ...] = ()


def test_nodes_with_a_target_become_what_it_makes_and_null_the_default():
    plain = {"_target_": f"{HERE}Plain", "size": 7}
    found = read(Whole, {"inner": {"number": 4}, "count": None, "made": plain, "numbers": (1, 2), "flag": False})
    assert (found.inner, found.count, found.numbers, found.flag) == (Inner(4), 2, (1, 2), False)
    assert (found.made.size, found.made.kind) == (7, "a")
    nested = build({"_target_": f"{HERE}Open", "x": [plain, {"y": (plain,)}], "z": 1}, "node").fields
    assert nested["x"][0].size == nested["x"][1]["y"][0].size == 7 and nested["z"] == 1


PLAIN = f"{HERE}Plain"
MISTAKES = [
    ({"count": 0}, "count must be at least 1; got 0"),
    ({"share": float("nan")}, "share must be at least 0; got nan"),
    ({"count": "many"}, "count must be a whole number; got 'many'"),
    ({"count": True}, "count must be a number; got true"),
    ({"by_name": {"a": True}}, "by_name.a must be a number; got true"),
    ({"numbers": [1, True]}, "numbers.1 must be a number; got true"),
    ({"words": ["a", 1e5]}, "words.1 must be a text; got 100000.0, a number"),
    ({"words": "a"}, "words must be a list; got 'a'"),
    ({"flag": "perhaps"}, "flag must be true or false; got 'perhaps'"),
    ({"inner": 5}, "inner must be a mapping; got 5"),
    ({"inner": {"numbre": 5}}, "inner.numbre: no such key; did you mean number? expected one of number, word"),
    ({"inner": {"word": False}}, "inner.word must be a text; got false, a truth value"),
    ({"inner": {"word": 1.5}}, "inner.word must be a text; got 1.5, a number"),
    *(({"made": wrong}, "made must be a mapping with _target_") for wrong in (7, 0.5, "x", ["x"], {"x": 1})),
    ({"made": {"_target_": "nowhere.Plain"}}, "made._target_: cannot import 'nowhere.Plain'"),
    ({"made": {"_target_": "os.nothing"}}, "made._target_: cannot import 'os.nothing'"),
    ({"made": {"_target_": "Plain"}}, "made._target_: cannot import 'Plain'"),
    ({"made": {"_target_": "os.sep"}}, "made._target_: expected a class or function, got os.sep, a str"),
    ({"made": {"_target_": PLAIN}}, "made.size must be given, e.g. made.size=…"),
    (
        {"made": {"_target_": PLAIN, "size": 1, "kinds": 2}},
        "made.kinds: no such key; did you mean kind? expected one of size, kind",
    ),
    ({"made": {"_target_": PLAIN, "size": 1, "kind": "z"}}, "made: z is no kind"),
    ({"made": {"_target_": PLAIN, "size": 0, "kind": "z"}}, "made.size must be more than 0, got 0"),
    ({"words": [{"a": [1, {"_target_": "os.nothing"}]}]}, "words.0.a.1._target_: cannot import 'os.nothing'"),
]


@pytest.mark.parametrize("given, said", MISTAKES)
def test_a_mistake_is_a_sentence_with_its_path(given, said):
    with pytest.raises(LabError, match=f"^{re.escape(said)}") as caught:
        read(Whole, {"inner": {}} | given)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_asked_for():
    with pytest.raises(LabError, match=r"^inner must be given, e\.g\. inner=…"):
        read(Whole, {})
