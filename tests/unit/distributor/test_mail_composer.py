"""The mails as others read them: mail-parser, Perl, html5lib."""

import hashlib
import json
import os
import quopri
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.parser import BytesParser
from pathlib import Path

import html5lib
import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from tests.unit.distributor.mail_examples import (
    FILES,
    ITEM_ID,
    ORIGIN,
    dispatch,
    html_of,
    item,
    of_digest,
    of_item,
    of_request,
    parsed,
    report,
    settings,
    text_of,
)

from distributor.mail import composer as composing
from distributor.mail.composer import Composer, quoted_printable
from distributor.mail.dkim import Canonical
from distributor.mail.letters import CATALOGUES, Unsendable
from shared.contracts.mail import Form
from shared.contracts.news import Audience, Kind, Locale

READER = Path(__file__).parent / "read_mail.pl"
NO_LINKS = {"reason": "", "preferences_url": "", "unsubscribe_url": "", "one_click_url": ""}
NOTE = "Vi skrev 214 unga. Rätt antal är 412."


def examples():
    corrected, withdrawn = of_item(item(revision=2), note=NOTE), of_item(item(revision=3), note=NOTE)
    newsroom = {"audience": Audience.NEWSROOM}
    return {
        "press": dispatch(form=Form.PRESS, **newsroom),
        "news": dispatch(),
        "report": dispatch(of_item(report())),
        "report to newsroom": dispatch(of_item(report()), form=Form.PRESS, **newsroom),
        "correction to newsroom": dispatch(corrected, form=Form.CORRECTION, thread_of=(1,), **newsroom),
        "correction": dispatch(corrected, form=Form.CORRECTION, thread_of=(1,)),
        "withdrawal from newsroom": dispatch(withdrawn, form=Form.WITHDRAWAL, thread_of=(1, 2), **newsroom),
        "withdrawal": dispatch(withdrawn, form=Form.WITHDRAWAL, thread_of=(1, 2)),
        "digest": dispatch(of_digest(), form=Form.DIGEST, audience=None),
        "urgent": dispatch(of_item(item(urgent_reason="Mötet i kväll är inställt."))),
        "press with files": dispatch(of_item(item(attachments=FILES)), form=Form.PRESS, **newsroom),
        "news with files": dispatch(of_item(item(attachments=FILES))),
        "digest of one": dispatch(of_digest(item()), form=Form.DIGEST),
        **{str(form): dispatch(of_request(), form=form, audience=None, **NO_LINKS) for form in composing.REQUEST_FORMS},
    }


ALL = [
    pytest.param(name, locale, id=f"{name} {locale}")
    for name in ("press", *sorted(set(examples()) - {"press"}))
    for locale in Locale
]


@pytest.fixture(scope="module")
def composer():
    return Composer(settings())


def example(name, locale=Locale.SV):
    return examples()[name]._replace(locale=locale)


# Headers


def test_the_headers_say_who_to_whom_and_what(composer):
    mail = composer.compose(dispatch())
    read = parsed(mail.data)

    assert read.from_ == [("Samordningsförbundet i Kalmar län", "nyheter@kalmar.example")]
    assert read.to == [("", "eva.ek@kommun.example")]
    assert read.reply_to == [("", "kansli@kalmar.example")]
    assert read.subject == "Fler unga i Kalmar län får jobb när myndigheter samarbetar"
    assert read.date == datetime(2026, 11, 22, 7, 30, tzinfo=UTC)
    assert read.headers["Date"].endswith("+0000")
    assert read.message_id == mail.message_id
    assert read.headers["Content-Language"] == "sv"
    assert read.headers["X-Budkavle-Item"] == str(ITEM_ID)
    assert read.headers["X-Budkavle-Revision"] == "1"
    assert read.headers["List-Id"].endswith("<politician.kalmar.example>")
    assert "Nyheter för förtroendevalda" in read.headers["List-Id"]
    assert "Auto-Submitted" not in read.headers
    assert not read.attachments
    assert (mail.mail_from, mail.recipient) == ("nyheter@kalmar.example", "eva.ek@kommun.example")


