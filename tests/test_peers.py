"""Numbers of other tools on the same tokens; needs the extra ``peers`` (make test-peers)."""

from __future__ import annotations

import pytest

from rbp_lab import metrics
from rbp_lab.commands.measure import measure
from tests.sources import MadeUpText, measure_config

pytestmark = pytest.mark.peers
TOKENS = 48


def test_rolling_windows_equal_lm_evaluation_harness(tiny_model_dir, tmp_path):
    """loglikelihood_rolling of a model with max_length T−1 is our rolling protocol with stride T−1 behind a BOS."""
    lm_eval = pytest.importorskip("lm_eval.models.huggingface")
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    texts = [text for text in MadeUpText(num_documents=12).corpus().texts if text]
    theirs = lm_eval.HFLM(
        pretrained=str(tiny_model_dir), max_length=TOKENS - 1, device="cpu", batch_size=1, dtype="float32"
    )
    requests = [instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    log_likelihoods = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    tokens = [len(theirs.tok_encode(text)) for text in texts]
    assert max(tokens) > 2 * TOKENS

    config = measure_config(tiny_model_dir, tmp_path / "store", dataset__num_documents=12)
    config["dataset"]["protocol"] = {
        "windows": "rolling", "max_tokens": TOKENS, "stride": TOKENS - 1, "bos": "always", "mask_special": False,
    }  # fmt: skip
    stats = measure(config).record.stats
    assert stats.num_tokens == sum(tokens)
    assert metrics.cross_entropy(stats) * stats.num_tokens == pytest.approx(-sum(log_likelihoods), abs=1e-4, rel=0)
