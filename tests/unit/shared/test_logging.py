"""Logs: one JSON object a line, with the correlation id, without any address, and never the death of the service."""

import json
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("how", ["full", "closed"])
def test_a_full_disk_or_a_closed_stderr_does_not_stop_the_service(how: str) -> None:
    program = PROGRAM + "\nprint('still here', ours.stderr.dropped_lines > 0)\n"
    program = program.replace(
        "ours.configure", "sys.stderr.close() if sys.argv[2] == 'closed' else None; ours.configure"
    )
    with open("/dev/full" if how == "full" else "/dev/null", "w") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", program, "json", how], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )
    assert done.stdout == "still here True\n"
