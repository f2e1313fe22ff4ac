"""Scenarios on this machine's cores.

Each worker is an executor of one process, with one scenario at a time: when it dies, by a segmentation fault of the
engine's, say, it is known which scenario it had, and no other is lost or run again. A worker stays for many scenarios,
with all modules loaded and its control experiments at hand.

The processes are forked off a server that has loaded everything and made no engine, nor any thread ("forkserver"): an
engine, with its generated code, can't be shared with a fork, and a fork of a process with threads may hang. Where there
is no such server, they are spawned.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

MOST_DEATHS = 3
"""A scenario whose worker has died so many times isn't run again."""

Work = Callable[[Any], Any]
"""A function of a module, of one subject: something with the ``number`` of its scenario."""


class Workers(Protocol):
    """Who runs scenarios, in any order."""

    def each(self, work: Work, subjects: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Do this for each; yields the subject and what came of it, None if its worker died again and again."""

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""


class LocalWorkers:
    """So many processes on this machine."""

    def __init__(self, count: int) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(["hvproto.campaign.perform", "hvproto.campaign.minimise"])
        self._slots = [_Slot(self._context) for _ in range(count)]

    def each(self, work: Work, subjects: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        waiting = iter(subjects)
        again: deque[Any] = deque()
        deaths: Counter[int] = Counter()
        running: dict[Future[Any], tuple[_Slot, Any]] = {}

        def give(slot: _Slot) -> None:
            subject = again.popleft() if again else next(waiting, None)
            if subject is not None:
                running[slot.submit(work, subject)] = slot, subject

        for slot in self._slots:
            give(slot)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                slot, subject = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    slot.renew()
                    key = subject.number
                    deaths[key] += 1
                    if deaths[key] < MOST_DEATHS:
                        again.append(subject)
                        give(slot)
                        continue
                    outcome = None
                give(slot)  # first, so that the worker doesn't wait for whoever takes the outcome
                yield subject, outcome

    def close(self) -> None:
        for slot in self._slots:
            slot.kill()


def local_workers(count: int | None) -> LocalWorkers:
    """So many, or one for each core that this process may use."""
    return LocalWorkers(count or len(os.sched_getaffinity(0)))


class _Slot:
    """A place for one worker after the other."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._start()

    def _start(self) -> None:
        self._executor = ProcessPoolExecutor(1, mp_context=self._context, initializer=_begin)
        self._pid = self._executor.submit(os.getpid)

    def submit(self, work: Work, subject: Any) -> Future[Any]:
        return self._executor.submit(work, subject)

    def renew(self) -> None:
        """The worker has died: another one takes its place."""
        self._executor.shutdown(wait=False)
        self._start()

    def kill(self) -> None:
        try:
            os.kill(self._pid.result(timeout=30), signal.SIGKILL)
        except (ProcessLookupError, BrokenProcessPool, TimeoutError):
            pass  # it has gone already, or hasn't come
        self._executor.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """In the worker, at its start: Ctrl-C is for who runs the campaign, and the worker doesn't outlive that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
