"""One of several measuring processes: ``python -m torch.distributed.run … -m rbp_lab.measurement.worker JOB.json``."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rbp_lab.commands.measure import job_from_config
from rbp_lab.errors import LabError
from rbp_lab.measurement.devices import distributed
from rbp_lab.measurement.job import identify
from rbp_lab.measurement.pool import write_failure
from rbp_lab.measurement.shard import measure_shard


def run_worker(arguments: Sequence[str]) -> int:
    """Measure this process's share of the job in the file that ``arguments`` names; returns the exit code."""
    path = Path(arguments[0])
    work = json.loads(path.read_text())
    try:
        job = job_from_config(work["config"])
        with distributed(job.launch.device) as runtime:
            corpus = job.dataset.corpus()
            identity = identify(job, corpus)
            if identity.key != work["key"]:
                raise LabError("the model or the text changed while the processes started; run again")
            measure_shard(job, corpus, identity, runtime)
    except Exception as error:
        write_failure(path, error, int(os.environ["RANK"]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:]))
