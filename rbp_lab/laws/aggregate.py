"""Classification from aggregate observations (arXiv 2306.11343): what a group is worth in labelled instances."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from rbp_lab.figures.aggregate import difference_figure, equivalent_figure
from rbp_lab.fits.equivalent import equivalent, geometric_mean_interval, mean_interval, null_width
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.aggregate_runs import SETTING, SUPERVISED, beside, classifier_runs, is_reference
from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.quantities import CE, RBP
from rbp_lab.report.sections import Drawing, ReportFigure, ReportTable, Section, exponent, switched
from rbp_lab.text import bracket, interval, number, percent

name = "aggregate"
needs_runs = ""  # without runs of classifiers there is nothing to say, which is no lack
POOLED_SIZES = "all"


@dataclass(frozen=True, eq=False, kw_only=True)
class Aggregate(LawResult):
    """exponents: power laws of means over seeds, by (task, family) and quantity."""

    exponents: tuple[FitResult, ...] = ()


def compute(inputs: Inputs) -> Aggregate:
    """Accuracy by observation, loss and m with paired intervals; exponents; equivalent data and size."""
    runs = classifier_runs(inputs.records)
    if runs.empty:
        return Aggregate(inputs=inputs)
    exponents = tuple(_exponents(runs, inputs.confidence))
    tables = {
        "aggregate_accuracy": _accuracy(runs, inputs.confidence),
        "aggregate_exponents": pd.DataFrame([_exponent_row(fit) for fit in exponents]),
        "aggregate_equivalent": _equivalents(runs, inputs.confidence),
    }
    return Aggregate(inputs=inputs, tables={n: t for n, t in tables.items() if len(t)}, exponents=exponents)


def _accuracy(runs: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """One row per setting and family: means over seeds, and differences of RBP_1 in points, paired by seed."""
    on = [*SETTING, "noise", "seed"]
    against = beside(runs, runs[is_reference(runs)], on)
    likelihood = beside(runs, runs[runs["kind"] == "likelihood"], [*SETTING, "groups", "seed"])
    against["than_likelihood"] = 100 * (likelihood["rbp_1"] - likelihood["other"]).to_numpy()
    against["than_supervised"] = 100 * (against["rbp_1"] - against["other"])
    rows = []
    for names, mine in against.groupby([*SETTING, "family"], sort=False):
        classes = int(mine["classes"].iloc[0])
        row = dict(zip([*SETTING, "family"], names, strict=True))
        row |= {"observation": mine["observation"].iloc[0], "m": _group_size(mine), "loss": mine["loss"].iloc[0],
                "noise": mine["noise"].iloc[0], "classes": classes, "seeds": len(mine)}  # fmt: skip
        for k in sorted(mine["rbp"].iloc[0]):
            row[f"rbp_{k}"] = float(np.mean([r[k] for r in mine["rbp"]]))
        row |= {"sd_rbp_1": float(mine["rbp_1"].std(ddof=1)) if len(mine) > 1 else None,
                "ce": float(mine["ce"].mean()), "residual_label_entropy": float(mine["entropy"].mean())}  # fmt: skip
        for column in ("than_supervised", "than_likelihood"):
            itself = mine["kind"].iloc[0] == column.removeprefix("than_") and mine["loss"].iloc[0] == "cross_entropy"
            found = mean_interval([] if itself else mine[column], confidence)
            row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
        compared = not np.isnan(row["than_supervised"])
        row["worst_than_supervised"] = float(mine["than_supervised"].min()) if compared else None
        rows.append(row)
    return pd.DataFrame(rows)


def _group_size(runs: pd.DataFrame) -> int | None:
    """m of runs that share it; None for bags of whatever size."""
    m = runs["m"].iloc[0]
    return None if pd.isna(m) else int(m)


def _exponents(runs: pd.DataFrame, confidence: float) -> list[FitResult]:
    """Power laws in S of means over seeds, of every family with at least three sizes at its most instances."""
    fits = []
    for (task, family, classifier), mine in runs.groupby(["task", "family", "classifier"], sort=False):
        mine = mine[mine["instances"] == mine["instances"].max()]
        if mine["size"].nunique() < 3:
            continue
        sizes = sorted(mine["size"].unique())
        ks = sorted(set.intersection(*(set(r) for r in mine["rbp"])))
        for k in [None, *ks]:
            values, se = [], []
            for size in sizes:
                at = mine[mine["size"] == size]
                each = np.array([r["ce"] if k is None else -np.log(r["rbp"][k]) for _, r in at.iterrows()])
                values.append(float(each.mean()))
                spread = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
                se.append(float(spread / each.mean()))
            names = tuple(f"{classifier}, S = {size}" for size in sizes)
            points = FitPoints(np.array(sizes, float), np.array(values), names, np.array(se))
            label = Label(family, task, CE.name if k is None else RBP.name, k)
            fit = fit_power(points, label, confidence)
            near = ("k_near_v",) if k is not None and fit.ok and 2 * k > int(mine["classes"].iloc[0]) else ()
            fits.append(replace(fit, warnings=fit.warnings + near))
    return fits


def _exponent_row(fit: FitResult) -> dict[str, object]:
    low, high = fit.intervals["alpha"] if fit.ok else (None, None)
    return {
        "task": fit.label.dataset, "family": fit.label.family, "metric": fit.label.metric, "k": fit.label.k,
        "sizes": fit.n, "alpha": fit.params["alpha"] if fit.ok else None, "low": low, "high": high, "r2": fit.r2,
        "warnings": " ".join(fit.warnings), "message": fit.message,
    }  # fmt: skip


def _equivalents(runs: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Per task, family and size, and for all sizes: equivalent data N_eq/N and size S/S_eq, by −log RBP_1.

    A seed's model is set against the supervised curve of the same seed: in the data at its size, in the size at its
    data. null_…: where single supervised models fall against the curve of the other seeds.
    """
    rows = []
    reference = runs[is_reference(runs)]
    for (task, classifier, noise), here in reference.groupby(["task", "classifier", "noise"]):
        data = {key: dict(zip(g["instances"], g["value"], strict=True)) for key, g in here.groupby(["size", "seed"])}
        sizes = {key: dict(zip(g["size"], g["value"], strict=True)) for key, g in here.groupby(["instances", "seed"])}
        null_data, null_size = (null_width(_nulls(curves), confidence) for curves in (data, sizes))
        if max(map(len, [*data.values(), *sizes.values()])) < 2:
            continue  # one size on one number of instances is no curve
        same = (runs["task"] == task) & (runs["classifier"] == classifier) & (runs["noise"] == noise)
        groups = runs[same & (runs["kind"] != SUPERVISED)]
        for family, mine in groups.groupby("family", sort=False):
            found = mine.assign(
                data=[_at(data.get((r.size_, r.seed)), r.value) / r.instances
                      for r in mine.rename(columns={"size": "size_"}).itertuples()],
                sizes=[r.size_ / _at(sizes.get((r.instances, r.seed)), r.value)
                       for r in mine.rename(columns={"size": "size_"}).itertuples()],
            )  # fmt: skip
            # Where a seed lies outside, the mean of the others would be biased: such a size has none. Over all sizes, a
            # seed's own mean is one value, since the sizes of a seed share its data.
            outside = {c: found[c].isna().groupby(found["size"]).transform("sum") for c in ("data", "sizes")}
            kept = {c: found[c].where(outside[c] == 0) for c in outside}
            per_seed = {c: np.exp(np.log(kept[c]).groupby(found["seed"]).mean()) for c in kept}
            for size, at in [*found.groupby("size"), (POOLED_SIZES, found)]:
                row = {"task": task, "classifier": classifier, "family": family, "m": _group_size(mine),
                       "size": size, "instances": int(mine["instances"].max())}  # fmt: skip
                for column, null in (("data", null_data), ("sizes", null_size)):
                    values = per_seed[column] if size == POOLED_SIZES else kept[column][at.index]
                    mean = geometric_mean_interval(values, confidence)
                    out = {"data": "equivalent_data", "sizes": "equivalent_size"}[column]
                    row |= {out: mean.value, f"{out}_low": mean.low, f"{out}_high": mean.high,
                            f"{out}_outside": int(at[column].isna().sum()), f"null_{out}_low": null[0],
                            f"null_{out}_high": null[1]}  # fmt: skip
                rows.append(row)
    return pd.DataFrame(rows)


