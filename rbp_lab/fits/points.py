"""What goes into a fit: ``FitPoints``, and the ``Label`` that says what they are of.

Legend: n points of a fit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rbp_lab.errors import LabError
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.quantities import QUANTITIES

POOLED = None  # the family of a fit over all families; not a string, so no family that a user names equals it
ALL_FAMILIES = "all families"  # POOLED in print


def family_name(family: str | None) -> str:
    """A family in print; "all families" for POOLED, also where a table holds it as a missing value."""
    return ALL_FAMILIES if pd.isna(family) else family


@dataclass(frozen=True)
class Label:
    """What a fit is about. family: POOLED for all of a data set. metric: a name in QUANTITIES, or any other.

    k: None for CE. window: N (1 for RBP). training: of a law along one training, what its models are called; "" else.
    """

    family: str | None = ""
    dataset: str = ""
    metric: str = ""
    k: int | None = None
    window: int = 1
    training: str = ""

    @property
    def columns(self) -> dict[str, object]:
        """What the tables of laws say of each."""
        return {
            "dataset": self.dataset, "family": self.family, "metric": self.metric, "k": self.k, "window": self.window,
        }  # fmt: skip

    @property
    def quantity(self) -> str:
        """The quantity in print, e.g. "−log RBP_10"."""
        entry = QUANTITIES.get(self.metric)
        return entry.printed(self.k, self.window) if entry else self.metric or "value"

    @property
    def tex(self) -> str:
        """The quantity in TeX, without dollars."""
        entry = QUANTITIES.get(self.metric)
        return entry.in_tex(self.k, self.window) if entry else r"\mathrm{value}"

    @property
    def where(self) -> str:
        """The training or family, and the data set, in print."""
        return ", ".join(part for part in (self.training or family_name(self.family), self.dataset) if part)

    def __str__(self) -> str:
        return f"{self.quantity} ({self.where})" if self.where else self.quantity


NO_LABEL = Label()


# What a law may run along → its name in a sentence, and what one of its points is.
AXES = {
    "S": ("size S", "model"),
    "D": ("number of training tokens D", "checkpoint"),
    "compute": ("training compute C", "model"),
    "k": ("threshold k", "threshold"),
}


@dataclass(frozen=True, eq=False)
class FitPoints:
    """The points of one fit, sorted by x.

    x: [n], positive, of what ``axis`` names in AXES (model sizes S by default). value: [n] ≥ 0 in the metric's unit
    (nats); 0 and +inf (an event never seen) are legal here, a fit refuses them. names: of the models [n]. se_log:
    standard error of ln value over documents [n], NaN if unknown. documents: how many these are [n], NaN if unknown.
    errors: of documents in ln value, None when unknown (published values).
    """

    x: np.ndarray
    value: np.ndarray
    names: tuple[str, ...] = ()
    se_log: np.ndarray | None = None
    documents: np.ndarray | None = None
    axis: str = "S"
    errors: DocumentErrors | None = None

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(f"axis must be one of {', '.join(AXES)}, not {self.axis!r}")
        x = np.asarray(self.x, dtype=np.float64).reshape(-1)
        value = np.asarray(self.value, dtype=np.float64).reshape(-1)
        names = self.names or tuple(f"model {i + 1}" for i in range(len(x)))
        if not len(x) == len(value) == len(names):
            raise LabError(f"as many points as values and names are needed; got {len(x)}, {len(value)}, {len(names)}")
        what, _ = AXES[self.axis]
        for name, at, v in zip(names, x, value, strict=True):
            if not (math.isfinite(at) and at > 0):
                raise LabError(f"every {what} must be positive and finite; {name} has {self.axis} = {at}")
            if math.isnan(v):
                raise LabError(f"{name} has no value (NaN); leave the model out of the points")
        order = np.argsort(x, kind="stable")
        object.__setattr__(self, "x", x[order])
        object.__setattr__(self, "value", value[order])
        object.__setattr__(self, "names", tuple(names[i] for i in order))
        for field_name in ("se_log", "documents"):
            given = getattr(self, field_name)
            given = np.full(len(x), np.nan) if given is None else np.asarray(given, np.float64).reshape(-1)
            if len(given) != len(x):
                raise LabError(f"as many {field_name} as points are needed; got {len(given)} and {len(x)}")
            object.__setattr__(self, field_name, given[order])
        if self.errors is not None:
            object.__setattr__(self, "errors", self.errors.of(order))

    def __len__(self) -> int:
        return len(self.x)

    def without_largest(self, held: int = 1) -> FitPoints:
        """The same points without the ``held`` of largest x."""
        return self._take(range(len(self) - held))

    def of(self, names: Collection[str]) -> FitPoints:
        """The points of the models of these names."""
        return self._take([i for i, name in enumerate(self.names) if name in names])

    def _take(self, rows: Sequence[int]) -> FitPoints:
        rows = list(rows)
        taken = {name: getattr(self, name)[rows] for name in ("x", "value", "se_log", "documents")}
        errors = None if self.errors is None else self.errors.of(rows)
        return replace(self, names=tuple(self.names[i] for i in rows), errors=errors, **taken)

    def with_errors(self, errors: DocumentErrors | None) -> FitPoints:
        """The same points with the errors of documents in their ln value, a column per point in order."""
        return replace(self, errors=errors)

    @property
    def half_log(self) -> np.ndarray:
        """Half of the 95 % interval of ln value over documents [n], NaN if unknown.

        Student t with documents − 1 degrees of freedom, as in ``metrics.ratio_estimate``; normal where only the
        standard error is known.
        """
        freedom = np.where(np.isfinite(self.documents), self.documents - 1, np.inf)
        return stdtrit(freedom, 0.975) * self.se_log

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that name these points (names, sizes and values to 12 digits)."""
        rows = sorted(f"{m}|{s:.12g}|{v:.12g}" for m, s, v in zip(self.names, self.x, self.value, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]
