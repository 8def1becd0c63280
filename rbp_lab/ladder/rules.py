"""How the models of a ladder are made: sizes and learning rates by rule, so that they differ in width alone.

GPT-NeoX, the architecture of Pythia, so that what is trained here loads and is measured as Pythia is. All models of a
ladder share the tokenizer, the number of tokens, their order and the schedule; only the learning rates follow the
width. d is the width, L the number of layers, S the non-embedding parameters.
"""

from __future__ import annotations

HEADS = 2
REFERENCE_WIDTH = 64
# Instances of a group whose labels are summed over the lattice of subsets, which grows as 2^m.
MOST_SLOTS = 10


def depth_rule(width: int) -> int:
    """L for a width: one layer, and one more for each 32 of width.

    An aspect ratio d/L near 30, for which arXiv 2001.08361 (section 3.1) gives room: changed 40-fold it costs about 3
    per cent of the loss as long as S is held. Its figure 6 sees models of fewer than two layers leave the trend; here
    the one of width 28 does not.
    """
    return 1 + width // 32


def non_embedding_parameters(width: int, layers: int) -> int:
    """S of a GPT-NeoX model with biases and an MLP of 4d: 12 L d² + 13 L d + 2 d.

    Per layer 3d²+3d (query, key, value), d²+d (output), 4d²+4d and 4d²+d (MLP) and 4d (two layer norms); 2d for the
    last norm. [RBP] counts so (section 4): without token embedding and head.
    """
    return 12 * layers * width**2 + 13 * layers * width + 2 * width


def kind_of(parameter: str) -> str:
    """The kind by which the run rule sets a learning rate: embedding, head, vector (biases, norms) or matrix."""
    if "embed_in" in parameter:
        return "embedding"
    if "lm_head" in parameter or "embed_out" in parameter:
        return "head"
    return "vector" if parameter.endswith("bias") or "norm" in parameter else "matrix"


def rate_rule(width: int) -> dict[str, float]:
    """Peak learning rate of AdamW for each kind of parameter.

    Maximal-update parametrisation (arXiv 2203.03466, table 8): with Adam, rates of matrices and of the head fall as
    1/d, those of embeddings and vectors do not depend on d, so a rate tuned at one width holds at the others. Tuned
    at d = 64 with three layers, on 0.8 M tokens and before the depths were settled: matrix rates of 3e-3 and 5e-3 gave
    losses within 0.005 of each other, head rates of 32e-3 and 64e-3 within 0.007, embedding rates of 4e-2 and 8e-2
    within 0.01; half the matrix rate cost 0.07. At d = 160, in shorter runs, doubling the matrix or the head rate did
    not help; no other width was tuned.
    """
    shrink = REFERENCE_WIDTH / width
    return {"matrix": 4e-3 * shrink, "head": 32e-3 * shrink, "embedding": 4e-2, "vector": 8e-3}


def warmup_rule(steps: int) -> int:
    """Warm-up steps: a twentieth of the run."""
    return max(1, steps // 20)
