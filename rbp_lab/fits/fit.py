"""One ``fit`` for every form, by variable projection and refinement; ``compare`` says what n models can tell.

The start comes from a grid over the nonlinear parameters with the linear ones solved exactly (non-negative least
squares of relative residuals); the best few are refined by trust-region least squares of the loss. Starts that end at
the same loss are counted: a fit that few of them reach is marked.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from rbp_lab.errors import LabError
from rbp_lab.fits.forms import FORMS, Form, form_named, predict
from rbp_lab.fits.power import aicc, fit_power, why_not
from rbp_lab.fits.result import FEW_MODELS, NO_LABEL, FitPoints, FitResult, Label, refused

LOSSES = ("log", "linear")


def fit(
    form: str,
    points: FitPoints,
    label: Label = NO_LABEL,
    *,
    loss: str = "log",
    confidence: float = 0.95,
    starts: int = 6,
    leave_out: bool = True,
) -> FitResult:
    """The law of one form, by least squares of ln value (loss "log", the default) or of the value itself ("linear").

    "power" with the log loss is the paper's ordinary least squares, solved in closed form. Intervals are Wald, t with
    n − P degrees of freedom; a parameter on its bound (E = 0) has none, and the fit is marked "ridge". Refused with a
    sentence when n ≤ P, or when the points do not admit a slope. starts: refined starting points.
    """
    shape = form_named(form)
    if loss not in LOSSES:
        raise LabError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if form == "power" and loss == "log":
        return fit_power(points, label, confidence)
    why = why_not(points, minimum=len(shape.parameters) + 1) or _tokens_missing(shape, points)
    if why:
        return refused(form, points, label, why)
    problem = _Problem(shape, points, loss)
    found = [problem.refine(start) for start in problem.starting_points(starts)]
    best = min(found, key=lambda result: result.cost)
    agree = sum(result.cost <= best.cost * (1 + 1e-4) + 1e-20 for result in found)
    return _result(problem, best, label, confidence, len(found), agree, leave_out)


def _tokens_missing(form: Form, points: FitPoints) -> str | None:
    if not form.needs_tokens:
        return None
    if points.tokens is None or not (np.isfinite(points.tokens) & (points.tokens > 0)).all():
        return f"the form {form.name} needs the training tokens of every model"
    if np.ptp(points.tokens) == 0:
        return f"all models saw the same number of training tokens: {form.name} cannot tell size from data"
    return None


class _Problem:
    """Residuals of one form on one set of points, in sizes divided by their geometric mean."""

    def __init__(self, form: Form, points: FitPoints, loss: str) -> None:
        self.form, self.points, self.loss = form, points, loss
        self.log_scale = float(np.log(points.size).mean())
        self.x = points.size / math.exp(self.log_scale)
        self.z, self.log_token_scale = None, 0.0
        if form.needs_tokens:
            self.log_token_scale = float(np.log(points.tokens).mean())
            self.z = points.tokens / math.exp(self.log_token_scale)
        self.signed = "level" in form.linear
        names = form.parameters
        bounds = [form.nonlinear.get(name, (0.0, np.inf) if name == "E" else (-np.inf, np.inf)) for name in names]
        self.low, self.high = (np.array(side) for side in zip(*bounds, strict=True))

    def params(self, u: np.ndarray) -> dict[str, float]:
        return dict(zip(self.form.parameters, u.tolist(), strict=True))

    def residual(self, u: np.ndarray) -> np.ndarray:
        y = self.form.evaluate(self.params(u), self.x, self.z)
        if self.loss == "linear":
            return np.nan_to_num(self.points.value - y, nan=1e6, posinf=1e6, neginf=-1e6)
        # a straight line in ln S may cross zero, where its logarithm ends; a floor keeps the optimiser out
        return np.log(self.points.value) - np.log(np.clip(np.nan_to_num(y, nan=1e300), 1e-12, 1e300))

    def starting_points(self, count: int) -> list[np.ndarray]:
        """The ``count`` best of the grid, linear part solved for each: parameter vectors inside the bounds."""
        form, value = self.form, self.points.value
        ranked = []
        for theta in itertools.product(*form.grid.values()):
            basis = form.basis(dict(zip(form.nonlinear, theta, strict=True)), self.x, self.z)
            weighted = basis / value[:, None]
            if self.signed:
                c, *_ = np.linalg.lstsq(weighted, np.ones(len(value)), rcond=None)
                norm = float(np.linalg.norm(weighted @ c - 1))
            else:
                c, norm = optimize.nnls(weighted, np.ones(len(value)))
            floor = 1e-3 * value.min()  # an amplitude of zero has no logarithm to start from
            linear = [
                math.log(max(a, floor)) if name.startswith("log_") else a
                for name, a in zip(form.linear, c, strict=True)
            ]
            ranked.append((norm, np.array([*theta, *linear])))
        ranked.sort(key=lambda pair: pair[0])
        return [start for _, start in ranked[:count]]

    def refine(self, start: np.ndarray) -> optimize.OptimizeResult:
        inside = np.clip(start, self.low, self.high)
        return optimize.least_squares(
            self.residual, inside, bounds=(self.low, self.high), x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12,
            max_nfev=150,
        )  # fmt: skip

    def natural(self, u: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Parameters for S as it is, and the Jacobian [P,P] of that change."""
        names, scaled = self.form.parameters, self.params(u)

        def convert(v: np.ndarray) -> np.ndarray:
            p = self.params(v)
            for name, amount in self.form.shift(p, self.log_scale, self.log_token_scale).items():
                p[name] += amount
            return np.array([p[name] for name in names])

        jacobian = np.eye(len(names))
        for j in range(len(names)):  # the change is linear in each parameter, so this difference is exact
            step = np.zeros(len(names))
            step[j] = max(1e-3, 1e-3 * abs(scaled[names[j]]))
            jacobian[:, j] = (convert(u + step) - convert(u - step)) / (2 * step[j])
        return dict(zip(names, convert(u).tolist(), strict=True)), jacobian


