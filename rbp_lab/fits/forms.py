"""The forms a law can take: plain functions of S with named parameters, and where each comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.fits.result import FitResult


@dataclass(frozen=True)
class Form:
    """One form. log_value(params, S [n]) -> ln value [n]; formula and source for a reader."""

    name: str
    parameters: tuple[str, ...]
    log_value: Callable[[dict[str, float], np.ndarray], np.ndarray]
    formula: str
    source: str


def _power(p: dict[str, float], size: np.ndarray) -> np.ndarray:
    return p["log_a"] - p["alpha"] * np.log(size)


FORMS = {
    form.name: form
    for form in (Form("power", ("alpha", "log_a"), _power, "a·S^−α", "[RBP] arXiv 2510.20387, section 4"),)
}


def predict(fit: FitResult, size: np.ndarray | float) -> np.ndarray:
    """Value of the fitted law at sizes S [n], in the metric's unit; LabError when the fit was refused."""
    if not fit.params:
        raise LabError(f"there is no law to predict from: {fit.message}")
    return np.exp(FORMS[fit.form].log_value(fit.params, np.asarray(size, dtype=np.float64)))
