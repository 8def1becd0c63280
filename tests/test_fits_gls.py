"""Two sources of error: documents common to the models, and the models themselves."""

import numpy as np
import pytest
from scipy import stats

from rbp_lab import metrics
from rbp_lab.fits.cloglog import counts_from_records, fit_cloglog
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.gls import DocumentErrors, combined, fit_line
from rbp_lab.fits.power import METHOD, METHOD_WITH_DOCUMENTS, fit_power
from rbp_lab.fits.result import FitPoints, Label
from rbp_lab.quantities import CE, RBP, WINDOW_RBP
from rbp_lab.stats import UNIT
from tests.fits_data import ladder

X = np.array([1.0, 2.0, 4.0, 5.0, 7.0])
DESIGN = np.column_stack([np.ones(5), X - X.mean()])


def errors(values, effective=50.0):
    return DocumentErrors(np.asarray(values, float), np.arange(len(values)), effective)


def noisy_line(seed=0, n=5):
    return DESIGN[:n] @ [3.0, -0.5] + 0.1 * np.random.default_rng(seed).standard_normal(n)


def test_without_documents_it_is_least_squares_with_student():
    y = noisy_line()
    beta, error = fit_line(DESIGN, y)
    oracle = stats.linregress(X, y)
    assert beta[1] == pytest.approx(oracle.slope, rel=1e-12)
    assert error.half((0, 1), 0.95) == pytest.approx(stats.t.ppf(0.975, 3) * oracle.stderr, rel=1e-12)
    assert error.variance((0, 1))[1] == 3 and not error.documents.any()


def test_documents_that_move_every_model_by_itself_are_in_the_residuals_already():
    y = noisy_line()
    plain = fit_line(DESIGN, y)[1]
    alike = fit_line(DESIGN, y, errors(0.3 * np.eye(5)))[1]
    assert alike.half((0, 1), 0.95) == pytest.approx(plain.half((0, 1), 0.95), rel=1e-9)


def test_documents_along_the_line_add_what_they_move_it():
    """One document that tilts and one that lifts all models: no residual shows them."""
    y, tilt, lift = noisy_line(), 0.2, 0.7
    plain = fit_line(DESIGN, y)[1]
    beta, error = fit_line(DESIGN, y, errors([tilt * DESIGN[:, 1], lift * np.ones(5)], effective=20))
    assert beta == pytest.approx(fit_line(DESIGN, y)[0])
    own = plain.covariance[1, 1]
    variance, freedom = error.variance((0, 1))
    assert variance == pytest.approx(tilt**2 + own)
    assert freedom == pytest.approx((tilt**2 + own) ** 2 / (tilt**4 / 19 + own**2 / 3))
    assert error.variance((1, 0))[0] == pytest.approx(lift**2 + plain.covariance[0, 0])
    with_scatter, _ = error.variance((1, 0), new_model=True)
    assert with_scatter == pytest.approx(lift**2 + plain.covariance[0, 0] + plain.mean_square)


def test_the_variance_is_right_on_average():
    """Documents of any covariance: the mean of the estimate is the variance of the slope."""
    rng = np.random.default_rng(3)
    moves = rng.standard_normal((40, 5)) * 0.02 + 0.05 * rng.standard_normal((40, 1)) * (X - X.mean())
    slopes, estimates = [], []
    for _ in range(4000):
        y = rng.standard_normal(40) @ moves + 0.1 * rng.standard_normal(5)
        beta, error = fit_line(DESIGN, y, errors(moves))
        slopes.append(beta[1])
        estimates.append(error.variance((0, 1))[0])
    assert np.mean(estimates) == pytest.approx(np.var(slopes), rel=0.06)


def test_weights_are_inverse_variances():
    variance = np.array([1.0, 1.0, 4.0, 9.0, 100.0])
    y = noisy_line()
    beta, error = fit_line(DESIGN, y, weight=1 / variance)
    normal = np.linalg.inv((DESIGN.T / variance) @ DESIGN)
    expected = normal @ (DESIGN.T / variance) @ y
    assert beta == pytest.approx(expected)
    scale = float(((y - DESIGN @ expected) ** 2 / variance).sum()) / 3
    assert error.covariance == pytest.approx(scale * normal)


def test_combined_errors_need_the_same_documents():
    one, two = errors(np.ones((3, 2)), 3.0), errors(2 * np.ones((3, 2)), 2.0)
    both = combined([one, two], (1, -1))
    assert (both.values == -1).all() and both.effective == 2
    assert combined([one, None], (1, -1)) is None and combined([None, one], (1, -1)) is None
    other = DocumentErrors(one.values, np.array([0, 1, 7]), 3.0)
    assert combined([one, other], (1, -1)) is None


