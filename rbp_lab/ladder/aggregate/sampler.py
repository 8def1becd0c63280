"""Groups of instances, drawn without a look at their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbp_lab.errors import LabError, WrongUsage, shown

BLIND = "blind"


@dataclass(frozen=True)
class GroupSampler:
    """Draws groups of m among the instances of one split.

    reuse: r, how often each instance occurs in groups, at most once in each of r passes. draw: "blind", the only way
    under which p(z | x) is what the weights assume.
    """

    m: int
    reuse: int = 1
    draw: str = BLIND

    def __post_init__(self) -> None:
        if self.m < 1:
            raise WrongUsage(f"observation.m must be at least 1; got {self.m}")
        if self.reuse < 1:
            raise WrongUsage(f"training.reuse must be at least 1; got {self.reuse}")
        if self.draw != BLIND:
            raise WrongUsage(
                f"training.draw must be {BLIND}; got {shown(self.draw)}: groups chosen by their outcome, such as as "
                "many similar as dissimilar pairs, no longer follow p(z | x), and the weights of the aggregate risk "
                "would be wrong (digits fall from 97 to 33 per cent)"
            )

    def groups(self, instances: int, seed: int) -> np.ndarray:
        """Groups int64 [G, m] of the numbers below ``instances``; the fewer than m left over in a pass are left out.

        Depends on nothing but its arguments. Raises LabError when there are fewer instances than a group takes.
        """
        if instances < self.m:
            raise LabError(f"observation.m={self.m}, but the split has only {instances} instances to draw groups from")
        generator = np.random.default_rng((seed, self.m, self.reuse))
        whole = instances // self.m * self.m
        passes = [generator.permutation(instances)[:whole].reshape(-1, self.m) for _ in range(self.reuse)]
        return np.concatenate(passes).astype(np.int64)
