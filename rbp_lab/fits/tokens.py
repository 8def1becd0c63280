"""A law in size and training tokens together: value = E + A·N^−a + B·D^−b (arXiv 2203.15556, section 3.3).

Fitted to ln value from points (N, D, value) of several training runs. The points of one run share its initial weights,
its data and its schedule, so their errors are not independent: intervals are from leaving out one run at a time, and
from what documents do to all runs alike where that is known (``fits.surface_error``).

Legend: n points, R runs, G documents, N size, D training tokens, C = 6·N·D operations (arXiv 2001.08361, section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import optimize

from rbp_lab.errors import LabError
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.surface_error import DocumentMoves, document_moves, half_width, slope_of, slopes_of_value
from rbp_lab.fits.surface_profile import EXPONENTS, intervals_at_bound

# Form → its terms. The others are special cases of the first.
FORMS = {
    "E + A·N^−a + B·D^−b": ("E", "N", "D"),
    "A·N^−a + B·D^−b": ("N", "D"),
    "E + A·N^−a": ("E", "N"),
    "E + B·D^−b": ("E", "D"),
}
FULL = next(iter(FORMS))
LOSSES = ("log", "huber")
HUBER = 1e-3  # of residuals of ln value, as there; so small that it is all but least absolute values
LEAST_RUNS = 4
_GRID = np.geomspace(0.03, 1.5, 12)  # exponents to start from
_LOW, _HIGH = EXPONENTS
_STARTS = 4


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """size, tokens, value: N, D and the value [n], all positive and finite. run: which training each is of [n].

    errors: of documents in ln value, a column per point; None when unknown.
    """

    size: np.ndarray
    tokens: np.ndarray
    value: np.ndarray
    run: np.ndarray
    errors: DocumentErrors | None = None

    def __post_init__(self) -> None:
        for name in ("size", "tokens", "value"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if not (np.isfinite(array) & (array > 0)).all():
                raise LabError(f"every {name} must be positive and finite")
            object.__setattr__(self, name, array)
        object.__setattr__(self, "run", np.asarray(self.run))
        if not len(self.size) == len(self.tokens) == len(self.value) == len(self.run):
            raise LabError("as many sizes, tokens and runs as values are needed")

    def __len__(self) -> int:
        return len(self.value)

    def where(self, keep: np.ndarray) -> SurfacePoints:
        """The points for which ``keep`` [n] is true."""
        errors = None if self.errors is None else self.errors.of(np.flatnonzero(keep))
        return SurfacePoints(self.size[keep], self.tokens[keep], self.value[keep], self.run[keep], errors)

    @property
    def runs(self) -> list[object]:
        """The runs, by size."""
        return sorted(set(self.run.tolist()), key=lambda r: (self.size[self.run == r].min(), str(r)))


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted law, or why there is none.

    form: in FORMS. message: "" when it was fitted. params: a, b, A, B, E ≥ 0, as far as the form has them; intervals at
    ``confidence`` by leaving out one run at a time, t(R − 1), and by documents where these are known; where E lies at
    its bound 0 those of E and a are by profile likelihood, with the log loss (``fits.surface_profile``), else E has
    none. pinned: E was given and not fitted. rmse_percent: of ln value. left_out_percent: the same of points
    that the fit has not seen, each run from the others; largest_out_percent: of the largest size alone. without: the
    params without each run. moves: what documents move the params by, None when unknown.
    """

    form: str
    points: SurfacePoints
    loss: str
    message: str = ""
    params: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confidence: float = 0.95
    pinned: bool = False
    rmse_percent: float | None = None
    left_out_percent: float | None = None
    largest_out_percent: float | None = None
    without: tuple[Mapping[str, float], ...] = ()
    moves: DocumentMoves | None = None

    @property
    def ok(self) -> bool:
        return not self.message

    def at(self, size: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        """The fitted value at N and D, which broadcast."""
        return evaluate(self.params, size, tokens)

    def interval(self, what) -> tuple[float, float]:
        """Interval of a positive number that follows from the params, on its logarithm; (NaN, NaN) where undefined.

        what: a function of params.
        """
        values = np.array([what(p) for p in (self.params, *self.without)], dtype=np.float64)
        if len(self.without) < 2 or not (np.isfinite(values) & (values > 0)).all():
            return math.nan, math.nan
        moves = None if self.moves is None else self.moves.of(slope_of(what, self.params))
        return _around(values, moves, self.confidence, log=True)

    def difference(self, other: Surface, name: str) -> tuple[float, float, float]:
        """A param that is not A or B minus that of another law of the same runs, with its interval.

        Paired over the runs left out, and over documents where both laws know them.
        """
        values = np.array([
            mine[name] - theirs[name]
            for mine, theirs in zip((self.params, *self.without), (other.params, *other.without), strict=True)
        ])  # fmt: skip
        moves = None
        if self.moves is not None and other.moves is not None:
            moves = self.moves.of({name: 1.0}).minus(other.moves.of({name: 1.0}))
        low, high = _around(values, moves, self.confidence, log=False)
        return float(values[0]), low, high


def evaluate(params: Mapping[str, float], size: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
    """E + A·N^−a + B·D^−b with the terms that ``params`` has."""
    size, tokens = np.broadcast_arrays(np.asarray(size, np.float64), np.asarray(tokens, np.float64))
    value = np.full(size.shape, params.get("E", 0.0))
    if "a" in params:
        value = value + params["A"] * size ** -params["a"]
    if "b" in params:
        value = value + params["B"] * tokens ** -params["b"]
    return value


def fit_surface(
    points: SurfacePoints, form: str = FULL, *, loss: str = "log", E: float | None = None, confidence: float = 0.95
) -> Surface:
    """The law of one form, by least squares of ln value ("log") or by the Huber loss of it with δ = 1e-3 ("huber").

    E: the asymptote, when it is known; it is then not fitted, in the forms that have one. Starts from a grid over the
    exponents with the linear part solved exactly (non-negative least squares of relative residuals), refined by
    trust-region least squares. Refused with a sentence: fewer runs or distinct values than a form needs, an E that is
    not below every value.
    """
    if loss not in LOSSES:
        raise LabError(f"fit.loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    terms = FORMS[form]
    pinned = E if "E" in terms else None
    empty = Surface(form, points, loss, confidence=confidence, pinned=pinned is not None)
    if why := _why_not(points, terms, pinned):
        return replace(empty, message=why)
    best = _solve(points, terms, loss, pinned, None)
    residual = np.log(evaluate(best, points.size, points.tokens) / points.value)
    runs = points.runs
    without, missed = [], np.full(len(points), np.nan)
    for run in runs:
        out = points.run == run
        rest = points.where(~out)
        if _why_not(rest, terms, pinned, least_runs=LEAST_RUNS - 1):
            continue
        without.append(_solve(rest, terms, loss, pinned, best))
        missed[out] = np.log(evaluate(without[-1], points.size[out], points.tokens[out]) / points.value[out])
    whole = len(without) == len(runs)
    free = [name for name in best if not (name == "E" and (pinned is not None or best["E"] == 0))]
    moves = None
    if whole and points.errors is not None:
        weight = np.ones(len(points)) if loss == "log" else HUBER / np.maximum(np.abs(residual), HUBER)
        slopes = slopes_of_value(best, points.size, points.tokens, points.value * np.exp(residual))
        moves = document_moves(points.errors, points.run, {name: slopes[name] for name in free}, weight)
    intervals = {
        name: _around(
            np.array([p[name] for p in (best, *without)]), None if moves is None else moves.of({name: 1.0}), confidence,
            log=name in "AB",
        )
        for name in (free if whole else ())
    }  # fmt: skip
    if "E" in intervals:
        intervals["E"] = (max(0.0, intervals["E"][0]), intervals["E"][1])
    elif whole and loss == "log" and {"E", "N"} <= set(terms) and pinned is None:
        alone = half_width(np.zeros(len(without)), None if moves is None else moves.of({"a": 1.0}), confidence)
        intervals |= intervals_at_bound(points, best, confidence, alone)
    largest = points.run == runs[-1]

    def percent(r: np.ndarray) -> float | None:
        return 100 * math.sqrt(float(np.mean(r**2))) if np.isfinite(r).all() else None

    return replace(
        empty, params=best, intervals=intervals, rmse_percent=percent(residual), left_out_percent=percent(missed),
        largest_out_percent=percent(missed[largest]), without=tuple(without) if whole else (), moves=moves,
    )  # fmt: skip


def _why_not(points: SurfacePoints, terms: Sequence[str], E: float | None, least_runs: int = LEAST_RUNS) -> str:
    """The sentence that refuses to fit these terms to these points; "" when they can be fitted."""
    if E is not None and not 0 <= E < points.value.min(initial=math.inf):
        return f"fit.E={E:g} is not below every value, of which the least is {points.value.min(initial=math.inf):.4g}"
    if (found := len(points.runs)) < least_runs:
        return f"a law in size and tokens needs at least {least_runs} training runs; got {found}"
    for term, values, what in (("N", points.size, "sizes"), ("D", points.tokens, "numbers of training tokens")):
        least = 3 if "E" in terms else 2
        if term in terms and (found := len(np.unique(values))) < least:
            return f"{what} must differ: at least {least} are needed, got {found}"
    return ""


def _solve(
    points: SurfacePoints, terms: Sequence[str], loss: str, E: float | None, near: Mapping[str, float] | None
) -> dict[str, float]:
    """The params with the least loss; from ``near`` alone when it is given."""
    scale = {"N": float(np.log(points.size).mean()), "D": float(np.log(points.tokens).mean())}
    x = {"N": np.log(points.size) - scale["N"], "D": np.log(points.tokens) - scale["D"]}
    powers = [t for t in terms if t != "E"]
    free_floor = "E" in terms and E is None
    y, fixed = points.value, 0.0 if E is None else E

    def unpack(u: np.ndarray) -> tuple[float, np.ndarray]:
        """The floor and the values of the powers [n, P]; u: log amplitude and exponent of each, then ln E."""
        parts = [np.exp(u[2 * i] - u[2 * i + 1] * x[t]) for i, t in enumerate(powers)]
        return (math.exp(u[-1]) if free_floor else fixed), np.stack(parts, axis=1)

    def residual(u: np.ndarray) -> np.ndarray:
        floor, parts = unpack(u)
        return np.log((floor + parts.sum(axis=1)) / y)

    def jacobian(u: np.ndarray) -> np.ndarray:
        floor, parts = unpack(u)
        share = parts / (floor + parts.sum(axis=1))[:, None]
        columns = [c for i, t in enumerate(powers) for c in (share[:, i], -share[:, i] * x[t])]
        if free_floor:
            columns.append(1 - share.sum(axis=1))
        return np.stack(columns, axis=1)

    tiny = 1e-6 * float(y.min())
    low = [side for _ in powers for side in (-60.0, _LOW)] + ([math.log(tiny)] if free_floor else [])
    high = [side for _ in powers for side in (60.0, _HIGH)] + ([math.log(float(y.min()))] if free_floor else [])
    if near is None:
        starts = _starts(x, powers, y, free_floor, fixed, tiny)
    else:
        letters = {"N": ("A", "a"), "D": ("B", "b")}
        start = [v for t in powers for v in (math.log(near[letters[t][0]]) - near[letters[t][1]] * scale[t],
                                             near[letters[t][1]])]  # fmt: skip
        starts = [np.array(start + ([math.log(max(near["E"], 2 * tiny))] if free_floor else []))]
    how = {"loss": "huber", "f_scale": HUBER} if loss == "huber" else {}
    found = [
        optimize.least_squares(
            residual, np.clip(start, np.array(low) + 1e-9, np.array(high) - 1e-9), jacobian, bounds=(low, high),
            x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=400, **how,
        )
        for start in starts
    ]  # fmt: skip
    u = min(found, key=lambda result: result.cost).x
    params = {} if "E" not in terms else {"E": math.exp(u[-1]) if free_floor else fixed}
    if free_floor and params["E"] < 10 * tiny:
        params["E"] = 0.0
    for i, term in enumerate(powers):
        amplitude, exponent = ("A", "a") if term == "N" else ("B", "b")
        params |= {amplitude: math.exp(u[2 * i] + u[2 * i + 1] * scale[term]), exponent: float(u[2 * i + 1])}
    return params


def _starts(
    x: Mapping[str, np.ndarray], powers: Sequence[str], y: np.ndarray, free_floor: bool, fixed: float, tiny: float
) -> list[np.ndarray]:
    """The best of a grid over the exponents, the amplitudes and the floor solved for each."""
    ranked = []
    for exponents in np.stack(np.meshgrid(*[_GRID] * len(powers)), axis=-1).reshape(-1, len(powers)):
        basis = [np.exp(-e * x[t]) for e, t in zip(exponents, powers, strict=True)]
        basis += [np.ones_like(y)] if free_floor else []
        c, norm = optimize.nnls(np.stack(basis, axis=1) / y[:, None], (y - fixed) / y)
        c = np.log(np.maximum(c, 2 * tiny))
        start = [v for i, e in enumerate(exponents) for v in (c[i], e)] + ([c[-1]] if free_floor else [])
        ranked.append((norm, np.array(start)))
    ranked.sort(key=lambda pair: pair[0])
    return [start for _, start in ranked[:_STARTS]]


def _around(values: np.ndarray, moves: DocumentMoves | None, confidence: float, log: bool) -> tuple[float, float]:
    """Interval of the first of ``values``; the others are those without one run each [1 + R]. log: on its logarithm."""
    if len(values) < 3:
        return math.nan, math.nan
    numbers = np.log(values) if log else values
    half = half_width(numbers[1:], moves, confidence)
    low, high = numbers[0] - half, numbers[0] + half
    with np.errstate(over="ignore"):
        return (float(np.exp(low)), float(np.exp(high))) if log else (float(low), float(high))
