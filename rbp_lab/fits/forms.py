"""The forms a law can take: plain functions of S with named parameters, and where each comes from.

Every form is y = Σ_j c_j·φ_j(S; θ): a few coefficients c ≥ 0 that are linear, and parameters θ that are not. That split
is what ``fits.fit`` exploits. Sizes are divided by a scale (their geometric mean) inside the basis, which keeps the
coefficients near 1; ``natural`` undoes it. They nest: broken (c1 = 0) ⊃ power_constant (E = 0) ⊃ power;
rectified (D = 0) ⊃ power_constant. The law in size and training tokens together is ``fits.tokens``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.fits.result import FitResult

# θ by name -> values of each φ_j at x = S/scale [n]: [n, L]
Basis = Callable[[dict[str, float], np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """One form.

    nonlinear: θ, each with its bounds and a grid to start from. linear: the coefficients c_j; those called log_* are
    amplitudes kept as logarithms (positive), the others are kept as they are (E ≥ 0; "level" and "slope" of any sign).
    shift: how log_* and the location parameters change when S is divided by a scale, (θ, ln scale) -> amounts to add.
    contains: the form it becomes when some of its parameters vanish, None when there is none.
    """

    name: str
    nonlinear: dict[str, tuple[float, float]]
    grid: dict[str, np.ndarray]
    linear: tuple[str, ...]
    basis: Basis
    shift: Callable[[dict[str, float], float], dict[str, float]]
    formula: str
    source: str
    contains: str | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.nonlinear, *self.linear)

    def evaluate(self, params: dict[str, float], x: np.ndarray) -> np.ndarray:
        """y at x [n]; overflow in a hopeless corner of the parameter space gives inf, not a warning."""
        with np.errstate(over="ignore", invalid="ignore"):
            c = [np.exp(params[name]) if name.startswith("log_") else params[name] for name in self.linear]
            return self.basis(params, x) @ np.array(c)


def _one(x: np.ndarray) -> np.ndarray:
    return np.ones_like(x)


def _broken(p: dict[str, float], x: np.ndarray) -> np.ndarray:
    smooth = np.logaddexp(0.0, (np.log(x) - p["log_d"]) / p["f"])
    return np.stack([np.exp(-p["c0"] * np.log(x) - p["c1"] * p["f"] * smooth), _one(x)], axis=1)


def _rectified(p: dict[str, float], x: np.ndarray) -> np.ndarray:
    return np.stack([1 / (np.exp(p["log_D"]) + x ** p["beta"]), _one(x)], axis=1)


_EXPONENT = np.geomspace(0.02, 2.0, 25)
_FORMS = (
    Form(
        "power", {"alpha": (-20.0, 20.0)}, {"alpha": np.concatenate([-_EXPONENT[::-2], _EXPONENT[::2]])}, ("log_a",),
        lambda p, x: x[:, None] ** -p["alpha"],
        lambda p, s: {"log_a": p["alpha"] * s},
        "a·S^−α", "[RBP] arXiv 2510.20387, section 4",
    ),
    Form(
        "log_linear", {}, {}, ("level", "slope"),
        lambda p, x: np.stack([_one(x), -np.log(x)], axis=1),
        lambda p, s: {"level": p["slope"] * s},
        "level − slope·ln S", "the foil: looks like a power law over a short range",
    ),
    Form(
        "power_constant", {"alpha": (1e-3, 5.0)}, {"alpha": _EXPONENT}, ("log_a", "E"),
        lambda p, x: np.stack([x ** -p["alpha"], _one(x)], axis=1),
        lambda p, s: {"log_a": p["alpha"] * s},
        "E + a·S^−α", "arXiv 2010.14701", contains="power",
    ),
    Form(
        "rectified", {"beta": (1e-3, 5.0), "log_D": (-20.0, 20.0)},
        {"beta": _EXPONENT[::3], "log_D": np.array([-12.0, -4.0, -1.0, 0.0, 2.0])}, ("log_b", "E"),
        _rectified,
        lambda p, s: {"log_b": p["beta"] * s, "log_D": p["beta"] * s},
        "b/(D + S^β) + E", "arXiv 2402.02314, reduced form", contains="power_constant",
    ),
    Form(
        "broken", {"c0": (1e-3, 5.0), "c1": (-5.0, 5.0), "log_d": (-12.0, 12.0), "f": (0.05, 3.0)},
        {"c0": np.geomspace(0.03, 1.0, 5), "c1": np.array([-0.3, 0.0, 0.3]), "log_d": np.array([-2.0, 0.0, 2.0]),
         "f": np.array([0.3])}, ("log_b", "E"),
        _broken,
        lambda p, s: {"log_b": p["c0"] * s, "log_d": s},
        "E + b·S^−c0·(1 + (S/d)^(1/f))^(−c1·f)", "arXiv 2210.14891, one break",
        contains="power_constant",
    ),
)  # fmt: skip
FORMS = {form.name: form for form in _FORMS}


def is_nested(small: str, large: str) -> bool:
    """Whether the form ``small`` is a special case of ``large``."""
    inner = FORMS[large].contains
    return inner is not None and (inner == small or is_nested(small, inner))


def form_named(name: str) -> Form:
    """The form of that name; LabError with the choices when there is none."""
    if name not in FORMS:
        raise LabError(f"unknown form {name!r}; the forms are {', '.join(FORMS)}")
    return FORMS[name]


def predict(fit: FitResult, size: np.ndarray | float) -> np.ndarray:
    """Value of the fitted law at sizes S [n], in the metric's unit; LabError when the fit was refused."""
    if not fit.params:
        raise LabError(f"there is no law to predict from: {fit.message}")
    value = FORMS[fit.form].evaluate(fit.params, np.atleast_1d(np.asarray(size, dtype=np.float64)))
    return value if np.ndim(size) else value[0]
