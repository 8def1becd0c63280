"""Where every point of an analysis came from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rbp_lab.records import RunRecord
from rbp_lab.text import count


def provenance(
    points: pd.DataFrame,
    records: Sequence[RunRecord] = (),
    source: str = "",
    size: str = "non_embedding_params",
) -> pd.DataFrame:
    """One row per measurement: model, key, tokens, data set and its fingerprint, precision, protocol, date, versions.

    Points of a model on a data set without a record get a row with their source: a file, or where runs were read from.
    """
    used, known = set(points["key"]), {r.key for r in records}
    rows: list[dict[str, object]] = [
        {
            "model": r.model.name,
            "family": r.model.family,
            "S": count(r.model.params.size(size)),
            "weights": r.model.revision or r.model.fingerprint[:12],
            "key": r.key,
            "data set": r.dataset.name,
            "data set fingerprint": r.dataset.fingerprint[:12],
            "documents": r.stats.num_documents,
            "tokens": r.stats.num_tokens,
            "precision": f"{r.scoring.dtype}, logits {r.scoring.logits}"
            + (f", weights {r.model.quantisation}" if r.model.quantisation else ""),
            "protocol": ", ".join(_setting(k, v) for k, v in r.scoring.protocol.items() if v is not None),
            "finished": str(r.provenance.get("finished", ""))[:16].replace("T", " ") or None,
            "rbp_lab": r.provenance.get("rbp_lab"),
            "torch": r.provenance.get("torch"),
            "transformers": r.provenance.get("transformers"),
            "device": r.provenance.get("device"),
        }
        for r in records
        if r.key in used
    ]
    others = points[~points["key"].isin(known)].groupby(["dataset", "family", "model"], sort=False)
    for (dataset, family, model), group in others:
        n = group["n"].dropna()
        row = {"model": model, "family": family, "S": count(group["size"].iloc[0]), "data set": dataset}
        row |= {"key": group["key"].iloc[0] or None, "tokens": int(n.max()) if len(n) else None, "values": len(group)}
        rows.append(row | {"source": source or "given as a table"})
    return pd.DataFrame(rows).convert_dtypes().dropna(axis=1, how="all")


def _setting(name: str, value: object) -> str:
    said = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return f"{name.replace('_', ' ')} {said}"
