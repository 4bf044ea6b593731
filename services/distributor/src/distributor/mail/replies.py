"""What a relay's answer means for a delivery.

Decided by the phase and the reply code, never by how a library names an error: the same exception stands for a
connection lost at DATA (surely not delivered) and one lost after the final dot (perhaps delivered). Pure functions,
tested by table.

Whose fault it is decides what may follow. Only what is surely about the recipient (RFC 3463: 5.1.x, 5.2.x and a few
known dialects) may suppress anybody; what speaks of us (5.7.x, authentication, block lists) must never, or one bad day
with a spam filter would empty the registers. So where code and status put it on the recipient, the words have a veto:
servers write 5.2.0 for DMARC, 5.2.1 for too many mails and 550 for a full mailbox. They are read as in a bounce. And
at RCPT, words that speak of the recipient and of nothing else are believed beside a status of another kind.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from distributor.bounces.classifying import judged
from distributor.bounces.phrases import Kind
from distributor.channels import Fault
from shared.contracts.delivery import DeliveryState

MAX_REPLY_OCTETS = 4096

LONGEST_READ = 1_000
"""Characters of a refusal whose words are looked at: reading them takes a millisecond at most."""

SERVICE_CLOSING = 421
TOO_BIG = 552
BAD_COMMANDS = frozenset({500, 501, 502, 503, 504})
NEEDS_LOGIN = frozenset({530, 534, 535, 538})
NAMES_RECIPIENT = frozenset({550, 551, 553, 554})
NO_MAIL_HERE = frozenset({521, 556})  # RFC 7504: the host or domain takes no mail at all

SENDER_ADDRESS = frozenset({"1.7", "1.8"})  # "bad sender's address": X.1.x, yet about us
RECIPIENT_DIALECTS = frozenset({"4.1", "4.4", "7.17"})  # Exchange Online says 5.4.1 for "no such user"
RECIPIENT_UNTRUSTED = frozenset({"5.0"})  # Outlook.com: "550 5.5.0 mailbox unavailable"
CONTENT_DETAILS = frozenset({"2.3", "3.4"})  # too long for the mailbox, too big for the system
FULL_MAILBOX = "2.2"

STATUS = r"([245]\.\d{1,3}\.\d{1,3})"
ENHANCED = re.compile(rf"^{STATUS}(?![\d.])|\(#{STATUS}\)\s*$", re.MULTILINE)
"""At the beginning of a line (RFC 2034), or in parentheses at its end, as qmail has it."""
ABOUT_US = re.compile(
    r"block|black.?list|deny.?list|\brbl\b|dnsbl|spamhaus|spam|reputation|relay|denied|polic|authenti|\bauth\b|banned"
    r"|prohibit|(?<!name )not (?:allowed|permitted)|sender (?:verif|address|domain|not|reject|unknown)|rcpthosts"
    r"|\bhelo\b|\bspf\b|\bdkim\b|\bdmarc\b|reverse dns|\brdns\b|\bptr\b|(?<!not )\blisted\b",
    re.IGNORECASE,
)
GREETS_STRANGERS = frozenset({450, 451})
GREYLISTING = re.compile(r"gr[ea]y.?list", re.IGNORECASE)
PATIENCE = re.compile(r"gr[ea]y.?list|try (?:it )?again|too (?:many|fast)|\brate\b", re.IGNORECASE)


class Phase(StrEnum):
    """How far the dialogue had come. DOT: the final dot was written, so the server may have the mail."""

    CONNECT = "connect"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


OPENING = frozenset({Phase.CONNECT, Phase.AUTH, Phase.MAIL})
"""Nothing has been said of the recipient or the content yet."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means; the fields are `Outcome`'s."""

    state: DeliveryState
    fault: Fault = Fault.NONE
    counts: bool = True


SENT = Verdict(DeliveryState.SENT)
UNCERTAIN = Verdict(DeliveryState.UNCERTAIN)
LATER = Verdict(DeliveryState.DEFERRED)
RECIPIENT_LATER = Verdict(DeliveryState.DEFERRED, Fault.RECIPIENT)
RELAY_LATER = Verdict(DeliveryState.DEFERRED, Fault.SYSTEM)
RELAY_AWAY = Verdict(DeliveryState.DEFERRED, Fault.SYSTEM, counts=False)
BOUNCED = Verdict(DeliveryState.BOUNCED, Fault.RECIPIENT)
CONTENT_REFUSED = Verdict(DeliveryState.FAILED, Fault.CONTENT)

VETOES = {Kind.POLICY: RELAY_LATER, Kind.SOFT: LATER, Kind.FULL: RECIPIENT_LATER}


