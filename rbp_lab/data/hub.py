"""Documents from a data set of the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from functools import partial
from pathlib import Path
from typing import Any

from rbp_lab.data.corpus import Corpus, Selection, check_name, check_selection
from rbp_lab.data.corpus_cache import keep_corpus, read_corpus
from rbp_lab.data.rows import RowReader, flat, row_text
from rbp_lab.data.spool import Spool
from rbp_lab.data.tables import corpus_from_stream, corpus_from_tables
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError, note_once, shown
from rbp_lab.hub.errors import explain, explained, quiet
from rbp_lab.hub.files import cache_alone_when_unreachable, persistently, sound_files

READ_AT_ONCE = 1000  # rows decoded at a time while only their texts' lengths are needed


@dataclass(frozen=True)
class HubText:
    """Documents from one configuration of a hub data set.

    path: hub id (owner/dataset). config, revision: of the data set; null for its defaults. split: one, or several
    joined by "+", in that order. data_files: split → file pattern in the repository; without it, ``datasets`` fetches
    the files of all splits. streaming: reads the rows over the network and keeps their texts while it runs, instead
    of a copy of the files on disk; same documents. shuffle_buffer: with streaming, ``datasets`` shuffles the files and
    then so many rows at a time, and nothing is read once there are enough documents: another choice of documents, with
    a fingerprint of its own, see ``tables.corpus_from_stream``. field, template, where: as in ``LocalText``. cache: a
    directory that keeps the chosen documents, so that the next model reads the same; None reads the data set anew.
    protocol: how documents are cut when scored. The rest is as in ``corpus.Selection``; the defaults are those of
    [RBP] (arXiv 2510.20387, section 4).
    """

    path: str
    name: str = ""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: dict[str, Any] | None = None
    streaming: bool = False
    shuffle_buffer: int | None = None
    field: str | None = None
    template: str | None = None
    where: dict[str, Any] | None = None
    shuffle_seed: int | None = 42
    num_documents: int | None = 1000
    min_chars: int = 1
    unique: bool = False
    cache: str | None = None
    protocol: Windowing = default(default_factory=Windowing)

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise LabError("dataset.path is empty; give a hub id (owner/dataset)")
        if not self.name:
            object.__setattr__(self, "name", self.path.rstrip("/").rpartition("/")[2])
        check_name(self.name)
        check_selection(self.shuffle_seed, self.num_documents, self.min_chars)
        if not all(part.strip() for part in self.split.split("+")):
            raise LabError(f"dataset.split names splits joined by +, for example validation+test; got {self.split!r}")
        row_text(self.field, self.template)
        if self.shuffle_buffer is None:
            return
        if self.shuffle_buffer < 1:
            raise LabError(f"dataset.shuffle_buffer must be at least 1 row, or null; got {self.shuffle_buffer}")
        for name, wrong, right in (
            ("streaming", not self.streaming, "true"),
            ("shuffle_seed", self.shuffle_seed is None, "a number"),
            ("num_documents", self.num_documents is None, "a number"),
            ("split", "+" in self.split, "one split"),
        ):
            if wrong:
                raise LabError(
                    f"dataset.shuffle_buffer is for a streaming shuffle, which needs dataset.{name} to be {right}; got "
                    f"{shown(getattr(self, name))}"
                )

    def corpus(self) -> Corpus:
        """The selected documents; ids are "split/row number". The commit that was read is in the corpus's info.

        Raises:
            LabError: the data set cannot be had (unknown id, revision, split or configuration; no network and not in
                the cache), a field is missing, nothing matches or nothing is selected.
        """
        if os.path.exists(os.path.expanduser(self.path)):
            raise LabError(f"dataset.path={self.path} is a local path; give its files to dataset=local")
        if self.shuffle_buffer is not None:
            note_once(
                f"dataset {self.name}: a streaming shuffle of {self.shuffle_buffer} rows at a time chooses its "
                "documents, others than the shuffle of the whole would; its fingerprint differs"
            )
        asked = self.path + (f" ({self.config})" if self.config else "")
        splits: dict[str, Any] = {}
        with (
            quiet(downloads=True),
            explained(f"dataset {self.name!r}: cannot read split {self.split} of {asked}"),
            cache_alone_when_unreachable(),
            sound_files(f"dataset {self.name!r}: {self.path}", self.path, "dataset", lambda: _forget(splits)),
        ):
            commit, why = self._commit()
            kept = None if self.cache is None else Path(self.cache) / self._digest()
            found = None if kept is None else read_corpus(kept, self.name)
            if found is not None and commit in (None, found.info["commit"]):
                if why:
                    note_once(
                        f"dataset {self.name}: the hub does not say which commit is the newest ({why}); the documents "
                        f"kept of commit {found.info['commit']} are read"
                    )
                return found
            corpus = self._choose(commit, splits)
        if kept is not None:
            keep_corpus(kept, corpus)
        return corpus

    def _digest(self) -> str:
        """A hash (32 digits) of what decides which documents are chosen, but for the commit."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        what = {name: value for name, value in fields.items() if name not in ("name", "cache", "protocol")}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]

    def _choose(self, commit: str | None, splits: dict[str, Any]) -> Corpus:
        """The documents, read from the data set; ``splits`` is filled with what ``datasets`` gives."""
        import datasets

        selection = Selection(self.name, self.shuffle_seed, self.num_documents, self.min_chars, self.unique)
        reader = RowReader(row_text(self.field, self.template), flat(self.where or {}))
        for part in map(str.strip, self.split.split("+")):
            load = partial(
                datasets.load_dataset,
                self.path,
                self.config,
                split=part,
                revision=commit or self.revision,
                data_files=self.data_files or None,
                streaming=self.streaming,
                # Sizes in the data set's card are those of all its files, so they cannot hold for some.
                verification_mode="no_checks" if self.data_files else "basic_checks",
            )
            splits[part] = persistently(load)
        commits = {commit or _commit_of_copy(rows) for rows in splits.values()}
        if len(commits) > 1:
            raise LabError(f"dataset {self.name!r}: splits in the cache are of several commits; set dataset.revision")
        info = {
            "source": "hub",
            "path": self.path,
            "config": self.config,
            "split": self.split,
            "revision": self.revision,
            "commit": commits.pop(),
            "data_files": self.data_files,
            "field": self.field,
            "template": self.template,
            "where": self.where,
        }
        if self.shuffle_buffer is not None:
            ((label, rows),) = splits.items()
            rows = rows.shuffle(seed=self.shuffle_seed, buffer_size=self.shuffle_buffer)
            info |= {"shuffle_buffer": self.shuffle_buffer, "datasets": datasets.__version__}
            return corpus_from_stream(rows, reader, selection, label, f"dataset {self.name!r}, {label}", info)
        kind = StreamedSplit if self.streaming else StoredSplit
        tables = [kind(rows, label, f"dataset {self.name!r}, {label}", reader) for label, rows in splits.items()]
        return corpus_from_tables(tables, selection, info, check=reader.check)

    def _commit(self) -> tuple[str | None, str]:
        """The commit that the revision means now, asked once for all splits, and "".

        (None, why) where the hub gives none, with no reason where it is not asked.
        """
        from huggingface_hub import HfApi, constants

        try:
            return HfApi().dataset_info(self.path, revision=self.revision).sha, ""
        except Exception as error:  # without kept documents, loading meets the same obstacle and says it
            return None, "" if constants.HF_HUB_OFFLINE else explain(error)