def test_one_click_unsubscribe_follows_rfc_8058(composer):
    sent = dispatch()
    read = parsed(composer.compose(sent).data)

    assert read.headers["List-Unsubscribe"] == f"<{sent.one_click_url}>"
    assert read.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize("form", sorted(composing.REQUEST_FORMS))
def test_requests_are_marked_as_automatic_and_have_nothing_to_leave(composer, form):
    read = parsed(composer.compose(example(form)).data)

    assert read.headers["Auto-Submitted"] == "auto-generated"
    assert not {"List-Unsubscribe", "List-Id", "List-Unsubscribe-Post"} & set(read.headers)
    assert read.subject == "Bekräfta din prenumeration"
    assert f"{ORIGIN}/prenumerera/bekrafta/abc_123-def" in text_of(composer.compose(example(form)).data)


def test_the_envelope_sender_is_the_return_path_where_there_is_one():
    mail = Composer(settings(return_path="studs@kalmar.example")).compose(dispatch())

    assert mail.mail_from == "studs@kalmar.example"
    assert parsed(mail.data).from_[0][1] == "nyheter@kalmar.example"


def test_a_correction_and_a_withdrawal_stand_in_the_thread_of_the_original(composer):
    first = composer.compose(dispatch()).message_id
    correction = composer.compose(example("correction"))
    withdrawal = parsed(composer.compose(example("withdrawal")).data)

    assert parsed(correction.data).headers["In-Reply-To"] == first
    assert withdrawal.headers["In-Reply-To"] == correction.message_id
    assert withdrawal.headers["References"].split() == [first, correction.message_id]
    assert len({first, correction.message_id, withdrawal.message_id}) == 3


def test_the_message_id_is_the_delivery_s_own(composer):
    def identity(**changes):
        return composer.compose(dispatch(**changes)).message_id

    assert identity() == identity(attempt=7, locale=Locale.EN, reason="annat")
    assert identity() != identity(recipient_id=ITEM_ID)
    assert identity() != composer.compose(dispatch(of_item(item(revision=2)))).message_id


def test_the_date_is_when_the_delivery_was_planned_wherever_the_clock_stands(composer):
    stockholm = datetime(2026, 7, 1, 9, 30, tzinfo=timezone(timedelta(hours=2)))

    assert parsed(composer.compose(dispatch(planned_at=stockholm)).data).headers["Date"] == (
        "Wed, 01 Jul 2026 07:30:00 +0000"
    )


# The same bytes, always


