"""Chosen documents token by token: what each of two models made of every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbp_lab.comparison.job import PairJob
from rbp_lab.comparison.work import load
from rbp_lab.measurement.devices import Runtime, choose_device
from rbp_lab.measurement.prepare import plan_of
from rbp_lab.report.sections import TokenText


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
    pair = load(identity, plan, job, Runtime(device=choose_device(job.launch.device)))
    decode = identity.a.opened.tokenizer.decode
    found = []
    for name in documents:
        one = plan.documents(ids[name], ids[name] + 1)
        columns = []
        for row in range(len(one)):  # in reading order: the rows of a document have one width
            at = one.take(np.array([row]))
            ((batch, tokens),) = pair.tokens(identity, at, 1)
            scored, last = np.flatnonzero(batch.scored[0]) + 1, int(at.length[0])
            values = np.zeros((4, last))
            values[:, scored] = (*tokens.rank, *(np.exp(-nll.astype(np.float64)) for nll in tokens.nll))
            first = int(at.skip[0]) + 1 if row else 0  # what an earlier row has scored is context here
            columns.append(np.concatenate([batch.tokens[:1, first:last], values[:, first:]]))
        text, rank_a, rank_b, p_a, p_b = np.concatenate(columns, 1)
        pieces = [decode([int(id)]) for id in text]
        ranks = (rank.astype(int).tolist() for rank in (rank_a, rank_b))
        found.append(TokenText(name, pieces, *ranks, p_a.tolist(), p_b.tolist()))
    return found
