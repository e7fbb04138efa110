"""Independent tasks in processes of their own, as many at a time as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from tqdm import tqdm

from lawm_data.errors import UserError


def run(task: Callable[..., None], arguments: Sequence[tuple[Any, ...]], apart: bool = False) -> None:
    """task(*arguments[k]) for every k; a lone one runs in this process, unless it is to run `apart`.

    `task` must be importable. An error in one stops all, and is raised here. A killed parent takes its processes along.
    """
    if len(arguments) <= 1 and not apart:
        for own in arguments:
            task(*own)
        return
    context = multiprocessing.get_context("spawn")
    errors, lock = context.SimpleQueue(), context.RLock()
    waiting = [context.Process(target=_child, args=(task, own, errors, lock), daemon=True) for own in arguments]
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                running.append(waiting.pop(0))
                running[-1].start()
            connection.wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                running.remove(process)
                if process.exitcode:
                    raise _error(process.exitcode, errors)
    finally:
        for process in running:
            process.kill()
            process.join()


def _child(task: Callable[..., None], arguments: tuple[Any, ...], errors: Any, lock: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and kills
    threading.Thread(target=_die_with_parent, daemon=True).start()
    tqdm.set_lock(lock)
    try:
        task(*arguments)
    except UserError as error:
        errors.put(str(error))
        raise SystemExit(2) from None


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _error(exit_code: int, errors: Any) -> Exception:
    if errors.empty():
        return UserError(f"a process ended with code {exit_code}; run the same command again to continue")
    return UserError(errors.get())
