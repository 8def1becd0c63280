"""Documents from a data set of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import Any

from rbp_lab.data.corpus import Corpus
from rbp_lab.data.rows import corpus_from_rows, row_text
from rbp_lab.data.windows import Protocol
from rbp_lab.errors import LabError
from rbp_lab.hub_errors import explained, quiet


@dataclass(frozen=True)
class HubText:
    """Documents from one configuration of a hub data set.

    path: hub id (owner/dataset). config, revision: of the data set; null for its defaults. split: one, or several
    joined by "+", in that order. data_files: split → file pattern in the repository; without it, ``datasets`` fetches
    the files of all splits. streaming: reads the rows over the network and keeps the texts in memory, instead of a
    copy on disk; same documents. field, template, where: as in ``LocalText``. protocol: how documents are cut when
    scored. The rest is as in ``data.corpus.select``; the defaults are those of [RBP] (arXiv 2510.20387, section 4).
    """

    path: str
    name: str = ""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: dict[str, Any] | None = None
    streaming: bool = False
    field: str | None = None
    template: str | None = None
    where: dict[str, Any] | None = None
    shuffle_seed: int | None = 42
    num_documents: int | None = 1000
    min_chars: int = 1
    protocol: Protocol = default(default_factory=Protocol)

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise LabError("dataset.path is empty; give a hub id (owner/dataset)")
        if not self.name:
            object.__setattr__(self, "name", self.path.rstrip("/").rpartition("/")[2])
        if not all(part.strip() for part in self.split.split("+")):
            raise LabError(f"dataset.split names splits joined by +, for example validation+test; got {self.split!r}")
        row_text(self.field, self.template)

    def corpus(self) -> Corpus:
        """The selected documents; ids are "split/row number".

        Raises:
            LabError: the data set cannot be had (unknown id, split or configuration; no network and not in the
                cache), a field is missing, nothing matches or nothing is selected.
        """
        import datasets

        asked = self.path + (f" ({self.config})" if self.config else "")
        with quiet(downloads=True), explained(f"dataset {self.name!r}: cannot read split {self.split} of {asked}"):
            tables = [
                (
                    part.strip(),
                    datasets.load_dataset(
                        self.path,
                        self.config,
                        split=part.strip(),
                        revision=self.revision,
                        data_files=self.data_files or None,
                        streaming=self.streaming,
                        # Sizes in the data set's card are those of all its files, so they cannot hold for some.
                        verification_mode="no_checks" if self.data_files else "basic_checks",
                    ),
                )
                for part in self.split.split("+")
            ]
            return corpus_from_rows(
                self.name,
                tables,
                row_text(self.field, self.template),
                self.where or {},
                shuffle_seed=self.shuffle_seed,
                num_documents=self.num_documents,
                min_chars=self.min_chars,
                info={
                    "source": "hub",
                    "path": self.path,
                    "config": self.config,
                    "split": self.split,
                    "revision": self.revision,
                    "data_files": self.data_files,
                    "field": self.field,
                    "template": self.template,
                    "where": self.where,
                },
            )
