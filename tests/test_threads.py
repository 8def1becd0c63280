"""run_per_thread: calls on threads of their own, each with one thread of torch."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rbp_lab.errors import out_of_memory
from rbp_lab.scoring.threads import _pool, run_per_thread


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_an_error_leaves_no_call_running(threads):
    done = []

    def fail():
        raise RuntimeError("at once")

    def take_long():
        time.sleep(0.3)
        done.append(True)

    with pytest.raises(RuntimeError, match="at once"):
        run_per_thread([fail, take_long, fail, take_long])
    assert done == [True, True]


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_results_come_in_the_order_of_the_calls(threads):
    def nap(i):
        time.sleep(0.02 * (3 - i))
        return i, torch.is_inference_mode_enabled()

    assert run_per_thread([lambda i=i: nap(i) for i in range(4)]) == [(i, True) for i in range(4)]
    assert run_per_thread([]) == []
    assert torch.get_num_threads() == threads and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
def test_calls_use_one_thread_of_torch_and_may_be_nested(threads):
    def inner():
        return run_per_thread([torch.get_num_threads] * 3)

    assert run_per_thread([inner] * 4) == [[1, 1, 1]] * 4


@pytest.mark.parametrize("threads", [2, 3], indirect=True)
def test_threads_of_the_process_keep_their_number(threads):
    """A new thread takes the last number that torch was told; the pool's threads were told 1."""
    run_per_thread([lambda: None] * threads)
    assert [_pool(threads).submit(torch.get_num_threads).result() for _ in range(2 * threads)] == [1] * 2 * threads
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == threads
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [3], indirect=True)
@pytest.mark.parametrize("lacking", ["thread", "memory in it"])
def test_where_not_every_thread_can_begin_none_is_left(threads, lacking, monkeypatch):
    """Threads that waited for one that never came would keep Python from ending."""
    begun, start, there = [], threading.Thread.start, set(threading.enumerate())

    def no_third(thread):
        begun.append(thread)
        if len(begun) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    def no_memory():
        raise MemoryError

    _pool.cache_clear()
    with monkeypatch.context() as patched:
        if lacking == "thread":
            patched.setattr(threading.Thread, "start", no_third)
        else:
            patched.setattr(torch, "get_num_threads", lambda: no_memory() if _in_pool() else threads)
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            run_per_thread([lambda: None] * 3)
    assert out_of_memory(caught.value)
    for thread in set(threading.enumerate()) - there:
        thread.join(20)
        assert not thread.is_alive()
    assert run_per_thread([torch.get_num_threads] * 3) == [1] * 3  # with the next ones, once there is memory


def _in_pool():
    return threading.current_thread().name.startswith("rbp-lab-scores")
