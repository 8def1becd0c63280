"""What the documents of runs do to the values that laws are fitted to: ``DocumentErrors`` of any quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from rbp_lab import metrics
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.quantities import CE, QUANTITIES
from rbp_lab.records import RunRecord
from rbp_lab.stats import UNIT, RankStats


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

    def of_confidence(self, models: Sequence[str]) -> DocumentErrors | None:
        """Errors of ln |confidence|, log Σ Q_e over ranks e with ln Q_e minus the mean nll of tokens of that rank.

        A token moves it by q_e/p_e of its rank times what its nll falls short of that mean. Documents keep Σ nll of
        all ranks together; what of it their ranks do not explain is spread evenly over their tokens. Ranks are those
        of ``of_error_entropy``.
        """

        def moved(record: RunRecord) -> tuple[np.ndarray | None, np.ndarray]:
            documents = record.documents
            mean, share = _by_rank(record.stats)
            row = np.repeat(np.arange(len(documents)), np.diff(documents.indptr))
            tokens = np.maximum(documents.num_scored, 1)
            expected = np.bincount(row, documents.count * mean[documents.rank], len(documents))
            weight = np.bincount(row, documents.count * share[documents.rank], len(documents)) / tokens
            short = (expected - documents.nll_units * UNIT) * weight
            deviation = metrics.ratio_deviation(short, documents.num_scored)
            confidence = metrics.decomposition(record.stats).confidence
            known = deviation is not None and confidence != 0
            return deviation / confidence if known else None, documents.num_scored

        return self._all(models, moved)

    def of_self_alignment(self, models: Sequence[str]) -> DocumentErrors | None:
        """Errors of ln self-alignment, which is cross-entropy − error entropy + confidence; see ``of_confidence``."""
        of_ce, of_entropy, of_confidence = parts = (
            self.of(Label(metric=CE.name), models), self.of_error_entropy(models), self.of_confidence(models)
        )  # fmt: skip
        if any(part is None for part in parts):
            return None
        splits = [metrics.decomposition(self._records[name].stats) for name in models]
        moved = (
            of_ce.values * [s.cross_entropy for s in splits]
            - of_entropy.values * [s.error_entropy for s in splits]
            + of_confidence.values * [s.confidence for s in splits]
        )
        return replace(of_ce, values=moved / [s.self_alignment for s in splits])

    def of_calibration(self, models: Sequence[str]) -> DocumentErrors | None:
        """Errors of mean predictive entropy less cross-entropy, in nats per token."""

        def moved(record: RunRecord) -> tuple[np.ndarray | None, np.ndarray]:
            documents = record.documents
            gap = (documents.entropy_units - documents.nll_units) * UNIT
            return metrics.ratio_deviation(gap, documents.num_scored), documents.num_scored

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


def _by_rank(stats: RankStats) -> tuple[np.ndarray, np.ndarray]:
    """Mean nll in nats and q/p by rank from 0 of [EE] [V + 1]; a rank that no token has takes those of the one before.

    The first entry stands for rank 0, so that a rank is its own index.
    """
    seen = np.flatnonzero(stats.counts_optimistic)
    count = stats.counts_optimistic[seen]
    log_q = -stats.nll_sum[seen] / count
    share = np.exp(log_q - np.logaddexp.reduce(log_q)) / (count / count.sum())
    before = np.searchsorted(seen, np.arange(-1, stats.vocab_rows), side="right") - 1
    return -log_q[np.maximum(before, 0)], share[np.maximum(before, 0)]