@pytest.mark.parametrize(("name", "locale"), ALL)
def test_a_repeat_is_byte_identical_in_another_process(composer, name, locale):
    script = (
        "import sys, hashlib\n"
        "from tests.unit.distributor.test_mail_composer import Composer, Locale, example, settings\n"
        "for line in sys.stdin: name, locale = line.rstrip().split('|'); "
        "print(hashlib.sha256(Composer(settings()).compose(example(name, Locale(locale))).data).hexdigest())"
    )
    if (name, locale) != ("press", Locale.SV):
        again = Composer(settings()).compose(example(name, locale))
        assert again == composer.compose(example(name, locale)) == composer.compose(example(name, locale))
        return
    names = [f"{param.values[0]}|{param.values[1]}" for param in ALL]
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(names),
        env={**os.environ, "PYTHONHASHSEED": "77", "TZ": "Pacific/Auckland", "LC_ALL": "C"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [
        hashlib.sha256(composer.compose(example(*param.values)).data).hexdigest()  # type: ignore[misc]
        for param in ALL
    ]
    assert ran.stdout.split() == ours


def test_frames_are_kept_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(composing, "FRAMES_KEPT", 3)
    composer = Composer(settings())
    contents = [of_item(item(title=f"Nyhet {number}")) for number in range(5)]
    first = [composer.compose(dispatch(content)).data for content in contents]

    assert len(composer._frames) == 3
    assert [composer.compose(dispatch(content)).data for content in contents] == first


@pytest.mark.parametrize("reason", ["Du  får \t det här ", " . ", ""])
def test_what_a_signature_covers_is_known_from_the_parts(reason):
    signing = Composer(settings())
    signing._signed = True
    for name in examples():
        mail = signing.compose(example(name)._replace(reason=reason))
        assert mail.canonical == Canonical.of(mail.data), name


def test_requests_are_not_kept():
    composer = Composer(settings())
    composer.compose(example("sign_in"))

    assert not composer._frames


def test_contents_that_differ_never_share_a_frame(composer):
    for title in ("Den ena", "Den andra"):
        assert parsed(composer.compose(dispatch(of_item(item(title=title)))).data).subject == title


# What it says


def test_a_corrected_text_tells_both_days(composer):
    later = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    content = of_item(item(revision=2, revised_at=later), note=NOTE)
    data = composer.compose(dispatch(content, form=Form.CORRECTION, audience=Audience.NEWSROOM)).data

    for part in (text_of(data), html_of(data)):
        assert "Publicerat 22 november 2026" in part and "Rättat 23 november 2026" in part


def test_press_has_the_whole_text_first_ready_to_copy(composer):
    data = composer.compose(example("press")).data
    text, told = text_of(data), item()

    assert text.startswith(f"{told.title}\n\n{told.lead}\n\n{told.body_text}\n\n")
    rest = text.partition(told.body_text)[2]
    order = ["KONTAKT", "070-123 45 67", "vardagar 8–17", "BILDER", "Anna Ek", "spranget-full.jpg", "FAKTA", "OM OSS"]
    positions = [rest.index(word) for word in [*order, told.url, "Du får det här", "Sluta få våra mejl"]]
    assert positions == sorted(positions)
    assert "Två personer vid ett bord" in rest
    assert "pressmeddelande" not in parsed(data).subject.lower()


def test_news_has_headline_lead_one_link_and_the_way_out(composer):
    text = text_of(composer.compose(dispatch()).data)
    told, sent = item(), dispatch()

    assert text.startswith(f"{told.title}\n\n{told.lead}\n\nLäs hela nyheten:\n{told.url}\n\n---\n{sent.reason}\n")
    assert told.body_text not in text
    assert sent.preferences_url in text and sent.unsubscribe_url in text
    for line in ("Box 1, 391 20 Kalmar", ORIGIN, "https://www.facebook.com/samordningsforbundet.example"):
        assert line in text.splitlines()


def test_the_frame_speaks_the_recipients_language_and_says_so_of_the_item(composer):
    data = composer.compose(dispatch(locale=Locale.EN)).data
    text, html = text_of(data), html_of(data)

    assert text.startswith("The news itself is in Swedish.\n\n" + item().title)
    assert "Read the whole story:" in text and "Stop getting our mails:" in text
    assert parsed(data).headers["Content-Language"] == "en, sv"
    assert '<html lang="en">' in html and '<h1 lang="sv"' in html
    assert "Själva nyheten" not in text_of(composer.compose(dispatch()).data)


def test_a_report_comes_with_its_popular_version_and_the_original(composer):
    for name in ("report", "report to newsroom"):
        data = composer.compose(example(name)).data
        for part in (text_of(data), html_of(data)):
            assert "Varannan deltagare kom i arbete" in part
            assert f"{ORIGIN}/filer/spranget-2026.pdf" in part


def test_a_correction_says_what_was_wrong_and_gives_newsrooms_the_whole_text(composer):
    press, news = (composer.compose(example(name)).data for name in ("correction to newsroom", "correction"))

    for data in (press, news):
        assert parsed(data).subject == "Rättelse: Fler unga i Kalmar län får jobb när myndigheter samarbetar"
        assert NOTE in text_of(data) and NOTE in html_of(data)
    assert item().body_text in text_of(press) and "070-123 45 67" in text_of(press)
    assert item().body_text not in text_of(news) and item().url in text_of(news)


def test_a_withdrawal_tells_why_and_never_repeats_the_text(composer):
    for name, order in (("withdrawal from newsroom", "Publicera inte"), ("withdrawal", "Använd den inte")):
        data = composer.compose(example(name)).data
        text = text_of(data)
        assert parsed(data).subject.startswith("Tillbakadragen: ")
        assert order in text and NOTE in text and item().url in text
        for part in (text, html_of(data)):
            assert "412 unga vuxna" not in part and "Insatsen" not in part


def test_b8_what_stands_between_braces_stays(composer):
    tricky = "{{7*7}} {% raw %} ${x} %(y)s %s {# nej #}"
    content = of_item(item(title=tricky, lead=tricky, body_text=tricky, body_html=f"<p>{tricky}</p>"))
    data = composer.compose(dispatch(content, form=Form.PRESS, reason=tricky)).data

    assert parsed(data).subject == tricky
    assert text_of(data).count(tricky) == 4
    assert html_of(data).count(tricky) >= 4


def test_b7_markup_in_plain_fields_is_shown_not_obeyed(composer):
    nasty = '"><img src=x onerror=alert(1)>&amp;'
    content = of_item(item(title=nasty, lead=nasty))
    html = html_of(composer.compose(dispatch(content, reason=nasty, preferences_url=f"{ORIGIN}/?a=1&b='\"")).data)
    tree = html5lib.parse(html, namespaceHTMLElements=False)

    assert tree.find(".//img") is None
    assert tree.find(".//h1").text == nasty
    assert f"{ORIGIN}/?a=1&b='\"" in [link.get("href") for link in tree.iter("a")]


def test_a_body_too_long_for_a_mail_is_whole_in_the_text_and_linked_in_html(composer):
    long = "En lång text. " * 8000
    content = of_item(item(body_html=f"<p>{long}</p>", body_text=long.strip()))
    data = composer.compose(dispatch(content, form=Form.PRESS)).data

    assert long.strip() in text_of(data)
    assert "Texten är för lång" in html_of(data) and long not in html_of(data)
    assert len(html_of(data).encode()) < 102_000


# HTML


@pytest.mark.parametrize(("name", "locale"), ALL)
def test_html_is_valid_light_and_fetches_nothing(composer, name, locale):
    html = html_of(composer.compose(example(name, locale)).data)
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)

    assert len(list(tree.iter("h1"))) == 1
    assert tree.get("lang") == locale
    assert not [
        node for tag in ("img", "script", "link", "iframe", "object", "form", "table") for node in tree.iter(tag)
    ]
    assert "url(" not in html and "@import" not in html and "http-equiv" not in html
    assert not [node for node in tree.iter() if node.get("src") or node.get("background")]
    assert all(re.match(r"(https|mailto|tel):", link.get("href")) for link in tree.iter("a"))
    assert all("".join(link.itertext()).strip() for link in tree.iter("a"))
    assert len(html.encode()) < 102_000