def _commit_of_copy(rows: Any) -> str | None:
    """The commit that a copy in the cache was made from, which is the name of its folder; None when it is unknown."""
    for file in getattr(rows, "cache_files", []):
        folder = Path(file["filename"]).parent.name
        if re.fullmatch("[0-9a-f]{40}", folder):
            return folder
    return None


def _forget(splits: dict[str, Any]) -> None:
    """Remove the copies that were made of files which arrived damaged."""
    for rows in splits.values():
        for file in getattr(rows, "cache_files", []):
            shutil.rmtree(Path(file["filename"]).parent, ignore_errors=True)


@dataclass(frozen=True)
class StoredSplit:
    """The rows of a ``datasets.Dataset`` on disk, any of which can be read by its number."""

    rows: Any
    label: str
    place: str
    reader: RowReader

    @property
    def length(self) -> int | None:
        return None if self.reader.wanted else self.rows.num_rows

    def documents(self) -> Iterator[tuple[str | None, str | None]]:
        rows, there = self.rows, set(self.rows.column_names)
        columns = {name if name in there else name.split(".")[0] for name in self.reader.fields}
        if columns <= there:  # otherwise the first row's message names what is there
            rows = rows.select_columns(sorted(columns))
        number = 0
        for batch in rows.iter(batch_size=READ_AT_ONCE):
            for values in zip(*batch.values(), strict=True):
                yield self.reader(dict(zip(batch, values, strict=True)), f"{self.place}, row {number}")
                number += 1

    def pick(self, numbers: Sequence[int]) -> Iterator[str]:
        return (self.reader(self.rows[n], f"{self.place}, row {n}")[0] or "" for n in numbers)

    def id_of(self, number: int) -> str:
        return f"{self.label}/{number}"


@dataclass(frozen=True)
class StreamedSplit:
    """The rows of a stream over the network, which is read once; texts of those that match go to a temporary file."""

    rows: Any
    label: str
    place: str
    reader: RowReader
    length: int | None = None
    _texts: Spool = default(default_factory=Spool)
    _numbers: array[int] = default(default_factory=lambda: array("q"))  # of these rows, rising

    def documents(self) -> Iterator[tuple[str | None, str | None]]:
        for number, row in enumerate(self.rows):
            text, reason = self.reader(row, f"{self.place}, row {number}")
            if text is not None:
                self._texts.append(text)
                self._numbers.append(number)
            yield text, reason

    def pick(self, numbers: Sequence[int]) -> Iterator[str]:
        return (self._texts.text(bisect_left(self._numbers, number)) for number in numbers)

    def id_of(self, number: int) -> str:
        return f"{self.label}/{number}"
