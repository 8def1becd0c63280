"""The error-entropy split: exact sums, corrected entropy, scaling of the parts, curves."""

from dataclasses import replace

import numpy as np
import pytest

from rbp_lab import metrics
from rbp_lab.fits.decomposition import (
    PARTS,
    checkpoints,
    corrected_entropy,
    decomposition_table,
    error_curves,
    part_scalings,
)
from rbp_lab.fits.result import POOLED
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


def test_corrected_entropy_is_nearer_the_truth():
    """A rank law as of GPT-2: the plug-in value of 1000 tokens is far too low (design: 3.05 against 3.60)."""
    _, p = rounded(-2.0, 4.2)
    truth = -(p * np.log(p)).sum()
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(50):
        counts = rng.multinomial(1000, p)
        share = counts[counts > 0] / 1000
        plain.append(-(share * np.log(share)).sum() - truth)
        corrected.append(corrected_entropy(counts) - truth)
    assert np.mean(plain) < -0.3 and abs(np.mean(corrected)) < 0.4 * abs(np.mean(plain))
    assert corrected_entropy(np.full(4, 10**6)) == pytest.approx(np.log(4), abs=1e-5)
    by_hand = 0.0
    for p in (0.5 * 0.5, 0.25 * 0.5, 0.25 * 0.5):  # shares 2/4, 1/4, 1/4 times the coverage 1 − 2/4
        by_hand -= p * np.log(p) / (1 - (1 - p) ** 4)
    assert corrected_entropy(np.array([2, 1, 1])) == pytest.approx(by_hand)
    assert corrected_entropy(np.zeros(3)) == 0 and corrected_entropy(np.array([7])) == pytest.approx(0)
    assert np.isfinite(corrected_entropy(np.ones(5)))


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