def test_images_in_a_body_become_their_words_and_its_top_heading_sinks(composer):
    body = '<h1>Rubrik</h1><p><img src="https://x.example/y.png" alt="En > två"> <img alt=\'Tre\'><img src="z"></p>'
    html = html_of(composer.compose(dispatch(of_item(item(body_html=body)), form=Form.PRESS)).data)

    assert "<h2>Rubrik</h2><p>En > två Tre</p>" in html
    assert "x.example" not in html


@pytest.mark.parametrize("name", ["press with files", "news with files"])
def test_files_are_links_with_all_that_a_newsroom_asks(composer, name):
    data = composer.compose(example(name)).data
    image, document = FILES
    text, html = text_of(data), html_of(data)

    assert not parsed(data).attachments
    for words in (text, html5lib_text(html)):
        for told in (
            image.title,
            image.alt,
            image.rights,
            f"Foto: {image.byline}",
            "JPEG, 4000 × 2667 bildpunkter, 2,3",
        ):
            assert told in words
        assert "årsredovisning.pdf" in words and "PDF, 840" in words
    assert all(f"\n{file.url}\n" in text for file in FILES)
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    links = {link.get("href"): "".join(link.itertext()) for link in tree.iter("a")}
    assert links[image.url] == "Mötet i Nybro <2026> (JPEG, 4000 × 2667 bildpunkter, 2,3\N{NO-BREAK SPACE}MB)"
    assert links[document.url] == "årsredovisning.pdf (PDF, 840\N{NO-BREAK SPACE}kB)"
    english = text_of(composer.compose(example(name, Locale.EN)).data)
    assert "Photo: Åsa Öst" in english and "4000 × 2667 pixels, 2.3" in english


