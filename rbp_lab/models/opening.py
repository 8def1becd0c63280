"""What the sources share that open a model through transformers: what is asked for, and checks of what came."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, first_line
from rbp_lab.hub.errors import explained
from rbp_lab.hub.files import cache_alone_when_unreachable, sound_files
from rbp_lab.models.source import LoadedModel
from rbp_lab.names import check_label, check_name, clean_name

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")
# Of weights, by ``rounding.round_weights``; with HEAD behind it also of the output layer's.
ROUNDINGS, HEAD = ("int8", "int4", "fp8"), "+head"


def lacks_torchao(kind: str) -> str:
    """A sentence when weights cannot be rounded because what rounds them is not installed; "" when it is."""
    if find_spec("torchao") is not None:
        return ""
    return f"rounding weights to {kind} needs torchao: pip install 'rbp-lab[torchao]'"


def check_fields(source: Any) -> None:
    """Check path, revision, dtype and names of a source, and give it a name when it has none."""
    for field in ("path", "name", "revision"):
        value = getattr(source, field)
        if value is not None and not isinstance(value, str):
            raise LabError(f"model.{field} must be text; got {value!r}; quote it: 'model.{field}=\"{value}\"'")
    if not (source.path or "").strip():
        raise LabError("model.path is empty; give a hub id (owner/model) or a path of this machine")
    if source.dtype is not None and source.dtype not in DTYPES:
        raise LabError(f"model.dtype must be one of {', '.join(DTYPES)}, or null; got {source.dtype!r}")
    if source.revision is not None and is_local(source.path):
        raise LabError(f"model.revision={source.revision!r} is for hub ids, but {source.path} is of this machine")
    check_label(source.family, "model.family")


def named(name: str, revision: str | None) -> str:
    """The checked name of a model: ``name@revision``, or ``name`` when it shows the revision already, so that two
    revisions never share one."""
    name = showing(name, "@", clean_name(revision)) if revision is not None else name
    check_name(name, "model.name")
    return name


def showing(name: str, sign: str, label: str, flags: int = 0) -> str:
    """The name with the label behind a sign, unless the name shows the label already."""
    shown = re.search(rf"(?<![^\W_]){re.escape(label)}(?![^\W_])", name, flags)
    return name if shown else f"{name}{sign}{label}"


def last_part(path: str) -> str:
    """A name made from the last part of a path or hub id."""
    last = Path(path).name
    return clean_name(last if last not in {"", ".."} else Path(os.path.expanduser(path)).resolve().name)


def local_path(path: str) -> Path:
    """The path of this machine that ``model.path`` means."""
    return Path(os.path.expanduser(path))


def is_local(path: str) -> bool:
    """Whether ``model.path`` means a path of this machine: it exists, or it cannot be a hub id."""
    hub_id = len(path) <= 96 and re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", path)
    return os.path.exists(local_path(path)) or not hub_id


@contextmanager
def reading(source: Any, what: str) -> Iterator[None]:
    """Within, ``what`` of a source's model is read; whatever goes wrong is a LabError that names both.

    A hub that cannot be reached means the local cache, and files that arrive damaged are not kept.
    """
    at = f" at revision {source.revision}" if source.revision else ""
    local = is_local(source.path)
    with (
        explained(f"model {source.name}: cannot read {what} of {source.path}{at}"),
        nullcontext() if local else cache_alone_when_unreachable(),
        nullcontext() if local else sound_files(f"model {source.name}: {source.path}", source.path),
    ):
        yield


def checked_tokenizer(tokenizer: PreTrainedTokenizerBase, what: str) -> PreTrainedTokenizerBase:
    """The tokenizer, which never shortens a text by itself. LabError, beginning with ``what``, when it knows no text.

    Without vocabulary files transformers makes an empty tokenizer and says nothing.
    """
    if set(tokenizer("a plain text", add_special_tokens=False)["input_ids"]) <= set(tokenizer.all_special_ids):
        raise LabError(
            f"{what} holds no tokenizer (expected tokenizer.json, or the vocabulary files of its kind); save the "
            "tokenizer beside the model with save_pretrained"
        )
    # Where a document is cut is the protocol's choice, so the tokenizer's own limit would only print warnings.
    tokenizer.model_max_length = sys.maxsize
    return tokenizer


def checked_weights(network: nn.Module, report: Mapping[str, Any], what: str) -> LoadedModel:
    """What from_pretrained loaded with ``output_loading_info``, ready to measure.

    Raises LabError, beginning with ``what``, when weights are missing or do not fit: a layer that transformers would
    initialise at random is never measured. Tensors of the checkpoint that no layer takes are a note.
    """
    wrong = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
    if wrong or report["error_msgs"]:
        raise LabError(
            f"{what} lacks weights or has them in another shape "
            f"({listed(wrong) if wrong else first_line(Exception(*report['error_msgs']))}), so they would be "
            "random; use a checkpoint of the causal LM itself"
        )
    unused = sorted(report["unexpected_keys"])
    notes = (f"{len(unused)} tensors of the checkpoint are used by no layer: {listed(unused)}",) if unused else ()
    return LoadedModel(network.eval().requires_grad_(False), notes)


def listed(names: list[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
