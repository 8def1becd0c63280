"""The law in size and tokens of simulated trainings whose checkpoints are measured on the same documents."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rbp_lab.fits.compute import optimum
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.tokens import SurfacePoints, evaluate, fit_surface
from tests.coverage.intervals import inside

PARAMS = {"E": 1.5, "A": 18.0, "a": 0.28, "B": 60.0, "b": 0.31}
TARGET = 3.2  # whose least compute is asked for
SIZES, TOKENS = np.array([9e3, 25e3, 72e3, 180e3, 420e3, 1e6]), np.geomspace(36e3, 716e3, 8)


@dataclass(frozen=True)
class Trainings:
    """A design. of_run, of_point: standard deviation of ln value that a training shares and that of each point.

    error: of documents, "coherent" (along ln N and ln D, as the law runs) or "exchangeable" (of each training by
    itself).
    """

    documents: int
    error: str
    of_run: float = 0.005
    of_point: float = 0.003


def draw(world: Trainings, rng: np.random.Generator, params: dict[str, float] = PARAMS) -> SurfacePoints:
    """48 points of six trainings, with what each document moves them by: up or down, and along the law or apart."""
    size, tokens = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS, indexing="ij"))
    run = np.repeat(np.arange(len(SIZES)), len(TOKENS))
    along = [np.log(x) - np.log(x).mean() for x in (size, tokens)]
    tilts = np.stack([0.2 * x / np.abs(x).max() for x in along])
    spread = np.vstack([np.full((1, len(run)), 0.3), tilts if world.error == "coherent" else 0.2 * np.eye(6)[:, run]])
    each = rng.standard_normal((world.documents, len(spread))) @ spread / world.documents
    errors = DocumentErrors(each, np.arange(world.documents), float(world.documents))
    noise = rng.standard_normal(len(spread)) @ spread / np.sqrt(world.documents)
    noise += world.of_run * rng.standard_normal(len(SIZES))[run] + world.of_point * rng.standard_normal(len(run))
    return SurfacePoints(size, tokens, evaluate(params, size, tokens) * np.exp(noise), run, errors)


def replicate(world: Trainings, rng: np.random.Generator) -> dict[str, float]:
    """By interval, whether it held the truth in one study; "…, trainings alone": the interval without documents."""
    found, truth = fit_surface(draw(world, rng)), optimum(PARAMS, TARGET)
    held = {name: inside(found.intervals.get(name), PARAMS[name]) for name in ("E", "a", "b")}
    for name in ("size", "tokens", "operations"):
        interval = found.interval(lambda p, n=name: getattr(optimum(p, TARGET), n))
        held[name] = inside(None if np.isnan(interval[0]) else interval, getattr(truth, name))
    alone = replace(found, moves=None).interval(lambda p: optimum(p, TARGET).operations)
    return held | {"operations, trainings alone": inside(None if np.isnan(alone[0]) else alone, truth.operations)}
