"""How often the intervals of a world hold its truth."""

from __future__ import annotations

import numpy as np

from tests.coverage.intervals import checked, emergence, inside, law, law_of_counts
from tests.coverage.worlds import BETA, LAWS, RARE_ALPHA, WINDOWS, World, draw

ALPHAS = {name: alpha for name, (alpha, _) in LAWS.items()}
SINGLE = ("ce", "k1", "k10", "k100")


def replicate(world: World, rng: np.random.Generator) -> dict[str, float]:
    """By interval, whether it held the truth in one study: 1, 0, or NaN where the fit was refused."""
    sums, sizes = draw(world, rng), world.sizes
    laws = {name: law(name, sums[name], sizes) for name in SINGLE}
    alpha, level = LAWS["ce"]
    beyond = world.centred.max() + np.log(10)
    new = level * np.exp(-alpha * beyond + world.scatter * rng.standard_normal())
    centre = float(np.exp(np.log(sizes).mean()))
    found = checked(laws, ALPHAS, centre, float(np.exp(-LAWS["k10"][1])), new)
    found["k1, counts"] = inside(law_of_counts(sums["k1"], sizes).intervals.get("alpha"), ALPHAS["k1"])
    found["rare, counts"] = inside(law_of_counts(sums["rare"], sizes).intervals.get("alpha"), RARE_ALPHA)
    in_a_row = emergence({1: sums["k10"]} | {n: sums[f"N{n}"] for n in WINDOWS}, sizes)
    found["β of N"] = inside(in_a_row.beta_interval, BETA)
    found["α of p_N"] = inside(in_a_row.alpha_interval, ALPHAS["k10"])
    return found


def coverage(world: World, replicates: int, seed: int = 20261130) -> dict[str, float]:
    """Share of the replicates, without refused ones, in which each interval held the truth."""
    rng = np.random.default_rng(seed)
    return share_inside([replicate(world, rng) for _ in range(replicates)])


def share_inside(found: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each entry over replicates, NaN where a tenth of the fits or more were refused."""
    columns = {name: np.array([f.get(name, np.nan) for f in found]) for name in found[0]}
    return {name: np.nan if np.isnan(c).mean() > 0.1 else float(np.nanmean(c)) for name, c in columns.items()}
