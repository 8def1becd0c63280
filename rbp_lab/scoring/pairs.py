"""Two distributions over one vocabulary at every position, compared: what differs, in one reading of both logits.

The total variation needs both normalisers before it can be summed, so the logits of a few positions are held whole, of
both models, in ``HELD_BYTES``; those of a batch never exist. ``compare_logits`` says what is computed, in plain torch:
in float64 it is what faster code must reproduce. Legend: n positions, V candidates, D hidden width, K thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
import torch.nn.functional as F

from rbp_lab.scoring import choose
from rbp_lab.scoring.linear import Linear, ieee_products, linear_for
from rbp_lab.scoring.reference import reference_logits, score_logits
from rbp_lab.scoring.threads import run_per_thread
from rbp_lab.scoring.tiling import each_tile, operand_dtype, tile_for
from rbp_lab.scoring.types import LMHead, TokenScores, check_finite

# Of the logits of both models that are held at once, whatever the number of threads.
HELD_BYTES = {"cpu": 25 << 20, "cuda": 512 << 20}
MOST_POSITIONS = 256
LEAST_CHOICES = 8  # first choices that are looked at where the thresholds ask for fewer: ties of the first are seen


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of positions under models a and b, and how their distributions differ; tensors [n] unless stated.

    a, b: TokenScores of each. kl_ab, kl_ba: Σ p_a (log p_a − log p_b) and the reverse, nats, float32, never below 0.
    variation: ½ Σ |p_a − p_b|, in [0, 1], float32. confidence_a, confidence_b: the largest probability, float32.
    agree: whether the first choices are the same, int32; of tied ones the sets must be, as far as ``first_choices``
    lists them. overlap: int32 [n,K], candidates among the first k of both; ties at the k-th go to the lower id.
    """

    a: TokenScores
    b: TokenScores
    kl_ab: torch.Tensor
    kl_ba: torch.Tensor
    variation: torch.Tensor
    confidence_a: torch.Tensor
    confidence_b: torch.Tensor
    agree: torch.Tensor
    overlap: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.kl_ab.device

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> PairScores:
        """The scores with ``change`` applied to each of their tensors."""
        values = [getattr(self, field.name) for field in fields(self)]
        return PairScores(*(v.map(change) if isinstance(v, TokenScores) else change(v) for v in values))

    @staticmethod
    def join(parts: Sequence[PairScores]) -> PairScores:
        """The scores of several runs of positions, one after the other."""
        columns = [[getattr(part, field.name) for part in parts] for field in fields(PairScores)]
        return PairScores(*(
            TokenScores.join(column) if isinstance(column[0], TokenScores) else torch.cat(column) for column in columns
        ))  # fmt: skip

    def mirrored(self) -> PairScores:
        """The same comparison of b with a."""
        return replace(self, a=self.b, b=self.a, kl_ab=self.kl_ba, kl_ba=self.kl_ab, confidence_a=self.confidence_b,
                       confidence_b=self.confidence_a)  # fmt: skip

    def check_finite(self) -> None:
        """NonFiniteLogits with the first position at which a logit of either is not finite."""
        check_finite(self.a)
        check_finite(self.b)


def held_bytes(device: str) -> int:
    """The most bytes of logits of both models that are held at once on a kind of device."""
    return HELD_BYTES.get(device, HELD_BYTES["cuda"])


