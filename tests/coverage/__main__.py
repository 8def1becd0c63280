"""python -m tests.coverage [replicates=2000] [documents=20,100,1000] [store=DIR]: the table of RESULTS.md.

One line per world as soon as it is done. store: of `rbp-lab demo`; then its documents are resampled instead.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np

from rbp_lab.store.records import list_records
from tests.coverage.resampled import Runs
from tests.coverage.study import coverage, share_inside
from tests.coverage.worlds import SIZES, World

COLUMNS = (
    "ce", "k1", "k10", "k100", "difference", "band over k", "k1, counts", "rare, counts", "β of N", "α of p_N",
    "size at level", "forecast", "ce, least squares",
)  # fmt: skip


def line(cells: list[str], found: dict[str, float], replicates: int) -> str:
    """One row of the table."""
    values = ["" if np.isnan(found.get(c, np.nan)) else f"{found[c]:.3f}".lstrip("0") for c in COLUMNS]
    return "| " + " | ".join([*cells, *values, f"{replicates:,}"]) + " |"


def main(arguments: list[str]) -> None:
    """Print the table."""
    given = {"replicates": "2000", "documents": "20,100,1000"} | dict(a.split("=", 1) for a in arguments)
    replicates = int(given["replicates"])
    print("| error | documents | models | scatter | " + " | ".join([*COLUMNS, "replicates"]) + " |")
    print("|---" * (5 + len(COLUMNS)) + "|", flush=True)
    if "store" in given:
        runs = Runs(list(list_records(given["store"])))
        for redraw, scatter in ((True, "drawn anew"), (False, "these models")):
            rng = np.random.default_rng(20261130)
            found = share_inside([runs.replicate(rng, redraw) for _ in range(replicates)])
            cells = ["resampled", str(len(runs.sums["ce"][0])), str(len(runs.sizes)), scatter]
            print(line(cells, found, replicates), flush=True)
        return
    for documents, models, error in itertools.product(
        map(int, given["documents"].split(",")), SIZES, ("coherent", "exchangeable")
    ):
        for scatter in (0.02, 0.0) if models in (4, 10) and documents == 100 else (0.02,):
            found = coverage(World(documents, models, error, scatter), replicates)
            print(line([error, str(documents), str(models), f"{100 * scatter:g} %"], found, replicates), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
