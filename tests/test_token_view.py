"""Documents token by token: nothing in a text becomes HTML, and a thousand documents do not freeze a browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from rbp_lab.commands.compare_models import job_from_config
from rbp_lab.comparison.run import run_pair
from rbp_lab.comparison.summary import TokenText
from rbp_lab.comparison.tokens import token_texts
from rbp_lab.report.page import write_report
from rbp_lab.report.sections import Section
from tests.sources import pair_config

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = ("</script><img src=x onerror=alert(1)>", "\u2028", "<b>", "a", "\n")


def text(name, tokens):
    pieces = [HOSTILE[i % len(HOSTILE)] for i in range(tokens)]
    ranks = [0, *(1 + i % 7 for i in range(1, tokens))]
    return TokenText(name, pieces, ranks, ranks[::-1], [0.5] * tokens, [0.25] * tokens)


def page(path, documents):
    section = Section("tokens", "Tokens", "Of documents.", tokens=tuple(documents))
    return write_report(path, "T", [section], pd.DataFrame({"key": ["k"]}))[-1]


def test_no_text_of_a_document_can_end_the_script_or_become_html(tmp_path):
    shown = page(tmp_path / "t.html", [text("</script><i>", 12)]).read_text()
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', shown)
    assert "<" not in data and json.loads(data)[0]["t"][:5] == list(HOSTILE)
    assert json.loads(data)[0]["name"] == "</script><i>" and "<img" not in shown
    assert "application/json" not in page(tmp_path / "none.html", []).read_text()


def test_tokens_are_those_of_the_document_in_order_with_the_ranks_of_the_pass(tiny_model_dir, tiny_near_dir, tmp_path):
    job = job_from_config(pair_config(tiny_model_dir, tiny_near_dir, tmp_path))
    record, corpus = run_pair(job)[0], job.dataset.corpus()
    long = int(np.argmax([len(one) for one in corpus.texts]))
    (shown,) = token_texts(job, [corpus.ids[long]])
    whole = corpus.texts[long]
    assert whole.startswith("".join(shown.pieces[:20]))
    mine = record.sums.cells.keys[:, 0] == long
    ranks = np.array(shown.rank_a), np.array(shown.rank_b)
    assert shown.rank_a[0] == 0 and (ranks[0] > 0).sum() == record.sums.column("tokens")[mine].sum()
    for side, rank in zip("ab", ranks, strict=True):
        hits = ((rank > 0) & (rank <= 5)).sum()
        assert hits == record.sums.column(f"hit_{side}_5")[mine].sum()
    assert (ranks[0] != ranks[1]).sum() == record.sums.column("moved")[mine].sum()
    assert all(0 <= p <= 1 for p in (*shown.p_a, *shown.p_b))


@pytest.mark.skipif(BROWSER is None, reason="needs chromium or another browser that prints a page's elements")
def test_a_browser_shows_the_first_document_and_makes_a_thousand_when_they_are_opened(tmp_path):
    path = page(tmp_path / "many.html", [text(f"document {i}", 1500) for i in range(1000)])

    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--virtual-time-budget=1000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")  # fmt: skip
    found = subprocess.run([BROWSER, *flags, path.as_uri()], capture_output=True, text=True, timeout=120)
    shown = html.unescape(re.sub(r"<script.*?</script>", "", found.stdout, flags=re.S))
    assert shown.count("<summary>") == 1000 and "document 999" in shown
    tokens = shown.count('class="tok')
    assert 200 <= tokens < 900, "the first part of the first document, and of the others none"
    assert 'class="tok up' in shown and 'class="tok down' in shown and "onerror" in shown and "<img src" not in (
        re.sub(r"<span[^>]*>.*?</span>", "", shown, flags=re.S)
    )  # fmt: skip