def test_a_mail_with_files_is_the_same_in_another_process(composer):
    assert composer.compose(example("press with files")) == Composer(settings()).compose(example("press with files"))


def html5lib_text(html):
    return " ".join("".join(html5lib.parse(html, namespaceHTMLElements=False).itertext()).split())


# Form on the wire


def read_by_perl(data):
    ran = subprocess.run(["perl", str(READER)], input=data, capture_output=True, check=True)
    return json.loads(ran.stdout)


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
@pytest.mark.parametrize(("name", "locale"), ALL)
def test_another_language_reads_the_same(composer, name, locale):
    data = composer.compose(example(name, locale)).data
    read = read_by_perl(data)
    headers = {name.lower(): value for name, value in read["headers"]}

    assert len(headers) == len(read["headers"]), "no field twice"
    assert read["bare"] == 0 and read["eight_bit"] is False and read["longest"] <= 160
    assert headers["subject"] == parsed(data).subject
    assert headers["from"] == "Samordningsförbundet i Kalmar län <nyheter@kalmar.example>"
    assert [part["type"] for part in read["parts"]] == ["text/plain; charset=utf-8", "text/html; charset=utf-8"]
    assert [part["text"].rstrip("\n") for part in read["parts"]] == [
        text_of(data).rstrip("\n"),
        html_of(data).rstrip("\n"),
    ]


def test_an_address_beyond_ascii_makes_an_internationalised_mail(composer):
    mail = composer.compose(dispatch(address="åsa@mönsterås.example"))

    assert mail.smtputf8
    assert mail.recipient == "åsa@xn--mnsters-jxa1m.example"
    assert "To: åsa@xn--mnsters-jxa1m.example\r\n".encode() in mail.data
    assert not composer.compose(dispatch(address="asa@mönsterås.example")).smtputf8


@pytest.mark.parametrize("address", ["", "eva", "eva@kommun.example\r\nBcc: x@y.example"])
def test_no_mail_is_made_for_no_address(composer, address):
    with pytest.raises(Unsendable, match=r"^invalid_address"):
        composer.compose(dispatch(address=address))


def test_a_form_without_its_content_is_named(composer):
    with pytest.raises(Unsendable, match=r"^no_such_form"):
        composer.compose(dispatch(of_request(), form=Form.PRESS))
    with pytest.raises(Unsendable, match=r"^no_such_form"):
        composer.compose(dispatch(form=Form.DIGEST))


@pytest.mark.parametrize(
    "url",
    [
        "https://x.example/\r\nBcc: a@b.example",
        "https://x.example/ y",
        "https://x.example/å",
        "https://x/" + "a" * 2000,
    ],
)
def test_a_link_unfit_for_a_header_is_left_out_of_it(composer, url):
    read = BytesParser(policy=policy.default).parsebytes(composer.compose(dispatch(one_click_url=url)).data)

    assert "List-Unsubscribe" not in read and "Bcc" not in read


