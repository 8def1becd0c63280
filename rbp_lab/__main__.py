"""``python -m rbp_lab`` is ``rbp-lab``."""

from __future__ import annotations

import atexit
import os
import sys

from rbp_lab.errors import memory_sentence, out_of_memory
from rbp_lab.room import make_sure_of_room


def run() -> None:
    """``cli.main`` as a process of its own.

    Once torch is imported the process ends without taking apart a million objects, which would take a second. What is
    registered with ``atexit`` is called before: the system calls last what was registered first.
    """
    code: int | str | None = 1

    def end() -> None:
        if "torch" in sys.modules and isinstance(code, int):  # not a sentence of a library, which Python prints
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    atexit.register(end)
    _open_streams()
    wait_briefly()
    make_sure_of_room()
    try:
        try:
            from rbp_lab.cli import main
        except Exception as error:
            if not out_of_memory(error):
                raise
            print(f"error: {memory_sentence(error)}", file=sys.stderr)
            sys.exit(1)
        main()
    except SystemExit as ended:
        code = ended.code
        raise


def wait_briefly() -> None:
    """Have threads that wait for each other within an operation of torch sleep after some 0.1 ms; before its import.

    GNU's OpenMP, which torch brings on Linux, lets a thread that is done spin for several ms, a time slice. Where other
    processes want the processors, the thread that it waits for is not running meanwhile, and every operation of a small
    model costs such slices: 40 to 70 times slower; see tests/benchmarks/RESULTS.md. Processes that this one starts
    inherit it. What the user has set stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _open_streams() -> None:
    """Put nothing in the place of standard streams that are closed: a file of a store would get the number of one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 for as long as the process


if __name__ == "__main__":
    run()
