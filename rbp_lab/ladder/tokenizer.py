"""The ladder's tokenizer: byte-level BPE learned from the training texts, a fast tokenizer like Pythia's."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from rbp_lab.data.corpus import Corpus
from rbp_lab.errors import LabError
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.layout import Store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Pythia's one special token: begins and ends text, and separates packed documents.
END_OF_TEXT = "<|endoftext|>"
# The 256 byte symbols and the special token, before the first merge.
SMALLEST_VOCABULARY = 257


def bpe_tokenizer(corpus: Corpus, vocabulary: int, store: Store) -> PreTrainedTokenizerFast:
    """The tokenizer of ``vocabulary`` ids learned from the corpus; read from ``cache`` when it was learned before.

    Byte-level (every text has an encoding, no unknown token), no prefix space, nothing added to a text.

    Raises:
        LabError: vocabulary below 257, or more merges asked than the texts have.
    """
    from transformers import PreTrainedTokenizerFast

    if vocabulary < SMALLEST_VOCABULARY:
        raise LabError(
            f"model.vocabulary must be at least {SMALLEST_VOCABULARY} (256 bytes and the end-of-text token); "
            f"got {vocabulary}"
        )
    what = json.dumps(["byte-level bpe", corpus.fingerprint, vocabulary])
    directory = store.tokenizer(hashlib.sha256(what.encode()).hexdigest()[:24])
    if not directory.is_dir():
        with atomic_directory(directory) as temporary:
            _learn(corpus, vocabulary).save_pretrained(temporary)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def _learn(corpus: Corpus, vocabulary: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus.texts, trainer, length=len(corpus.texts))
    learned = backend.get_vocab_size()
    if learned != vocabulary:
        raise LabError(
            f"dataset {corpus.name!r} has too little text for a vocabulary of {vocabulary}: {learned} pieces were all "
            "that repeats in it; ask for fewer, or train on more text"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