@pytest.mark.parametrize("quantity", [CE, RBP, WINDOW_RBP])
def test_influence_is_the_delete_one_jackknife(quantity):
    numerator, denominator = (s.astype(float) for s in quantity.sums(ladder(1)[0].documents, 10, 2))
    value = np.log if quantity is CE else lambda p: np.log(-np.log(p))
    left = value((numerator.sum() - numerator) / (denominator.sum() - denominator))
    expected = (value(numerator.sum() / denominator.sum()) - left) * np.sqrt((len(left) - 1) / len(left))
    assert quantity.influence(numerator, denominator) == pytest.approx(expected, rel=0.1, abs=2e-4)


def test_a_large_document_counts_for_more_than_in_the_linear_estimate():
    numerator, denominator = np.array([90.0, 5, 6, 4]), np.array([100.0, 10, 10, 10])
    jackknife = (metrics.ratio_influence(numerator, denominator) ** 2).sum()
    assert jackknife > 2 * metrics.ratio_estimate(numerator, denominator).se_log ** 2
    assert metrics.ratio_influence(numerator[:1], denominator[:1]) is None
    assert metrics.ratio_influence(denominator, denominator, "neg_log") is None


def test_errors_of_runs_are_paired_by_document():
    records = ladder(4)
    effects, label = DocumentEffects(records), Label("ladder", "stdlib", "ce")
    names = [r.model.name for r in records]
    found = effects.of(label, names[::-1])
    assert found.values.shape == (30, 4) and found.effective == 30
    own = CE.influence(*CE.sums(records[0].documents, None, 1))
    assert np.array_equal(found.values[:, 3], own)
    assert np.diag(found.covariance)[3] ** 0.5 == pytest.approx(
        CE.over_documents(records[0].documents, None, 1).se_log, rel=0.05
    )
    assert effects.of(label, [*names, "absent"]) is None and effects.of(Label(metric="other"), names) is None
    found = effects.of(label, names)
    points = FitPoints(np.array([4.0, 1, 2, 3]), np.array([1.0, 4, 3, 2]), tuple(names), errors=found)
    assert points.names[-1] == names[0] and np.array_equal(points.errors.values[:, -1], own)
    assert np.array_equal(points.without_largest().errors.values, points.errors.values[:, :3])


def test_error_entropy_by_document_is_its_jackknife():
    records = ladder(3)
    found = DocumentEffects(records).of_error_entropy([records[1].model.name]).values[:, 0]
    documents = records[1].documents
    rows = np.repeat(np.arange(30), np.diff(documents.indptr))

    def log_entropy(keep):
        counts = np.bincount(documents.rank[keep], documents.count[keep])
        p = counts[counts > 0] / counts.sum()
        return np.log(-(p * np.log(p)).sum())

    left = np.array([log_entropy(rows != g) for g in range(30)])
    expected = (log_entropy(rows >= 0) - left) * np.sqrt(29 / 30)
    assert np.corrcoef(found, expected)[0, 1] > 0.99 and found.std() == pytest.approx(expected.std(), rel=0.1)


def test_a_law_says_what_its_interval_counts():
    records = ladder(6)
    names = tuple(r.model.name for r in records)
    sizes = np.array([float(r.model.params.non_embedding) for r in records])
    value = np.array([int(r.stats.nll_units.sum()) * UNIT / r.stats.num_tokens for r in records])
    known = DocumentEffects(records).of(Label(metric="ce"), names)
    plain, full = fit_power(FitPoints(sizes, value, names)), fit_power(FitPoints(sizes, value, names, errors=known))
    assert plain.params == full.params and plain.r2 == full.r2
    assert full.least_squares["alpha"] == pytest.approx(plain.intervals["alpha"])
    assert (plain.method, full.method) == (METHOD, METHOD_WITH_DOCUMENTS)
    assert plain.document_share is None and 0 <= full.document_share <= 1
    row = full.to_frame().iloc[0]
    assert (row["alpha_least_squares_low"], row["alpha_least_squares_high"]) == full.least_squares["alpha"]


def test_counts_and_logs_agree_where_misses_are_many():
    """Same models, same documents: one exponent and one interval."""
    records = ladder(6, documents=60)
    names = tuple(r.model.name for r in records)
    counts = counts_from_records(records, 1)
    known = DocumentEffects(records).of(Label(metric="neg_log_rbp", k=1), names)
    by_count = fit_cloglog(counts)
    by_log = fit_power(FitPoints(counts.size, counts.points.value, names, errors=known))
    assert by_count.params["alpha"] == pytest.approx(by_log.params["alpha"], rel=0.02)
    widths = [np.diff(f.intervals["alpha"])[0] for f in (by_count, by_log)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)
