"""Token ids on disk, in one checked file: what is not as it was written is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rbp_lab.data.windows import TokenizedCorpus
from rbp_lab.errors import LabError, note
from rbp_lab.hub_errors import first_line
from rbp_lab.store.arrays import read_arrays, write_arrays

_ARRAYS = ("tokens", "offsets", "special_ids", "token_bytes")


def read_tokens(path: Path, key: str) -> TokenizedCorpus | None:
    """What was kept under this key, with a note on stderr when it is damaged; None when there is nothing to use."""
    try:
        arrays, about = read_arrays(path)
        if about.get("key") != key:
            raise LabError("it is of other texts")
        return TokenizedCorpus(
            tokens=arrays["tokens"],
            offsets=arrays["offsets"],
            token_bytes=arrays.get("token_bytes"),
            special_ids=arrays["special_ids"],
            eos_id=about["eos_id"],
        )
    except FileNotFoundError:
        return None
    except (OSError, LabError, KeyError) as error:
        note(f"the token cache {path} is damaged ({first_line(error)}) and is made again")
        return None


def keep_tokens(path: Path, key: str, tokens: TokenizedCorpus) -> None:
    """Write token ids to be read again; a note on stderr when the place cannot be written, which costs only time."""
    arrays: dict[str, np.ndarray] = {name: a for name in _ARRAYS if (a := getattr(tokens, name)) is not None}
    try:
        write_arrays(path, arrays, {"key": key, "eos_id": tokens.eos_id})
    except (OSError, LabError) as error:
        note(f"token ids cannot be kept in {path}: {first_line(error)}")
