"""`budkavle demo` as a newcomer runs it: a process of its own, watched from outside."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser
from tests.budkavle import BUDKAVLE, Process
from tests.servers.run import claim_port

import standalone

READY = "Ctrl-C ends it."
DIGESTS = ("Sammandrag: ", "Digest: ")
ON_DIGEST = 5
"""Readers in the sample who get news daily or weekly."""


@pytest.fixture
async def budkavle(tmp_path: Path, free_port: int) -> AsyncIterator[Process]:
    process = Process(tmp_path, free_port)
    yield process
    await process.end_at_last()


def items_of(out: str) -> list[str]:
    return re.findall(r"^An item +http://[^/]+(/nyheter/\S+)$", out, re.MULTILINE)


def in_digests(mails: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [mail for mail in mails if mail["subject"].startswith(DIGESTS)]


async def caught(site: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """Every mail in the mailbox, page after page."""
    mails: list[dict[str, Any]] = []
    query: dict[str, Any] = {}
    while page := (await site.get("/mailbox.json", params=query)).json()["data"]:
        mails += page
        query = {"before": page[-1]["id"]}
    return mails


async def test_the_demo_reaches_everyone_shows_it_and_ends_cleanly(budkavle: Process, browser: Browser) -> None:
    await budkavle.start("demo")
    await budkavle.says(READY)
    out = budkavle.out
    assert " NO" not in out
    sent = [int(number) for number in re.findall(r"^  all +\d+ +(\d+)", out, re.MULTILINE)]
    async with budkavle.site() as site:
        await the_site_shows_the_items(site, out)
        mails = await caught(site)
        webhooks = (await site.get("/demo/intranet.json")).json()["data"]
        assert len(mails) - ON_DIGEST + len(webhooks) == sum(sent) > 300
        assert len(in_digests(mails)) == ON_DIGEST
        assert "5 by digest" in out
        assert all(call["verified"] for call in webhooks)
        assert "Ja" in (await site.get("/demo/intranet")).text
        nobody_got_the_same_twice(mails)
        nobody_whose_mandate_has_ended_got_any(mails)
        await a_mail_leads_to_the_preference_page(site, mails[0]["id"])
        told = (await site.get("/feed.json")).json()["items"]
        (picture,) = [file["url"] for item in told for file in item.get("attachments", ())]
        for path in ("/healthz", "/readyz", "/metrics", "/mailbox", "/feed.atom", picture):
            assert (await site.get(path)).status_code == 200, path
    await a_reader_opens_a_mail_and_follows_its_link(browser, budkavle.url)
    for path in ("/mailbox", "/mailbox/1", "/mailbox/1?view=headers", "/mailbox/1?view=source", "/demo/intranet"):
        await it_fits_a_narrow_screen(browser, budkavle.url + path)
    assert await budkavle.ended(signal.SIGINT, within=20) == 0
    assert budkavle.err == ""


async def a_reader_opens_a_mail_and_follows_its_link(browser: Browser, url: str) -> None:
    context = await browser.new_context(locale="sv-SE", java_script_enabled=False)
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{url}/mailbox")
    await page.locator(".mail-list a").filter(has_not_text=re.compile("|".join(DIGESTS))).first.click()
    frame = page.frame_locator(".mail-frame")
    heading = await frame.locator("h1").inner_text()
    assert heading in await page.locator("h1").inner_text()
    async with context.expect_page() as opening:
        await frame.locator("a[href*='/nyheter/']:not([href*='/filer/'])").first.click()
    item = await opening.value
    assert await item.locator("h1").inner_text() == heading
    assert all(each.startswith(url) for each in asked), asked
    await context.close()


async def it_fits_a_narrow_screen(browser: Browser, address: str) -> None:
    context = await browser.new_context(viewport={"width": 320, "height": 640})
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto(address)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320, address
    assert complaints == [], address
    await context.close()


async def the_site_shows_the_items(site: httpx2.AsyncClient, out: str) -> None:
    paths = items_of(out)
    assert len(paths) == 2
    front = (await site.get("/")).text
    for path in paths:
        assert path in front
        assert (await site.get(path)).status_code == 200


def nobody_got_the_same_twice(mails: list[dict[str, Any]]) -> None:
    received = [(mail["subject"], address) for mail in mails for address in mail["to"]]
    assert len(received) == len(set(received))


def nobody_whose_mandate_has_ended_got_any(mails: list[dict[str, Any]]) -> None:
    lines = (Path(standalone.__file__).parent / "sample" / "politicians.csv").read_text(encoding="utf-8").splitlines()
    former = {line.split(";")[3] for line in lines if line.endswith("2026-10-14")}
    assert len(former) == 27
    assert not former & {address for mail in mails for address in mail["to"]}


async def a_mail_leads_to_the_preference_page(site: httpx2.AsyncClient, mail: int) -> None:
    source = message_from_bytes((await site.get(f"/mailbox/{mail}/source.eml")).content, policy=policy.default)
    text = source.get_body(("plain",)).get_content()
    link = re.search(r"https?://\S+/prenumeration/[\w.=-]+", text)[0]
    assert (await site.get(link)).status_code == 200


async def test_a_demo_touches_nothing_that_the_environment_names_and_publishes_nothing_twice(
    budkavle: Process, free_port: int
) -> None:
    """However often it is begun, and stopped half-way."""
    named = {
        "BUDKAVLE_SMTP_URL": f"smtp://127.0.0.1:{free_port}?starttls=never",
        "BUDKAVLE_BROKER_URL": f"amqp://127.0.0.1:{free_port}",
        "BUDKAVLE_DATABASE_URL": f"postgresql://127.0.0.1:{free_port}/x",
    }
    await stopped_half_way(budkavle, "published “Sex", **named)
    await budkavle.start("demo", BUDKAVLE_DEMO_ONCE="1", **named)
    assert await budkavle.ended() == 0, budkavle.out + budkavle.err
    assert " NO" not in budkavle.out
    first, former = budkavle.out, budkavle.url
    budkavle.move_to(claim_port())
    await budkavle.start("demo")
    await budkavle.says(READY)
    assert "nothing was sent again" in budkavle.out
    assert items_of(budkavle.out) == items_of(first)
    assert f"Mails from before lead to {former}" in budkavle.out
    assert former not in budkavle.out.replace(f"lead to {former}", "")
    links = re.findall(rf"{budkavle.url}/(?:nyheter|prenumeration)/\S+", budkavle.out)
    async with budkavle.site() as site:
        assert [(await site.get(link)).status_code for link in links] == [200, 200, 200]
    sent = sum(int(number) for number in re.findall(r"^  all +\d+ +(\d+)", first, re.MULTILINE))
    async with budkavle.site() as site:
        webhooks = (await site.get("/demo/intranet.json")).json()["data"]
        assert len(await caught(site)) - ON_DIGEST + len(webhooks) == sent
    assert await budkavle.ended(signal.SIGTERM, within=20) == 0


async def stopped_half_way(budkavle: Process, moment: str, **environment: str) -> None:
    await budkavle.start("demo", **environment)
    await budkavle.says(moment)
    assert await budkavle.ended(signal.SIGINT, within=30) == 0
    assert budkavle.err == ""


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["starts, with its data", "imported politicians.csv", "connected 8"])
async def test_a_demo_stopped_half_way_goes_on_where_it_was(budkavle: Process, moment: str) -> None:
    await stopped_half_way(budkavle, moment)
    await budkavle.start("demo", "--once")
    assert await budkavle.ended() == 0, budkavle.out + budkavle.err
    assert len(items_of(budkavle.out)) == 2


async def test_a_second_process_on_the_same_directory_is_refused_in_one_line(budkavle: Process, tmp_path: Path) -> None:
    await budkavle.start("up")
    await budkavle.says("answers at")
    with (tmp_path / "second.txt").open("w") as err:
        environment = {**budkavle.environment, "BUDKAVLE_PORT": str(budkavle.port + 1)}
        second = await asyncio.create_subprocess_exec(str(BUDKAVLE), "up", stderr=err, env=environment)
        assert await asyncio.wait_for(second.wait(), 30) == 1
    lines = (tmp_path / "second.txt").read_text().splitlines()
    assert len(lines) == 1
    assert "in use by another Budkavle" in lines[0]
    assert await budkavle.ended(signal.SIGTERM, within=20) == 0


async def test_a_port_that_is_taken_is_refused_in_one_line(budkavle: Process, free_port: int) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", free_port)
    async with server:
        await budkavle.start("up")
        assert await budkavle.ended() == 1
    assert budkavle.err.splitlines() == [
        f"budkavle: port {free_port} is in use; choose another with BUDKAVLE_PORT",
    ]
