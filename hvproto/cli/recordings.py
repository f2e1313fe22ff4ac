"""The files that a run is recorded in: events, report and trace.

A file is opened, and emptied, before anything runs, so that one that can't be written is told at once. However the run
ends - well, badly, by Ctrl-C - the files have all that was done until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hvproto.cli.outputs import Output, check_outputs
from hvproto.events import Subscriber
from hvproto.report.heading import Heading


@contextmanager
def recordings(
    heading: Heading, inputs: list[Path], *, events: str | None, report: str | None, trace: str | None
) -> Iterator[list[Subscriber]]:
    """Subscribers of the run's events, one for each file that is named.

    Raises OutputError for files that can't be written, that are among the ``inputs``, or that are the same.
    """
    kinds = (
        (events, "--events", "the events"),
        (report, "--report", "the report"),
        (trace, "--trace", "the trace"),
    )  # fmt: skip
    outputs = {option: Output(name, option, what) for name, option, what in kinds if name is not None}
    check_outputs(list(outputs.values()), inputs)
    with ExitStack() as files:
        subscribers: list[Subscriber] = []
        for option, output in outputs.items():
            match option:
                case "--events":
                    subscribers.append(files.enter_context(_events_file(output)))
                case "--report":
                    subscribers.append(files.enter_context(_report_file(output, heading)))
                case _:
                    subscribers.append(files.enter_context(_trace_file(output, heading)))
        yield subscribers


@contextmanager
def _events_file(output: Output) -> Iterator[Subscriber]:
    """A subscriber that writes each event as a line of JSON. Raises OutputError."""
    with output.opened():
        yield lambda event: output.write(event.to_json() + "\n")


@contextmanager
def _report_file(output: Output, heading: Heading) -> Iterator[Subscriber]:
    """A subscriber that keeps each event for the page, which is written at the end. Raises OutputError."""
    from hvproto.report.collector import Collector
    from hvproto.report.writer import write_page

    collector = Collector(heading)
    with output.opened() as file:
        try:
            yield collector.on_event
        finally:
            with output.reported():
                write_page(file, collector)


@contextmanager
def _trace_file(output: Output, heading: Heading) -> Iterator[Subscriber]:
    """A subscriber that writes each event to a trace for the Perfetto UI. Raises OutputError."""
    from hvproto.report.trace import Trace

    with output.opened():
        trace = Trace(heading, output.write)
        try:
            yield trace.on_event
        finally:
            trace.end()
