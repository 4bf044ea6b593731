"""What a demo decides before it starts: its port, its directory, what it remembers."""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.news import Audience
from standalone.demo import loading, run
from standalone.demo.failure import Failed
from standalone.demo.state import DemoState, PublishedItem


def test_the_next_port_is_taken_when_the_usual_one_is_in_use(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FIRST_PORT", free_port)
    with socket.create_server(("127.0.0.1", free_port)):
        assert free_port < run._free_port("127.0.0.1") < free_port + run.PORTS
        monkeypatch.setattr(run, "PORTS", 1)
        with pytest.raises(Failed, match="BUDKAVLE_PORT"):
            run._free_port("127.0.0.1")
    assert run._free_port("127.0.0.1") == free_port


def test_the_demo_lives_beside_real_data_and_leaves_real_servers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.update(
        BUDKAVLE_DATA_DIR=str(tmp_path),
        BUDKAVLE_SMTP_URL="smtp://relay.example",
        BUDKAVLE_BROKER_URL="amqp://broker.example",
        BUDKAVLE_CONTENT_DATABASE_URL="postgresql://database.example/content",
        BUDKAVLE_SENDER_NAME="Nordens förbund",
    )
    settings = run._settings()
    assert settings.data_dir == tmp_path / "demo"
    assert settings.smtp_url is None
    assert (settings.broker_url, settings.content_database_url) == ("", "")
    assert os.environ["BUDKAVLE_SENDER_NAME"] == "Nordens förbund"


def test_what_is_remembered_is_read_again(tmp_path: Path) -> None:
    state = DemoState.opened(tmp_path / "demo.json")
    state.people_loaded = True
    state.secrets["kalmar"] = "whsec_x"
    state.items["news"] = PublishedItem("1", "En nyhet", "http://localhost/nyheter/en-nyhet")
    state.save()
    assert DemoState.opened(state.path) == state
    assert state.path.stat().st_mode & 0o777 == 0o600


class _StopsAfterTheFirst:
    """A site that the demo loses when it has added one subscriber."""

    def __init__(self) -> None:
        self.added: list[Any] = []

    async def import_people(self, name: str, content: bytes, audience: Audience) -> None:
        pass

    async def post(self, path: str, body: Any, **_: object) -> None:
        self.added.append(body)
        raise Failed("stopped")


class _Clock:
    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


async def test_a_subscriber_who_is_added_again_is_added_in_the_same_words(tmp_path: Path) -> None:
    """The site does it once, by its Idempotency-Key, and refuses other words under the same key."""
    site, began = _StopsAfterTheFirst(), datetime(2026, 11, 28, 18, 0, tzinfo=UTC)
    for at in (began, began + timedelta(minutes=1)):
        state = DemoState.opened(tmp_path / "demo.json")
        with pytest.raises(Failed, match="stopped"):
            await loading.load_people(site, state, _Clock(at), lambda _: None)  # type: ignore[arg-type]
    first, again = site.added
    assert first == again
    assert first["paused_until"] > began.isoformat()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"items": {"news": {"id": 1, "extra": 2}}}', '{"items": [], "x": 1}']
)
def test_a_memory_that_is_none_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(Failed, match="start again"):
        DemoState.opened(tmp_path / "demo.json")
