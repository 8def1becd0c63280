"""One of several measuring processes: ``python -m torch.distributed.run … -m rbp_lab.worker JOB.json``."""

import sys

from rbp_lab.runtime import share_a_heap
from rbp_lab.stages.measure import run_worker

if __name__ == "__main__":
    share_a_heap()
    sys.exit(run_worker(sys.argv[1:]))
