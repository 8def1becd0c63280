"""Packages of others, run as their users would, on the same tokens and weights; each is optional.

A peer makes its own forward pass, so its answer is compared by the mean over each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from tests.benchmarks.case import Answer, Call, Case
from tests.benchmarks.contenders import Contender
from tests.benchmarks.vllm_process import start

PEERS = {"lm_eval": "lm-evaluation-harness", "vllm": "vLLM"}


def installed() -> tuple[list[str], str]:
    """The peers that can be imported, and one line about the others ("" when all can)."""
    here = [name for name in PEERS if find_spec(name)]
    absent = [f"{words} (pip install {name})" for name, words in PEERS.items() if name not in here]
    return here, f"not installed: {', '.join(absent)}" if absent else ""


def peer_contenders(names: Sequence[str]) -> list[Contender]:
    """The contenders of the peers in ``names``, for the end-to-end table."""
    known = {
        "lm_eval": Contender("lm_eval", "HFLM, log-likelihood of every row", "peer", _lm_eval, _row_sums),
        "vllm": Contender("vllm", "LLM.generate, prompt_logprobs=0", "peer", _vllm, _prompt_logprobs),
    }
    return [known[name] for name in names]


def plain_tokenizer(vocabulary: int) -> Any:
    """A tokenizer with as many ids as a shape has rows, for programs that ask for one although they are given ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    ids = {f"<{i}>": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<0>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<0>", eos_token="<0>", bos_token="<0>")


def _lm_eval(case: Case) -> Call:
    from lm_eval.models.huggingface import HFLM

    rows, tokens = case.ids.shape
    model = HFLM(
        pretrained=case.model, tokenizer=plain_tokenizer(case.rows), batch_size=rows, max_length=tokens,
        backend="causal",
    )  # fmt: skip
    # the first token of a row is context, the others are to be predicted: the positions that we score
    requests = [(None, row[:1], row[1:]) for row in case.ids.tolist()]
    return lambda: model._loglikelihood_tokens(requests, disable_tqdm=True)


def _row_sums(found: Sequence[tuple[float, bool]], case: Case) -> Answer:
    return Answer(row_nll=-torch.tensor([value for value, _ in found]))


def _vllm(case: Case) -> Call:
    return start(case, torch.get_num_threads())


def _prompt_logprobs(found: Sequence[float], case: Case) -> Answer:
    return Answer(row_nll=torch.tensor(found))
