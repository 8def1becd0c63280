"""Processes forked from one that has imported what they need: a start of Python and torch costs seconds.

What such a process does is what a fresh one does but for the modules that are there already; it has its own
environment, arguments and output, and ends as any process does.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What most need and nothing here has settings for: what reads its environment at its import is not among them.
COMMON = ("torch", "pandas", "scipy.stats")
SERVER = """
import contextlib, importlib, json, os, signal, sys
requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):  # what is not installed is not needed
        importlib.import_module(name)

def become(script, arguments, environment, out, err):
    for at, path, how in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        os.dup2(os.open(path, how | (how and os.O_CREAT | os.O_APPEND), 0o600), at)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<forked>", "exec"), {"__name__": "__main__"})

for line in requests:
    running, codes = {}, {}
    for at, wanted in enumerate(json.loads(line)):
        if (child := os.fork()) == 0:
            requests.close()
            become(**wanted)
            sys.exit()
        running[child] = at
    while running:
        child, status = os.wait()
        codes[running.pop(child)] = code = os.waitstatus_to_exitcode(status)
        for other in running if code else ():  # as torch's launcher does
            os.kill(other, signal.SIGTERM)
    print(json.dumps([codes[at] for at in sorted(codes)]), file=replies, flush=True)
"""


@dataclass(frozen=True)
class Script:
    """A Python script, its arguments and environment, and the files to which its output is appended."""

    script: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    out: str
    err: str


@cache
def _server(modules: tuple[str, ...]) -> Any:
    """The process that has imported ``modules``; it ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, *modules], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)  # closes its input
    return server


def run(modules: Sequence[str], scripts: Sequence[Script]) -> list[int]:
    """Exit codes of ``scripts``, run at once after the imports of ``modules``; the first that fails ends the others."""
    server = _server(tuple(modules))
    print(json.dumps([asdict(script) for script in scripts]), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def output(script: str, *arguments: str, environment: Mapping[str, str]) -> str:
    """What one script writes to standard output, run after the imports of ``COMMON``; asserts that it ends well."""
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory) / "out", Path(directory) / "err"
        (code,) = run(COMMON, [Script(script, arguments, environment, str(out), str(err))])
        assert code == 0, err.read_text()[-3000:]
        return out.read_text()
