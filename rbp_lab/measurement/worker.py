"""One of several measuring processes: ``python -m torch.distributed.run … -m rbp_lab.measurement.worker JOB.json``."""

import sys

from rbp_lab.measurement.devices import share_a_heap
from rbp_lab.measurement.run import run_worker

if __name__ == "__main__":
    share_a_heap()
    sys.exit(run_worker(sys.argv[1:]))
