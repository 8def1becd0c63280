"""Chosen documents token by token: what each of two models made of every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbp_lab.comparison.apart import pair_for
from rbp_lab.comparison.job import PairJob
from rbp_lab.comparison.pair import Pair
from rbp_lab.comparison.summary import TokenText
from rbp_lab.data.windows import WindowPlan
from rbp_lab.measurement.devices import Runtime, choose_device
from rbp_lab.measurement.prepare import plan_of


def token_texts(job: PairJob, documents: Sequence[str]) -> list[TokenText]:
    """The documents of these names, scored once more, in this process; packed windows are known by their number.

    A token's text is what it stands for by itself, with � for a part of a character. Tokens that are not scored (the
    first, special ones) have rank 0.
    """
    corpus = job.dataset.corpus()
    identity = job.identify(corpus)
    plan, _ = plan_of(job, corpus, identity)
    packed = job.dataset.protocol.windows == "packed"
    ids = {f"window {i}": i for i in range(len(plan))} if packed else {name: i for i, name in enumerate(corpus.ids)}
    decode = identity.a.opened.tokenizer.decode
    chosen = {name: _rows(plan.documents(ids[name], ids[name] + 1)) for name in documents}
    every = [row for rows in chosen.values() for row in rows]
    found = []
    with pair_for(every, identity, plan, job, Runtime(device=choose_device(job.launch.device))) as pair:
        for name, rows in chosen.items():
            columns = [_columns(pair, at, number > 0) for number, at in enumerate(rows)]
            text, rank_a, rank_b, p_a, p_b = np.concatenate(columns, 1)
            pieces = [decode([int(id)]) for id in text]
            ranks = (rank.astype(int).tolist() for rank in (rank_a, rank_b))
            found.append(TokenText(name, pieces, *ranks, p_a.tolist(), p_b.tolist()))
    return found


def _rows(plan: WindowPlan) -> list[WindowPlan]:
    """Each row of a document by itself, in reading order, for all have one width."""
    return [plan.take(np.array([row])) for row in range(len(plan))]


def _columns(pair: Pair, at: WindowPlan, goes_on: bool) -> np.ndarray:
    """Id, ranks and probabilities [5,n] of the tokens of a row; of one that goes on, those that it scores."""
    ((batch, tokens),) = pair.tokens(at, 1)
    scored, last = np.flatnonzero(batch.scored[0]) + 1, int(at.length[0])
    values = np.zeros((4, last))
    values[:, scored] = (*tokens.rank, *(np.exp(-nll.astype(np.float64)) for nll in tokens.nll))
    first = int(at.skip[0]) + 1 if goes_on else 0  # what an earlier row has scored is context here
    return np.concatenate([batch.tokens[:1, first:last], values[:, first:]])
