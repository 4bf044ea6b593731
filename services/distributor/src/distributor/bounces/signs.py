"""Signs by which a mail without any machine-readable report is told: a bounce, an automatic reply, or a person's mail.

The tables are in `signs.txt`: who writes it, what its subject says, what its first words are.
"""

import re
from importlib.resources import files

from distributor.bounces.phrases import Kind, split_phrases
from distributor.bounces.reading import Evidence

ANSWERS = re.compile(r"^\s*(?:re|sv|aw|vs|fwd?|vb|wg|tr|rv|enc|antw|odp)\s*:", re.IGNORECASE)


def _tables() -> dict[str, tuple[str, ...]]:
    source = (files(__package__) / "signs.txt").read_text(encoding="utf-8")
    sections = re.split(r"^\[(\w+)\]$", re.sub(r"^#.*$", "", source, flags=re.MULTILINE), flags=re.MULTILINE)
    return {sections[at]: split_phrases(sections[at + 1]) for at in range(1, len(sections), 2)}


SIGNS = _tables()
DAEMONS, UNDELIVERED, OPENINGS = SIGNS["daemons"], SIGNS["undelivered"], SIGNS["openings"]
AWAY, AUTOMATIC, CHALLENGES = SIGNS["away"], SIGNS["automatic"], SIGNS["challenges"]
LATE, ENDED = SIGNS["late"], SIGNS["ended"]
COMPLAINTS = SIGNS["complaints"]
AUTOMATIC_FIELDS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponse",
    "x-autoreply-from",
    "x-vacation",
    "x-mail-autoreply",
)


def is_bounce(evidence: Evidence) -> bool:
    """Whether a server speaks of a mail that it could not deliver."""
    headers = evidence.headers
    if headers.get("x-failed-recipients") or "delivery-status" in headers.get("content-type").lower():
        return True
    subject = headers.get("subject").lower()
    notice = " ".join(evidence.notice.lower().replace("’", "'").split())[:1500]
    named = _names(UNDELIVERED, subject) and not ANSWERS.match(subject)
    opened = _names(OPENINGS, notice)
    path = headers.get("return-path").strip()
    if _from_a_daemon(evidence):
        written_by_hand = path not in ("<>", "") or bool(ANSWERS.match(subject))  # postmasters are people too
        return named or opened or "report" in headers.get("content-type").lower() or not written_by_hand
    return (named and (opened or path in ("<>", ""))) or (opened and path == "<>")


def is_complaint(evidence: Evidence) -> bool:
    """Whether a provider passes a mail back because its reader called it spam, in a form before RFC 5965 (JMRP)."""
    return "message/rfc822" in evidence.kinds and _names(COMPLAINTS, evidence.headers.get("subject").lower())


def reply_kind(evidence: Evidence) -> Kind | None:
    """Which automatic reply it is, if it is one."""
    headers = evidence.headers
    subject = headers.get("subject").lower()
    opening = " ".join(evidence.notice.lower().split())[:400]
    reported = _first(UNDELIVERED, subject) < _first((*AWAY, *AUTOMATIC, *CHALLENGES), subject)
    if reported and (_from_a_daemon(evidence) or is_bounce(evidence)):
        return None
    if _names(AWAY, subject):
        return Kind.OUT_OF_OFFICE
    automatic = _names(AUTOMATIC, subject) or _names(CHALLENGES, subject) or _says_so(evidence)
    if not automatic and (_from_a_daemon(evidence) or not _names((*AWAY, *CHALLENGES), opening)):
        return None
    return Kind.OUT_OF_OFFICE if _names(AWAY, opening) else Kind.AUTO_REPLY


def delay_announced(evidence: Evidence) -> bool:
    """Whether the server goes on trying."""
    text = f"{evidence.headers.get('subject')} {evidence.notice}".lower().replace("’", "'")
    text = " ".join(text.split())
    return _names(LATE, text) and not _names(ENDED, text)


def _says_so(evidence: Evidence) -> bool:
    """RFC 3834 and what stood for it before. Servers put it on bounces too, so it counts only for others."""
    headers = evidence.headers
    if any(headers.get(name) for name in AUTOMATIC_FIELDS):
        return True
    told = headers.get("auto-submitted").lower().startswith("auto-replied")
    old = headers.get("precedence").lower() in {"auto_reply", "auto-reply", "autoreply"}
    return (told or old) and not is_bounce(evidence)


def _from_a_daemon(evidence: Evidence) -> bool:
    author = evidence.headers.get("from").strip()
    written_by = f"{author} {evidence.headers.get('sender')}".lower()
    if author == "<>":  # an author that may not be answered
        return True
    return _names(DAEMONS, written_by) or evidence.headers.get("return-path").lower().startswith("<mailer-daemon")


def _names(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _first(phrases: tuple[str, ...], text: str) -> int:
    return min((at for phrase in phrases if (at := text.find(phrase)) >= 0), default=len(text) + 1)
