"""The error-entropy split: exact sums, corrected entropy, scaling of the parts, curves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as distributions

from rbp_lab import metrics
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.fits.decomposition import (
    PARTS,
    checkpoints,
    corrected_entropy,
    corrected_error_entropy,
    decomposition_table,
    error_curves,
    part_scalings,
)
from rbp_lab.fits.points import POOLED
from tests.fits_data import ladder, synthetic_record
from tests.test_fits_lognormal import rounded


def test_table_sums_to_cross_entropy_and_gives_both_shares():
    records = ladder(4)
    table = decomposition_table(records)
    assert (table["identity_error"] < 1e-12).all()
    row = table.iloc[0]
    assert row["cross_entropy"] == pytest.approx(row["error_entropy"] + row["self_alignment"] - row["confidence"])
    assert row["share_of_ce"] == pytest.approx(row["error_entropy"] / row["cross_entropy"])
    total = abs(row["error_entropy"]) + abs(row["self_alignment"]) + abs(row["confidence"])
    assert row["share_of_parts"] == pytest.approx(row["error_entropy"] / total)
    assert row["tokens"] == 3600 and row["error_entropy_corrected"] > row["error_entropy"]


# Rank laws: lognormals as [RBP] fitted to Pythia 14m and 12b, and a power of the rank.
RANKS = np.arange(1, 20001)
RANK_LAWS = {
    "14m": rounded(1.19, 3.69)[1], "12b": rounded(-14.29, 5.76)[1], "zipf": RANKS**-1.3 / (RANKS**-1.3).sum(),
}  # fmt: skip


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def miller_madow(counts):
    return entropy(counts / counts.sum()) + ((counts > 0).sum() - 1) / (2 * counts.sum())


def in_bursts(rng, p, documents, tokens, again):
    """Ranks [documents, tokens]; each repeats an earlier one of its document with probability ``again``."""
    rank = np.searchsorted(np.cumsum(p), rng.random((documents, tokens)) * p.sum())
    for i in range(1, tokens):
        copied = np.flatnonzero(rng.random(documents) < again)
        rank[copied, i] = rank[copied, rng.integers(0, i, len(copied))]
    return np.minimum(rank, len(p) - 1)


def a_run(rank):
    """A run of these ranks from 0 [documents, tokens]."""
    documents, tokens = rank.shape
    flat = rank.ravel().astype(np.int32)
    nll = np.log1p(flat).astype(np.float32)
    scores = DocumentScores(
        np.arange(documents), np.full(documents, tokens), np.zeros(documents, int), nll, flat, np.zeros_like(flat), nll
    )
    stats = rank_stats(scores, int(flat.max()) + 1, (1,))
    return replace(synthetic_record("m", 10**6, 0), stats=stats, documents=document_table(scores, (1,)))


@pytest.mark.parametrize("tokens", [10**3, 10**4, 10**5, 10**6])
@pytest.mark.parametrize("law", RANK_LAWS)
def test_corrected_entropy_is_nearer_than_miller_and_madows(law, tokens):
    """Independent tokens, at every number of them."""
    p, rng = RANK_LAWS[law], np.random.default_rng(20261125)
    drawn = [rng.multinomial(tokens, p / p.sum()) for _ in range(20)]
    ours, theirs = (
        np.array([f(counts) for counts in drawn]) - entropy(p / p.sum()) for f in (corrected_entropy, miller_madow)
    )
    assert abs(ours.mean()) < abs(theirs.mean())
    assert np.sqrt((ours**2).mean()) < np.sqrt((theirs**2).mean())


@pytest.mark.parametrize("again", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("law", ["12b", "zipf"])
def test_the_jackknife_over_documents_is_nearer_still_in_bursts(law, again):
    p, rng = RANK_LAWS[law], np.random.default_rng(20261125)
    runs = [a_run(in_bursts(rng, p, 60, 100, again)) for _ in range(6)]
    truth = entropy(p / p.sum())
    errors = {
        "ours": [corrected_error_entropy(run)[0] - truth for run in runs],
        "miller_madow": [miller_madow(run.stats.counts_optimistic) - truth for run in runs],
    }
    size = {name: np.sqrt(np.mean(np.square(error))) for name, error in errors.items()}
    assert size["ours"] < size["miller_madow"]
    assert abs(np.mean(errors["ours"])) < abs(np.mean(errors["miller_madow"]))


def test_the_interval_of_the_corrected_entropy_is_of_documents():
    p = RANK_LAWS["12b"]
    run = a_run(in_bursts(np.random.default_rng(1), p, 40, 80, 0.5))
    value, low, high = corrected_error_entropy(run)
    left = []
    for m in range(40):
        d = run.documents
        mine = np.repeat(np.arange(40), np.diff(d.indptr)) != m
        left.append(corrected_entropy(np.bincount(d.rank[mine], d.count[mine])))
    whole = corrected_entropy(run.stats.counts_optimistic)
    assert value == pytest.approx(40 * whole - 39 * np.mean(left))
    se = np.sqrt(39 / 40 * np.sum((left - np.mean(left)) ** 2))
    assert (high - low) / 2 == pytest.approx(distributions.t.ppf(0.975, 39) * se)
    assert (low + high) / 2 == pytest.approx(value)
    narrow = corrected_error_entropy(run, 0.5)
    assert low < narrow[1] < narrow[2] < high
    assert corrected_error_entropy(synthetic_record("m", 1000, 0, documents=1))[1:] == (None, None)
    table = decomposition_table([run], confidence=0.5)
    assert table["error_entropy_corrected_low"].iloc[0] == narrow[1]


def test_corrected_entropy_by_hand():
    assert corrected_entropy(np.full(4, 10**6)) == pytest.approx(np.log(4), abs=1e-5)
    # counts 2, 1, 1: seen Σ n_r/n (ψ(4) − ψ(n_r)) = ½(1/2 + 1/3) + 2·¼(1 + 1/2 + 1/3); A = 2/(3·2 + 2) = 1/4
    tail = 2 / 4 * sum(0.75 ** (j + 1) / (4 + j) for j in range(500))
    assert corrected_entropy(np.array([2, 1, 1])) == pytest.approx(0.5 * 5 / 6 + 0.5 * 11 / 6 + tail)
    assert corrected_entropy(np.zeros(3)) == 0 and corrected_entropy(np.array([7])) == pytest.approx(0)
    assert np.isfinite(corrected_entropy(np.ones(5))) and corrected_entropy(np.array([1])) == 0


def test_parts_scale_with_distance_to_cross_entropy():
    table = decomposition_table(ladder(6))
    parts = {p.part: p for p in part_scalings(table, "stdlib", "ladder")}
    assert list(parts) == list(PARTS)
    assert parts["cross_entropy"].law.ok and parts["cross_entropy"].distance is None
    ours = parts["error_entropy"]
    expected = ours.law.params["alpha"] - parts["cross_entropy"].law.params["alpha"]
    assert ours.distance == pytest.approx(abs(expected)) and ours.difference.low <= expected <= ours.difference.high
    assert ours.to_frame().iloc[0]["distance"] == ours.distance
    both = decomposition_table([*ladder(3), *[synthetic_record(f"x{i}", 3000 * 4**i, i, family="x") for i in range(3)]])
    assert part_scalings(both, "stdlib", POOLED)[0].law.n == 6


def test_a_part_of_changing_sign_is_refused_and_a_negative_one_is_not():
    table = decomposition_table(ladder(4))
    table["confidence"] = [-0.4, -0.3, -0.2, -0.1]
    assert part_scalings(table, "stdlib", "ladder")[3].law.ok
    table["confidence"] = [-0.1, 0.1, 0.2, 0.3]
    law = part_scalings(table, "stdlib", "ladder")[3].law
    assert law.status == "refused" and "negative for ladder-0" in law.message


def test_curves_give_the_split():
    record = ladder(1)[0]
    curves = error_curves(record.stats)
    assert curves[["p", "q"]].sum().tolist() == pytest.approx([1, 1])
    split = metrics.decomposition(record.stats)
    assert (curves["p"] * np.log(curves["p"] / curves["q"])).sum() == pytest.approx(split.self_alignment)
    assert curves["e"].iloc[0] == 0 and curves["p"].iloc[0] == pytest.approx(metrics.rbp(record.stats, 1, "optimistic"))


def test_checkpoints_in_order_of_training():
    records = ladder(3)
    steps = [(300, 2), (100, 0), (None, 1)]
    changed = [
        replace(r, header=replace(r.header, model=replace(r.model, training_tokens=tokens)))
        for tokens, r in ((t, records[i]) for t, i in steps)
    ]
    table = checkpoints(decomposition_table(changed))
    assert table["training_tokens"].tolist() == [100, 300] and checkpoints(decomposition_table(records)).empty