def _result(
    problem: _Problem,
    best: optimize.OptimizeResult,
    label: Label,
    confidence: float,
    starts: int,
    agree: int,
    leave_out: bool,
) -> FitResult:
    form, points, n = problem.form, problem.points, len(problem.points)
    names, dof = form.parameters, len(problem.points) - len(form.parameters)
    residual = problem.residual(best.x)
    params, change = problem.natural(best.x)
    at_bound = best.active_mask != 0
    at_bound |= np.array([name == "E" and value < 1e-6 * points.value.min() for name, value in params.items()])
    covariance, intervals, ridge = None, {}, bool(at_bound.any())
    free = ~at_bound
    jacobian = best.jac[:, free]
    singular = np.linalg.svd(jacobian, compute_uv=False)
    if singular[-1] > 1e-9 * singular[0]:
        inner = np.zeros((len(names), len(names)))
        inner[np.ix_(free, free)] = np.linalg.inv(jacobian.T @ jacobian) * float(residual @ residual) / dof
        ridge |= _largest_correlation(inner[np.ix_(free, free)]) > 0.999
        covariance = change @ inner @ change.T
        t = stats.t.ppf(0.5 + confidence / 2, dof)
        for i, name in enumerate(names):
            if free[i]:
                half = t * math.sqrt(max(covariance[i, i], 0.0))
                low = params[name] - half
                intervals[name] = (max(low, 0.0) if name == "E" else low, params[name] + half)
    else:
        ridge = True
    log_loss = problem.loss == "log"
    target = np.log(points.value) if log_loss else points.value
    relative = residual if log_loss else residual / points.value
    warnings = [
        code for code, on in (("few_models", n < FEW_MODELS), ("ridge", ridge), ("not_reproduced", 2 * agree < starts))
        if on
    ]  # fmt: skip
    converged = bool(best.success)
    return FitResult(
        form=form.name, points=points, status="ok" if converged else "not_converged", label=label,
        message="fitted" if converged else f"the optimiser stopped early: {best.message}",
        params=params, intervals=intervals, covariance=covariance, confidence=confidence, dof=dof,
        r2=1 - float(residual @ residual) / float(((target - target.mean()) ** 2).sum()),
        r2_space="log10-log10" if log_loss else "linear",
        rmse_percent=100 * math.sqrt(float(relative @ relative) / n), aicc=aicc(residual, len(names)),
        leave_largest_out=_leave_largest_out(problem) if leave_out else None, warnings=tuple(warnings),
        method=f"least squares of {'ln value' if log_loss else 'the value'}, variable projection then refinement, "
        "t(n−P) Wald intervals", starts=starts, agree=agree,
    )  # fmt: skip


