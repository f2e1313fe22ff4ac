"""Scenarios on a Dask cluster: the same results, from as many machines as it has (`pip install 'hvproto[cluster]'`).

A scenario goes to the cluster complete, so that its workers need this package and no file. As many are on their way as
the cluster has threads: a task that waits behind one that kills its worker would be suspected together with it.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from hvproto import __version__
from hvproto.campaign.workers import Work
from hvproto.errors import BadInput

TIMEOUT = 10
"""Seconds for the scheduler to answer."""


def version() -> str:
    """In a worker: what it has of this package."""
    return __version__


class ClusterWorkers:
    """The workers of the cluster whose scheduler has this address. Raises BadInput if it can't be reached."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
            from distributed.comm import get_address_host_port
        except ImportError:
            raise BadInput("--scheduler needs Dask: pip install 'hvproto[cluster]'") from None
        try:
            # A client that fails to connect goes on trying, and complains once more when Python ends: ask first.
            socket.create_connection(get_address_host_port(address), TIMEOUT).close()
            self._client = Client(address, timeout=TIMEOUT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise BadInput(f"--scheduler {address}: no scheduler answers there: {error}") from None
        try:
            self._client.wait_for_workers(1, timeout=TIMEOUT)
            found = set(self._client.run(version).values())
        except (ImportError, TimeoutError) as error:
            self._client.close()
            raise BadInput(f"--scheduler {address}: no worker with hvproto is there: {error}") from None
        if found != {__version__}:
            self._client.close()
            raise BadInput(
                f"--scheduler {address}: its workers have hvproto {', '.join(sorted(found))}, this is {__version__}"
            )

    def each(self, work: Work, subjects: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """See `Workers`. How often a scenario may kill its worker is for the scheduler to say (allowed-failures: 3)."""
        from distributed import KilledWorker, as_completed

        waiting = iter(subjects)
        run = uuid.uuid4().hex
        number = 0
        subject_of: dict[Any, Any] = {}

        def submit(subject: Any) -> Any:
            nonlocal number
            number += 1
            future = self._client.submit(work, subject, key=f"hvproto-{run}-{number}", pure=False)
            subject_of[future.key] = subject
            return future

        threads = sum(self._client.nthreads().values())
        first = [submit(subject) for subject in islice(waiting, threads)]
        done = as_completed(first, loop=self._client.loop, raise_errors=False)
        for future in done:
            following = next(waiting, None)
            if following is not None:
                done.add(submit(following))
            try:
                outcome = future.result()
            except KilledWorker:
                outcome = None
            yield subject_of.pop(future.key), outcome
            future.release()

    def close(self) -> None:
        """Leave the cluster; what it still runs for us, it gives up."""
        self._client.close()
