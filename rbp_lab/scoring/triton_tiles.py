"""Sizes of the Triton kernels' tiles, and where each comes from.

One table, so that a size measured on hardware replaces a line and its note. Imports neither torch nor triton.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_MEASURED = "not measured: chosen because it compiles for sm_90 without spills"


@dataclass(frozen=True)
class Tile:
    """Sizes of one kernel: ``tokens`` × ``rows`` logits at a time, products summed over ``depth`` hidden units a step.

    warps and stages are Triton's. rows ≥ tokens: one extra tile holds the logits of all the tokens' own targets.
    measured: date and device of the measurement that chose it, or why there is none.
    """

    tokens: int
    rows: int
    depth: int
    warps: int
    stages: int
    measured: str = NOT_MEASURED


# Bits of the operands of the product → ((largest hidden width, largest vocabulary, tile), …), the first that fits.
ANY = 1 << 62
FUSED: dict[int, tuple[tuple[int, int, Tile], ...]] = {
    16: ((ANY, ANY, Tile(128, 128, 64, 8, 3)),),
    # IEEE float32 products run outside the tensor cores and keep their operands in registers: a smaller tile
    32: ((ANY, ANY, Tile(64, 64, 16, 8, 2)),),
}
# Logits that a program of the reading kernel takes at a time, and its warps.
ROW_BLOCK, ROW_WARPS = 1024, 4
# Tokens that a program of the merging kernel takes.
MERGE_BLOCK, MERGE_WARPS = 128, 4


def fused_tile(bits: int, width: int, vocab_rows: int) -> Tile:
    """The tile of the fused kernel for operands of ``bits`` (16 or 32), a hidden width and a number of rows."""
    return next(tile for most, rows, tile in FUSED[bits] if width <= most and vocab_rows <= rows)
