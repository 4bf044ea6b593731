"""One correlation id leads from the editor's click to the mail server's answer, and no log line holds an address."""

from collections.abc import Iterator

import pytest
from tests.deployments import Deployment
from tests.eventually import eventually
from tests.resilience.scene import FIELDS, NEWSROOMS, Scene
from tests.servers.smtp import SmtpServer

TRAIL = "redaktionen-2026-11-22"
STEPS = ("item_made_public", "fanout_completed", "delivery_attempt_ended")


@pytest.fixture
def refusing() -> Iterator[SmtpServer]:
    """A mail server that does not know one of the newsrooms, and wants another to wait."""
    with SmtpServer() as server:
        server.on("RCPT", "550 5.1.1 No such user desk3@tidning.example", address=NEWSROOMS[3])
        server.on("RCPT", "450 4.2.1 Busy", address=NEWSROOMS[4], times=1)
        yield server


async def test_from_the_click_to_the_reply(scene: Scene, deployment: Deployment, refusing: SmtpServer) -> None:
    deployment.mail_link.lead_to(refusing.port)
    item = await scene.desk.draft({**FIELDS, "audiences": ["newsroom"]})
    await scene.desk.publish(item, **{"X-Correlation-ID": TRAIL})

    def all_steps() -> bool:
        lines = [line for line in deployment.log_lines() if line.get("correlation_id") == TRAIL]
        assert set(STEPS) <= {line["event"] for line in lines}, lines
        states = {line["state"] for line in lines if line["event"] == "delivery_attempt_ended"}
        assert {"bounced", "deferred"} <= states
        return True

    await eventually(all_steps, within=30, every=0.2)
    await eventually(lambda: len(refusing.accepted) == len(NEWSROOMS) - 1, within=60)
    for name, log in deployment.logs().items():
        assert "@" not in log, f"an address in the log of {name}"
