"""``python -m tests.benchmarks [--peers] [overrides]``: compose the configuration, run the benchmark, print its tables.

Overrides are Hydra's, of conf/bench.yaml beside this file and of the groups of the project's own conf/.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rbp_lab.config.directory import CONF
from rbp_lab.errors import LabError

OWN_CONF = Path(__file__).resolve().parent / "conf"


def composed(overrides: list[str]) -> dict[str, Any]:
    """The composed configuration as plain mappings; LabError, one sentence, on overrides that do not fit."""
    try:
        with initialize_config_dir(str(OWN_CONF), version_base="1.3"):
            config = compose("bench", [f"hydra.searchpath=['file://{CONF}']", *overrides])
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise LabError(" ".join(str(error).split())) from None


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__, (OWN_CONF / "bench.yaml").read_text(encoding="utf-8"), sep="\n", end="")
        return 0
    try:
        config = composed(["bench.peers=true" if a == "--peers" else a for a in arguments])
        from tests.benchmarks.run import bench

        bench(config)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
