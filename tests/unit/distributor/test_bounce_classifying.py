"""What came back is told apart: by labelled examples in the style of many servers, and by hostile bytes.

The examples are invented. Their names begin with the kind that they are; so do the lines of `bounce_answers.txt`.
"""

import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bent_mail import bent
from tests.costs import within

from distributor.bounces.classifying import Report, classify, judged
from distributor.bounces.phrases import Kind

EXAMPLES = sorted((Path(__file__).parent / "bounce_examples").glob("*.eml"))
ANSWERS = (Path(__file__).parent / "bounce_answers.txt").read_text(encoding="utf-8").splitlines()[1:]
HEAD = b"From: MAILER-DAEMON@mx.example\nSubject: Undeliverable\n"


def label(example: Path) -> str:
    return example.name.partition("-")[0]


def test_there_are_enough_examples() -> None:
    assert len(EXAMPLES) >= 120
    assert {label(example) for example in EXAMPLES} == set(Kind)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_what_it_is(example: Path) -> None:
    assert classify(example.read_bytes()).kind == label(example)


def test_an_answer_is_what_it_says() -> None:
    answers = [answer.split(": ", 1) for answer in ANSWERS]
    judgements = [(judged("5.0.0", f"smtp; 550 {words}", "")[0].value, words) for _, words in answers]
    assert judgements == [(kind, words) for kind, words in answers]


def test_line_ends_do_not_matter() -> None:
    for example in EXAMPLES:
        assert classify(example.read_bytes().replace(b"\n", b"\r\n")).kind == label(example)


