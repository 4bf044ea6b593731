"""What a mail that came back is: a bounce (of which kind), a complaint, an automatic reply, or nothing of the sort.

In order: what machines say in fields made for it (RFC 5965, RFC 8098, RFC 3464); then whether it is a bounce at all;
then the words. Within a bounce a status of RFC 3463 decides where it says something; the receiver's own words beat a
vague one (5.0.0, 5.3.0, 5.5.0), and some precise ones that servers are known to misuse. In doubt a report is not hard:
a wrong "hard" takes somebody's news away, a missed one costs a mail.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distributor.bounces.mime import Headers
from distributor.bounces.phrases import ADDRESS, TABLES, Kind, matching, normalised
from distributor.bounces.reading import Evidence, read
from distributor.bounces.signs import delay_announced, is_bounce, is_complaint, reply_kind

LONGEST_DIAGNOSTIC = 4_096
"""Octets kept of a server's words."""

ENHANCED = re.compile(r"(?<![\d.])([45]\.\d{1,3}\.\d{1,3})(?![\d.])")
REPLY = re.compile(r"(?<![\w.])(421|4[35]\d|5[0-5]\d)(?=[ \-#:]|$)")
NAMED = re.compile(r"^\s{0,8}<([^<>\s@]{1,64}@[^<>\s@]{1,255})>", re.MULTILINE)
QUOTED_REPLY = re.compile(r"(?:^|[:(\"'>#]) {0,4}([45]\d\d[ -](?:[^\n]|\n(?![ \t]*\n)){1,400})", re.MULTILINE)
"""What the receiver said, where the reporter quotes it in prose: from the reply code to the end of the paragraph."""
BEFORE_RCPT = re.compile(
    r"(?:in reply to|response to|after|>>>)\s{1,9}(?:the )?(?:mail\b|helo\b|ehlo\b|lhlo\b|initial connection)",
    re.IGNORECASE,
)
AT_RCPT = re.compile(
    r"(?:in reply to|response to|after|>>>)\s{1,9}(?:the )?(?:rcpt\b|end of data|data\b)", re.IGNORECASE
)
"""Which command was refused, as Postfix, Exim and sendmail tell it."""
AFTER_DATA = re.compile(r">>> ?DATA\s+<<< ?5\d\d|(?:to|after) end of data|smtp command\s+data\b", re.IGNORECASE)
BARELY_UNKNOWN = re.compile(
    r" (?:smtp; )?550[ :]+(?:unknown user|user unknown)[ :]*(?:<? ?<@> ?>?)?(?: \(in reply.*)? "
)
"""Mobile carriers of Japan say this, and no more, after DATA when the recipient's own filter refused the mail."""
NXDOMAIN = re.compile(r"\bNXDOMAIN\b", re.IGNORECASE)
"""Gmail gives up at once on a domain that does not exist, and writes 4.0.0 all the same."""
COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "opt-out-list", "virus", "other", "miscategorized", ""})

DIAGNOSTIC_FIELDS = ("diagnostic-code", "x-supplementary-info", "x400-supplementary-info", "x-notes")

WEIGHT = {kind: rank for rank, kind in enumerate((Kind.HARD, Kind.FULL, Kind.POLICY, Kind.SOFT, Kind.UNKNOWN))}
"""Of several recipients' kinds the first counts: our mails have one recipient each."""

SURE = {
    "5.1.1": Kind.HARD,  # bad mailbox
    "5.1.2": Kind.HARD,  # bad system
    "5.1.3": Kind.HARD,  # bad syntax
    "5.1.4": Kind.HARD,  # ambiguous
    "5.1.6": Kind.HARD,  # has moved
    "5.1.7": Kind.POLICY,  # the sender's address
    "5.1.8": Kind.POLICY,
    "5.1.10": Kind.HARD,  # null MX (RFC 7505); Exchange: no such recipient
    "5.1.20": Kind.HARD,  # Exchange: several or no such recipients
    "5.2.1": Kind.HARD,  # disabled
    "5.2.2": Kind.FULL,
    "5.2.3": Kind.POLICY,  # too long for the mailbox
    "5.3.4": Kind.POLICY,  # too big for the system
    "5.4.6": Kind.SOFT,  # loop
    "5.4.7": Kind.SOFT,  # too long on its way
    "5.4.14": Kind.SOFT,
    "5.4.310": Kind.HARD,  # Exchange: the domain does not exist
    "5.7.17": Kind.HARD,  # the mailbox has a new owner (RFC 7293)
    "5.7.18": Kind.HARD,
}
OF_THE_SENDER = frozenset({"5.1.7", "5.1.8"})
"""Whose address is unknown here is us, whatever words follow."""
FAIR = {
    "5.1.0": Kind.HARD,
    "5.4.4": Kind.HARD,  # unable to route: no such host
    "5.3.2": Kind.SOFT,
    "5.3.1": Kind.FULL,
    "5.4.1": Kind.SOFT,
    "5.4.3": Kind.SOFT,
}
"""Statuses that words may overrule."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was read of a mail. `recipient` and `diagnostic` are claims of whoever wrote it."""

    kind: Kind
    reason: str = ""
    status: str = ""
    diagnostic: str = ""
    recipient: str = ""
    reporting_mta: str = ""
    returned_message_id: str = ""
    message_id: str = ""


