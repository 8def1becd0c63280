"""python -m tests.coverage [of=size|parts|surface] [replicates=2000] [documents=20,100,1000] [store=DIR]: RESULTS.md.

One line per design as soon as it is done. of: laws in size, the parts of cross-entropy, or the law in size and tokens.
store: of `rbp-lab demo`; then its documents are resampled instead.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np

from rbp_lab.store.records import list_records
from tests.coverage import parts, study, surface
from tests.coverage.resampled import Runs
from tests.coverage.study import share_inside
from tests.coverage.worlds import SIZES, World

SEED = 20261130
ERRORS = ("coherent", "exchangeable")
COLUMNS = {
    "size": (
        "ce", "k1", "k10", "k100", "difference", "band over k", "k1, counts", "rare, counts", "β of N", "α of p_N",
        "size at level", "forecast", "ce, least squares",
    ),
    "parts": (
        "cross_entropy", "error_entropy", "self_alignment", "confidence", "error_entropy − ce", "self_alignment − ce",
        "confidence − ce", "EE without bias", "confidence, least squares",
    ),
    "surface": ("E", "a", "b", "size", "tokens", "operations", "operations, trainings alone"),
}  # fmt: skip
Replicate = Callable[[np.random.Generator], dict[str, float]]


def designs(of: str, documents: list[int]) -> Iterator[tuple[list[str], Replicate]]:
    """(error, documents, models, scatter) of each design of a table, and one study of it."""
    if of == "surface":
        for count, error in itertools.product(documents, ERRORS):
            trainings = surface.Trainings(count, error)
            yield [error, str(count), "6 × 8", "0.5 %"], lambda rng, w=trainings: surface.replicate(w, rng)
        return
    for count, models, error in itertools.product(documents, SIZES, ERRORS):
        if of == "parts":
            split = parts.Parts(count, models, error)
            yield [error, str(count), str(models), "2 %"], lambda rng, w=split: parts.replicate(w, rng)
            continue
        for scatter in (0.02, 0.0) if models in (4, 10) and count == 100 else (0.02,):
            world = World(count, models, error, scatter)
            yield (
                [error, str(count), str(models), f"{100 * scatter:g} %"],
                lambda rng, w=world: study.replicate(w, rng),
            )


def resampled(store: str) -> Iterator[tuple[list[str], Replicate]]:
    """The same of documents of a store's runs, drawn anew."""
    runs = Runs(list(list_records(store)))
    for redraw, scatter in ((True, "drawn anew"), (False, "these models")):
        cells = ["resampled", str(len(runs.sums["ce"][0])), str(len(runs.sizes)), scatter]
        yield cells, lambda rng, again=redraw: runs.replicate(rng, again)


def main(arguments: list[str]) -> None:
    """Print the table."""
    given = {"of": "size", "replicates": "2000", "documents": "20,100,1000"} | dict(a.split("=", 1) for a in arguments)
    columns, replicates = COLUMNS[given["of"]], int(given["replicates"])
    documents = [int(count) for count in given["documents"].split(",")]
    print("| error | documents | models | scatter | " + " | ".join([*columns, "replicates"]) + " |")
    print("|---" * (5 + len(columns)) + "|", flush=True)
    for cells, replicate in resampled(given["store"]) if "store" in given else designs(given["of"], documents):
        rng = np.random.default_rng(SEED)
        found = share_inside([replicate(rng) for _ in range(replicates)])
        shares = ["" if np.isnan(found.get(c, np.nan)) else f"{found[c]:.3f}".lstrip("0") for c in columns]
        print("| " + " | ".join([*cells, *shares, f"{replicates:,}"]) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
