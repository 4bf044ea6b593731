"""From a dispatch to the bytes of its mail.

What is alike for thousands of recipients is built once and kept (some frames, least recently used out first): the
letter, its headers, MIME, all encoded. A recipient's own part is encoded alone and joined in, which costs
microseconds: quoted-printable may be cut anywhere by a soft line break.

The same dispatch gives the same bytes, in any process and on any day: nothing is drawn and no clock is read. The Date
is when the delivery was planned, Message-ID and boundary are derived from ids.

Lines have at most 78 octets, but for a header field that holds one long address or link; all end with CRLF.
"""

import re
from binascii import b2a_qp
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cached_property, lru_cache
from itertools import compress
from string import ascii_letters, digits
from uuid import UUID

from markupsafe import escape

from distributor.channels import Content, Dispatch
from distributor.mail import headers
from distributor.mail.addresses import InvalidAddress, WireAddress, wire_address
from distributor.mail.dkim import Canonical, relaxed_fields, relaxed_lines
from distributor.mail.letters import (
    CATALOGUES,
    REQUEST_FORMS,
    Letter,
    LetterWriter,
    Organisation,
    Parts,
    Slot,
    Unsendable,
)
from distributor.mail.message_ids import message_ids
from distributor.mail.smtp import Composed
from distributor.settings import DistributorSettings
from shared.contracts.mail import Form, SubjectKind
from shared.contracts.news import Audience, Locale
from shared.ids import derived_id
from shared.translations import translations

FRAMES_KEPT = 128

HEADER_URL = re.compile(r"https?://[!-;=?-~]{1,900}")
"""Printable ASCII without angle brackets; a header line ends at 998 octets and a URL cannot be folded."""

PLAIN = f"{ascii_letters}{digits}:/._~?#-".encode()
"""A link of these octets alone is the same in text, in HTML and in quoted-printable. Our own links are."""

SOFT_BREAK = b"=\r\n"
QP_LINE = 75
DOT = ord(".")
LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)
SLOTS = tuple(Slot)
BODY = 2
"""Which part of a frame the body begins in, behind the fields that it shares the part with."""

DIGEST_NAME = "Sammandrag från %s"
LIST_NAMES: dict[Audience | None, str] = {
    Audience.NEWSROOM: "Pressmeddelanden från %s",
    Audience.POLITICIAN: "Nyheter för förtroendevalda från %s",
    Audience.COLLABORATION_GROUP: "Nyheter för samverkansgrupper från %s",
    Audience.AGENCY_OFFICIAL: "Nyheter för tjänstepersoner från %s",
    Audience.PUBLIC: "Nyheter från %s",
}

Key = tuple[Content, Form, Locale, Audience | None, frozenset[Slot]]


@dataclass(frozen=True)
class Frame:
    """A mail without its recipient: `parts` in a row, with places left open.

    `places` says what goes where: an index of `parts`, and one of the recipient's own words (see `_own_words`).
    `dotless`: no line begins with a dot, as our quoted-printable never does.
    """

    parts: tuple[bytes, ...]
    places: tuple[tuple[int, int], ...]
    dotless: bool

    def filled(self, own: Sequence[bytes]) -> bytes:
        """The mail of whoever's own words these are."""
        parts = list(self.parts)
        for place, words in self.places:
            parts[place] = own[words]
        return b"".join(parts)

    def canonical(self, own: Sequence[bytes]) -> Canonical:
        """The same as a signature covers it. What is alike for all is brought into that form once."""
        fields, parts = self._canonical
        body = list(parts)
        for place, words in self.places[1:]:
            body[place - BODY] = relaxed_lines(own[words])
        return Canonical(fields | relaxed_fields(own[0]), b"".join(body))

    @cached_property
    def _canonical(self) -> tuple[dict[bytes, bytes], tuple[bytes, ...]]:
        start, _, begun = self.parts[BODY].partition(b"\r\n\r\n")
        body = (begun, *self.parts[BODY + 1 :])
        return relaxed_fields(self.parts[0] + start), tuple(map(relaxed_lines, body))


