"""Finding the records to compare, and the documents that both have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from rbp_lab.dimensions import named_apart
from rbp_lab.errors import LabError, no_such, note
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.stats import PER_DOCUMENT, DocumentTable
from rbp_lab.store.header import run_header
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_headers, read_record

FIELDS = ("model", "family", "dataset", "dtype", "quantisation", "key")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two records of the same corpus and protocol, and what they have in common.

    a_documents, b_documents: the rows of the documents that both have scored, in the same order. names: of these.
    same_tokens: whether their tokens are the same. left_out: documents that only one of them has.
    """

    a: RunRecord
    b: RunRecord
    a_documents: DocumentTable
    b_documents: DocumentTable
    names: tuple[str, ...]
    same_tokens: bool
    left_out: int


def find_pairs(store: str, a: str, b: str) -> list[tuple[RunHeader, RunHeader]]:
    """The finished runs that ``a`` and ``b`` name, paired by corpus, windows and candidates.

    Each is a key or its beginning, the name of a model (a shell pattern), or filters such as
    "model=gpt2,dtype=float32". Runs that cannot be read are left out, and noted. Raises LabError when one names
    nothing, or two runs of one corpus and protocol.
    """
    found, damaged = list_headers(store)
    for error in damaged:
        note(str(error))
    headers = list(map(run_header, found))
    if not headers:
        raise LabError(f"there are no finished runs in {Store(store).root}; rbp-lab measure makes some")
    sides = [_by_protocol(name, text, _named(name, text, headers)) for name, text in (("a", a), ("b", b))]
    if {h.key for h in sides[0].values()} == {h.key for h in sides[1].values()}:
        raise LabError(f"a={a} and b={b} name the same run")
    common = [corpus for corpus in sides[0] if corpus in sides[1]]
    if not common:
        raise LabError(
            f"a={a} and b={b} were not measured on a common corpus with the same windows: "
            f"{' against '.join(_corpora(sides))}"
        )
    return [(sides[0][corpus], sides[1][corpus]) for corpus in common]


def _named(name: str, text: str, headers: Sequence[RunHeader]) -> list[RunHeader]:
    described = [(header, _described(header)) for header in headers]
    if "=" in text:
        wanted = _filters(name, text)
        found = [h for h, d in described if all(fnmatchcase(d[field], value) for field, value in wanted.items())]
    else:
        found = [h for h, _ in described if len(text) >= 6 and h.key.startswith(text)]
        found = found or [h for h, d in described if fnmatchcase(d["model"], text)]
    if not found:
        names = sorted({d["model"] for _, d in described})
        said = no_such(name, f"finished run {text!r}", text, names, "rbp-lab ls runs")
        raise LabError(f"{said}; a key or filters such as model=…,dtype=… are taken as well")
    return found


def _filters(name: str, text: str) -> dict[str, str]:
    """What the fields of a run must be; LabError on another name, and on one that is given twice."""
    wanted: dict[str, str] = {}
    for part in text.split(","):
        field, _, value = map(str.strip, part.partition("="))
        if field not in FIELDS:
            raise LabError(no_such(name, f"filter {field!r}", field, FIELDS))
        if field in wanted:
            raise LabError(f"{name}={text} gives {field} twice; give it once, which may be a shell pattern")
        wanted[field] = value
    return wanted


def _described(header: RunHeader) -> dict[str, str]:
    model, spec = header.model, header.scoring
    return {
        "model": model.name, "family": model.family, "dataset": header.dataset.name, "dtype": spec.dtype,
        "quantisation": model.quantisation or "none", "key": header.key,
    }  # fmt: skip


def _by_protocol(name: str, text: str, headers: Sequence[RunHeader]) -> dict[str, RunHeader]:
    found: dict[str, RunHeader] = {}
    for header in sorted(headers, key=lambda h: (-len(h.scoring.thresholds), -len(h.scoring.window_lengths), h.key)):
        spec = header.scoring
        windows = json.dumps([spec.protocol, spec.candidates], sort_keys=True)
        same = found.setdefault(f"{header.dataset.fingerprint} {windows}", header)
        if what_counts(same) != what_counts(header):
            differ = {k: v for k, v in _described(header).items() if v != _described(same)[k]}
            raise LabError(
                f"{name}={text} names several runs on {header.dataset.name} with the same windows, among them "
                f"{same.key} and {header.key}; say which, for example {_narrowed(name, text, differ)} in the place of "
                f"{text}"
            )
    return found


def what_counts(header: RunHeader | RunRecord) -> tuple[object, ...]:
    """What decides a model's counts on a corpus; for which k and N a run keeps tables does not."""
    spec = header.scoring
    return header.model.fingerprint, header.model.quantisation, spec.dtype, spec.tf32, spec.logits, spec.attention


def measured(header: RunHeader | RunRecord) -> tuple[object, ...]:
    """What decides the counts of a run: the model in its format, the corpus and how it is cut."""
    spec = header.scoring
    return *what_counts(header), header.dataset.fingerprint, json.dumps(spec.protocol, sort_keys=True), spec.candidates


def _narrowed(name: str, text: str, differ: Mapping[str, str]) -> str:
    """Filters that name the run which ``differ`` tells from another one that ``text`` names as well."""
    given = _filters(name, text) if "=" in text else {"model": text}
    return ",".join(f"{field}={value}" for field, value in (given | dict([next(iter(differ.items()))])).items())


def _corpora(sides: Sequence[Mapping[str, RunHeader]]) -> list[str]:
    """The data sets of each side, with what tells those of one name apart: their documents, windows or candidates."""
    headers = [header for side in sides for header in side.values()]
    names = dict(zip((h.key for h in headers), (h.dataset.name for h in named_apart(headers)), strict=True))
    return ["; ".join(sorted({names[header.key] for header in side.values()})) for side in sides]


def load_pair(store: str, a: RunHeader, b: RunHeader) -> Pair:
    """The records of a pair, with the documents that both have scored.

    Raises LabError when they have none in common.
    """
    first, second = (read_record(Store(store).record(header.key).directory, header.key) for header in (a, b))
    ids = np.intersect1d(first.documents.document_id, second.documents.document_id)
    if not len(ids):
        raise LabError(f"runs {a.key} and {b.key} have scored no document in common")
    tables = [of_documents(record.documents, ids) for record in (first, second)]
    same = a.model.tokenizer_size == b.model.tokenizer_size
    same = same and bool((tables[0].num_scored == tables[1].num_scored).all())
    same = same and bool((tables[0].num_bytes == tables[1].num_bytes).all())
    names = tuple(first.document_names[i] for i in ids)
    left_out = len(first.documents) + len(second.documents) - 2 * len(ids)
    return Pair(first, second, *tables, names, same, left_out)


def of_documents(table: DocumentTable, ids: np.ndarray) -> DocumentTable:
    """The rows of the documents ``ids`` (rising, all of them in the table)."""
    rows = np.searchsorted(table.document_id, ids)
    sizes = np.diff(table.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    take = np.repeat(table.indptr[rows] - indptr[:-1], sizes) + np.arange(indptr[-1])
    new_row = np.full(len(table), -1)
    new_row[rows] = np.arange(len(rows))
    runs = new_row[table.run_row] >= 0
    return DocumentTable(
        thresholds=table.thresholds,
        **{name: getattr(table, name)[rows] for name in PER_DOCUMENT},
        indptr=indptr.astype(np.int64),
        rank=table.rank[take],
        count=table.count[take],
        run_row=new_row[table.run_row[runs]].astype(np.int32),
        run_threshold=table.run_threshold[runs],
        run_length=table.run_length[runs],
        run_count=table.run_count[runs],
    )
