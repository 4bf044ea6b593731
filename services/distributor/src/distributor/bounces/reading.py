"""From a mail's bytes to what it says for itself: fields of machines, words of servers, headers of the mail it returns.

No judgement here (see `classifying`). Nothing raises, whatever the bytes are: what cannot be read is not there.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import unescape

from distributor.bounces.mime import Headers, Part, inner, parse_fields, parts_of

LONGEST_NOTICE = 6_000
MOST_GROUPS = 20

RECIPIENT_FIELDS = frozenset({"final-recipient", "original-recipient", "action", "status", "diagnostic-code"})
RETURNED_KINDS = frozenset({"message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"})
RETURNED_KINDS |= {"message/rfc822-headers", "text/rfc822", "message/partial", "text/global-headers"}

TAG = re.compile(r"<(?:style|script|head)\b[^<]{0,80000}</|<[^<>]{0,2000}>", re.IGNORECASE)
ORIGINAL_BEGINS = re.compile(
    r"^[ \t>|*=_-]{0,40}(?:"
    r"received: ?(?:from|by|\(|via)|return-path: ?<|x-spam-|dkim-signature:|"
    r"(?:this is |below this line is |below is |here is |following is )?(?:a |the )?"
    r"(?:copy of (?:the|your) (?:original )?(?:message|mail)|original message(?! was received)|"
    r"unsent message|returned message|undelivered message|message headers?|"
    r"your (?:original )?(?:message|mail) (?:follows|reads|was)|"
    r"message (?:text|body|header|contents?|was) (?:follows|suppressed|below)|message text|header page|"
    r"returned mail|headers? of (?:the|your) (?:original )?message|rejected message|beginning of|forwarded message|"
    r"transcript of (?:the )?(?:original|message)|message source|ursprüngliche nachricht|ursprungligt meddelande|"
    r"message d'origine|mensaje original|mensagem original|messaggio originale|oorspronkelijk bericht|原邮件|"
    r"元のメッセージ)"
    r")[^\n]{0,120}$",
    re.IGNORECASE | re.MULTILINE,
)
QUOTED_FIELD = re.compile(
    r"^[ \t>]{0,12}(?:subject|to|cc|from|sent|date|message-id|ämne|till|betreff|an|objet|asunto|assunto|oggetto|"
    r"onderwerp|emne|件名|主题|主旨|тема)[ \t]?:.{0,400}$",
    re.IGNORECASE | re.MULTILINE,
)
"""Lines that tell which mail it was; its subject may speak of anything."""
REPORT_BEGINS = re.compile(r"\s*(?:reporting-mta|original-recipient|final-recipient|action)[ \t]*:", re.IGNORECASE)
SMALL_PRINT = re.compile(
    r"\b(?:confidential|privileged|intended recipient(?!s?:)|has been scanned|have been scanned|checked (?:for|by)|"
    r"disclaimer|konfidentiell|sekretess|avsedd för|vertraulich|confidentiel|confidencial|riservat)",
    re.IGNORECASE,
)
"""Paragraphs below the report that speak of viruses and of recipients, and mean neither."""
SHORTEST_NOTICE = 25
"""Characters before the first sign of the returned mail; with fewer, the server speaks after it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a mail says. `groups` are the fields of one recipient each (RFC 3464, section 2.3)."""

    headers: Headers
    kinds: frozenset[str]
    notice: str
    groups: tuple[Headers, ...]
    feedback: Headers | None
    returned: Headers
    reporting_mta: str = ""
    told_in_text: bool = False
    """The groups are lines of a text, which anybody may quote."""

    @property
    def is_receipt(self) -> bool:
        """Whether it tells of a display or a deletion by the reader (RFC 8098), which is no bounce."""
        told = "disposition-notification" in self.headers.get("content-type").lower()
        return told or any("disposition-notification" in kind for kind in self.kinds)


def read(raw: bytes) -> Evidence:
    """Whatever `raw` says."""
    headers, parts = parts_of(raw)
    evidence = _evidence(headers, parts)
    if not evidence.groups and evidence.feedback is None:
        for part in parts:
            if part.kind == "message/rfc822":
                within = _evidence(*inner(part))
                if any("delivery-status" in kind for kind in within.kinds):  # a report within a report
                    return _joined(evidence, within)
    return evidence


def _joined(outer: Evidence, within: Evidence) -> Evidence:
    kinds = outer.kinds | within.kinds
    notice = f"{outer.notice} | {within.notice}"
    return replace(within, headers=outer.headers, kinds=kinds, notice=notice)


def _evidence(headers: Headers, parts: list[Part]) -> Evidence:
    reports = [part.text.replace("\r", "") for part in parts if _is_report(part)]
    groups = [group for report in reports for group in _groups(report)]
    feedback = next((parse_fields(part.text) for part in parts if "feedback-report" in part.kind), None)
    words, rest = _notice(parts)
    returned = next((_returned(part) for part in parts if part.kind in RETURNED_KINDS), None)
    if not groups:
        groups = list(_told_in_text(words))
    return Evidence(
        headers=headers,
        kinds=frozenset(part.kind for part in parts),
        notice=_without_small_print(QUOTED_FIELD.sub("", words[: 2 * LONGEST_NOTICE])[:LONGEST_NOTICE]),
        groups=tuple(groups[:MOST_GROUPS]),
        feedback=feedback,
        returned=returned or parse_fields(rest[:LONGEST_NOTICE]),
        reporting_mta=parse_fields("\n".join(reports)[:LONGEST_NOTICE]).get("reporting-mta"),
        told_in_text=not reports,
    )


def _is_report(part: Part) -> bool:
    """By its type; or by its fields, where a gateway has made an attachment of it."""
    named = "delivery" in part.kind and "status" in part.kind
    return named or (part.kind.startswith("application/") and bool(REPORT_BEGINS.match(part.text[:200])))


def _groups(report: str) -> Iterator[Headers]:
    for block in re.split(r"\n[ \t]*\n", report):
        fields = parse_fields(block)
        if any(name in RECIPIENT_FIELDS for name, _ in fields.fields):
            yield fields


def _told_in_text(words: str) -> Iterator[Headers]:
    """Some servers write the fields of a report as plain text."""
    if re.search(r"^(?:final-recipient|action|status)[ \t]*:", words, re.IGNORECASE | re.MULTILINE):
        fields = parse_fields(words)
        if re.match(r"[245]\.\d", fields.get("status")) or fields.get("final-recipient"):
            yield fields


def _returned(part: Part) -> Headers:
    if part.kind in {"message/rfc822", "message/global"}:
        return inner(part)[0]
    return parse_fields(part.text.lstrip("\n"))


def _notice(parts: Iterable[Part]) -> tuple[str, str]:
    """The server's own words, and what follows them (the returned mail, where it is quoted in the text)."""
    own = _before_the_returned(parts)
    plain = [part.text for part in own if part.kind != "text/html"]
    text = "\n".join(plain[:5])
    if not text.strip():
        text = "\n".join(_without_tags(part.text) for part in own[:5])
    begins = ORIGINAL_BEGINS.search(text)
    while begins and len(text[: begins.start()].strip()) < SHORTEST_NOTICE:
        begins = ORIGINAL_BEGINS.search(text, begins.end() + 1)
        if begins is None:
            return text, ""
    return (text[: begins.start()], text[begins.start() :]) if begins else (text, "")


def _before_the_returned(parts: Iterable[Part]) -> list[Part]:
    """Text leaves up to the returned mail; those behind it only where there are none before."""
    before: list[Part] = []
    after: list[Part] = []
    passed = False
    for part in parts:
        if part.kind in RETURNED_KINDS:
            passed = True
        elif part.kind.startswith("text/"):
            (after if passed else before).append(part)
    said = any(part.body.strip() for part in before)
    return before if said else after


def _without_small_print(text: str) -> str:
    paragraphs = re.split(r"\n[ \t]*\n", text)
    return "\n\n".join(one for at, one in enumerate(paragraphs) if at == 0 or not SMALL_PRINT.search(one))


def _without_tags(text: str) -> str:
    return unescape(TAG.sub(" ", text))
