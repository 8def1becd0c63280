"""One ``fit`` for every form, by variable projection and refinement; ``compare`` says which form n models support.

The start comes from a grid over the nonlinear parameters with the linear ones solved exactly (non-negative least
squares of relative residuals); the best few are refined by trust-region least squares of the loss. Starts that end at
the same loss are counted: a fit that few of them reach is marked.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import fdtrc, stdtrit

from rbp_lab.errors import LabError
from rbp_lab.fits.floor import Floor, floor_interval, floor_of
from rbp_lab.fits.forms import FORMS, Form, form_named, is_nested
from rbp_lab.fits.points import NO_LABEL, FitPoints, Label
from rbp_lab.fits.power import aicc, fit_power, not_falling, why_not
from rbp_lab.fits.result import FEW_MODELS, FitResult, refused
from rbp_lab.text import number, significant

LOSSES = ("log", "linear")


def fit(
    form: str,
    points: FitPoints,
    label: Label = NO_LABEL,
    *,
    loss: str = "log",
    confidence: float = 0.95,
    starts: int = 6,
) -> FitResult:
    """The law of one form, by least squares of ln value (loss "log", the default) or of the value itself ("linear").

    "power" with the log loss is the paper's ordinary least squares, solved in closed form. Intervals are Wald, t with
    n − P degrees of freedom, but that of the floor E of "power_constant" is by profile likelihood (``floor``); another
    parameter on its bound has none, and the fit is marked "ridge". Refused with a sentence when n ≤ P, or when the
    points do not admit a slope. starts: refined starting points.
    """
    shape = form_named(form)
    if loss not in LOSSES:
        raise LabError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if form == "power" and loss == "log":
        return fit_power(points, label, confidence)
    if why := why_not(points, minimum=len(shape.parameters) + 1):
        return refused(form, points, label, why)
    problem = _Problem(shape, points, loss)
    best, tried, agree = problem.solve(starts)
    return _result(problem, best, label, confidence, tried, agree)


class _Problem:
    """Residuals of one form on one set of points, in sizes divided by their geometric mean."""

    def __init__(self, form: Form, points: FitPoints, loss: str) -> None:
        self.form, self.points, self.loss = form, points, loss
        self.log_scale = float(np.log(points.x).mean())
        self.x = points.x / math.exp(self.log_scale)

        self.signed = "level" in form.linear
        names = form.parameters
        bounds = [form.nonlinear.get(name, (0.0, np.inf) if name == "E" else (-np.inf, np.inf)) for name in names]
        self.low, self.high = (np.array(side) for side in zip(*bounds, strict=True))

    def params(self, u: np.ndarray) -> dict[str, float]:
        return dict(zip(self.form.parameters, u.tolist(), strict=True))

    def residual(self, u: np.ndarray) -> np.ndarray:
        y = self.form.evaluate(self.params(u), self.x)
        if self.loss == "linear":
            return np.nan_to_num(self.points.value - y, nan=1e6, posinf=1e6, neginf=-1e6)
        # a straight line in ln S may cross zero, where its logarithm ends; a floor keeps the optimiser out
        return np.log(self.points.value) - np.log(np.clip(np.nan_to_num(y, nan=1e300), 1e-12, 1e300))

    def starting_points(self, count: int) -> list[np.ndarray]:
        """The ``count`` best of the grid, linear part solved for each: parameter vectors inside the bounds."""
        form, value = self.form, self.points.value
        ranked = []
        for theta in itertools.product(*form.grid.values()):
            basis = form.basis(dict(zip(form.nonlinear, theta, strict=True)), self.x)
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

    def solve(self, starts: int) -> tuple[optimize.OptimizeResult, int, int]:
        """The best optimum from at most so many starting points, how many were tried, and how many reach it."""
        found = [self.refine(start) for start in self.starting_points(starts)]
        best = min(found, key=lambda result: result.cost)
        return best, len(found), sum(result.cost <= best.cost * (1 + 1e-4) + 1e-20 for result in found)

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
            for name, amount in self.form.shift(p, self.log_scale).items():
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
        t = stdtrit(dof, 0.5 + confidence / 2)
        for i, name in enumerate(names):
            if free[i]:
                half = t * math.sqrt(max(covariance[i, i], 0.0))
                low = params[name] - half
                intervals[name] = (max(low, 0.0) if name == "E" else low, params[name] + half)
    else:
        ridge = True
    log_loss = problem.loss == "log"
    profiled = log_loss and form.name == "power_constant"
    if profiled:
        intervals["E"] = floor_interval(points, params["E"], confidence)
    slope = intervals.get("alpha") or intervals.get("slope")
    target = np.log(points.value) if log_loss else points.value
    relative = residual if log_loss else residual / points.value
    warnings = [
        code for code, on in (("few_models", n < FEW_MODELS), ("ridge", ridge), ("not_reproduced", 2 * agree < starts))
        if on
    ]  # fmt: skip
    warnings += not_falling(slope) if slope else ()
    converged = bool(best.success)
    return FitResult(
        form=form.name, points=points, status="ok" if converged else "not_converged", label=label,
        message="fitted" if converged else f"the optimiser stopped early: {best.message}",
        params=params, intervals=intervals, covariance=covariance, confidence=confidence, dof=dof,
        r2=1 - float(residual @ residual) / float(((target - target.mean()) ** 2).sum()),
        r2_space="log10-log10" if log_loss else "linear",
        rmse_percent=100 * math.sqrt(float(relative @ relative) / n), aicc=aicc(residual, len(names)),
        leave_largest_out=_leave_largest_out(problem), warnings=tuple(warnings),
        method=f"least squares of {'ln value' if log_loss else 'the value'}, variable projection then refinement, "
        f"t(n−P) Wald intervals{', E by profile likelihood' if profiled else ''}", starts=starts, agree=agree,
    )  # fmt: skip


def _largest_correlation(covariance: np.ndarray) -> float:
    """Largest |correlation| between two parameters, in centred sizes; near 1 one direction is all but undetermined."""
    scale = np.sqrt(np.diag(covariance))
    if not (scale > 0).all():  # an exact fit leaves nothing undetermined
        return 0.0
    correlation = np.abs(covariance / np.outer(scale, scale))
    return float(np.max(correlation - np.eye(len(scale)), initial=0.0))


def _leave_largest_out(problem: _Problem) -> float | None:
    """Percent by which the form fitted without the largest model misses that model (positive: predicted too high)."""
    form, points = problem.form, problem.points
    rest = points.without_largest()
    if why_not(rest, minimum=len(form.parameters) + 1):
        return None
    smaller = _Problem(form, rest, problem.loss)
    params, _ = smaller.natural(smaller.solve(2)[0].x)
    return 100 * float(form.evaluate(params, points.x[-1:])[0] / points.value[-1] - 1)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Which form the points support. verdict: a sentence. fits: by form.

    floor: what the points say of a floor, None when there is no estimate. delta_aicc: of forms that are
    not nested with the power law, AICc − that of the power law (positive: the power law is better). p_value: of forms
    that contain the power law, the F test of their further parameters (small: the power law is not enough). Both are
    empty when the form cannot be tested.
    """

    verdict: str
    fits: dict[str, FitResult]
    delta_aicc: dict[str, float] = field(default_factory=dict)
    p_value: dict[str, float] = field(default_factory=dict)
    floor: Floor | None = None

    @property
    def preferred(self) -> str:
        """The form that these points support against the power law, "" for none: then it may be forecast from."""
        if self.floor is not None and self.floor.supported:
            return "power_constant"
        better = [name for name, delta in self.delta_aicc.items() if delta < -4]
        return min(better, key=self.delta_aicc.get, default="")

    def to_frame(self) -> pd.DataFrame:
        """One row per form: AICc difference or p-value, interval of the floor, R², RMSE, leave-largest-out error."""
        rows = [
            {"form": name, "delta_aicc": self.delta_aicc.get(name), "p_value": self.p_value.get(name),
             "r2": f.r2, "rmse_percent": f.rmse_percent, "leave_largest_out_percent": f.leave_largest_out,
             "status": f.status, "warnings": " ".join(f.warnings)}
            | self._floor_columns(name)
            for name, f in self.fits.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def _floor_columns(self, form: str) -> dict[str, float | None]:
        names = ("low", "high", "share")
        mine = self.floor if form == "power_constant" else None
        return {f"floor_{name}": getattr(mine, name, None) for name in names}


def compare(law: FitResult, forms: tuple[str, ...] = ("log_linear", "power_constant")) -> Comparison:
    """The power law against other forms. Below 7 models the form is not testable, and it says so.

    law: a power law in S; its points, label and confidence are those of the comparison. A form that contains the power
    law fits at least as well, so it cannot be excluded, only found unnecessary: a floor is judged by its
    profile-likelihood interval, other parameters by an F test, which is approximate. Forms that are not nested are
    judged by AICc of ln value; a difference beyond 4 counts as support. A high R² alone is no evidence of a power law:
    over a decade or two a straight line in ln S or a floor reach 0.97 as well.
    """
    points, others = law.points, [name for name in dict.fromkeys(forms) if name != "power"]
    fits = {"power": law} | {name: fit(name, points, law.label, confidence=law.confidence, starts=4) for name in others}
    if not law.ok:
        return Comparison(law.message, fits)
    if len(points) < FEW_MODELS:
        return Comparison(f"form not testable: {len(points)} models, {FEW_MODELS} are needed", fits)
    delta, p_value, parts = {}, {}, []
    floor = floor_of(fits["power_constant"]) if "power_constant" in fits else None
    for name in others:
        other, shown = fits[name], f"{name} ({FORMS[name].formula})"
        if not other.params:
            continue
        if is_nested("power", name):
            p_value[name] = _f_test(law, other)
            if name == "power_constant" and floor is not None:
                parts.append(floor.sentence)
            else:
                enough = p_value[name] > 1 - law.confidence
                support = "no support for" if enough else "support for"
                parts.append(f"{support} {shown}, p = {significant(p_value[name], 2)}")
        elif other.aicc is not None and law.aicc is not None:
            delta[name] = other.aicc - law.aicc
            which = "cannot tell the power law from" if abs(delta[name]) <= 4 else "prefers the power law to"
            which = f"prefers {shown} to the power law" if delta[name] < -4 else f"{which} {shown}"
            parts.append(f"AICc {which} (difference {number(delta[name], 1)})")
    return Comparison("; ".join(parts) or "no other form could be fitted", fits, delta, p_value, floor)


def _f_test(small: FitResult, large: FitResult) -> float:
    """p-value of the parameters by which a fitted form exceeds one that it contains."""
    square = {f.form: f.n * max(f.rmse_percent, 1e-10) ** 2 for f in (small, large)}
    gained = max(square[small.form] - square[large.form], 0.0)
    extra = len(large.params) - len(small.params)
    return float(fdtrc(extra, large.dof, gained / extra / (square[large.form] / large.dof)))
