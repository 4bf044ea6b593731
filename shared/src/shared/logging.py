"""Logs are the interface to operations: one JSON object a line on stderr, static event names, ids as fields.

The correlation id of the request or message at hand is bound to the context and follows into every line. Addresses,
names and bodies are never logged. A full disk, a closed stderr or a reader that has stopped reading never stops the
service: lines that cannot be written are counted.
"""

import logging
import os
import re
import select
import sys
from typing import Any, TextIO

import structlog
from prometheus_client import Counter
from structlog.typing import EventDict, WrappedLogger

ADDRESS = re.compile(r"[^\s<>\"']+@[^\s<>\"']+")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


TOLD = "_budkavle_told"
"""Set on an exception that has its line already."""


ROOM = 4096
"""POSIX: a pipe that may be written to takes so much without blocking."""

dropped_total = Counter("budkavle_log_lines_dropped_total", "Log lines that could not be written")


class UnblockedStream:
    """A stream that swallows write errors and counts them. `None`: the process began without one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._torn = False

    def write(self, text: str) -> int:
        try:
            self._put(text)
        except (OSError, ValueError):
            dropped_total.inc()
        return len(text)

    def flush(self) -> None:
        """Each write is through."""

    def _put(self, text: str) -> None:
        if self._stream is None:
            raise ValueError("closed from the start")
        data = text.encode(errors="backslashreplace")
        if self._torn:  # the line before is half there
            data = b"\n" + data
        for at in range(0, len(data), ROOM):
            if not _takes_more(self._stream.fileno()):
                self._torn = self._torn or at > 0
                raise BlockingIOError
            os.write(self._stream.fileno(), data[at : at + ROOM])
        self._torn = False


def _takes_more(descriptor: int) -> bool:
    """Whether a write would not block: a pipe blocks when its reader has stopped reading."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


stderr = UnblockedStream(sys.stderr)


def configure(*, service: str, log_format: str = "json", level: str = "info") -> None:
    """Set up structlog and route the standard library's loggers through it. Call once, at the process's start."""
    shared_chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _without_addresses,
    ]
    renderer: Any = (
        # The plain traceback: the rich one prints local variables, and with them addresses and bodies.
        structlog.dev.ConsoleRenderer(
            colors=bool(sys.stderr and sys.stderr.isatty()), exception_formatter=structlog.dev.plain_traceback
        )
        if log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    final = [structlog.processors.format_exc_info, _without_addresses, renderer]
    structlog.configure(
        processors=[*shared_chain, *final],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stderr),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    _route_standard_library(shared_chain, final, LEVELS[level])


def _route_standard_library(chain: list[Any], final: list[Any], level: int) -> None:
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    handler.addFilter(_not_told)
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _not_told(record: logging.LogRecord) -> bool:
    return not (record.exc_info and hasattr(record.exc_info[1], TOLD))


def _without_addresses(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out anything that looks like a mail address, however it came into a line (an exception's text, say)."""
    for key, value in event.items():
        event[key] = value if key in ("exc_info", "_record") else _blotted(value)
    return event


def _blotted(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return without_addresses(value)
    if isinstance(value, dict):
        return {_blotted(key): _blotted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_blotted(inner) for inner in value]
    shown = repr(value)
    return without_addresses(shown) if "@" in shown else value


def without_addresses(text: str) -> str:
    """A database's complaint, say, quotes the row that it refuses."""
    return ADDRESS.sub("[address]", text) if "@" in text else text