def _at(curve: dict[float, float] | None, value: float) -> float:
    return float("nan") if curve is None or len(curve) < 2 else equivalent(list(curve), list(curve.values()), value)


def _nulls(curves: dict[tuple[float, int], dict[float, float]]) -> list[float]:
    """Equivalent over own x of each inner reference model, against the mean curve of the other seeds."""
    ratios = []
    for (fixed, seed), curve in curves.items():
        others = [c for (f, s), c in curves.items() if f == fixed and s != seed and set(c) == set(curve)]
        if not others:
            continue
        mean = {x: float(np.exp(np.mean([np.log(c[x]) for c in others]))) for x in curve}
        ratios += [_at(mean, curve[x]) / x for x in sorted(curve)[1:-1]]
    return ratios


def section(result: Aggregate) -> Section | None:
    """Equivalent data and size, accuracy beside supervised, exponents; None without runs of classifiers."""
    if "aggregate_accuracy" not in result.tables:
        return None
    accuracy, worth = result.tables["aggregate_accuracy"], result.tables.get("aggregate_equivalent", pd.DataFrame())
    equal: dict[str, Drawing] = {}
    for task, rows in worth.groupby("task") if len(worth) else ():
        equal[task] = partial(equivalent_figure, rows, f"What groups are worth on {task}")
    beside_supervised: dict[str, Drawing] = {}
    for task, rows in accuracy.groupby("task"):
        beside_supervised[task] = partial(difference_figure, rows, f"Groups against labels on {task}")
    level = percent(result.inputs.confidence)
    figures: list[ReportFigure] = [
        *switched("aggregate_equivalent", equal, "Share of the instances, labelled, that reaches the same RBP_1 at the "
                  f"same size. Bars: {level} t intervals over seeds; grey: where a supervised model itself falls "
                  "against the other seeds.", "task"),
        *switched("aggregate_difference", beside_supervised, "RBP_1 minus that of the supervised model of the same "
                  f"seed, in points. Bars: {level} t intervals over seeds.", "task"),
    ]  # fmt: skip
    lead = (
        "Classifiers that learn from observations of groups (arXiv 2306.11343): only T(y_1 … y_m) is known of m "
        "instances. Equivalent data is the share of the instances that, with labels, gives the same −log RBP_1 at the "
        "same size, interpolated on the supervised runs and never beyond them; a dash is a value outside their range. "
        "Equivalent size is S over the size that supervised training needs. Differences are paired by seed, which "
        "decides split, groups and first weights. −log RBP_k says little where k comes near K."
    )
    tables = [_worth_table(worth)] if len(worth) else []
    tables.append(_accuracy_table(accuracy))
    if result.exponents:
        tables.append(_exponents_table(result))
    return Section("aggregate", "Classification from aggregate observations", lead, tuple(figures), tuple(tables))