class Composer:
    """Composes mails for one sender."""

    def __init__(self, settings: DistributorSettings) -> None:
        self._organisation = Organisation.told_by(settings)
        self._writer = LetterWriter(self._organisation)
        self._frames: OrderedDict[Key, Frame] = OrderedDict()
        sender = wire_address(settings.sender).text
        self._return_path = wire_address(settings.return_path or settings.sender).text
        self._return_paths = settings.return_paths
        self._signed = settings.dkim_keys != ""
        self._domain = sender.rpartition("@")[2]
        self._sender = headers.mailbox("From", settings.sender_name or settings.organisation, sender)
        if settings.reply_to:
            self._sender += headers.field("Reply-To", wire_address(settings.reply_to).text)

    def compose(self, dispatch: Dispatch) -> Composed:
        """The mail of `dispatch`; raises Unsendable where no attempt could ever succeed."""
        recipient = _recipient(dispatch.address)
        frame = self._frame(dispatch)
        message_id = self._message_id(dispatch, dispatch.content.revision)
        own = (self._personal_headers(dispatch, recipient, message_id), *_own_words(dispatch))
        mail_from = self._return_paths.of(dispatch.delivery_id) if self._return_paths else self._return_path
        mail = Composed(mail_from, recipient.text, frame.filled(own), message_id, recipient.smtputf8, frame.dotless)
        return mail._replace(canonical=frame.canonical(own)) if self._signed else mail

    def _message_id(self, dispatch: Dispatch, earlier: int | UUID) -> str:
        """Known to every process: a repeat can be recognised, a correction finds the mail that it corrects, also where
        that was a digest.
        """
        subject, revision = (earlier, 0) if isinstance(earlier, UUID) else (dispatch.content.subject_id, earlier)
        return f"<{message_ids(subject, revision)(dispatch.recipient_id)}@{self._domain}>"

    def _personal_headers(self, dispatch: Dispatch, recipient: WireAddress, message_id: str) -> bytes:
        fields = f"To: {recipient.text}\r\nDate: {_date(dispatch.planned_at)}\r\nMessage-ID: {message_id}\r\n"
        if dispatch.thread_of:
            before = [self._message_id(dispatch, earlier) for earlier in dispatch.thread_of]
            fields += f"In-Reply-To: {before[-1]}\r\nReferences: " + "\r\n ".join(before) + "\r\n"
        if HEADER_URL.fullmatch(dispatch.one_click_url):  # RFC 8058
            fields += f"List-Unsubscribe: <{dispatch.one_click_url}>\r\n"
            fields += "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        return fields.encode()

    def _frame(self, dispatch: Dispatch) -> Frame:
        key = (dispatch.content, dispatch.form, dispatch.locale, dispatch.audience, _slots(dispatch))
        frame = self._frames.get(key)
        if frame is not None:
            self._frames.move_to_end(key)
            return frame
        frame = self._build(*key)
        if dispatch.form not in REQUEST_FORMS:  # those are written for one recipient each
            self._frames[key] = frame
            while len(self._frames) > FRAMES_KEPT:
                self._frames.popitem(last=False)
        return frame

    def _build(
        self, content: Content, form: Form, locale: Locale, audience: Audience | None, slots: frozenset[Slot]
    ) -> Frame:
        letter = self._writer.write(content, form, locale, audience, slots)
        head = b"".join(
            (
                self._sender,
                headers.unstructured("Subject", letter.subject),
                self._list_id(form, audience, locale),
                *_about_content(content, form, locale),
            )
        )
        boundary = f"=_{derived_id('boundary', content.subject_id, content.revision, form, locale).hex}".encode()
        return _framed(head, boundary, letter)

    def _list_id(self, form: Form, audience: Audience | None, locale: Locale) -> bytes:
        """A digest is a list of its own, whatever audiences it brings together."""
        title, part = (DIGEST_NAME, "digest") if form is Form.DIGEST else (LIST_NAMES.get(audience), audience)
        if title is None or part is None:
            return b""
        name = translations(CATALOGUES, locale).gettext(title) % self._organisation.name
        return headers.list_id(name, f"{part.replace('_', '-')}.{self._domain}")


def _recipient(address: str) -> WireAddress:
    try:
        return wire_address(address)
    except InvalidAddress as error:
        raise Unsendable(f"invalid_address: {error}") from error


def _slots(dispatch: Dispatch) -> frozenset[Slot]:
    return _present(dispatch.reason != "", dispatch.preferences_url != "", dispatch.unsubscribe_url != "")


@lru_cache
def _present(*present: bool) -> frozenset[Slot]:
    return frozenset(compress(Slot, present))


