"""Memory while measuring is bounded by a shard, not by the corpus. Each child is a process of its own, whose peak the
system knows."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import build_tiny_tokenizer
from tests.kills import ROOT
from tests.memory import write_documents
from tests.sources import measure_config

VOCABULARY = 50_304
# What is freed goes back to the system, so that peaks are of what is held, not of what the allocator keeps.
RETURNED = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "ARROW_DEFAULT_MEMORY_POOL": "system"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of next to nothing with a large vocabulary and long rows."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=1024, vocab_size=VOCABULARY, bos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(directory)
    build_tiny_tokenizer().save_pretrained(directory)
    return directory


def peaks(directory, configs, tokens=None):
    """What a child says of measuring one configuration after another."""
    task = {"configs": configs, "vocabulary": VOCABULARY, "tokens": tokens}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)}
    environment |= RETURNED
    command = [sys.executable, "-m", "tests.memory", json.dumps(task)]
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def growth(model, directory, *sizes, **changes):
    """Bytes that each document more of the last corpus than of the one before cost."""
    configs = []
    for documents in sizes:
        write_documents(path := directory / f"{documents}.jsonl", documents)
        source = {"_target_": "rbp_lab.data.LocalText", "files": str(path), "num_documents": None}
        config = measure_config(model, directory / "store", **changes)
        configs.append(config | {"dataset": source | {"protocol": {"windows": "rolling", "max_tokens": 128}}})
    *_, few, many = peaks(directory, configs)
    assert (few["documents"], many["documents"]) == sizes[-2:]
    assert many["tokens"] > 200 * many["documents"]  # which in memory would be 1.6 kB a document
    return (many["peak"] - few["peak"]) / (sizes[-1] - sizes[-2])


@pytest.mark.slow  # 16 s of processor time
def test_a_document_more_takes_no_room_for_its_text_or_its_tokens(model, tmp_path):
    """The second corpus finds the memory that the first one had; what still grows are buffers with a limit."""
    assert growth(model, tmp_path, 1000, 1001, 9000, launch__shard_tokens=2**15) < 2400


@pytest.mark.slow
def test_a_document_more_takes_less_than_a_kilobyte(model, tmp_path):
    assert growth(model, tmp_path, 10_000, 10_001, 40_000, launch__shard_tokens=2**16) < 1000


@pytest.mark.slow
def test_a_hundred_million_tokens_take_less_than_500_mb_beside_the_libraries(model, tmp_path):
    """10^5 documents of 1001 tokens, in shards of the size that the largest models have on a CPU."""
    configs = []
    for documents in (2, 100_000):
        source = {"_target_": "tests.memory.NumberedText", "documents": documents, "protocol": {"max_tokens": 1001}}
        configs.append(measure_config(model, tmp_path / "store") | {"dataset": source})
    libraries, all_of_it = peaks(tmp_path, configs, tokens=1001)
    assert all_of_it["tokens"] == 10**8 and all_of_it["documents"] == 10**5
    assert all_of_it["peak"] - libraries["peak"] < 500e6, all_of_it
