"""python -m tests.coverage.paired [replicates=2000] [documents=20,100,1000] [store=DIR a=ladder-1 b=ladder-2]

How often the intervals of comparisons hold the truth: the table of RESULTS.md, one line per world as soon as it is
done. store: of a comparison in one pass whose models were also measured, a and b as rbp-lab compare takes them; then
its documents are resampled instead.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy import stats

from rbp_lab.comparison.differences import PairedSums, compare, error, paired_sums
from rbp_lab.comparison.findings import ByDocument, ratio
from rbp_lab.comparison.pairs import find_pairs, load_pair, what_counts
from rbp_lab.comparison.record import list_pairs, read_pair
from rbp_lab.records import RunHeader
from rbp_lab.stats import DocumentTable

KS, WINDOWS = (1, 10), (2,)
CE = "cross-entropy"
DIFFERENCES = (CE, "RBP_1", "RBP_10", "p_{2,1}", "error entropy")
DISTANCES = ("KL", "total variation", "same first choice", "square of Δp")
COLUMNS = (
    "Δ CE", "Δ CE, resampled", "√n · KS of p", "power, b worse", "b better",
    *(f"Δ {name}" for name in DIFFERENCES[1:]), *DISTANCES,
)  # fmt: skip
Ratio = tuple[np.ndarray, np.ndarray]
# Differences with what they are in truth, and ratios with theirs, by name.
World = Callable[[np.random.Generator], tuple[dict[str, tuple[PairedSums, float]], dict[str, tuple[Ratio, float]]]]


def made_up(documents: int, lengths: float) -> World:
    """Two models of one quality. lengths: standard deviation of the documents' ln tokens.

    A document's difficulty moves both, and each is off by an amount of its own; KL of documents is lognormal.
    """

    def draw(rng: np.random.Generator):
        n = np.maximum(np.exp(rng.normal(0, lengths, documents)) * 300, 5).round()
        shared = rng.normal(0, 0.5, documents)
        own = shared + rng.normal(0, 0.1, (2, documents))
        share = [1 / (1 + np.exp(own - level)) for level in (0, 1.5)]
        hits = [rng.binomial(n.astype(int), p) for p in share]
        in_a_row = rng.binomial(n.astype(int) - 1, share[0] ** 2)
        agree = rng.beta(8, 2, documents)
        both = {
            CE: (n * (3 + own), n), "RBP_1": (hits[0], n), "RBP_10": (hits[1], n), "p_{2,1}": (in_a_row, n - 1)
        }  # fmt: skip
        differences = {name: (PairedSums(name, "", x[0], of, x[1], of), 0.0) for name, (x, of) in both.items()}
        kl = n * 0.05 * np.exp(rng.normal(0, 0.5, documents))
        alike = rng.binomial(n.astype(int), agree)
        return differences, {"KL": ((kl, n), 0.05 * np.exp(0.125)), "same first choice": ((alike, n), 0.8)}

    return draw


def resampled(store: str, a: str, b: str, documents: int) -> World:
    """So many documents of two models' measurements, drawn with replacement; all of them are the truth."""
    ((first, second),) = find_pairs(store, a, b)
    pair = load_pair(store, first, second)
    tables = pair.a_documents, pair.b_documents
    whole = {q.name: q for q in paired_sums(*tables, KS, WINDOWS, True)}
    ranks = [_by_rank(table) for table in tables]
    (key,) = (h.key for h in list_pairs(store) if h.perturbation is None and _runs(h.a, h.b) == _runs(first, second))
    by = ByDocument.of(read_pair(store, key).sums)
    names = dict(zip(("kl_a", "variation", "agree", "delta_p_square"), DISTANCES, strict=True))
    total = len(tables[0])

    def draw(rng: np.random.Generator):
        i = rng.integers(0, total, documents)
        found = {name: PairedSums(name, "", q.x_a[i], q.n_a[i], q.x_b[i], q.n_b[i]) for name, q in whole.items()}
        entropies = [_surprise(counts[i]) for counts in ranks]  # of the ranks that were drawn
        found["error entropy"] = replace(found["error entropy"], x_a=entropies[0], x_b=entropies[1])
        differences = {name: (found[name], _value(whole[name])) for name in DIFFERENCES}
        n = by["tokens"]
        ratios = {name: ((by[key][i], n[i]), by[key].sum() / n.sum()) for key, name in names.items()}
        return differences, ratios

    return draw


