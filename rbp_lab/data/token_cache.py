"""Token ids on disk, written as they are made: what is not as it was written is made again."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from rbp_lab.data.windows import TokenizedCorpus
from rbp_lab.errors import LabError, first_line, note
from rbp_lab.store.atomic import AlreadyThere, remove_directory
from rbp_lab.store.long_arrays import read_long_arrays, write_long_arrays


def read_tokens(path: Path, key: str) -> TokenizedCorpus | None:
    """What was kept under this key; its tokens stay in the file. None when there is nothing to use.

    What is damaged is removed, with a note on stderr.
    """
    try:
        arrays, about = read_long_arrays(path)
        if about["key"] != key:
            raise LabError("it is of other texts")
        return TokenizedCorpus(
            tokens=arrays["tokens"],
            offsets=arrays["offsets"][:],
            token_bytes=arrays.get("token_bytes"),
            special_ids=arrays["special_ids"][:],
            eos_id=about["eos_id"],
        )
    except FileNotFoundError:
        return None
    except (LabError, KeyError) as error:
        note(f"the token cache {path} is damaged ({first_line(error)}) and is made again")
        with suppress(OSError):
            remove_directory(path)
        return None


def keep_tokens(
    path: Path,
    key: str,
    documents: Iterator[tuple[np.ndarray, np.ndarray | None]],
    special_ids: np.ndarray,
    eos_id: int | None,
    with_bytes: bool,
) -> None:
    """Write token ids, and bytes if ``with_bytes``, of one document after another, to be read by ``read_tokens``.

    A note on stderr when the place cannot be written, which costs only time.
    """
    names = {"tokens": np.int32, "offsets": np.int64, "special_ids": np.int64}
    names |= {"token_bytes": np.int32} if with_bytes else {}
    try:
        with write_long_arrays(path, names, {"key": key, "eos_id": eos_id}) as written:
            offsets = array("q", [0])
            for tokens, sizes in documents:
                written["tokens"].append(tokens)
                if with_bytes:
                    written["token_bytes"].append(sizes)
                offsets.append(offsets[-1] + len(tokens))
            written["offsets"].append(np.frombuffer(offsets, np.int64))
            written["special_ids"].append(special_ids)
    except AlreadyThere:
        return
    except (OSError, LabError) as error:
        note(f"token ids cannot be kept in {path}: {first_line(error)}")
