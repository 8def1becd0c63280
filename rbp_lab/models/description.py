"""What a model is by its config, code and tokenizer, whatever its weights, and keeping that.

Finding it out takes torch and the model's code of transformers, which are seconds of imports; a command whose records
are all there needs neither.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab import __version__
from rbp_lab.errors import LabError
from rbp_lab.models.files import vocabulary_names
from rbp_lab.models.opening import listed, showing
from rbp_lab.models.params import count_parameters
from rbp_lab.models.positions import position_limit
from rbp_lab.records import ModelInfo, ParamCounts
from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.header import CHECKSUMS, OWN, checksum_of, sealed

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

# Raised whenever the same files would be described otherwise, so that what was kept is found out anew.
DESCRIPTION_VERSION = 1


@dataclass(frozen=True)
class Description:
    """A model without its weights.

    architecture, stored_dtype, vocab_rows, tokenizer_size, max_positions, params: as of ``ModelInfo``.
    vocabulary_files: names that the class of the tokenizer reads files by. notes: sentences that a user should see.
    """

    architecture: str
    stored_dtype: str | None
    vocab_rows: int
    tokenizer_size: int
    max_positions: int | None
    params: ParamCounts
    vocabulary_files: tuple[str, ...]
    notes: tuple[str, ...]

    def info(
        self, source: Any, *, revision: str | None, fingerprint: str, quantisation: str | None = None
    ) -> ModelInfo:
        """What is known of a source's model. Rounded weights show in the name, as revisions do."""
        return ModelInfo(
            name=source.name if quantisation is None else showing(source.name, "+", quantisation, re.IGNORECASE),
            family=source.family,
            path=source.path,
            revision=revision,
            fingerprint=fingerprint,
            architecture=self.architecture,
            stored_dtype=self.stored_dtype,
            vocab_rows=self.vocab_rows,
            tokenizer_size=self.tokenizer_size,
            max_positions=self.max_positions,
            params=self.params,
            training_tokens=source.training_tokens,
            quantisation=quantisation,
            step=getattr(source, "step", None),
            warmup_tokens=getattr(source, "warmup_tokens", None),
        )


def describe(config: Any, network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Description:
    """The model of a config and a tokenizer. network: built from the config, weights not needed."""
    output = network.get_output_embeddings()
    rows = int(config.get_text_config().vocab_size) if output is None else int(output.weight.shape[0])
    vocabulary = tokenizer.get_vocab()
    stored = getattr(config, "dtype", None)
    beyond = listed([f"{i} {token!r}" for i, token in sorted((i, t) for t, i in vocabulary.items() if i >= rows)])
    return Description(
        architecture=type(network).__name__,
        stored_dtype=None if stored is None else str(stored).removeprefix("torch."),
        vocab_rows=rows,
        tokenizer_size=max(vocabulary.values()) + 1,
        max_positions=position_limit(network, config),
        params=count_parameters(network),
        vocabulary_files=tuple(sorted(vocabulary_names(tokenizer))),
        notes=(f"the head has {rows} rows, so no text may contain the tokens beyond ({beyond})",) if beyond else (),
    )


def kept(cache: str | None, what: Sequence[Any]) -> Description | None:
    """The description that was kept under ``what``; None without one that is as it was written.

    cache: the directory, None for none. what: plain JSON that identifies config, code and tokenizer.
    """
    if cache is None:
        return None
    try:
        found = json.loads(_path(cache, what).read_bytes())
        if found.pop(CHECKSUMS)[OWN] != checksum_of({**found, CHECKSUMS: {}}):
            return None
        params = ParamCounts(**found.pop("params"))
        lists = {name: tuple(found.pop(name)) for name in ("vocabulary_files", "notes")}
        return Description(**found, **lists, params=params)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(cache: str | None, what: Sequence[Any], description: Description) -> None:
    """Keep a description to be found by ``kept``; where nothing may be written nothing is."""
    if cache is None:
        return
    with suppress(LabError), atomic_path(_path(cache, what)) as temporary:
        temporary.write_text(sealed(asdict(description), {}), encoding="utf-8")


def _path(cache: str, what: Sequence[Any]) -> Path:
    """Where a description is kept; it is of use to the versions that made it alone."""
    made_by = [DESCRIPTION_VERSION, __version__, version("transformers"), version("tokenizers")]
    digest = hashlib.sha256(json.dumps([*made_by, *what]).encode()).hexdigest()
    return Path(cache) / f"{digest[:32]}.json"