def _largest_correlation(covariance: np.ndarray) -> float:
    """Largest |correlation| between two parameters, in centred sizes; near 1 one direction is all but undetermined."""
    scale = np.sqrt(np.diag(covariance))
    if not (scale > 0).all():  # an exact fit leaves nothing undetermined
        return 0.0
    correlation = np.abs(covariance / np.outer(scale, scale))
    return float(np.max(correlation - np.eye(len(scale)), initial=0.0))


def _leave_largest_out(problem: _Problem) -> float | None:
    points = problem.points
    rest = fit(problem.form.name, points.without_largest(), loss=problem.loss, starts=2, leave_out=False)
    if not rest.params:
        return None
    tokens = None if points.tokens is None else points.tokens[-1]
    return 100 * float(predict(rest, points.size[-1], tokens) / points.value[-1] - 1)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Which form the points support. verdict: a sentence. fits: by form. delta_aicc: AICc − that of the power law
    (positive: the power law is better), empty when the form cannot be tested."""

    verdict: str
    fits: dict[str, FitResult]
    delta_aicc: dict[str, float]

    def to_frame(self) -> pd.DataFrame:
        """One row per form: name, AICc difference, R², RMSE, leave-largest-out error, warnings."""
        rows = [
            {"form": name, "delta_aicc": self.delta_aicc.get(name), "r2": f.r2, "rmse_percent": f.rmse_percent,
             "leave_largest_out_percent": f.leave_largest_out, "status": f.status, "warnings": " ".join(f.warnings)}
            for name, f in self.fits.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)


def compare(
    points: FitPoints,
    label: Label = NO_LABEL,
    forms: tuple[str, ...] = ("power", "log_linear", "power_constant"),
    power: FitResult | None = None,
) -> Comparison:
    """The power law against other forms by AICc of ln value. Below 7 models the form is not testable, and it says so.

    A difference beyond 4 counts as support, within ±4 as undecided: a high R² alone is no evidence of a power law
    (over a decade or two, a straight line in ln S or a floor reach 0.97 as well). power: the power law of these
    points, fitted here when it is not given.
    """
    power = power or fit("power", points, label)
    fits = {"power": power} | {name: fit(name, points, label, starts=4) for name in forms if name != "power"}
    if not power.ok:
        return Comparison(power.message, fits, {})
    if len(points) < FEW_MODELS:
        return Comparison(f"form not testable: {len(points)} models, {FEW_MODELS} are needed", fits, {})
    delta = {
        name: f.aicc - power.aicc
        for name, f in fits.items()
        if name != "power" and f.aicc is not None and power.aicc is not None
    }
    better = [name for name, d in delta.items() if d < -4]
    open_ = [name for name, d in delta.items() if -4 <= d <= 4]
    excluded = [name for name, d in delta.items() if d > 4]
    parts = []
    if better:
        parts.append(f"{_names(better)} fits better than the power law")
    if open_:
        parts.append(f"{_names(open_)} cannot be told from the power law")
    if excluded:
        parts.append(f"{_names(excluded)} is excluded")
    return Comparison("; ".join(parts) or "no other form could be fitted", fits, delta)


def _names(names: list[str]) -> str:
    return " and ".join(f"{name} ({FORMS[name].formula})" for name in names)
