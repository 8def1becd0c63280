"""Parameter counts of a causal LM by the paper's rule, from its config alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, first_line, out_of_memory
from rbp_lab.hub.errors import quiet
from rbp_lab.records import ParamCounts

if TYPE_CHECKING:
    from torch import nn

# Names that transformers and the code of repositories give to modules beside the text model.
_OTHER_SENSES = re.compile(r"(^|\.)(vision|visual|image|img|video|audio|speech|multi_?modal|mm_)\w*\.")


def empty_model(config: Any, trust_remote_code: bool = False) -> nn.Module:
    """The causal LM of a transformers config on the meta device: shapes and sharing, no memory and no weights.

    Raises LabError when the config does not describe a causal LM that transformers can build.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with quiet(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a config can break in the model's constructor is the config's fault
        if out_of_memory(error):
            raise
        kind = getattr(config, "model_type", type(config).__name__)
        raise LabError(f"transformers builds no causal LM from this {kind!r} config: {first_line(error)}") from error


def count_parameters(model: nn.Module) -> ParamCounts:
    """Counts of the text model in a built model; a tensor that several modules share counts once, buffers never.

    Towers for pictures, video and sound and what projects their output do not count: no text passes through them.

    Embeddings are the tables that ids index (``nn.Embedding``): tokens and, where learned, positions. What projects
    an embedding to another width (OPT-350m, 512 ↔ 1024) is neither embedding nor head and stays in the size, as in
    [RBP] (arXiv 2510.20387, section 4). A bias of the head belongs to the head.
    """
    from torch import nn

    def numel(parameters: dict[int, nn.Parameter]) -> int:
        return sum(one.numel() for one in parameters.values())

    everything = _text_parameters(model)
    embedders = [m for m in model.modules() if isinstance(m, nn.Embedding)] + [model.get_input_embeddings()]
    tables = {id(one): one for module in embedders for one in module.parameters() if id(one) in everything}
    output = model.get_output_embeddings()
    head = {} if output is None else {id(one): one for one in output.parameters() if id(one) not in tables}
    return ParamCounts(total=numel(everything), embedding=numel(tables), head=numel(head))


def _text_parameters(model: nn.Module) -> dict[int, nn.Parameter]:
    """Parameters by identity: of the text part where the config names one, else of all but modules of other senses."""
    everything = {id(one): one for name, one in model.named_parameters() if not _OTHER_SENSES.search(name)}
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    if model.config.get_text_config() is model.config or decoder is model:
        return everything
    parts = (decoder, model.get_input_embeddings(), model.get_output_embeddings())
    text = {id(one) for part in parts if part is not None for one in part.parameters()}
    return {key: one for key, one in everything.items() if key in text}