def _worth_table(worth: pd.DataFrame) -> ReportTable:
    rows = [
        {
            "task": r.task, "observed": r.family, "S": str(r.size),
            "equivalent data": interval(r.equivalent_data, r.equivalent_data_low, r.equivalent_data_high, 2),
            "null width of data": bracket(r.null_equivalent_data_low, r.null_equivalent_data_high, 2),
            "equivalent size": interval(r.equivalent_size, r.equivalent_size_low, r.equivalent_size_high, 2),
            "null width of size": bracket(r.null_equivalent_size_low, r.null_equivalent_size_high, 2),
            "outside (data / size)": f"{r.equivalent_data_outside} / {r.equivalent_size_outside}",
        }
        for r in worth.itertuples()
    ]  # fmt: skip
    return ReportTable("What groups are worth in labelled data and in size", pd.DataFrame(rows))


def _accuracy_table(accuracy: pd.DataFrame) -> ReportTable:
    rows = []
    for r in accuracy.to_dict("records"):
        row = {"task": r["task"], "observed": r["family"], "S": r["size"], "instances": r["instances"],
               "seeds": r["seeds"]}  # fmt: skip
        for k in sorted(int(c.removeprefix("rbp_")) for c in accuracy.columns if c.startswith("rbp_")):
            marked = f"RBP_{k} %"
            near = not np.isnan(r[f"rbp_{k}"]) and 2 * k > r["classes"]
            row[marked] = f"{number(100 * r[f'rbp_{k}'], 2)}{' (k near K)' if near else ''}"
        row["RBP_1 %"] += f"\n± {number(100 * r['sd_rbp_1'], 2)}" if r["sd_rbp_1"] is not None else ""
        row["CE"] = number(r["ce"])
        for column, title in (("than_supervised", "− supervised"), ("than_likelihood", "− likelihood")):
            row[title] = interval(r[column], r[f"{column}_low"], r[f"{column}_high"], 2)
        row["residual label entropy"] = number(r["residual_label_entropy"], 3)
        rows.append(row)
    return ReportTable("Accuracy by observation, loss and m", pd.DataFrame(rows), folded=len(rows) > 40)


def _exponents_table(result: Aggregate) -> ReportTable:
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for fit in result.exponents:
        row = rows.setdefault(
            (fit.label.dataset, fit.label.family), {"task": fit.label.dataset, "observed": fit.label.family}
        )
        row[f"α of {fit.label.quantity}"] = exponent(fit)
    return ReportTable("Exponents in S of means over seeds", pd.DataFrame(list(rows.values())))
