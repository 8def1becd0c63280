"""Records whose tables stay on the disk: what an analysis asks for is read, and forgotten when memory is short.

An analysis goes through its records several times, a family or a threshold at a time. So that memory does not grow
with their number, each keeps what is small (a few numbers per document, hits at the thresholds) and reads the rest
anew; tables that were read last stay, up to KEPT bytes of all records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa

from rbp_lab.errors import LabError, note
from rbp_lab.metrics import TIES
from rbp_lab.records import RunRecord
from rbp_lab.stats import PER_DOCUMENT, DocumentTable, RankStats
from rbp_lab.store.layout import RecordFiles, Store
from rbp_lab.store.records import read_documents, read_record, read_stats

KEPT = 12 * 2**20
Table = RankStats | DocumentTable


class Shelf:
    """Tables of records that were read last, of at most ``most`` bytes, or the one that was asked for."""

    def __init__(self, most: int = KEPT) -> None:
        self._most, self._bytes = most, 0
        self._tables: OrderedDict[object, tuple[Table, int]] = OrderedDict()

    def get(self, key: object, read: Callable[[], Table]) -> Table:
        """The table of this key, read unless it is here."""
        if key not in self._tables:
            self.put(key, read())
        self._tables.move_to_end(key)
        return self._tables[key][0]

    def put(self, key: object, table: Table) -> None:
        """Keep a table; those that were not asked for the longest go."""
        size = sum(getattr(getattr(table, f.name), "nbytes", 0) for f in fields(table))
        self._tables[key] = table, size
        self._bytes += size
        while self._bytes > self._most and len(self._tables) > 1:
            self._bytes -= self._tables.popitem(last=False)[1][1]


class StoredStats:
    """A RankStats on the disk, with its numbers and the hits at the record's thresholds at hand."""

    _LIGHT = ("window_lengths", "entropy_units", "num_tied", "num_bytes", "num_documents", "vocab_rows", "num_tokens")

    def __init__(self, record: RunRecord, read: Callable[[], RankStats], read_all: Callable[[], RankStats]) -> None:
        stats, self._read, self._read_all = record.stats, read, read_all
        for name in self._LIGHT:
            setattr(self, name, getattr(stats, name))
        self._hits = {(k, ties): stats.hits(k, ties) for k in record.scoring.thresholds for ties in TIES}

    def __getattr__(self, name: str) -> object:
        return getattr(self._read(), name)

    def __eq__(self, other: object) -> bool:
        return self._read_all() == (other._read_all() if isinstance(other, StoredStats) else other)

    __hash__ = None

    @property
    def window_max(self) -> np.ndarray:
        """As of RankStats; most of its bytes, and seldom asked for."""
        return self._read_all().window_max

    def hits(self, k: int, ties: str = "pessimistic") -> int:
        """As of RankStats."""
        known = self._hits.get((k, ties))
        return self._read().hits(k, ties) if known is None else known


class StoredDocuments:
    """A DocumentTable on the disk, with its columns per document at hand, and with the hits that were asked for."""

    def __init__(self, documents: DocumentTable, read: Callable[[], DocumentTable]) -> None:
        self._read, self._rows = read, len(documents)
        self._hits: dict[object, np.ndarray] = {}
        self.thresholds = documents.thresholds
        for name in PER_DOCUMENT:
            setattr(self, name, getattr(documents, name))

    def __getattr__(self, name: str) -> object:
        return getattr(self._read(), name)

    def __len__(self) -> int:
        return self._rows

    def hits(self, k: int) -> np.ndarray:
        """As of DocumentTable."""
        return self._known(k, lambda: self._read().hits(k))

    def window_hits(self, length: int, k: int) -> np.ndarray:
        """As of DocumentTable."""
        return self._known((length, k), lambda: self._read().window_hits(length, k))

    def _known(self, key: object, count: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._hits:
            self._hits[key] = count().astype(np.int32)  # a document's tokens are counted in 32 bits
        return self._hits[key].astype(np.int64)


def stream_records(store: str, on_damage: Callable[[str], None] = note, most: int = KEPT) -> list[RunRecord]:
    """As ``store.records.list_records``, every record being read and checked, with their tables left on the disk.

    most: bytes of tables that are kept in memory. A table that cannot be read later, for the record was removed or
    damaged meanwhile, raises LabError then.
    """
    pa.set_memory_pool(pa.system_memory_pool())  # arrow's own keeps tens of megabytes of what was freed
    found, shelf = [], Shelf(most)
    for files in Store(store).records():
        try:
            found.append(_streamed(files, shelf))
        except LabError as error:
            on_damage(str(error))
    return sorted(found, key=lambda record: record.header.order)


def _streamed(files: RecordFiles, shelf: Shelf) -> RunRecord:
    record, key = read_record(files.directory, files.key), files.key
    shelf.put((key, "documents"), record.documents)
    stats = StoredStats(
        record,
        lambda: shelf.get((key, "stats"), lambda: read_stats(files)),
        lambda: shelf.get((key, "windows"), lambda: read_record(files.directory, key).stats),
    )
    documents = StoredDocuments(record.documents, lambda: shelf.get((key, "documents"), lambda: read_documents(files)))
    return replace(record, stats=stats, documents=documents)