@pytest.mark.parametrize("before", [b"\n\n", b" " * 400 + b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf \t\r\n\r\n"])
def test_what_stands_before_the_first_header_does_not_matter(before: bytes) -> None:
    for example in EXAMPLES:
        assert classify(before + example.read_bytes()).kind == label(example)


QUOTED = b"""
> Final-Recipient: rfc822; eva@kommun.example
Final-Recipient: rfc822; eva@kommun.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 user unknown
550 5.1.1 The mailbox that you wrote to does not exist
"""


@pytest.mark.parametrize("example", [one for one in EXAMPLES if label(one) in ("out_of_office", "auto_reply")], ids=str)
def test_f47_an_automatic_reply_is_no_bounce_whatever_it_quotes(example: Path) -> None:
    raw = example.read_bytes()
    head, _, body = raw.partition(b"\n\n")
    assert classify(raw + QUOTED).kind == label(example)
    assert classify(head + b"\n\n" + QUOTED + body).kind != Kind.HARD


def test_nor_is_a_letter_of_somebody_who_pastes_a_report() -> None:
    letter = b"From: Eva <eva@kommun.example>\nSubject: Konstigt svar\n\nJag fick det har:\n" + QUOTED
    assert classify(letter).kind == Kind.UNKNOWN


def test_who_and_what_is_read_of_a_report() -> None:
    report = classify((EXAMPLES[0].parent / "hard-dsn-postfix-virtual-table.eml").read_bytes())
    assert report.recipient == "eva@kommun.example"
    assert report.status == "5.1.1"
    assert report.reporting_mta == "relay.forbundet.example"
    assert report.returned_message_id.startswith("<nyhet")
    assert "User unknown in virtual mailbox table" in report.diagnostic
    assert "@" not in report.diagnostic


@pytest.mark.parametrize(
    ("kind", "status", "diagnostic"),
    [
        ("hard", "5.1.1", ""),
        ("hard", "5.1.2", ""),
        ("hard", "5.1.10", ""),
        ("hard", "5.1.0", "smtp; 550 gone"),
        ("hard", "5.0.0", "smtp; 550 5.1.1 no"),
        ("hard", "5.0.0", "smtp; 550 <a@b.example>: Recipient address rejected"),
        ("hard", "4.4.7", "smtp; 550 User unknown"),
        ("soft", "4.1.1", "smtp; 450 4.1.1 User unknown"),
        ("soft", "5.0.0", "smtp; 451 4.7.1 Greylisted"),
        ("full", "5.1.1", "smtp; 550 5.1.1 mailbox is full"),
        ("policy", "5.1.1", "smtp; 550 5.1.1 message looks like spam"),
        ("policy", "5.7.1", ""),
        ("policy", "5.7.999", "smtp; 550 something new"),
        ("policy", "5.6.1", ""),
        ("policy", "5.2.1", "smtp; 550 5.2.1 The user is receiving mail at a rate that is too high"),
        ("soft", "5.4.1", "smtp; 550 no answer"),
        ("unknown", "5.0.0", ""),
        ("unknown", "", ""),
        ("hard", "5.0.0", "smtp; 550 <spam@virus.example> unknown user"),
        ("policy", "5.1.7", "smtp; 501 5.1.7 Invalid address: studs (sender)"),
        ("policy", "5.1.8", "smtp; 550 5.1.8 unknown user"),
    ],
)
def test_status_and_words_are_weighed(kind: str, status: str, diagnostic: str) -> None:
    assert judged(status, diagnostic, "")[0] == kind


def hostile() -> dict[str, bytes]:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (at, at) for at in range(1000))
    fields = b"Status: 5.0.0\nDiagnostic-Code: smtp; 550 unknown. address. x\n\n"
    report = HEAD + b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
    return {
        "nothing": b"",
        "ten megabytes of zeros": bytes(10_000_000),
        "ten megabytes of words": HEAD + b"\n" + b"user unknown " * 800_000,
        "a thousand levels": nested,
        "messages in messages": b"Content-Type: message/rfc822\n\n" * 20_000,
        "parts without end": HEAD + b"Content-Type: multipart/report; boundary=b\n\n" + b"--b\n\nx\n" * 100_000,
        "headers without end": b"a:b\n" * 1_000_000,
        "encoded words": b"Subject: " + b"=?utf-8?q?=61?= " * 300_000 + b"\n\nx",
        "open brackets": HEAD + b"Content-Type: text/html\n\n" + b"<" * 5_000_000,
        "open styles": HEAD + b"Content-Type: text/html\n\n" + b"<style" * 500_000,
        "at signs": HEAD + b"\n" + b"a@" * 2_000_000,
        "codes": HEAD + b"\n" + b"550 5." * 1_000_000,
        "reports without end": report + fields * 100_000,
        "fields in text": HEAD + b"\n" + b"status: 5.1.1\n\n" * 300_000,
        "a codec that is no charset": b"Content-Type: text/plain; charset=punycode\n\n" + b"\xff" * 1_000_000,
        "an empty boundary": HEAD + b'Content-Type: multipart/mixed; boundary=""\n\n----\n\nx',
        "noise": random.Random(1).randbytes(1_000_000),
    }


@pytest.mark.parametrize("name", hostile())
def test_b39_hostile_mail_costs_little(name: str) -> None:
    raw = hostile()[name]
    within(0.05, lambda: classify(raw))
    tracemalloc.start()
    classify(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 20_000_000


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_b39_no_bytes_raise(raw: bytes) -> None:
    assert isinstance(classify(raw), Report)


PIECES = st.sampled_from(
    [
        b"Content-Type: multipart/report; boundary=b\n",
        b"Content-Type: message/delivery-status\n",
        b"Content-Type: message/rfc822\n",
        b"Content-Type: message/feedback-report\n",
        b"Content-Transfer-Encoding: base64\n",
        b"Content-Transfer-Encoding: quoted-printable\n",
        b"Subject: =?utf-8?b?w5?=\n",
        b"From: MAILER-DAEMON\n",
        b"--b\n",
        b"--b--\n",
        b"\n",
        b"Status: 5.1.1\n",
        b"Action: failed\n",
        b"Final-Recipient: rfc822;\n",
        b"Diagnostic-Code: smtp; 550 user unknown\n",
        b"Received: from x\n",
        b"=ZZ =\n",
        b"\xff\xfe\x1b$B\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=40))
def test_no_report_taken_apart_and_put_together_wrongly_raises(pieces: list[bytes]) -> None:
    report = classify(b"".join(pieces))
    assert len(report.diagnostic.encode()) <= 4096
    assert "\0" not in report.diagnostic + report.recipient + report.reporting_mta + report.reason


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(EXAMPLES), st.randoms(use_true_random=False))
def test_no_example_raises_however_it_is_bent(example: Path, chance: random.Random) -> None:
    raw = bent(example.read_bytes(), chance)
    report = within(0.5, lambda: classify(raw))
    assert len(report.diagnostic.encode()) <= 4096
    told = (report.status, report.reason, report.diagnostic, report.recipient, report.reporting_mta)
    assert "\0" not in "".join(told)
    assert "".join(told).encode().decode() == "".join(told)  # a database takes it
