"""What a user may set of a benchmark (node ``bench``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rbp_lab.errors import LabError

TABLES = ("end_to_end", "head", "loop")


@dataclass(frozen=True)
class Bench:
    """How a benchmark runs.

    rows, tokens: rows of the batch and random token ids in each. rounds: clean rounds wanted; in each every contender
    is called, in alternating order. warmup: calls of each contender before, at least 2: the first is checked, the
    last says how long one takes. call_seconds: a contender faster than this is called several times in a round, and
    the mean is its time. threads: of torch on the CPU, None for its default. peers: also the packages of others,
    where installed. memory: also the extra memory, each contender in a fresh process. tables: end_to_end (model and
    scores), head (scores from hidden states), loop (the whole measurement). loop_seconds: about how long one run of
    the loop should take. seed: of the token ids and of a shape's weights.
    """

    rows: int = 2
    tokens: int = 512
    rounds: int = 5
    warmup: int = 2
    call_seconds: float = 0.05
    threads: int | None = None
    peers: bool = False
    memory: bool = True
    tables: list[str] = field(default_factory=lambda: list(TABLES))
    loop_seconds: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rows": 1, "tokens": 2, "rounds": 1, "warmup": 2, "threads": 1, "seed": 0}
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise LabError(f"bench.{name} must be at least {value}; got {given}")
        for name in ("call_seconds", "loop_seconds"):
            if not getattr(self, name) > 0:
                raise LabError(f"bench.{name} must be more than 0 seconds; got {getattr(self, name)}")
        if not self.tables or set(self.tables) - set(TABLES):
            raise LabError(f"bench.tables must be some of {', '.join(TABLES)}; got {list(self.tables)}")
