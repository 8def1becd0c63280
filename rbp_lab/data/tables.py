"""Tables of documents to a corpus: read once to see which documents count, then again for those that are chosen."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rbp_lab.data.corpus import Corpus, Selection
from rbp_lab.data.rows import OTHER, RowReader
from rbp_lab.data.spool import Spool, SpooledTexts
from rbp_lab.errors import LabError

REPEATED = "with the text of another"


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
    seen: set[int] = set()
    candidates = [_candidates(table, selection, left_out, seen) for table in tables]
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


def _candidates(
    table: Table, selection: Selection, left_out: Counter[str], seen: set[int]
) -> tuple[Sequence[int], array[int]]:
    """Numbers and hashes of the documents that may be chosen; ``left_out`` counts the others by reason.

    seen: hashes of the documents before, of all tables, where a text may come once only.
    """
    numbers, hashes = array("q"), array("q")
    if table.length is not None and selection.min_chars == 0 and not selection.unique:
        return range(table.length), hashes
    for number, (text, reason) in enumerate(table.documents()):
        if text is None or (short := selection.why_too_short(text)) is not None:
            left_out[reason or short] += 1
        elif selection.unique and hash(text) in seen:
            left_out[REPEATED] += 1
        else:
            if selection.unique:
                seen.add(hash(text))
            numbers.append(number)
            hashes.append(hash(text))
    return numbers, hashes


def corpus_from_stream(
    rows: Iterable[Mapping[str, Any]],
    reader: RowReader,
    selection: Selection,
    label: str,
    place: str,
    info: dict[str, Any],
) -> Corpus:
    """The Corpus of the first documents of a stream of rows that is shuffled already, which is read no further.

    A text counts once, and a document's name is the label and the beginning of its text's SHA-256, since a stream does
    not say which row of the data set comes. place: names the stream in messages. Raises LabError as Selection does.
    """
    spool, ids, left_out, read = Spool(), {}, Counter[str](), 0
    for row in rows:
        text, reason = reader(row, f"{place}, row {read} of its stream")
        read += 1
        if text is None or (short := selection.why_too_short(text)) is not None:
            left_out[reason or short] += 1
            continue
        name = f"{label}/{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
        if name in ids:
            left_out[REPEATED] += 1
            continue
        ids[name] = len(ids)
        spool.append(text)
        if len(ids) == selection.num_documents:
            break
    reader.check()
    selection.order(len(ids), left_out)  # an error when nothing is chosen
    counts = {"rows_read": read, "left_out": dict(left_out)}
    return selection.corpus(SpooledTexts(spool, range(len(ids))), list(ids), {**info, **counts})