def _runs(a: RunHeader, b: RunHeader) -> tuple[object, ...]:
    return what_counts(a), what_counts(b), a.dataset.fingerprint


def _by_rank(table: DocumentTable) -> np.ndarray:
    """Tokens of each document by rank [M,V]."""
    counts = np.zeros((len(table), int(table.rank.max()) + 1))
    counts[np.repeat(np.arange(len(table)), np.diff(table.indptr)), table.rank] = table.count
    return counts


def _surprise(counts: np.ndarray) -> np.ndarray:
    share = counts.sum(0) / counts.sum()
    return counts @ -np.log(np.where(share > 0, share, 1.0))


def _value(q: PairedSums) -> float:
    return float(q.x_b.sum() / q.n_b.sum() - q.x_a.sum() / q.n_a.sum())


def coverage(world: World, replicates: int, seed: int = 20261130) -> dict[str, float]:
    """Share of the replicates in which each interval held the truth; how uniform p is; how often a difference as large
    as the mean detectable one is shown, of either sign."""
    rng = np.random.default_rng(seed)
    held: dict[str, list[bool]] = {name: [] for name in COLUMNS}
    p, ends, detectable = [], [], []
    for _ in range(replicates):
        differences, ratios = world(rng)
        for name, (q, truth) in differences.items():
            se, freedom = error(q)
            t = (_value(q) - truth) / se
            if name != CE:
                held[f"Δ {name}"].append(abs(t) <= stats.t.ppf(0.975, freedom))
            else:
                (d,) = compare([q])
                held["Δ CE"].append(d.low <= truth <= d.high)
                held["Δ CE, resampled"].append(d.resampled_low <= truth <= d.resampled_high)
                p.append(2 * stats.t.sf(abs(t), freedom))
                ends.append((d.low - truth, d.high - truth))
                detectable.append(d.detectable)
        for name, ((x, n), truth) in ratios.items():
            _, low, high = ratio(x, n, 0.95)
            held[name].append(low <= truth <= high)
    found = {name: float(np.mean(one)) for name, one in held.items() if one}
    found["√n · KS of p"] = float(np.sqrt(replicates) * stats.kstest(p, "uniform").statistic)
    low, high = np.array(ends).T
    found["power, b worse"] = float((low + np.mean(detectable) > 0).mean())
    found["b better"] = float((high - np.mean(detectable) < 0).mean())
    return found


def lines(given: dict[str, str]) -> Iterator[str]:
    """The rows of the table."""
    replicates, documents = int(given["replicates"]), list(map(int, given["documents"].split(",")))
    if "store" in given:
        worlds = [(f"{m} of {given['a']}, {given['b']}", resampled(given["store"], given["a"], given["b"], m))
                  for m in documents]  # fmt: skip
    else:
        worlds = [(f"{m}, {lengths:g}", made_up(m, lengths))
                  for m, lengths in itertools.product(documents, (0.5, 1.3))]  # fmt: skip
    for name, world in worlds:
        found = coverage(world, replicates)
        cells = [f"{found[c]:.3f}".removeprefix("0") if c in found else "" for c in COLUMNS]
        yield f"| {name} | {' | '.join(cells)} | {replicates:,} |"


def main(arguments: list[str]) -> None:
    """Print the table."""
    given = {"replicates": "2000", "documents": "20,100,1000", "a": "ladder-1", "b": "ladder-2"}
    given |= dict(one.split("=", 1) for one in arguments)
    print(f"| documents, of ln length | {' | '.join(COLUMNS)} | replicates |\n{'|---' * (len(COLUMNS) + 2)}|")
    for line in lines(given):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