def classify(phase: Phase, code: int | None, enhanced: str, text: str) -> Verdict:  # noqa: PLR0911 - one case a line
    """The meaning of an answer. `code` is None when the connection broke, fell silent or spoke gibberish.

    A refusal before RCPT is ours alone and does not count against the delivery. From RCPT on it does, even where the
    relay is to blame: a mail that breaks the relay each time must end some day.
    """
    if code is None:
        return UNCERTAIN if phase is Phase.DOT else _of_relay(phase)
    if phase is Phase.DOT and 200 <= code < 300:
        return SENT
    if phase is Phase.MAIL and code >= 500 and (code == TOO_BIG or _about_content(enhanced[2:])):
        return CONTENT_REFUSED  # the answer to this mail's own SIZE or SMTPUTF8 (RFC 1870, RFC 6531)
    if phase in OPENING or code == SERVICE_CLOSING:
        return _of_relay(phase)
    if 400 <= code < 500:
        return _temporary(phase, enhanced[2:], text)
    if 500 <= code < 600:
        return _in_words(phase, code, text, _permanent(phase, code, enhanced[2:], text))
    return UNCERTAIN if phase is Phase.DOT else RELAY_LATER


def greylisted(phase: Phase, code: int | None, enhanced: str, text: str) -> bool:
    """Whether a server greets us as strangers: this recipient's mail is welcome in some minutes (RFC 6647)."""
    if code not in GREETS_STRANGERS or phase not in (Phase.RCPT, Phase.DATA, Phase.DOT):
        return False
    return bool(GREYLISTING.search(text)) or (phase is Phase.RCPT and enhanced == "4.7.1")


def _of_relay(phase: Phase) -> Verdict:
    return RELAY_AWAY if phase in OPENING else RELAY_LATER


def _temporary(phase: Phase, detail: str, text: str) -> Verdict:
    if detail.startswith("3."):
        return RELAY_LATER
    if detail.startswith(("1.", "2.")) and not PATIENCE.search(text):
        return RECIPIENT_LATER
    return LATER


def _permanent(phase: Phase, code: int, detail: str, text: str) -> Verdict:  # noqa: PLR0911 - one case a line
    if detail and detail != "0.0":
        return _by_enhanced(phase, code, detail)
    if code in NEEDS_LOGIN or code in BAD_COMMANDS:
        return RELAY_LATER
    if phase is not Phase.RCPT:
        return RELAY_LATER if ABOUT_US.search(text) else CONTENT_REFUSED
    if code in NO_MAIL_HERE:
        return BOUNCED
    if code == TOO_BIG:  # RFC 5321: "exceeded storage allocation"; mailboxes are emptied
        return RECIPIENT_LATER
    if code in (550, 551, 553) and not ABOUT_US.search(text):
        return BOUNCED
    return RELAY_LATER


def _in_words(phase: Phase, code: int, text: str, verdict: Verdict) -> Verdict:
    """`verdict`, unless the words say otherwise."""
    if verdict is BOUNCED:
        return VETOES.get(_said(code, text), BOUNCED)
    named = phase is Phase.RCPT and verdict is RELAY_LATER and code in NAMES_RECIPIENT
    if named and not ABOUT_US.search(text) and _said(code, text) is Kind.HARD:
        return BOUNCED
    return verdict


def _said(code: int, text: str) -> Kind:
    return judged(enhanced_status(text), f"smtp; {code} {text[:LONGEST_READ]}", "")[0]


def _by_enhanced(phase: Phase, code: int, detail: str) -> Verdict:  # noqa: PLR0911 - one case a line
    if _about_content(detail):
        return CONTENT_REFUSED
    if detail == FULL_MAILBOX:  # RFC 3463: "should be used as a persistent transient failure"
        return RECIPIENT_LATER
    if detail in SENDER_ADDRESS:
        return RELAY_LATER
    if detail.startswith(("1.", "2.")) or detail in RECIPIENT_DIALECTS:
        return BOUNCED
    if phase is Phase.RCPT and code == 550 and detail in RECIPIENT_UNTRUSTED:
        return BOUNCED
    if detail.startswith(("3.", "4.", "5.", "7.")) or phase is Phase.RCPT:  # system, network, protocol, policy
        return RELAY_LATER
    return CONTENT_REFUSED


def _about_content(detail: str) -> bool:
    return detail in CONTENT_DETAILS or detail.startswith("6.")


def enhanced_status(text: str) -> str:
    """The enhanced status code of a reply's text, or nothing."""
    found = ENHANCED.search(text)
    return found[1] or found[2] if found else ""


def printable(text: str) -> str:
    """A receiver's words, fit for a table, a page and a log: one line, no control characters, at most 4 kB."""
    if text.isascii() and text.isprintable() and len(text) <= MAX_REPLY_OCTETS:
        return text
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line.encode("utf-8", "replace")[:MAX_REPLY_OCTETS].decode("utf-8", "ignore")
