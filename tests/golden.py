"""The golden end-to-end case: five small models made of arithmetic alone, twenty documents, and what comes out of them.

Nothing is trained and nothing is drawn by torch, so the weights are the same bits on every machine: a model of width d
holds the best approximation of rank d of the logarithm of the documents' own bigram counts, behind one layer of small
whole numbers. Wider is better, as in a real family. ``python -m tests.golden`` writes tests/golden.json anew; do so
only when a change of the numbers is meant, and say why in the commit.
"""

from __future__ import annotations

import html.parser
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.conftest import build_tiny_tokenizer
from tests.sources import MadeUpText

FILE = Path(__file__).with_suffix(".json")
WIDTHS = (8, 16, 24, 40, 64)
VOCABULARY = 320
OVERRIDES = ["k.thresholds=[1,2,5,10,50]", "k.windows=[1,2,5]", "tracking=none"]


def documents() -> list[str]:
    """Twenty texts of very uneven length; one is empty."""
    return list(MadeUpText(num_documents=20, seed=8).corpus().texts)


def save_models(directory: Path) -> list[Path]:
    """The models as ``save_pretrained`` writes them, in order of their width."""
    tokenizer = build_tiny_tokenizer()
    counts = np.full((VOCABULARY, VOCABULARY), 0.02)
    for text in documents():
        ids = np.array(tokenizer(text)["input_ids"], int)
        np.add.at(counts, (ids[:-1], ids[1:]), 1)
    logits = np.log(counts)
    logits -= logits.mean(1, keepdims=True)
    left, values, right = np.linalg.svd(logits)
    sign = np.sign(left[np.abs(left).argmax(0), np.arange(VOCABULARY)])  # which of u and −u is the library's whim
    places = []
    for width in WIDTHS:
        scale = np.sqrt(values[:width])
        model = _neox(width, (left * sign)[:, :width] * scale, (right.T * sign)[:, :width] * scale)
        places.append(directory / f"golden-{width}")
        model.save_pretrained(places[-1])
        tokenizer.save_pretrained(places[-1])
    return places


def _neox(width: int, embedding: np.ndarray, head: np.ndarray) -> Any:
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=4 * width, max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config).eval().requires_grad_(False)
    whole = np.random.default_rng(width)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.copy_(torch.from_numpy(whole.integers(-8, 9, tuple(weight.shape)) / 128))
        else:
            weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    model.get_input_embeddings().weight.copy_(torch.from_numpy(np.rint(embedding * 256) / 256))
    # Words that stand in the same places would tie, and rounding would rank them; this parts them.
    parted = np.rint(head * 256) / 256 + whole.integers(-64, 65, head.shape) / (64 * width)
    model.get_output_embeddings().weight.copy_(torch.from_numpy(parted))
    return model


def run(directory: Path) -> Path:
    """Measure the models on the documents and analyse them, by the command line; returns the store."""
    from rbp_lab.cli import main

    places, store, corpus = save_models(directory), directory / "store", directory / "texts.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
    own = directory / "mine" / "model"
    own.mkdir(parents=True)
    for place in places:
        node = {"defaults": ["hf", "_self_"], "name": place.name, "family": "golden", "path": str(place)}
        (own / f"{place.name}.yaml").write_text(json.dumps(node))

    def command(*arguments: str) -> None:
        try:
            main([*arguments, f"store={store}", *OVERRIDES])
        except SystemExit as end:
            assert not end.code, f"rbp-lab {arguments[0]} exited with {end.code}"

    command(
        "measure", "-m", f"--config-dir={directory / 'mine'}", "model=glob(golden-*)", "dataset=local",
        f"dataset.files={corpus}", "dataset.name=golden", "dataset.protocol.max_tokens=64",
    )  # fmt: skip
    command("analyze", "name=golden")
    return store


class _Text(html.parser.HTMLParser):
    """The headings of a page, and the rows of its tables as lists of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
            self._into = self.headings
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._into = self.rows[-1]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "h3", "td", "th"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
NUMBER = re.compile(r"[−-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def numbers(text: str) -> list[float]:
    """The numbers in a piece of text, in order."""
    return [float(found.replace("−", "-").replace(",", "")) for found in NUMBER.findall(text)]


def words(text: str) -> str:
    """The text with # for each number."""
    return " ".join(NUMBER.sub("#", text).split())


def report(path: Path) -> dict[str, Any]:
    """Headings and table rows of a report; hashes of files, which libraries decide too, are left out.

    So is the time at which runs finished: where it is the same for all of them, no column has it.
    """
    page = _Text()
    page.feed(path.read_text())
    timeless = [[cell for cell in row if cell != "finished" and not MOMENT.fullmatch(cell)] for row in page.rows]
    rows = [[re.sub(r"^[0-9a-f]{12,16}$", "hash", cell) for cell in row] for row in timeless]
    return {"headings": [" ".join(h.split()) for h in page.headings], "rows": rows}


def outcome(store: Path) -> dict[str, Any]:
    """Everything that is frozen: records, fits and the report."""
    records = {}
    for path in sorted(store.glob("runs/*/record.json")):
        header = json.loads(path.read_text())
        ranks = pd.read_parquet(path.with_name("ranks.parquet")).sort_values("rank")
        windows = pd.read_parquet(path.with_name("windows.parquet"))
        per_document = pd.read_parquet(path.with_name("documents.parquet")).sort_values("document_id")
        top = ranks[ranks["rank"] <= 12]
        records[header["model"]["name"]] = {
            "non_embedding": header["model"]["non_embedding_params"],
            "tokens": int(ranks["count"].sum()),
            "ranks": dict(zip(map(str, top["rank"]), map(int, top["count"]), strict=True)),
            "rank_sum": int((ranks["rank"] * ranks["count"]).sum()),
            "window_maxima": {
                str(n): [int(some["count"].sum()), int((some["max_rank"] * some["count"]).sum())]
                for n, some in windows.groupby("window")
            },
            "nll": float(ranks["nll_sum"].sum()),
            "scored": per_document["num_scored"].astype(int).tolist(),
        }
    fits = pd.read_csv(store / "analysis" / "golden" / "fits.csv").round(12)
    return {
        "records": records,
        "fits": json.loads(fits.to_json(orient="records")),
        "report": report(store / "analysis" / "golden" / "report.html"),
    }


def closest(place: Path) -> float:
    """The least distance of any candidate's logit to the right token's, over all tokens, in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    model, tokenizer = AutoModelForCausalLM.from_pretrained(place).double().eval(), build_tiny_tokenizer()
    least = np.inf
    for text in documents():
        ids = torch.tensor(tokenizer(text)["input_ids"][:64])[None]
        if ids.shape[1] > 1:
            with torch.inference_mode():
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            away = (logits - logits.gather(1, ids[0, 1:, None])).abs().scatter(1, ids[0, 1:, None], np.inf)
            least = min(least, float(away.min()))
    return least


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        FILE.write_text(json.dumps(outcome(run(Path(place))), indent=1, ensure_ascii=False) + "\n")
    print(FILE)
