"""What a mail says: subject, plain text and HTML of one form, in one locale, for one audience.

A letter is written once and then filled for each recipient: where a recipient's own words belong (reason, links), it
has a slot. What editors wrote is only ever a value, never a template, so `{{7*7}}` in a title stays as it is.

The frame speaks the recipient's language; the item keeps its own and is marked with it. HTML carries no image, no
script and nothing that is fetched: pictures are links, and so are an item's files.
"""

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from distributor.channels import Content
from distributor.mail.headers import clean
from distributor.settings import DistributorSettings
from shared.contracts.mail import Form
from shared.contracts.news import Audience, ItemSnapshot, Kind, Locale
from shared.translations import translations
from shared.web import dates
from shared.web.files import file_size, file_type

HERE = Path(__file__).parent
CATALOGUES = HERE / "locale"

REQUEST_FORMS = frozenset({Form.CONFIRM, Form.PREFERENCES, Form.SIGN_IN, Form.REMINDER, Form.ENDPOINT})
"""Their words come ready, one template serves them all."""

ITEM_FORMS = frozenset({Form.PRESS, Form.NEWS, Form.CORRECTION, Form.WITHDRAWAL})

DIGEST_GROUPS = {
    "press": (Kind.PRESS_RELEASE, Kind.NEWS_TIP),
    "news": (Kind.NEWS, Kind.DAILY_NOTE),
    "reports": (Kind.REPORT, Kind.RESULT),
}
"""What stands under one heading."""

MAX_HTML_BODY_OCTETS = 80_000
"""Gmail cuts HTML off at 102 kB; a longer body stands whole in the text part and on the page."""

IMAGE = re.compile(r"<img\b(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)
ALT = re.compile(r"\balt=(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
TOP_HEADING = re.compile(r"<(/?)h1\b", re.IGNORECASE)
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
TRAILING_SPACE = re.compile(r"[ \t]+(?=\n)")
EMPTY_LINES = re.compile(r"\n{3,}")


class Slot(StrEnum):
    """A recipient's own words in a letter."""

    REASON = "reason"
    PREFERENCES = "preferences"
    UNSUBSCRIBE = "unsubscribe"


class Unsendable(Exception):
    """No mail can be made of this, and trying again will not help. The message begins with a stable code."""


Parts = tuple[str | Slot, ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """One form's words. `text` and `html` alternate between strings and slots."""

    subject: str
    text: Parts
    html: Parts


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who writes; for the frame's head and foot."""

    name: str
    about: tuple[str, ...]
    postal_address: str
    site_url: str
    facebook_url: str
    email: str
    phone: str

    @classmethod
    def told_by(cls, settings: DistributorSettings) -> "Organisation":
        return cls(
            name=clean(settings.organisation),
            about=tuple(paragraph for part in re.split(r"\n\s*\n", settings.about) if (paragraph := clean(part))),
            postal_address=clean(settings.postal_address),
            site_url=settings.public_url,
            facebook_url=settings.facebook_url,
            email=settings.contact_email,
            phone=settings.contact_phone,
        )


class LetterWriter:
    """Writes letters; the templates are compiled once for each locale."""

    def __init__(self, organisation: Organisation) -> None:
        self._organisation = organisation
        # Drawn anew in each process, so that nobody can write it into a title; it never reaches a mail.
        self._marks = {slot: f"slot{secrets.token_hex(12)}{slot}" for slot in Slot}
        self._between = re.compile("|".join(self._marks.values()))
        self._slot_of = {mark: slot for slot, mark in self._marks.items()}
        self._environments = {locale: _environment(locale) for locale in Locale}

    def write(
        self, content: Content, form: Form, locale: Locale, audience: Audience | None, slots: frozenset[Slot]
    ) -> Letter:
        """The letter, with those `slots` that its recipients have words for; raises Unsendable."""
        environment = self._environments[locale]
        folder = _folder(content, form)
        words = {
            "organisation": self._organisation,
            "locale": str(locale),
            "form": form,
            "note": content.note,
            "request": content.request,
            "item": content.item,
            "for_newsroom": form is Form.PRESS or audience is Audience.NEWSROOM,
            "personal": {slot.value: self._marks[slot] if slot in slots else "" for slot in Slot},
            **(_of_item(content.item) if content.item is not None else {}),
            **(_of_digest(content) if content.digest else {}),
        }
        subject = clean(environment.get_template(f"{folder}/subject.txt").render(words))
        render = partial(self._render, environment, {**words, "subject": subject})
        return Letter(subject, render(f"{folder}/body.txt"), render(f"{folder}/body.html"))

    def _render(self, environment: Environment, words: dict[str, object], template: str) -> Parts:
        said = _without_controls(environment.get_template(template).render(words))
        if template.endswith(".txt"):
            said = EMPTY_LINES.sub("\n\n", TRAILING_SPACE.sub("", said)).strip("\n") + "\n"
        strings = self._between.split(said)
        slots = [self._slot_of[mark] for mark in self._between.findall(said)]
        parts: list[str | Slot] = [strings[0]]
        for slot, string in zip(slots, strings[1:], strict=True):
            parts += [slot, string]
        return tuple(parts)


@lru_cache
def _environment(locale: Locale) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(["html"], default=False),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.install_gettext_translations(translations(CATALOGUES, locale), newstyle=True)  # type: ignore[attr-defined]
    environment.filters["day"] = partial(dates.day, locale)
    environment.filters["dialled"] = _dialled
    environment.filters["file_size"] = partial(file_size, locale)
    environment.filters["file_type"] = file_type
    return environment


def _folder(content: Content, form: Form) -> str:
    if form in REQUEST_FORMS and content.request is not None:
        return "request"
    if form in ITEM_FORMS and content.item is not None:
        return str(form)
    if form is Form.DIGEST and content.digest:
        return str(form)
    raise Unsendable(f"no_such_form: {form} of a {content.subject_kind}")


def _of_item(item: ItemSnapshot) -> dict[str, object]:
    body, popular = _for_mail(item.body_html), _for_mail(item.popular_version_html)
    pictures = [file for file in item.attachments if file.type.startswith("image/")]
    documents = [file for file in item.attachments if file not in pictures]
    return {"body_html": body, "popular_html": popular, "pictures": pictures, "documents": documents}


def _of_digest(content: Content) -> dict[str, object]:
    """The items under their headings, in the order that they came in; a heading without items is none."""
    told = {name: [item for item in content.digest if item.kind in kinds] for name, kinds in DIGEST_GROUPS.items()}
    groups = [(name, items) for name, items in told.items() if items]
    others = len(content.digest) - 1
    return {"groups": groups, "first": groups[0][1][0], "others": others, "planned_at": content.planned_at}


def _for_mail(html: str) -> Markup:
    """Sanitised HTML without images and with no heading of the first rank; nothing, if it is too long for a mail."""
    if len(html.encode("utf-8", "replace")) > MAX_HTML_BODY_OCTETS:
        return Markup()
    html = TOP_HEADING.sub(r"<\1h2", IMAGE.sub(_alt_text, html))
    return Markup(html)  # noqa: S704 - sanitised where it was written


def _alt_text(image: re.Match[str]) -> str:
    found = ALT.search(image[0])
    return (found[1] or found[2] or "") if found else ""


def _dialled(phone: str) -> str:
    """A phone number as a tel: link dials it (RFC 3966)."""
    return re.sub(r"[^\d+]", "", phone)


def _without_controls(text: str) -> str:
    return CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
