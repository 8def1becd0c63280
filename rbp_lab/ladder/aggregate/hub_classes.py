"""Images and tables of the Hugging Face Hub, or of files on disk, as tasks for classifiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.hub.errors import explained, quiet
from rbp_lab.hub.files import cache_alone_when_unreachable
from rbp_lab.ladder.aggregate.tasks import Split, standardised, with_noise
from rbp_lab.names import check_name

READ_AT_ONCE = 1000


@dataclass(frozen=True)
class HubClasses:
    """A data set with labels, read with ``datasets``.

    path: hub id, or one of its builders (parquet, csv, imagefolder) with data_files. config, revision, data_files: as
    ``datasets.load_dataset`` takes them. train, test: names of the splits. image: column of pictures, all of one size;
    or features: columns of numbers, which are scaled to mean 0 and variance 1 over the training split. label: column
    of classes. instances: to train on, drawn by the seed; None takes all. label_noise: as in ``Digits``.
    """

    name: str
    path: str
    config: str | None = None
    revision: str | None = None
    data_files: dict[str, Any] | None = None
    train: str = "train"
    test: str = "test"
    image: str | None = None
    features: list[str] = field(default_factory=list)
    label: str = "label"
    instances: int | None = None
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name, "task.name")
        if (self.image is None) == (not self.features):
            raise LabError("give one of task.image, the column of pictures, and task.features, columns of numbers")
        if self.label in self.features:
            raise LabError(f"task.features holds {self.label!r}, which is task.label; a classifier must not see it")
        if self.train == self.test:
            raise LabError(f"task.train and task.test are both {self.train!r}; measure on a split not trained on")
        if self.instances is not None and self.instances < 1:
            raise LabError(f"task.instances must be at least 1, or null for all; got {self.instances}")

    def split(self, seed: int) -> Split:
        """Raises LabError when the data set cannot be had, lacks a column, or its rows do not go together."""
        train, test = (self._rows(part) for part in (self.train, self.test))
        classes, (labels, test_labels) = self._classes(train, test)
        inputs, test_inputs = self._inputs(train, self.train), self._inputs(test, self.test)
        if inputs.shape[1:] != test_inputs.shape[1:]:
            raise LabError(
                f"task {self.name}: instances of {self.train} have the shape {list(inputs.shape[1:])}, those of "
                f"{self.test} {list(test_inputs.shape[1:])}"
            )
        if self.features:
            inputs, test_inputs = standardised(inputs, test_inputs)
        if self.instances is not None:
            if self.instances > len(labels):
                raise LabError(f"task.instances={self.instances}, but split {self.train} has only {len(labels)} rows")
            drawn = np.random.default_rng(seed).permutation(len(labels))[: self.instances]
            inputs, labels = inputs[drawn], labels[drawn]
        info = {"set": self.name, "source": "datasets", "path": self.path, "config": self.config,
                "revision": self.revision, "train": self.train, "test": self.test}  # fmt: skip
        return Split(
            self.name, inputs, with_noise(labels, self.label_noise, len(classes), seed), test_inputs, test_labels,
            np.arange(len(test_labels)), tuple(f"{self.test}/{i}" for i in range(len(test_labels))), classes, info=info,
        )  # fmt: skip

    def _rows(self, part: str) -> Any:
        import datasets

        with (
            quiet(downloads=True),
            explained(f"task {self.name}: cannot read split {part} of {self.path}"),
            cache_alone_when_unreachable(),
        ):
            rows = datasets.load_dataset(
                self.path, self.config, split=part, revision=self.revision, data_files=self.data_files or None
            )
        wanted = [self.label, *([self.image] if self.image else self.features)]
        missing = [name for name in wanted if name not in rows.column_names]
        if missing:
            raise LabError(
                f"task {self.name}: split {part} has no column {missing[0]!r}; its columns are "
                f"{', '.join(rows.column_names)}"
            )
        if rows.num_rows == 0:
            raise LabError(f"task {self.name}: split {part} has no rows")
        return rows.select_columns(wanted)

    def _classes(self, *parts: Any) -> tuple[tuple[str, ...], list[np.ndarray]]:
        """Names of the classes and the labels of each part, int64."""
        values = [rows[self.label] for rows in parts]
        names = getattr(parts[0].features[self.label], "names", None)
        if names is not None:
            labels = [np.array(v, dtype=np.int64) for v in values]
            if min(int(v.min()) for v in labels) < 0:
                raise LabError(f"task {self.name}: column {self.label!r} holds rows without a label (−1)")
            return tuple(names), labels
        found = sorted(set(values[0]) | set(values[1]))
        if len(found) < 2 or len(found) > len(values[0]) // 2:
            raise LabError(
                f"task {self.name}: column {self.label!r} has {len(found)} different values in {len(values[0])} rows, "
                "so it does not hold classes"
            )
        place = {value: i for i, value in enumerate(found)}
        return tuple(map(str, found)), [np.array([place[x] for x in v], dtype=np.int64) for v in values]

    def _inputs(self, rows: Any, part: str) -> np.ndarray:
        if self.features:
            table = np.column_stack([np.asarray(rows[name], dtype=np.float64) for name in self.features])
            if not np.isfinite(table).all():
                raise LabError(f"task {self.name}: split {part} holds features that are missing or not finite")
            return table
        pictures = []
        for batch in rows.iter(batch_size=READ_AT_ONCE):
            for picture in batch[self.image]:
                array = np.asarray(picture)
                pictures.append(array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0))
        sizes = {p.shape for p in pictures}
        if len(sizes) > 1 or pictures[0].dtype != np.uint8:
            raise LabError(
                f"task {self.name}: pictures of split {part} must be of one size and 8 bits a colour; got "
                f"{', '.join(map(str, sorted(sizes)[:3]))}, {pictures[0].dtype}"
            )
        return np.stack(pictures)
