"""Ctrl-C and SIGTERM end a process in order, and within seconds whatever it is doing."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 8.0  # seconds to end in order
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Inside it SIGINT raises KeyboardInterrupt, and SIGTERM raises SystemExit(143), in the main thread.

    Python does so between two of its own instructions, and one call into a library can take minutes: a process that has
    not ended PATIENCE seconds after the first signal is ended with the signal's exit code. In another thread than
    the main one, where signals cannot be handled, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminated}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    told, watched = socket.socketpair()
    told.setblocking(False)
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[watched], daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        told.close()  # which ends the thread


def _terminated(*_: object) -> None:
    raise SystemExit(CODES[signal.SIGTERM])


def _watch(signals: socket.socket) -> None:
    """Wait for the number of a signal that ends the process, written at once by the system; then for the end."""
    with signals:
        while (number := signals.recv(1)) and number[0] not in CODES:
            pass
        if not number:
            return
        end = time.monotonic() + PATIENCE
        try:
            while (left := end - time.monotonic()) > 0:
                signals.settimeout(left)
                if not signals.recv(1):
                    return
        except TimeoutError:
            pass
        print("ended at once: what ran did not end by itself", file=sys.stderr, flush=True)
        os._exit(CODES[signal.Signals(number[0])])
