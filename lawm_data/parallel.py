"""Independent tasks in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from multiprocessing import connection
from typing import Any, NamedTuple

from tqdm import tqdm

from lawm_data.errors import UserError, memory_errors

PATIENCE = 2.0  # seconds; to draw takes none


class Outcome(NamedTuple):
    """Of task `number`: how long its process lived, and why it failed, if it did."""

    number: int
    seconds: float
    error: UserError | None


def run(task: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """task(*arguments[k], place) for every k, as many at a time as there are cores; a lone one runs in this process.

    An error in one stops all, and is raised here. Otherwise as `outcomes`.
    """
    if len(arguments) == 1:
        task(*arguments[0], 0)
        return
    with closing(outcomes(task, arguments, _cores())) as ended:
        for outcome in ended:
            if outcome.error:
                raise outcome.error


def _cores() -> int:
    """That this process may use: fewer than the machine has where a batch system deals them out."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(task: Callable[..., None], arguments: Sequence[tuple[Any, ...]], at_once: int = 1) -> Generator[Outcome]:
    """task(*arguments[k], place) for every k, each in a process of its own; yields how they end, in that order.

    place: the line of a task's progress bar, below at_once; no two tasks have the same at a time. `task` must be
    importable. A killed parent takes its processes along, and so does whoever closes the iterator.
    """
    context = multiprocessing.get_context("spawn")
    lock, waiting = context.RLock(), list(enumerate(arguments))
    running: dict[int, _Running] = {}  # by place
    try:
        while waiting or running:
            for place in range(at_once):
                if waiting and place not in running:
                    number, own = waiting.pop(0)
                    running[place] = _Running(context, number, (task, (*own, place)), lock)
            connection.wait([one.process.sentinel for one in running.values()])
            for place in [place for place, one in running.items() if not one.process.is_alive()]:
                yield running.pop(place).outcome()
    finally:
        for one in running.values():
            one.process.kill()
            one.process.join()


class _Running:
    """A process that was started for one task."""

    def __init__(self, context: Any, number: int, work: tuple[Any, ...], lock: Any):
        self.number, self.began, self.errors = number, time.perf_counter(), context.SimpleQueue()
        self.process = context.Process(target=_child, args=(*work, self.errors, lock), daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits it: it takes seconds to `_child`
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def outcome(self) -> Outcome:
        code, error = self.process.exitcode, None
        if not self.errors.empty():
            error = UserError(self.errors.get())
        elif code:
            error = UserError(f"a process ended with code {code}; run the same command again to continue")
        return Outcome(self.number, time.perf_counter() - self.began, error)


def _child(task: Callable[..., None], arguments: tuple[Any, ...], errors: Any, lock: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and kills
    threading.Thread(target=_die_with_parent, daemon=True).start()
    tqdm.set_lock(_DrawingLock(lock))
    try:
        with memory_errors():
            task(*arguments)
    except UserError as error:
        errors.put(str(error))
        raise SystemExit(2) from None


class _DrawingLock:
    """The lock under which processes draw their bars; given up where a process was killed that held it."""

    def __init__(self, lock: Any):
        self.lock = lock

    def acquire(self) -> bool:
        if not self.lock.acquire(timeout=PATIENCE):
            self.lock = threading.RLock()  # bars drawn over each other are better than a wait without end
            self.lock.acquire()
        return True

    def release(self) -> None:
        with suppress(AssertionError, RuntimeError):  # not held, where it was given up meanwhile
            self.lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