def _about_content(content: Content, form: Form, locale: Locale) -> Iterator[bytes]:
    """Fields that tell machines what the mail is about."""
    told = (*((content.item,) if content.item else ()), *content.digest)
    languages = {str(locale): None, **{str(item.language): None for item in told}}
    yield headers.field("Content-Language", ", ".join(languages))
    yield headers.field("X-Auto-Response-Suppress", "OOF, AutoReply")  # Exchange's word for RFC 3834
    if form in REQUEST_FORMS:
        yield headers.field("Auto-Submitted", "auto-generated")  # RFC 3834; news is written by a person
    kind = {SubjectKind.ITEM: "Item", SubjectKind.DIGEST_RUN: "Digest-Run", SubjectKind.REQUEST: "Request"}
    yield headers.field(f"X-Budkavle-{kind[content.subject_kind]}", str(content.subject_id))
    yield headers.field("X-Budkavle-Revision", str(content.revision))


def _framed(head: bytes, boundary: bytes, letter: Letter) -> Frame:
    """Both parts (RFC 2046, multipart/alternative), the plainest first, cut at their slots."""
    start = b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="' + boundary + b'"\r\n\r\n'
    cutter = _Cutter(head, start)
    for subtype, parts in ((b"plain", letter.text), (b"html", letter.html)):
        cutter.static(b"--" + boundary + b"\r\nContent-Type: text/" + subtype + b"; charset=utf-8\r\n")
        cutter.static(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n")
        cutter.part(parts, html=subtype == b"html")
        cutter.static(b"\r\n")
    cutter.static(b"--" + boundary + b"--\r\n")
    return Frame(tuple(cutter.parts), tuple(cutter.places), b"\r\n." not in b"".join(cutter.parts))


class _Cutter:
    """Lays static bytes and open places in a row; the first place is for the personal headers."""

    def __init__(self, head: bytes, start: bytes) -> None:
        self.parts = [head, b"", start]
        self.places = [(1, 0)]

    def static(self, data: bytes) -> None:
        self.parts[-1] += data

    def part(self, parts: Parts, *, html: bool) -> None:
        for part in parts:
            if isinstance(part, Slot):
                if not self.parts[-1].endswith(b"\r\n"):
                    self.static(SOFT_BREAK)
                self.places.append((len(self.parts), 1 + 2 * SLOTS.index(part) + html))
                self.parts += (b"", SOFT_BREAK)
            else:
                self.static(quoted_printable(part))


def _own_words(dispatch: Dispatch) -> tuple[bytes, ...]:
    """The recipient's words in the order of SLOTS, each for text and for HTML."""
    return (*_reason(dispatch.reason), *_link(dispatch.preferences_url), *_link(dispatch.unsubscribe_url))


def _in_both(value: str) -> tuple[bytes, bytes]:
    """A recipient's own words as they stand in the text and in the HTML part."""
    words = value if value.isascii() and value.isprintable() else headers.clean(value)
    text = quoted_printable(words)
    marked = str(escape(words))
    return text, (text if marked == words else quoted_printable(marked))


@lru_cache(maxsize=10_000)
def _reason(reason: str) -> tuple[bytes, bytes]:
    """Reasons are few and repeat."""
    return _in_both(reason)


def _link(url: str) -> tuple[bytes, bytes]:
    """A link, unlike a reason, is one recipient's alone."""
    data = url.encode("utf-8", "replace")
    if data.translate(None, PLAIN):
        return _in_both(url)
    lines = [data[at : at + QP_LINE] for at in range(0, len(data), QP_LINE)]
    if DOT in [line[0] for line in lines]:
        return _in_both(url)
    folded = SOFT_BREAK.join(lines)
    return folded, folded


@lru_cache(maxsize=256)
def _date(instant: datetime) -> str:
    """RFC 5322, section 3.3."""
    return format_datetime(instant.astimezone(UTC))


def quoted_printable(text: str) -> bytes:
    """RFC 2045, section 6.7, with CRLF; no line begins with a dot, and the last leaves room for a soft break."""
    data = b2a_qp(text.encode("utf-8", "replace"), istext=True).replace(b"\n", b"\r\n")
    while LEADING_DOT.search(data):  # a line of its own, for what follows may be as long as a line can be
        data = LEADING_DOT.sub(b"=2E=\r\n", data)
    if len(data) - (data.rfind(b"\n") + 1) > QP_LINE:
        cut = -3 if data[-3:-2] == b"=" else -1
        data = data[:cut] + SOFT_BREAK + data[cut:]
    return data
