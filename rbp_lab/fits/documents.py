"""What the documents of runs do to the values that laws are fitted to: ``DocumentErrors`` of any quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rbp_lab import metrics
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.result import FitPoints, Label
from rbp_lab.quantities import QUANTITIES
from rbp_lab.records import RunRecord


def effects_by_dataset(records: Iterable[RunRecord]) -> dict[str, DocumentEffects]:
    """What the documents of each data set do to the values of its runs."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.dataset.name, []).append(record)
    return {dataset: DocumentEffects(mine) for dataset, mine in groups.items()}


class DocumentEffects:
    """Errors of documents in values of the runs of one data set; rows are the documents of all these runs.

    Runs share documents by identity. Every answer has the same rows, so that answers can be combined.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self._records = {record.model.name: record for record in records}
        ids = [record.documents.document_id for record in records]
        self._ids = np.unique(np.concatenate(ids)) if ids else np.zeros(0, np.int64)

    def of(self, label: Label, models: Sequence[str]) -> DocumentErrors | None:
        """Errors of ln value of the label's quantity for these models; None where some model's are unknown."""
        quantity = QUANTITIES.get(label.metric)
        if quantity is None:
            return None

        def moved(record: RunRecord) -> tuple[np.ndarray | None, np.ndarray] | None:
            sums = quantity.sums(record.documents, label.k, label.window)
            return None if sums is None else (quantity.influence(*sums), sums[1])

        return self._all(models, moved)

    def of_error_entropy(self, models: Sequence[str]) -> DocumentErrors | None:
        """Errors of ln error entropy. Documents keep pessimistic ranks, so with ties it is that of these ranks."""

        def moved(record: RunRecord) -> tuple[np.ndarray | None, np.ndarray]:
            documents = record.documents
            tokens = np.bincount(documents.rank, documents.count)
            row = np.repeat(np.arange(len(documents)), np.diff(documents.indptr))
            # −Σ p ln p is a ratio of sums over documents whose tokens weigh −ln p of their rank
            surprise = -np.log(tokens[documents.rank] / tokens.sum())
            sums = np.bincount(row, documents.count * surprise, len(documents))
            return metrics.ratio_influence(sums, documents.num_scored), documents.num_scored

        return self._all(models, moved)

    def _all(self, models: Sequence[str], moved: Callable[[RunRecord], tuple | None]) -> DocumentErrors | None:
        found = []
        for name in models:
            record = self._records.get(name)
            one = None if record is None else moved(record)
            if one is None or one[0] is None:
                return None
            found.append((record, *one))
        return self.rows(found)

    def rows(self, found: Sequence[tuple[RunRecord, np.ndarray, np.ndarray]]) -> DocumentErrors | None:
        """One column per (run, what each of its documents moves its value by, their weights); None for no runs."""
        if not found:
            return None
        values = np.zeros((len(self._ids), len(found)))
        for column, (record, moved, _) in enumerate(found):
            values[np.searchsorted(self._ids, record.documents.document_id), column] = moved
        effective = min(metrics.effective_documents(weights) for _, _, weights in found)
        return DocumentErrors(values, self._ids, effective)

    def with_errors(self, points: FitPoints, label: Label) -> FitPoints:
        """The points with their errors of documents, or as they are where these are unknown."""
        return points.with_errors(self.of(label, points.names))