WORDS = st.text(max_size=300) | st.text(alphabet="abc åäö=?_\r\n\t \x00\x1b\u2028.{}<>&\"'%😀é\u202e", max_size=300)
KNOWN = {
    "from", "reply-to", "subject", "list-id", "content-language", "x-auto-response-suppress", "x-budkavle-item",
    "x-budkavle-revision", "to", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post", "mime-version",
    "content-type",
}  # fmt: skip


def one_line(text):
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


@trials(max_examples=150, deadline=None)
@given(title=WORDS, reason=WORDS, name=WORDS, lead=WORDS, body=WORDS)
def test_b37_whatever_is_written_is_read_back_and_nothing_more(title, reason, name, lead, body):
    sender = Composer(settings(sender_name=name))
    content = of_item(item(title=title, lead=lead, body_text=body, kind=Kind.NEWS))
    mail = sender.compose(dispatch(content, form=Form.PRESS, reason=reason))
    read = BytesParser(policy=policy.compat32).parsebytes(mail.data)

    assert (
        mail.data
        == Composer(settings(sender_name=name)).compose(dispatch(content, form=Form.PRESS, reason=reason)).data
    )
    assert {field.lower() for field in read.keys()} == KNOWN  # noqa: SIM118
    assert len(read.keys()) == len(KNOWN)
    assert not read.defects
    assert b"\r" not in mail.data.replace(b"\r\n", b"") and b"\n" not in mail.data.replace(b"\r\n", b"")
    assert max(map(len, mail.data.split(b"\r\n"))) <= 200
    assert mail.data.isascii()
    assert mail.dotless and mail.wire == mail.data and b"\n." not in mail.data
    assert parsed(mail.data).subject.strip() == one_line(title)
    ((shown, address),) = parsed(mail.data).from_
    assert address == "nyheter@kalmar.example"
    assert one_line(shown) == (one_line(name) or ("Samordningsförbundet i Kalmar län" if not name else ""))
    text, html = (part.get_payload(decode=True).decode() for part in read.get_payload())
    assert one_line(reason) in one_line(text)
    assert html5lib.parse(html, namespaceHTMLElements=False).find(".//h1") is not None


@given(st.text() | st.text(alphabet="a=. \t\n😀", max_size=400))
def test_b38_quoted_printable_comes_back_and_leaves_room_for_a_soft_break(text):
    text = text.replace("\r", "")
    data = quoted_printable(text)

    assert quopri.decodestring(data).decode() == text.replace("\n", "\r\n")
    assert all(len(line) <= 76 for line in data.split(b"\r\n"))
    assert len(data.split(b"\r\n")[-1]) <= 75
    assert not any(line.startswith(b".") for line in data.split(b"\r\n"))


@pytest.mark.parametrize("lead", range(70, 80))
def test_a_link_full_of_dots_begins_no_line_with_one(composer, lead):
    url = "https://forbundet.example/".ljust(lead, "x") + "." * 160
    data = composer.compose(dispatch(unsubscribe_url=url)).data
    assert b"\n." not in data
    assert url in text_of(data) and url in html_of(data)


def test_every_swedish_text_has_its_english():
    with (CATALOGUES / "en.po").open("rb") as source:
        catalogue = read_po(source)
    templates = CATALOGUES.parent / "templates"
    used = {
        found[2]
        for method, pattern in (("jinja2", "**.html"), ("jinja2", "**.txt"))
        for found in extract_from_dir(str(templates), method_map=[(pattern, method)])
    } | {*composing.LIST_NAMES.values(), composing.DIGEST_NAME}
    translated = {message.id for message in catalogue if message.id and message.string}

    assert used == translated


def test_a_newsroom_that_prints_at_once_gets_no_surprise_in_utc(composer):
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)

    assert "Publicerat 23 november 2026" in text_of(
        composer.compose(dispatch(of_item(item(published_at=late)), form=Form.PRESS)).data
    )
