"""`/mailbox`: every caught mail, as its reader would see it and as it came over the wire.

A mail's HTML is shown in a frame that is sandboxed twice, by the frame and by its own Content-Security-Policy: no
script, no form, nothing fetched from anywhere else. Links in it open in a new tab. Only this machine may look, unless a
setting says otherwise: whoever reads a mail holds its recipient's links.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from sqlalchemy import RowMapping

from shared.http import SECURITY_HEADERS
from shared.problems import Problem
from shared.routes import Router
from shared.web.pages import Pages
from standalone.mailbox.store import MailStore, headers, parse, part

PAGE_SIZE = 50
MAX_ID = 2**63 - 1
STYLESHEET = Path(__file__).with_name("mailbox.css")
FRAMING_POLICY = SECURITY_HEADERS["content-security-policy"] + "; frame-src 'self'"
FRAMED_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' {origin} data:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
HEAD = re.compile(r"<head[^>]*>", re.IGNORECASE)


class View(StrEnum):
    """The ways to look at a mail."""

    HTML = "html"
    TEXT = "text"
    SOURCE = "source"
    HEADERS = "headers"


@dataclass(frozen=True, slots=True)
class ListedMail:
    """One line of the list."""

    id: int
    caught_at: datetime
    recipients: tuple[str, ...]
    subject: str


@dataclass(frozen=True, slots=True)
class ShownMail:
    """One mail, opened."""

    id: int
    caught_at: datetime
    subject: str
    sender: str
    recipients: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    text: str
    source: str
    has_html: bool


def mailbox_router(store: MailStore, pages: Pages, *, origin: str, remote: bool) -> Router:
    """The pages, for this machine alone unless `remote`. Images of the site at `origin` may be shown in mails."""
    router = Router(include_in_schema=False, dependencies=[] if remote else [Depends(_from_this_machine)])
    _add_lists(router, store, pages)
    _add_mail(router, store, pages, origin)
    return router


def _add_lists(router: Router, store: MailStore, pages: Pages) -> None:
    @router.get("/mailbox")
    async def mails(request: Request, q: Words = "", before: Before = None) -> Response:
        listed, total = await _page(store, q, before)
        more = listed[-1].id if len(listed) == PAGE_SIZE else None
        names: dict[str, Any] = {"mails": listed, "total": total, "words": q, "before": before, "more": more}
        return pages.render(request, "mailbox.html", headers={"Cache-Control": "no-store"}, **names)

    @router.get("/mailbox.json")
    async def mails_for_programs(q: Words = "", before: Before = None) -> JSONResponse:
        listed, total = await _page(store, q, before)
        data = [{"id": mail.id, "to": mail.recipients, "subject": mail.subject} for mail in listed]
        return JSONResponse({"data": data, "total": total, "next_before": listed[-1].id if listed else None})

    @router.get("/mailbox/mailbox.css")
    async def stylesheet() -> FileResponse:
        return FileResponse(STYLESHEET, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def _add_mail(router: Router, store: MailStore, pages: Pages, origin: str) -> None:
    @router.get("/mailbox/{key}")
    async def mail(request: Request, key: str, view: View | None = None) -> Response:
        shown = _shown(await _found(store, key))
        view = view or (View.HTML if shown.has_html else View.TEXT)
        headers = {"Content-Security-Policy": FRAMING_POLICY, "Cache-Control": "no-store"}
        return pages.render(request, "mail.html", headers=headers, mail=shown, view=view, views=tuple(View))

    @router.get("/mailbox/{key}/html")
    async def html(key: str) -> Response:
        body = part(parse((await _found(store, key))["source"]), "html")
        if body is None:
            raise Problem(404, "no_html", "The mail has no HTML part.")
        policy = FRAMED_POLICY.format(origin=origin)
        return HTMLResponse(_opening_links_outside(body), headers={"Content-Security-Policy": policy})

    @router.get("/mailbox/{key}/source.eml")
    async def source(key: str) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{int(key)}.eml"'} if key.isdecimal() else {}
        return Response((await _found(store, key))["source"], media_type="message/rfc822", headers=headers)


Words = Annotated[str, Query(max_length=200)]
Before = Annotated[int | None, Query(ge=1, le=MAX_ID)]


async def _from_this_machine(request: Request) -> None:
    """Let this machine's own browser in, by a name that is this machine's (another name may have been rebound)."""
    named_here = request.url.hostname in ("localhost", "127.0.0.1", "::1")
    forwarded = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    if not named_here or forwarded or request.client is None or not _is_loopback(request.client.host):
        raise Problem(404)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def _page(store: MailStore, words: str, before: int | None) -> tuple[list[ListedMail], int]:
    rows, total = await store.search(words, before=before, limit=PAGE_SIZE)
    return [ListedMail(row["id"], row["caught_at"], _lines(row["recipients"]), row["subject"]) for row in rows], total


async def _found(store: MailStore, key: str) -> RowMapping:
    row = await store.find(int(key)) if key.isdecimal() and key.isascii() and int(key) <= MAX_ID else None
    if row is None:
        raise Problem(404, detail="There is no such mail, or it has made room for newer ones.")
    return row


def _shown(row: RowMapping) -> ShownMail:
    message = parse(row["source"])
    return ShownMail(
        id=row["id"],
        caught_at=row["caught_at"],
        subject=row["subject"],
        sender=row["sender"],
        recipients=_lines(row["recipients"]),
        headers=tuple(headers(message)),
        text=part(message, "plain") or "",
        source=row["source"].decode("utf-8", "replace"),
        has_html=part(message, "html") is not None,
    )


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def _opening_links_outside(html: str) -> str:
    """The mail as it is, plus one element: without it a link would open inside the frame, and fail there."""
    base = '<base target="_blank">'
    head = HEAD.search(html)
    return html[: head.end()] + base + html[head.end() :] if head else base + html