def positions_at_once(device: str, candidates: int) -> int:
    """Positions whose logits are held whole at once, 4 to MOST_POSITIONS; independent of batch and threads."""
    most = MOST_POSITIONS if device == "cpu" else 16 * MOST_POSITIONS
    return max(4, min(most, held_bytes(device) // (8 * candidates) // 4 * 4))


def implementation(device: str) -> str:
    """What "auto" is on a kind of device; there is no triton kernel for pairs."""
    return choose(device, 0) if device == "cpu" else "torch"


def score_pairs(
    hidden: tuple[torch.Tensor, torch.Tensor],
    heads: tuple[LMHead, LMHead],
    targets: torch.Tensor,
    ks: Sequence[int],
    impl: str = "auto",
    logits: tuple[str, str] = ("float32", "float32"),
) -> PairScores:
    """Compare the predictions of a and b for ``targets`` [n], from the hidden states [n,D_a] and [n,D_b].

    ks: of the overlap of first choices. impl: "reference" (float64, holds all logits), "numba" (CPU), "torch", or
    "auto". logits: as in ``score_tokens``, of each. What is not finite is marked, as there, and not refused. ValueError
    when the heads have not as many candidates.
    """
    if heads[0].candidates != heads[1].candidates:
        raise ValueError(f"heads of {heads[0].candidates} and {heads[1].candidates} candidates")
    with torch.inference_mode():
        if impl == "reference":
            z = [reference_logits(states, head) for states, head in zip(hidden, heads, strict=True)]
            return compare_logits(*z, targets, ks)
        device = hidden[0].device.type
        reduce = _reduction(implementation(device) if impl == "auto" else impl, device)
        sides = [_Side.of(*one) for one in zip(hidden, heads, logits, strict=True)]
        step = positions_at_once(device, heads[0].candidates)
        held = [torch.empty(step, head.candidates, device=hidden[0].device) for head in heads]
        found = []
        with ieee_products():
            for first in range(0, max(1, len(targets)), step):
                labels = targets[first : first + step]
                for side, z in zip(sides, held, strict=True):
                    side.write_logits(first, z)
                found.append(reduce(*(z[: len(labels)] for z in held), labels, ks))
        return PairScores.join(found)


@dataclass(frozen=True)
class _Side:
    """One of the two models: what its logits are computed from, and how."""

    hidden: torch.Tensor
    head: LMHead
    operands: torch.dtype
    linear: Linear
    rows: int

    @classmethod
    def of(cls, hidden: torch.Tensor, head: LMHead, logits: str) -> _Side:
        operands = operand_dtype(hidden.dtype, logits)
        rows = tile_for(hidden, head, operands, None)[1]
        return cls(hidden, head, operands, linear_for(hidden.device.type, operands), rows)

    def write_logits(self, first: int, held: torch.Tensor) -> None:
        """Write the logits of the positions from ``first`` on to ``held`` [step,V].

        Threads divide the vocabulary at multiples of a tile's rows, so that no shape depends on their number; there are
        always ``step`` positions, as padding where they end.
        """
        states = self.hidden[first : first + len(held)]
        states = F.pad(states, (0, 0, 0, len(held) - len(states)))
        tiles = -(-self.head.candidates // self.rows)
        parts = min(tiles, torch.get_num_threads()) if held.device.type == "cpu" else 1
        share = -(-tiles // parts) * self.rows
        calls = [partial(self._write, states, held, begin, share) for begin in range(0, self.head.candidates, share)]
        run_per_thread(calls) if held.device.type == "cpu" else [call() for call in calls]

    def _write(self, states: torch.Tensor, held: torch.Tensor, begin: int, share: int) -> None:
        head = self.head
        end = min(begin + share, head.candidates)
        bias = None if head.bias is None else head.bias[begin:end]
        part = LMHead(head.weight[begin:end], bias, head.scale, head.softcap)

        def put(at: slice, row: int, z: torch.Tensor) -> None:
            held[at, begin + row : begin + row + z.shape[1]] = z

        each_tile(states, part, (len(held), self.rows), self.operands, self.linear, put)


def _reduction(impl: str, device: str) -> Callable[..., PairScores]:
    """What reduces held logits of a and b [n,V], which it may overwrite."""
    if impl == "numba" and device == "cpu":
        from rbp_lab.scoring.pairs_numba import compare_held

        return compare_held
    return _by_rows if device == "cpu" else compare_logits


def _by_rows(z_a: torch.Tensor, z_b: torch.Tensor, targets: torch.Tensor, ks: Sequence[int]) -> PairScores:
    """``compare_logits`` for a few rows at a time: it holds several times what it is given."""
    step = max(1, (1 << 18) // z_a.shape[1])
    starts = range(0, max(1, len(targets)), step)
    return PairScores.join([compare_logits(*(v[i : i + step] for v in (z_a, z_b, targets)), ks) for i in starts])


def compare_logits(z_a: torch.Tensor, z_b: torch.Tensor, targets: torch.Tensor, ks: Sequence[int]) -> PairScores:
    """The comparison of logits [n,V] as PairScores defines it, in their precision (float32 or float64)."""
    log_a, log_b = z_a.log_softmax(-1), z_b.log_softmax(-1)
    p_a, p_b = log_a.exp(), log_b.exp()
    ratio = log_a - log_b
    (values_a, ids_a), (values_b, ids_b) = first_choices(z_a, choices(z_a, ks)), first_choices(z_b, choices(z_b, ks))
    tied_a, tied_b = values_a == values_a[:, :1], values_b == values_b[:, :1]
    same = ids_a[:, :, None] == ids_b[:, None, :]
    return PairScores(
        score_logits(z_a, targets),
        score_logits(z_b, targets),
        (p_a * ratio).sum(-1).clamp_(min=0).float(),
        -(p_b * ratio).sum(-1).clamp_(max=0).float(),
        ((p_a - p_b).abs().sum(-1) / 2).clamp_(max=1).float(),
        p_a.amax(-1).float(),
        p_b.amax(-1).float(),
        ((tied_a == tied_b).all(-1) & ((ids_a == ids_b) | ~tied_a).all(-1)).int(),
        torch.stack([same[:, :k, :k].sum((1, 2)) for k in ks], 1).int(),
    )


def choices(logits: torch.Tensor, ks: Sequence[int]) -> int:
    """First choices that are looked at of logits [n,V]."""
    return min(logits.shape[1], max(LEAST_CHOICES, *ks))


def first_choices(logits: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest ``number`` of logits [n,V] and their ids, falling; equal ones by their id, rising."""
    values, ids = logits.topk(number)
    # topk leaves open which of equal values it takes, and in what order
    least = values[:, -1:]
    for row in ((logits == least).sum(-1) > (values == least).sum(-1)).nonzero()[:, 0].tolist():
        in_order = logits[row].sort(descending=True, stable=True)
        values[row], ids[row] = in_order[0][:number], in_order[1][:number]
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)
