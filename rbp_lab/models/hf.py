"""Any causal LM that transformers loads: from a hub id, a revision of it, or a local directory."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError
from rbp_lab.hub_errors import explained, first_line, quiet
from rbp_lab.models.files import check_directory, directory_fingerprint
from rbp_lab.models.params import count_parameters, empty_model
from rbp_lab.records import ModelInfo

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class HFModel:
    """A causal LM for transformers.

    path: hub id (owner/model) or local directory. name: directory-safe name for people, by default the last part of
    the path and the revision. family: models that share one law. revision: branch, tag or commit of a hub id.
    dtype: overrides the precision config for this model (float32, bfloat16, float16); None follows it. attention:
    transformers' attention implementation, None for its default. device_map: None puts the whole model on the
    process's device; "auto" spreads it over all devices. trust_remote_code: run code that the repository ships.
    training_tokens: tokens seen in training, when known.
    """

    path: str
    name: str = ""
    family: str = "hf"
    revision: str | None = None
    dtype: str | None = None
    attention: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False
    training_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise LabError("model.path is empty; give a hub id (owner/model) or a directory")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise LabError(f"model.dtype must be one of {', '.join(DTYPES)}, or null; got {self.dtype!r}")
        if self.revision is not None and self.is_local:
            raise LabError(f"model.revision={self.revision!r} is for hub ids, but {self.path} is a local directory")
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.path, self.revision))
        if re.search(r"[/\\\0]", self.name) or self.name in {".", ".."}:
            raise LabError(f"model.name becomes a directory name and may not be a path; got {self.name!r}")

    @property
    def is_local(self) -> bool:
        """Whether path means a directory: it exists, or it cannot be a hub id."""
        return self._directory.is_dir() or not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", self.path)

    @property
    def _directory(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def _where(self) -> dict[str, Any]:
        """What every from_pretrained takes: the place, and leave to run the repository's code."""
        place = str(self._directory) if self.is_local else self.path
        return {"pretrained_model_name_or_path": place, "trust_remote_code": self.trust_remote_code}

    def commit(self) -> str | None:
        """The commit that the revision of a hub id means now; None for a directory.

        What is read for one purpose is read at one commit, whatever is pushed in between. Raises LabError when it
        cannot be had: unknown id or revision, no network.
        """
        from huggingface_hub import hf_hub_download

        if self.is_local:
            check_directory(self._directory)
            return None
        with quiet(), self._explained("the config"):
            # The cache keeps files under snapshots/<commit>/, so this also answers without a network.
            return Path(hf_hub_download(self.path, "config.json", revision=self.revision)).parent.name

    def config(self, commit: str | None = None) -> Any:
        """The transformers config (of a commit, by default today's). LabError when missing or not understood."""
        from transformers import AutoConfig

        commit = commit or self.commit()
        with quiet(), self._explained("the config"):
            return AutoConfig.from_pretrained(**self._where, revision=commit or "main")

    def info(self) -> ModelInfo:
        """What is known without the weights. Raises LabError also when the tokenizer's ids exceed the head's rows."""
        commit = self.commit()
        config = self.config(commit)
        model = empty_model(config, self.trust_remote_code)
        output = model.get_output_embeddings()
        text = config.get_text_config()
        rows = int(text.vocab_size) if output is None else int(output.weight.shape[0])
        size = max(self.tokenizer(commit).get_vocab().values()) + 1
        if size > rows:
            raise LabError(
                f"model {self.name}: the tokenizer produces ids up to {size - 1}, but the head has only {rows} rows; "
                "tokenizer and weights do not belong together (or tokens were added without resizing the model)"
            )
        positions = getattr(text, "max_position_embeddings", None)
        dtype = getattr(config, "dtype", None)
        return ModelInfo(
            name=self.name,
            family=self.family,
            path=self.path,
            revision=commit,
            fingerprint=directory_fingerprint(self._directory) if commit is None else commit,
            architecture=type(model).__name__,
            stored_dtype=None if dtype is None else str(dtype).removeprefix("torch."),
            vocab_rows=rows,
            tokenizer_size=size,
            max_positions=positions if isinstance(positions, int) and positions > 0 else None,
            params=count_parameters(model),
            training_tokens=self.training_tokens,
        )

    def tokenizer(self, commit: str | None = None) -> PreTrainedTokenizerBase:
        """The tokenizer (of a commit, by default today's); it never shortens a text by itself."""
        from transformers import AutoTokenizer

        commit = commit or self.commit()
        with quiet(), self._explained("the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(**self._where, revision=commit or "main")
        # Without vocabulary files transformers makes an empty tokenizer and says nothing.
        if set(tokenizer("a plain text", add_special_tokens=False)["input_ids"]) <= set(tokenizer.all_special_ids):
            raise LabError(
                f"model {self.name}: {self.path} holds no tokenizer (expected tokenizer.json, or the vocabulary files "
                "of its kind); save the tokenizer beside the model with save_pretrained"
            )
        # Where a document is cut is the protocol's choice, so the tokenizer's own limit would only print warnings.
        tokenizer.model_max_length = sys.maxsize
        return tokenizer

    def load(self, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
        """The model with its weights in dtype on device, in eval mode, without gradients.

        dtype is the caller's decision: pass ``self.dtype`` when it is set, else the precision config's. A hub model
        comes from the commit its config came from. Raises LabError when weights are missing, do not fit or cannot
        be read: a layer that transformers would initialise at random is never measured.
        """
        from transformers import AutoModelForCausalLM

        # A checkpoint without safetensors would make transformers ask the hub, from a thread, to convert it.
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        commit = self.commit()
        config = self.config(commit)
        empty_model(config, self.trust_remote_code)  # one sentence for a config that is no causal LM
        with quiet(downloads=True), self._explained("the weights"):
            model, report = AutoModelForCausalLM.from_pretrained(
                **self._where,
                config=config,
                revision=commit or "main",
                dtype=dtype,
                device_map={"": device} if self.device_map is None else self.device_map,
                attn_implementation=self.attention,
                ignore_mismatched_sizes=True,  # listed below together with what is missing
                output_loading_info=True,
            )
        wrong = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
        if wrong or report["error_msgs"]:
            listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise LabError(
                f"model {self.name}: the checkpoint {self.path} lacks weights or has them in another shape "
                f"({listed or first_line(Exception(*report['error_msgs']))}), so they would be random; "
                "use a checkpoint of the causal LM itself"
            )
        return model.eval().requires_grad_(False)

    def _explained(self, what: str) -> AbstractContextManager[None]:
        at = f" at revision {self.revision}" if self.revision else ""
        return explained(f"model {self.name}: cannot read {what} of {self.path}{at}")


def _name_of(path: str, revision: str | None) -> str:
    """A directory-safe name: the last part of the path, and the revision when there is one."""
    last = Path(path).name if Path(path).name not in {"", ".."} else Path(path).expanduser().resolve().name
    name = last + (f"@{revision}" if revision else "")
    return re.sub(r"[^\w.@+-]+", "-", name).strip("-.") or "model"
