"""``python -m tests.benchmarks.records STORE [families=3] [models=10] [datasets=1]``: records to time analyses with.

Of 300 documents and 180,000 tokens each, V 50,304, with the k and N of the paper's figures; ranks are lognormal.
"""

from __future__ import annotations

import sys

import yaml

from rbp_lab.config.directory import CONF
from rbp_lab.store.records import write_record
from tests.fits_data import synthetic_record


def main(arguments: list[str]) -> None:
    """Write the records."""
    store, given = arguments[0], dict(a.split("=", 1) for a in arguments[1:])
    count = {"families": 3, "models": 10, "datasets": 1} | {name: int(value) for name, value in given.items()}
    ks = yaml.safe_load((CONF / "k" / "paper.yaml").read_text(encoding="utf-8"))
    for dataset in range(count["datasets"]):
        for family in range(count["families"]):
            for model in range(count["models"]):
                record = synthetic_record(
                    f"{family}-{model}", int(1e6 * 2.5**model * (1 + 0.2 * family)),
                    seed=1000 * dataset + 100 * family + model, family=f"family-{family}", dataset=f"data-{dataset}",
                    vocab=50_304, documents=300, tokens=600, sigma=2.6 + 0.1 * family,
                    thresholds=tuple(ks["thresholds"]), window_lengths=tuple(ks["windows"]),
                )  # fmt: skip
                write_record(store, record)


if __name__ == "__main__":
    main(sys.argv[1:])
