"""Tables of documents to a corpus: read once to see which documents count, then again for those that are chosen."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from rbp_lab.data.corpus import Corpus, Selection
from rbp_lab.data.rows import OTHER
from rbp_lab.data.spool import Spool, SpooledTexts
from rbp_lab.errors import LabError


class Table(Protocol):
    """Numbered documents of one file or split, which can be read again.

    place: names the table in messages. length: number of documents when it is known without reading.
    """

    place: str
    length: int | None

    def documents(self) -> Iterator[tuple[str | None, str | None]]:
        """(text, None) of each document in order, or ("" or None, why it has no text); None does not even match."""
        ...

    def pick(self, numbers: Sequence[int]) -> Iterator[str]:
        """The texts of the documents with these rising numbers."""
        ...

    def id_of(self, number: int) -> str:
        """The document's name."""
        ...


def picked(table: Table, numbers: Sequence[int]) -> Iterator[str]:
    """The texts of the documents with these rising numbers, found by reading ``table.documents()`` up to the last."""
    wanted = iter(numbers)
    number = next(wanted, None)
    for at, (text, _) in enumerate(table.documents()):
        if number is None:
            return
        if at == number:
            yield text or ""
            number = next(wanted, None)


def corpus_from_tables(
    tables: Sequence[Table], selection: Selection, info: dict[str, Any], check: Callable[[], None] = lambda: None
) -> Corpus:
    """The Corpus of the selected documents of tables, one table after another.

    Holds the names of the chosen, whose texts go to a temporary file, and of every candidate two integers: its number
    and a hash, by which a file that changes while it is read is noticed. Where nothing depends on the texts
    (min_chars = 0, length known) only the chosen are read. check: called when all tables are read, to raise what only
    then is known. Raises LabError as Selection, and when a chosen document is empty.
    """
    left_out: Counter[str] = Counter()
    candidates = [_candidates(table, selection, left_out) for table in tables]
    check()
    starts = np.cumsum([0, *(len(numbers) for numbers, _ in candidates)])
    before = int(starts[-1]) + sum(number for reason, number in left_out.items() if reason != OTHER)
    order = selection.order(int(starts[-1]), left_out)
    spool, ids = Spool(), [""] * len(order)
    rising = np.argsort(order)
    bounds = np.searchsorted(order[rising], starts)
    for index, (table, (numbers, hashes)) in enumerate(zip(tables, candidates, strict=True)):
        places = rising[bounds[index] : bounds[index + 1]]
        within = order[places] - starts[index]
        chosen = array("q", (numbers[i] for i in within))
        before_table = len(spool)
        for i, place, number, text in zip(within, places, chosen, table.pick(chosen), strict=False):
            if hashes and hash(text) != hashes[i]:
                raise _changed(table)
            if not text:
                raise LabError(
                    f"{table.place}, row {number} is empty; set dataset.min_chars=1 to leave empty documents out"
                )
            spool.append(text)
            ids[place] = table.id_of(number)
        if len(spool) - before_table != len(chosen):
            raise _changed(table)
    counts = {"documents_before_selection": before, "left_out": dict(left_out)}
    return selection.corpus(SpooledTexts(spool, np.argsort(rising)), ids, {**info, **counts})


def _changed(table: Table) -> LabError:
    return LabError(f"{table.place} changed while it was read; measure again when it is written")


def _candidates(table: Table, selection: Selection, left_out: Counter[str]) -> tuple[Sequence[int], array[int]]:
    """Numbers and hashes of the documents that may be chosen; ``left_out`` counts the others by reason."""
    numbers, hashes = array("q"), array("q")
    if table.length is not None and selection.min_chars == 0:
        return range(table.length), hashes
    for number, (text, reason) in enumerate(table.documents()):
        if text is None or (short := selection.why_too_short(text)) is not None:
            left_out[reason or short] += 1
        else:
            numbers.append(number)
            hashes.append(hash(text))
    return numbers, hashes
