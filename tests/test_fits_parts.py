"""Documents in the laws of the parts of cross-entropy."""

import numpy as np
import pytest

from rbp_lab.fits.decomposition import PARTS, decomposition_table, part_scalings
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.points import Label
from tests.coverage.parts import Parts, parts_of, replicate, runs, stats_of
from tests.coverage.study import share_inside
from tests.fits_data import ladder

WORLD = Parts(60, 4, "coherent", scatter=0.0)


@pytest.fixture(scope="module")
def drawn():
    rows = np.arange(60)
    return rows, runs(WORLD, rows)


def by_document(effects, part, models):
    if part == "cross_entropy":
        return effects.of(Label(metric="ce"), models).values
    return getattr(effects, f"of_{part}")(models).values


@pytest.mark.parametrize("part", PARTS)
def test_what_a_document_moves_a_part_by_is_its_jackknife(drawn, part):
    """The truth knows Σ nll of every document and rank, which runs do not keep."""
    rows, records = drawn
    names = [r.model.name for r in records]
    found = by_document(DocumentEffects(records), part, names)
    for model in range(len(records)):
        counts, nll = (a[rows, model] for a in WORLD.all)
        left = [stats_of(counts.sum(0) - c, nll.sum(0) - u) for c, u in zip(counts, nll, strict=True)]
        which = PARTS.index(part)
        whole = parts_of([stats_of(counts.sum(0), nll.sum(0))])[which, 0]
        exact = (np.log(whole) - np.log(parts_of(left)[which])) * np.sqrt(59 / 60)
        assert np.corrcoef(found[:, model], exact)[0, 1] > 0.95
        assert found[:, model].std() == pytest.approx(exact.std(), rel=0.08)


def test_nll_that_ranks_explain_moves_no_confidence():
    """In these runs a token's nll follows from its rank, so that documents differ in their ranks alone."""
    records = ladder(3)
    effects, names = DocumentEffects(records), [r.model.name for r in records]
    assert effects.of_confidence(names).values == pytest.approx(0, abs=1e-6)
    assert np.abs(effects.of_error_entropy(names).values).max() > 1e-3
    assert effects.of_confidence([*names, "absent"]) is None and effects.of_self_alignment(["absent"]) is None


def test_every_part_counts_documents(drawn):
    _, records = drawn
    parts = part_scalings(decomposition_table(records), "D", "F", effects=DocumentEffects(records))
    assert all(p.law.document_share is not None for p in parts)
    assert [p.part for p in parts if p.law.document_share > 0.2] == list(PARTS)
    plain = part_scalings(decomposition_table(records), "D", "F")
    assert all(p.law.document_share is None for p in plain)


def test_the_laws_of_the_parts_hold_the_truth_only_with_documents():
    rng = np.random.default_rng(20261130)
    found = share_inside([replicate(WORLD, rng) for _ in range(60)])
    assert found.pop("confidence, least squares") < 0.75
    assert all(share >= 0.85 for share in found.values()), found
