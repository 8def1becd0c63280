"""One of several measuring processes: ``python -m torch.distributed.run … -m rbp_lab.worker JOB.json``."""

import sys

from rbp_lab.stages.measure import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:]))
