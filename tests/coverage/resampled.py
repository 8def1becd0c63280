"""The same for documents drawn anew from measured runs, with the values of all documents as the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbp_lab.quantities import CE, RBP, WINDOW_RBP
from rbp_lab.records import RunRecord
from tests.coverage.intervals import K, Sums, checked, emergence, inside, law, law_of_counts

ROWS = (2, 5)  # tokens in a row, beside one


class Runs:
    """Sums by document of runs on one data set, and the laws of all documents together."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        records = sorted(records, key=lambda r: r.model.params.non_embedding)
        self.sizes = np.array([float(r.model.params.non_embedding) for r in records])
        quantities = {"ce": (CE, None, 1), "N1": (RBP, 10, 1)} | {name: (RBP, k, 1) for name, k in K.items()}
        quantities |= {f"N{n}": (WINDOW_RBP, 10, n) for n in ROWS}
        self.sums: dict[str, Sums] = {}
        for name, (quantity, k, window) in quantities.items():
            pairs = [quantity.sums(r.documents, k, window) for r in records]
            self.sums[name] = tuple(np.stack(part, axis=1) for part in zip(*pairs, strict=True))
        self.laws = {name: law(name, self.sums[name], self.sizes) for name in ("ce", *K)}
        self.in_a_row = emergence(self._windows(self.sums), self.sizes)
        self.by_count = law_of_counts(self.sums["k1"], self.sizes)

    @staticmethod
    def _windows(sums: dict[str, Sums]) -> dict[int, Sums]:
        return {n: sums[f"N{n}"] for n in (1, *ROWS)}

    def residual(self, name: str) -> np.ndarray:
        """ln value − its law [n], of all documents; of windows in one plane over ln N and ln S."""
        hit, tried = self.sums[name]
        ratio = hit.sum(0) / tried.sum(0)
        if name in self.laws:
            fit = self.laws[name]
            value = ratio if name == "ce" else -np.log(ratio)
            return np.log(value) - (fit.params["log_a"] - fit.params["alpha"] * np.log(self.sizes))
        plane = self.in_a_row
        line = plane.log_c + plane.beta * np.log(int(name[1:])) - plane.alpha * np.log(self.sizes)
        return np.log(-np.log(ratio)) - line

    def replicate(self, rng: np.random.Generator, redraw: bool) -> dict[str, float]:
        """Whether intervals of one draw of documents hold the truth.

        redraw: the scatter between models is drawn anew as well, as large as it was; otherwise the models are these.
        """
        sizes, n = self.sizes, len(self.sizes)
        draw = rng.integers(len(self.sums["ce"][0]), size=len(self.sums["ce"][0]))
        sums = {name: (hit[draw], tried[draw]) for name, (hit, tried) in self.sums.items()}
        normals = rng.standard_normal(n + 1)
        size_of = {name: float(np.sqrt((fit_residual**2).sum() / (n - 2))) for name, fit_residual in
                   ((name, self.residual(name)) for name in sums)}  # fmt: skip
        shift = {name: (size_of[name] * normals[:n] - self.residual(name)) if redraw else np.zeros(n) for name in sums}
        laws = {name: law(name, sums[name], sizes, shift[name]) for name in ("ce", *K)}
        alphas = {name: fit.params["alpha"] for name, fit in self.laws.items()}
        centre = float(np.exp(np.log(sizes).mean()))

        def line(name: str, size: float) -> float:
            fit = self.laws[name]
            return float(np.exp(fit.params["log_a"] - fit.params["alpha"] * np.log(size)))

        new = line("ce", 10 * sizes.max()) * np.exp(size_of["ce"] * normals[n])
        found = checked(laws, alphas, centre, float(np.exp(-line("k10", centre))), new)
        if not redraw:
            found["forecast"] = np.nan  # there is no other model
            found["k1, counts"] = inside(
                law_of_counts(sums["k1"], sizes).intervals.get("alpha"), self.by_count.params["alpha"]
            )
        windows = {n: shift[f"N{n}"] for n in (1, *ROWS)}
        in_a_row = emergence(self._windows(sums), sizes, windows)
        found["β of N"] = inside(in_a_row.beta_interval, self.in_a_row.beta)
        found["α of p_N"] = inside(in_a_row.alpha_interval, self.in_a_row.alpha)
        return found
