"""Reads a mail as its recipient's programs do, and says what is wrong with it."""

import re
import warnings
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import html5lib
import httpx2
import mailparser
from tests.deployments import SENDER
from tests.inboxes import Mail
from tests.journeys.county import BODY_MARK, Gets, Item

WHY = {"sv": "Du får det här eftersom", "en": "You get this because"}
CORRECTED = {"sv": "Rättelse: ", "en": "Correction: "}
WITHDRAWN = {"sv": "Tillbakadragen: ", "en": "Withdrawn: "}
DOMAIN = SENDER.partition("@")[2]


def check_envelope_and_headers(mail: Mail, gets: Gets, item: Item, site: str) -> None:
    """What every mail about an item has, whatever its form."""
    assert mail.message.defects == []
    assert mail.message["From"].addresses[0].addr_spec == SENDER
    assert mail.message["From"].addresses[0].display_name == "Samordningsförbundet i Kalmar län"
    assert [address.addr_spec for address in mail.message["To"].addresses] == [mail.to]
    assert parsedate_to_datetime(mail.header("Date")).tzinfo is not None
    assert re.fullmatch(rf"<[0-9a-f-]{{32,36}}@{re.escape(DOMAIN)}>", mail.message_id), mail.message_id
    assert gets.audience.replace("_", "-") + "." + DOMAIN in mail.header("List-Id")
    assert mail.header("List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
    assert re.fullmatch(rf"<{re.escape(site)}/avregistrera/[\w.~-]+>", mail.header("List-Unsubscribe"))
    assert mail.header("Content-Language").split(", ")[0] == gets.locale
    assert mail.message.get_content_type() == "multipart/alternative"
    assert [kind for kind, _ in mail.parts] == ["text/plain", "text/html"]
    assert "Auto-Submitted" not in mail.message  # written by a person


def check_words(mail: Mail, gets: Gets, item: Item, *, title: str, subject: str) -> None:
    """The first revision or a correction, in its form and language."""
    text, html = mail.part("plain"), mail.part("html")
    assert mail.header("Subject") == subject
    assert title in text
    assert str(item.fields["lead"]) in text
    assert WHY[gets.locale] in text
    assert WHY[gets.locale] in html
    assert "/nyheter/" in text
    assert "/prenumeration/" in text
    assert "https://www.facebook.com/forbundet.example" in text
    # Newsrooms get the whole text, ready to copy; everybody else headline, lead and link.
    for part in (text, html):
        assert (BODY_MARK in part) == (gets.form == "press")
    if gets.form == "press" and item.fields.get("contacts"):
        assert "0480-123 45" in text
        assert "https://bilder.forbundet.example/1.jpg" in text
        assert "\n.\n" in text  # a lone dot survived the dialogue


def check_by_another_parser(mail: Mail, *, subject: str) -> None:
    """mail-parser sees what the standard library sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = mailparser.parse_from_bytes(mail.content)
    assert parsed.subject == subject
    assert [address for _, address in parsed.from_] == [SENDER]
    assert [address for _, address in parsed.to] == [mail.to]
    assert parsed.message_id == mail.message_id
    assert [_plain(text) for text in parsed.text_plain] == [_plain(mail.part("plain"))]
    assert [_plain(text) for text in parsed.text_html] == [_plain(mail.part("html"))]
    assert parsed.attachments == []
    assert not parsed.defects


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def check_html(mail: Mail) -> set[str]:
    """Valid without a single parse error; gives the addresses of its links."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(mail.part("html"))
    assert tree.get("lang") in ("sv", "en")
    assert tree.find(".//title") is not None
    tags = {element.tag for element in tree.iter() if isinstance(element.tag, str)}
    assert not tags & {"script", "img", "link", "iframe", "form", "object"}  # nothing is fetched, nothing runs
    links = {element.get("href") for element in tree.iter("a")}
    assert all(urlsplit(link).scheme in ("http", "https", "mailto", "tel") for link in links), links
    return links


async def check_links(links: Iterable[str], site: str, *, page: int = 200) -> int:
    """Every link to the site leads to a page (the item's to one of this status); gives how many there were."""
    ours = [link for link in links if link.startswith(site)]
    async with httpx2.AsyncClient(timeout=30, follow_redirects=True) as reader:
        for link in ours:
            answer = await reader.get(link)
            wanted = page if "/nyheter/" in link else 200
            assert answer.status_code == wanted, f"{link}: {answer.status_code}"
            kind = "image/png" if link.endswith(".png") else "text/html"
            assert answer.headers["content-type"].startswith(kind)
    return len(ours)