def classify(raw: bytes) -> Report:
    """The report in `raw`; never raises for what is in it."""
    evidence = read(raw)
    kind, reason, status, diagnostic = _verdict(evidence)
    return Report(
        kind=kind,
        reason=reason,
        status=status,
        diagnostic=_cut(diagnostic or evidence.notice),
        recipient=_recipient(evidence),
        reporting_mta=evidence.reporting_mta.rpartition(";")[2].strip()[:255],
        returned_message_id=evidence.returned.get("message-id")[:250],
        message_id=evidence.headers.get("message-id")[:250],
    )


Verdict = tuple[Kind, str, str, str]


def _verdict(evidence: Evidence) -> Verdict:
    if evidence.feedback is not None:
        return _complaint(evidence.feedback)
    if not evidence.groups and is_complaint(evidence):
        return Kind.COMPLAINT, "abuse", "", ""
    if evidence.told_in_text and (reply_kind(evidence) is not None or not is_bounce(evidence)):
        return _unreported(evidence)
    tried = [group for group in evidence.groups if _action(group) not in {"delivered", "relayed", "expanded"}]
    if tried:
        return min((_of_group(group, evidence) for group in tried), key=lambda verdict: WEIGHT.get(verdict[0], 9))
    if evidence.groups:
        return Kind.UNKNOWN, "delivered", "", ""
    return _unreported(evidence)


def _unreported(evidence: Evidence) -> Verdict:
    """What a mail without fields for machines is."""
    replied = reply_kind(evidence)
    if evidence.is_receipt:
        return _of_receipt(evidence)
    if replied is not None:
        return replied, "automatic reply", "", ""
    return _of_text(evidence) if is_bounce(evidence) else (Kind.UNKNOWN, "no report", "", "")


def _of_receipt(evidence: Evidence) -> Verdict:
    """A mail store may say in a receipt that it had no room; anything else there is the reader's own doing."""
    kind, reason, status = judged("", "", evidence.notice)
    return (kind, reason, status, "") if kind is Kind.FULL else (Kind.AUTO_REPLY, "read receipt", "", "")


def _complaint(feedback: Headers) -> Verdict:
    told = feedback.get("feedback-type").lower().strip()
    kind = Kind.COMPLAINT if told in COMPLAINTS else Kind.UNKNOWN  # not-spam, auth-failure: nobody complains
    return kind, told or "abuse", "", ""


def _comment(status: str) -> list[str]:
    """Words where only a code should stand."""
    return [status] if re.search(r"[A-Za-z]{3}", status) else []


def _action(group: Headers) -> str:
    found = re.match(r"[a-z]+", group.get("action").lower())
    return found[0] if found else ""


def _of_group(group: Headers, evidence: Evidence) -> Verdict:
    status = _enhanced(group.get("status"))
    words = [word for word in group.all(*DIAGNOSTIC_FIELDS) if word] or _comment(group.get("status"))
    diagnostic = " ".join(words)
    if _action(group) == "delayed":
        return Kind.DELAYED, "delayed", status, diagnostic
    kind, reason, status = judged(status, diagnostic or _quoted_reply(evidence.notice), evidence.notice)
    return kind, reason, status, diagnostic


def _quoted_reply(notice: str) -> str:
    found = QUOTED_REPLY.search(notice)
    return found[1] if found else ""


def _of_text(evidence: Evidence) -> Verdict:
    if delay_announced(evidence):
        return Kind.DELAYED, "delayed", "", ""
    kind, reason, status = judged("", _quoted_reply(evidence.notice), evidence.notice)
    if kind is Kind.UNKNOWN:  # some say it in the subject alone
        kind, reason, status = judged("", "", evidence.headers.get("subject"))
    return kind, reason, status, ""


def judged(status: str, diagnostic: str, notice: str) -> tuple[Kind, str, str]:
    """Kind, reason and status of one failure: its status, the receiver's words on it, the whole notice.

    Who was refused before the recipient was named knows nothing of the recipient, whatever the words are.
    """
    kind, reason, status = _weighed(status, diagnostic, notice)
    told = f"{diagnostic} {notice}"
    if kind is Kind.HARD and BEFORE_RCPT.search(told) and not AT_RCPT.search(told):
        return Kind.POLICY, "refused before RCPT", status
    return kind, reason, status


