"""Logs: one JSON object a line, with the correlation id, without any address, and never the death of the service."""

import json
import os
import select
import subprocess
import sys

import pytest

from shared.logging import UnblockedStream

PROGRAM = """
import logging, sys, structlog
from shared import correlation, logging as ours
ours.configure(service="tests", log_format=sys.argv[1], level="info")
log = structlog.get_logger()
address = "eva.svensson@kalmar.example"
with correlation.correlated(correlation.Correlation("click-1")):
    log.info("plain", note=f"to {address}")
    log.info("nested", people=[{"mail": address}], by={address: 1}, both=(address,), raw=address.encode())
    log.info(f"event {address}")
    logging.getLogger("library").warning("told %s", address)
    logging.getLogger("library").warning("told", extra={"who": address})
    logging.getLogger("chatty").info("not to be seen")
    log.debug("not_to_be_seen")
    try:
        raise ValueError(f"refused {address}")
    except ValueError as error:
        log.error("failed", exc_info=error)
        logging.getLogger("library").exception("failed too")
"""


def logged(form: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_address_is_ever_printed(form: str) -> None:
    text = "\n".join(logged(form))
    assert "@" not in text and "eva.svensson" not in text
    assert "[address]" in text
    assert "not to be seen" not in text and "not_to_be_seen" not in text


def test_every_line_is_one_json_object_with_name_level_time_and_trail() -> None:
    lines = [json.loads(line) for line in logged("json")]
    assert [line["event"] for line in lines][:2] == ["plain", "nested"]
    for line in lines:
        assert {"event", "level", "timestamp", "service", "correlation_id"} <= line.keys()
        assert (line["service"], line["correlation_id"]) == ("tests", "click-1")
    assert "ValueError: refused [address]" in lines[-2]["exception"]


COUNTED = """
from prometheus_client import REGISTRY
print("still here", REGISTRY.get_sample_value("budkavle_log_lines_dropped_total") > 0)
"""
BEGINS = {
    "full": "2>/dev/full",
    "closed": "2>&-",
    "nobody_reads_any_more": "2> >(exec 2>&-; exit)",
    "the_reader_hangs": "2> >(exec sleep 5 >&-)",  # who waits for the output does not wait for it
}


@pytest.mark.parametrize("how", BEGINS)
def test_f34_whatever_becomes_of_stderr_the_service_goes_on(how: str) -> None:
    """A disk that is full, no stderr at all, a reader that died, and one that stopped reading: a pipe holds 64 kB."""
    many = "\nfor _ in range(3000): log.info('many', filling='x' * 100)\nlog.info('long', filling='x' * 70_000)\n"
    command = f'exec "$0" -c "$1" json {BEGINS[how]}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, PROGRAM + many + COUNTED],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.stdout == "still here True\n"


def test_f34_what_can_be_written_is_written_whole_after_a_gap() -> None:
    """A reader that comes back finds whole lines, but for the one that was on its way."""
    out, into = os.pipe()
    with open(out, "rb") as reader, open(into, "w") as writer:
        stream = UnblockedStream(writer)
        while select.select([], [into], [], 0)[1]:
            stream.write("x" * 9_999 + "\n")
        stream.write("lost\n")
        os.set_blocking(out, False)
        assert b"lost" not in reader.read()
        stream.write("found\n")
        assert reader.read().split(b"\n")[-2:] == [b"found", b""]
