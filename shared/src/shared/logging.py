"""Logs are the interface to operations: one JSON object a line on stderr, static event names, ids as fields.

The correlation id of the request or message at hand is bound to the context and follows into every line. Addresses,
names and bodies are never logged. A full disk or a closed stderr never stops the service: lines that cannot be
written are counted (`dropped_lines`).
"""

import logging
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

ADDRESS = re.compile(r"[^\s<>\"']+@[^\s<>\"']+")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


TOLD = "_budkavle_told"
"""Set on an exception that has its line already."""


class UnblockedStream:
    """A stream that swallows write errors and counts them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.dropped_lines = 0

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self.dropped_lines += 1
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped_lines += 1


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
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
        return ADDRESS.sub("[address]", value) if "@" in value else value
    if isinstance(value, dict):
        return {_blotted(key): _blotted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_blotted(inner) for inner in value]
    shown = repr(value)
    return ADDRESS.sub("[address]", shown) if "@" in shown else value
