"""One correlation id from the editor's click to the SMTP reply, and the W3C trace context beside it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass

import structlog

from shared.ids import new_id

ALLOWED = re.compile(r"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Correlation:
    """What binds log lines and events of different services together."""

    correlation_id: str
    traceparent: str | None = None


_current: ContextVar[Correlation | None] = ContextVar("correlation", default=None)


def current() -> Correlation:
    """The correlation at hand; a fresh one where none was begun (a sweeper's own work, say)."""
    return _current.get() or Correlation(str(new_id()))


def accepted(correlation_id: str | None, traceparent: str | None) -> Correlation:
    """A caller's ids, where they are well formed; a log line is no place for somebody else's text."""
    known = correlation_id if correlation_id and ALLOWED.fullmatch(correlation_id) else str(new_id())
    trace = traceparent if traceparent and TRACEPARENT.fullmatch(traceparent) else None
    return Correlation(known, trace)


def context_of(correlation: Correlation) -> Context:
    """A context in which all work belongs to `correlation`: for many tasks, which then need not enter it each."""
    context = copy_context()
    context.run(enter, correlation)
    return context


def enter(correlation: Correlation) -> None:
    """From now on, work in the context at hand belongs to `correlation`: for a task's own context."""
    _current.set(correlation)
    structlog.contextvars.bind_contextvars(correlation_id=correlation.correlation_id)


@contextmanager
def correlated(correlation: Correlation) -> Iterator[None]:
    """Work in the block belongs to `correlation`, in logs and in events."""
    token = _current.set(correlation)
    try:
        with structlog.contextvars.bound_contextvars(correlation_id=correlation.correlation_id):
            yield
    finally:
        _current.reset(token)