def _weighed(status: str, diagnostic: str, notice: str) -> tuple[Kind, str, str]:
    status, said = _best_status(status, diagnostic, notice), normalised(diagnostic)
    first = REPLY.search(diagnostic or notice)
    if status.startswith("4.") and not _contradicted(status, first, diagnostic):
        return _passing(status, said if diagnostic else normalised(notice))
    if first and first[1].startswith("4") and not _telling(status):
        return _passing(first[1], normalised(diagnostic or notice))
    if not _telling(status) and BARELY_UNKNOWN.fullmatch(said) and AFTER_DATA.search(notice):
        return Kind.POLICY, "refused after DATA", status
    rule = matching(TABLES["strong"], said) if diagnostic else None
    if rule is not None and _overrules(rule.kind, status):
        return rule.kind, rule.reason, status
    if status in SURE:
        return SURE[status], status, status
    return _by_words(status, said, normalised(notice))


def _contradicted(status: str, first: re.Match[str] | None, diagnostic: str) -> bool:
    """Whether the words show that a status of 4 was not meant."""
    refused = first is not None and first[1].startswith("5") and not ENHANCED.search(diagnostic)
    return refused or (status == "4.0.0" and NXDOMAIN.search(diagnostic) is not None)


def _by_words(status: str, said: str, noticed: str) -> tuple[Kind, str, str]:
    """Nothing sure: the notice's words, then weak words, then what the status' class makes likely."""
    rule = matching(TABLES["strong"], noticed)
    if rule is not None and (rule.kind is not Kind.HARD or not status.startswith(("5.7", "5.6"))):
        return rule.kind, rule.reason, status
    if status in FAIR:
        return FAIR[status], status, status
    if status.startswith(("5.7.", "5.6.")):
        return Kind.POLICY, status, status
    weak = matching(TABLES["weak"], said) or matching(TABLES["weak"], noticed)
    return (weak.kind, weak.reason, status) if weak else (Kind.UNKNOWN, status, status)


def _overrules(kind: Kind, status: str) -> bool:
    """Whether words of this kind beat that status: not where both are about the recipient, and the status is surer."""
    known = SURE.get(status)
    if status in OF_THE_SENDER:
        return kind is not Kind.HARD
    if known is Kind.HARD:
        return kind in (Kind.FULL, Kind.POLICY)
    return known is not Kind.FULL or kind is Kind.POLICY


def _passing(status: str, said: str) -> tuple[Kind, str, str]:
    rule = matching(TABLES["strong"], said)
    full = status == "4.2.2" or (rule is not None and rule.kind is Kind.FULL)
    return (Kind.FULL if full else Kind.SOFT), rule.reason if rule else status, status


def _best_status(status: str, diagnostic: str, notice: str) -> str:
    """The most telling status: the receiver's own, in its words, before the one that the reporter made of it."""
    candidates = [*_statuses(diagnostic), status] if status or diagnostic else []
    if not any(_telling(one) for one in candidates):
        candidates += _statuses(notice)
    return next((one for one in candidates if _telling(one)), next((one for one in candidates if one), ""))


def _statuses(text: str) -> list[str]:
    found = ENHANCED.findall(text)
    return sorted(set(found), key=lambda one: (one[0] != "5", found.index(one)))


def _telling(status: str) -> bool:
    return status != "" and not status.endswith(".0.0") and status not in {"5.3.0", "5.5.0", "5.2.0", "5.4.0", "5.1.0"}


def _enhanced(text: str) -> str:
    found = ENHANCED.search(text)
    return found[1] if found else ""


def _recipient(evidence: Evidence) -> str:
    fields = ("original-recipient", "final-recipient", "x-actual-recipient")
    told = [group.get(name) for group in evidence.groups for name in fields]
    told += [evidence.headers.get("x-failed-recipients")]
    told += [found[1] for found in NAMED.finditer(evidence.notice)][:1]
    if evidence.feedback is not None:
        told += [evidence.feedback.get("original-rcpt-to"), evidence.feedback.get("removal-recipient")]
    told += [evidence.returned.get("to"), evidence.notice]
    return _first_address(told)


def _first_address(texts: Sequence[str]) -> str:
    return next((found[0].strip(".")[:254] for text in texts if (found := ADDRESS.search(text))), "")


def _cut(text: str) -> str:
    """One line, no addresses: nothing personal is kept with the proof."""
    line = " ".join(ADDRESS.sub("[address]", text).split())
    printable = "".join(letter if letter.isprintable() else "�" for letter in line)
    return printable.encode("utf-8", "replace")[:LONGEST_DIAGNOSTIC].decode("utf-8", "ignore")
