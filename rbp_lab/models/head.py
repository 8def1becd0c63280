"""The output layer of any causal LM, caught where hidden states enter it.

Architectures are not named. ``probe_head`` finds out what a model does with its logits by handing it known ones,
and checks the finding against the model's own; ``intercept`` then computes at the head, so that the logits of a batch
never exist. Legend: B rows of a batch, T tokens, V vocabulary rows of the head, D hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rbp_lab.errors import LabError, first_line, out_of_memory
from rbp_lab.models.weights import coarsest_eps
from rbp_lab.scoring.types import LMHead
from rbp_lab.text import significant


@dataclass(frozen=True)
class HeadPlan:
    """How to get logits from a model.

    kind: "head": they are cap(scale · (hidden · weightᵀ + bias)), as in LMHead, and ``intercept`` may be used;
    "fallback": only the model itself can compute them, and ``reason`` says why.
    """

    kind: str
    scale: float = 1.0
    softcap: float | None = None
    reason: str = ""


class _Unknown(Exception):
    """The head is not of the form that LMHead describes; the message is the plan's reason."""


def full_logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The model's own logits [B,T,V] for ids [B,T], without attention mask or cache, as every pass here is made."""
    return model(input_ids=ids, use_cache=False).logits


@contextmanager
def intercept(model: nn.Module, plan: HeadPlan, fn: Callable[[torch.Tensor, LMHead], Any]) -> Iterator[None]:
    """While open, ``model(input_ids=…)`` calls ``fn(hidden [B,T,D], head)`` and returns a meaningless column of zeros.

    The weights are valid inside fn only: offloaded ones are on the device just then. Raises ValueError for a plan
    that is a fallback.
    """
    if plan.kind != "head":
        raise ValueError(f"this head cannot be intercepted: {plan.reason}")

    def forward(layer: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        fn(hidden, LMHead(layer.weight, layer.bias, plan.scale, plan.softcap))
        return hidden.new_zeros(*hidden.shape[:-1], 1)

    with _replaced(model.get_output_embeddings(), forward):
        yield


@contextmanager
def _replaced(layer: nn.Module, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    # accelerate's hooks wrap forward and call _old_forward once the weights are in place, so that is what is replaced.
    name = "_old_forward" if hasattr(layer, "_old_forward") else "forward"
    own, old = name in layer.__dict__, getattr(layer, name)
    setattr(layer, name, lambda hidden, *rest, **more: forward(layer, hidden))
    try:
        yield
    finally:
        if own:
            setattr(layer, name, old)
        else:
            delattr(layer, name)


def probe_head(
    model: nn.Module,
    ids: torch.Tensor,
    rows: Sequence[torch.Tensor] = (),
    reset: Callable[[], None] = lambda: None,
) -> HeadPlan:
    """How the model's output layer can be handled, found by six forward passes over ids int64 [B,T], T ≥ 2.

    A head is taken as plain only if its recomputed logits equal the model's own to rounding, and if what follows it
    is the same in ``rows`` [1,T] of the lengths that are to be measured, each computed after ``reset``. Raises
    LabError when the model does not run on ids alone, and when later tokens change earlier logits: it sees what it
    should predict.
    """
    with torch.inference_mode():
        own = _first_logits(model, ids)
        _check_causal(model, ids, own)
        try:
            scale, softcap, known, eps = _find_transform(model, ids, own)
            plan = HeadPlan("head", scale, softcap)
            _check_against(model, ids, plan, own, eps)
            for row in rows:
                reset()
                _check_length(model, row, known, eps)
        except _Unknown as unknown:
            return HeadPlan("fallback", reason=str(unknown))
    return plan


def response(model: nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    """What the model makes of ids [1,T], float32 and finite, to compare with what it makes of them another time.

    The hidden states that enter the head and the answer to known logits, so that none of a long row are made; of a
    model whose head cannot be replaced some of its logits. Raises LabError when it does not run on rows this long.
    """
    caught: list[torch.Tensor] = []
    with torch.inference_mode():
        try:
            with _understood(), _replaced(_plain_layer(model), _answer(_ramp(), caught)):
                out = full_logits(model, ids)
            seen = [*caught, out]
        except _Unknown:
            logits = _first_logits(model, ids, "; if it runs on shorter rows, set dataset.protocol.max_tokens to those")
            seen = [logits[..., :: max(1, logits.shape[-1] // 64)]]
        return [torch.nan_to_num(one.float(), 0.0, 0.0, 0.0) for one in seen]


def _first_logits(model: nn.Module, ids: torch.Tensor, advice: str = "") -> torch.Tensor:
    try:
        return full_logits(model, ids)
    except Exception as error:  # whatever it misses: a language, a picture, a package, positions
        if out_of_memory(error):
            raise
        raise LabError(
            f"{type(model).__name__} does not run on {ids.shape[1]} token ids alone: {first_line(error)}{advice}"
        ) from error


def _check_causal(model: nn.Module, ids: torch.Tensor, own: torch.Tensor) -> None:
    width = ids.shape[1]
    for cut in sorted({1, width // 2, width - 1}):  # the last token alone misses what only early positions see
        changed = ids.clone()
        changed[:, cut:] = (ids[:, cut:] + 1) % own.shape[-1]
        before, after = own[:, :cut].float(), full_logits(model, changed)[:, :cut].float()
        # Dense models give the same bits, experts may regroup; attention to a later token does far more than round.
        if (before - after).abs().max() > max(1e-4, 4 * coarsest_eps(model)) * before.abs().max():
            raise LabError(
                f"{type(model).__name__} is not causal: a change of later tokens changes earlier predictions, so its "
                "ranks would mean nothing; use a decoder (an encoder may need is_decoder=true in its config)"
            )


def _plain_layer(model: nn.Module) -> nn.Linear:
    layer = model.get_output_embeddings()
    if layer is None:
        raise _Unknown("the model has no output embeddings")
    if type(layer) is not nn.Linear:
        raise _Unknown(f"the head is a {type(layer).__name__}, not a plain Linear")
    return layer


def _answer(known: torch.Tensor, caught: list[torch.Tensor]) -> Callable[[nn.Linear, torch.Tensor], torch.Tensor]:
    """A forward of the head that keeps the hidden states and answers with known logits at every position."""

    def forward(layer: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        caught.append(hidden)
        return known.to(hidden.device, hidden.dtype).expand(*hidden.shape[:-1], len(known)).contiguous()

    return forward


def _find_transform(
    model: nn.Module, ids: torch.Tensor, own: torch.Tensor
) -> tuple[float, float | None, torch.Tensor, float]:
    """(scale, softcap, answer to the ramp, machine epsilon of the coarsest dtype on the way), from known logits."""
    layer = _plain_layer(model)
    rows, width = layer.weight.shape
    if own.shape != (*ids.shape, rows):
        raise _Unknown(f"logits have shape {tuple(own.shape)}, the head has {rows} rows")
    ramp = _ramp()
    if rows < ramp.numel():
        raise _Unknown(f"a head of {rows} rows is too small to probe")
    caught: list[torch.Tensor] = []
    asked = ramp[torch.arange(rows) % ramp.numel()]
    with _understood(), _replaced(layer, _answer(asked, caught)):
        out = full_logits(model, ids)
    if len(caught) != 1:
        raise _Unknown(f"the head is called {len(caught)} times in one pass")
    hidden = caught[0]
    if hidden.shape != (*ids.shape, width):
        raise _Unknown(f"the head receives {tuple(hidden.shape)}, expected {(*ids.shape, width)}")
    if not torch.equal(out, out[:1, :1].expand_as(out)):
        raise _Unknown("what follows the head depends on the position")
    eps = max(torch.finfo(hidden.dtype).eps, torch.finfo(out.dtype).eps)
    scale, softcap = _identify(asked, out[0, 0].double().cpu(), eps, _numbers(model.config))
    return scale, softcap, out[0, 0, : ramp.numel()], eps


def _ramp() -> torch.Tensor:
    """Logits to ask with, float64: 0 and ± two values per power of two from 2^-6 to 2^13, so that small ones show the
    slope at 0 and large ones where it saturates."""
    magnitudes = torch.cat([2.0 ** torch.arange(-6, 14, dtype=torch.float64) * step for step in (1.0, 1.375)])
    return torch.cat([torch.zeros(1, dtype=torch.float64), magnitudes, -magnitudes])


def _numbers(config: Any) -> list[float]:
    """The positive numbers of a config and their inverses: scales and caps are usually one of them, written exactly."""
    values = [float(v) for v in config.get_text_config().to_dict().values() if type(v) in (int, float) and v > 0]
    return values + [1 / v for v in values]


def _identify(x: torch.Tensor, y: torch.Tensor, eps: float, known: list[float]) -> tuple[float, float | None]:
    """Scale s and soft-cap c (None for none) with y = s·x or y = c·tanh(s·x/c), to 8 eps relative."""
    if torch.equal(x, y):
        return 1.0, None

    def snapped(value: float) -> float:
        """1 or a number of the config, where there is one, in place of its measurement, which rounding has touched."""
        near = [v for v in (1.0, *known) if abs(v - value) <= 4 * eps * abs(value)]
        return min(near, key=lambda v: abs(v - value), default=value)

    def fits(guess: torch.Tensor) -> bool:
        return bool(((guess - y).abs() <= 8 * eps * guess.abs()).all())

    small = y[x == 2**-6][0].item()
    scale = snapped(small / 2**-6)
    if fits(scale * x):
        return scale, None
    softcap = snapped(y.max().item())
    if 0 < small < softcap:  # a cap near 1 bends the smallest logits too
        scale = snapped(softcap * math.atanh(small / softcap) / 2**-6)
    if scale > 0 and softcap > 0 and fits(softcap * torch.tanh(scale * x / softcap)):
        return scale, softcap
    raise _Unknown("what follows the head is neither a scale nor a soft-cap")


def _check_against(model: nn.Module, ids: torch.Tensor, plan: HeadPlan, own: torch.Tensor, eps: float) -> None:
    caught: list[torch.Tensor] = []

    def compute(hidden: torch.Tensor, head: LMHead) -> None:
        caught.append(head.transform(nn.functional.linear(hidden, head.weight, head.bias)))

    with _understood(), intercept(model, plan, compute):
        full_logits(model, ids)
    off = (caught[0].to(own.device).float() - own.float()).abs().max().item()
    if not off <= 8 * eps * own.float().abs().max().item():
        raise _Unknown(f"the recomputed logits differ from the model's own by {significant(off, 2)}")


def _check_length(model: nn.Module, row: torch.Tensor, known: torch.Tensor, eps: float) -> None:
    """Whether what follows the head answers the ramp in this row as it did in the short ones (``known``)."""
    with _understood(), _replaced(_plain_layer(model), _answer(_ramp(), [])):
        out = full_logits(model, row)
    expected = known.to(out.device)
    if out.shape != (*row.shape, len(known)) or not ((out - expected).abs() <= 8 * eps * expected.abs()).all():
        raise _Unknown(f"what follows the head depends on how long the row is (tried {row.shape[1]} tokens)")


@contextmanager
def _understood() -> Iterator[None]:
    """A model that stumbles over logits that are not its own has a head that is not plain."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise _Unknown(f"the model does not run with its head replaced ({type(error).__name__}: {error})") from error
