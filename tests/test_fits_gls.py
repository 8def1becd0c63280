"""Two sources of error: documents common to the models, and the models themselves."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rbp_lab import metrics
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.fits.cloglog import CountPoints, counts_from_records, fit_cloglog
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.emergence import fit_emergence
from rbp_lab.fits.gls import DocumentErrors, combined, fit_line
from rbp_lab.fits.paired import exponent_difference
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import METHOD, METHOD_WITH_DOCUMENTS, fit_power
from rbp_lab.points import points_from_records
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
    share, level = tilt**2 / variance, 0.975
    student = share * stats.t.ppf(level, 19) + (1 - share) * stats.t.ppf(level, 3)
    critical = (stats.t.ppf(level, freedom) + student) / 2
    assert error.half((0, 1), 0.95) == pytest.approx(critical * variance**0.5)
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
    assert quantity.influence(numerator, denominator) == pytest.approx(expected, rel=0.1, abs=2e-4)  # linearised


def test_deviation_is_that_of_each_document_left_out():
    numerator, denominator = np.array([9.0, 5, 60, 4]), np.array([10.0, 30, 100, 10])
    left = (numerator.sum() - numerator) / (denominator.sum() - denominator)
    expected = (numerator.sum() / denominator.sum() - left) * np.sqrt(3 / 4)
    assert metrics.ratio_deviation(numerator, denominator) == pytest.approx(expected, rel=1e-12)


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
    assert (plain.method, full.method) == tuple(m.format(axis="S") for m in (METHOD, METHOD_WITH_DOCUMENTS))
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


def test_fits_of_runs_count_documents_and_fits_of_values_do_not():
    records = ladder(5)
    points = points_from_records(records, [1, 10])
    with_runs, without = fit_all(points, records=records), fit_all(points)
    assert all(f.document_share is not None and f.method == METHOD_WITH_DOCUMENTS.format(axis="S") for f in with_runs)
    assert all(f.document_share is None and f.method == METHOD.format(axis="S") for f in without)


def along_s(law, tilt):
    """The law with one document that tilts all its models by so much per unit of ln S, among twenty."""
    x = np.log(law.points.x)
    points = law.points.with_errors(errors(np.vstack([tilt * (x - x.mean()), np.zeros((19, len(x)))]), 20.0))
    return fit_power(points, law.label)


def test_what_documents_do_to_both_laws_cancels_in_their_difference():
    plain = [f for f in fit_all(points_from_records(ladder(5), [1])) if f.ok]
    ce, k1 = (along_s(f, 0.05) for f in plain)
    assert ce.error.variance((1, 0))[0] == pytest.approx(0.05**2 + plain[0].error.variance((1, 0))[0])
    alone = exponent_difference(*plain)
    assert exponent_difference(ce, k1).high == pytest.approx(alone.high)
    apart = exponent_difference(ce, along_s(k1, -0.05))
    assert apart.high - apart.difference > 3 * (alone.high - alone.difference)
    assert exponent_difference(ce, plain[1]).high == pytest.approx(alone.high)  # where one is unknown, residuals alone


def test_documents_count_in_counts_on_the_scale_of_the_law():
    """Misses of few tokens: a share of misses that moves by x moves its law by x over the share."""
    sizes, tokens = np.geomspace(1e6, 1e9, 6), 1e7
    misses = np.round(tokens * 1e-3 * (sizes / 1e6) ** -0.1 * np.exp(0.01 * np.cos(np.arange(6.0))))
    x = np.log(sizes) - np.log(sizes).mean()
    moved = errors(np.vstack([0.02 * x * misses / tokens, np.zeros((19, 6))]), 20.0)
    names = tuple("abcdef")
    fit = fit_cloglog(CountPoints(sizes, misses, np.full(6, tokens), np.ones(6), names, moved))
    assert fit.error.documents[0, 0] == pytest.approx(0.02**2, rel=0.05)


def test_documents_enter_both_exponents_of_n_in_a_row():
    """A document that steepens ln(−log p) in ln N for all models moves the exponent of N and nothing else shows it."""
    sizes, windows = np.geomspace(1e6, 1e9, 5), (1, 2, 5)
    rng = np.random.default_rng(1)
    rows = [
        (f"m{i}", "F", s, "D", 1, n, math.exp(-math.exp(0.8 * math.log(n) - 0.1 * math.log(s / 1e6) + e)))
        for i, s in enumerate(sizes) for n, e in zip(windows, 0.01 * rng.standard_normal(3), strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "family", "size", "dataset", "k", "window", "p"])

    class Steeper:
        def of(self, label, models):
            return errors(np.vstack([np.full(5, 0.04 * math.log(label.window)), np.zeros((19, 5))]), 20.0)

    plain, full = (fit_emergence(table, "F", "D", 1, effects=effects) for effects in (None, Steeper()))
    assert full.beta == plain.beta and full.alpha_interval == pytest.approx(plain.alpha_interval)
    se = np.diff(plain.beta_interval)[0] / 2 / stats.t.ppf(0.975, 4)
    half = np.diff(full.beta_interval)[0] / 2
    assert half > 1.96 * math.hypot(se, 0.04) and half < 2.9 * math.hypot(se, 0.04)
    assert np.diff(full.by_window[5].intervals["log_a"])[0] > np.diff(plain.by_window[5].intervals["log_a"])[0]
