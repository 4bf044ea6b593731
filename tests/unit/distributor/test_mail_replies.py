"""What a relay's answer means: the table."""

from datetime import timedelta

import pytest

from distributor.channels import Fault
from distributor.mail.replies import Phase, classify, enhanced_status, printable
from distributor.mail.sending import outcome
from distributor.mail.smtp import Ending
from shared.contracts.delivery import DeliveryState

SENT, DEFERRED, BOUNCED, FAILED, UNCERTAIN = (
    DeliveryState.SENT,
    DeliveryState.DEFERRED,
    DeliveryState.BOUNCED,
    DeliveryState.FAILED,
    DeliveryState.UNCERTAIN,
)
NONE, RECIPIENT, CONTENT, SYSTEM = Fault.NONE, Fault.RECIPIENT, Fault.CONTENT, Fault.SYSTEM

TABLE = [
    # Accepted
    ("dot", 250, "2.0.0 Ok: queued as 4F2A", SENT, NONE, True),
    ("dot", 251, "will forward", SENT, NONE, True),
    # No usable answer: what counts is whether the dot was written
    ("connect", None, "Connection refused", DEFERRED, SYSTEM, False),
    ("auth", None, "Connection lost", DEFERRED, SYSTEM, False),
    ("mail", None, "Connection lost", DEFERRED, SYSTEM, False),
    ("rcpt", None, "Connection lost", DEFERRED, SYSTEM, True),
    ("data", None, "Connection lost", DEFERRED, SYSTEM, True),
    ("dot", None, "Connection lost", UNCERTAIN, NONE, True),
    ("dot", 354, "go on", UNCERTAIN, NONE, True),
    # The relay closes
    ("connect", 421, "4.3.2 Service not available", DEFERRED, SYSTEM, False),
    ("mail", 421, "4.7.0 Too many messages", DEFERRED, SYSTEM, False),
    ("rcpt", 421, "4.3.2 closing", DEFERRED, SYSTEM, True),
    ("dot", 421, "4.3.2 closing", DEFERRED, SYSTEM, True),
    # Before the recipient is named, every refusal is about us
    ("connect", 554, "5.7.1 blocked", DEFERRED, SYSTEM, False),
    ("auth", 535, "5.7.8 Authentication failed", DEFERRED, SYSTEM, False),
    ("auth", 454, "4.7.0 Temporary authentication failure", DEFERRED, SYSTEM, False),
    ("mail", 530, "5.7.0 Authentication required", DEFERRED, SYSTEM, False),
    ("mail", 550, "5.1.8 Sender address rejected", DEFERRED, SYSTEM, False),
    ("mail", 451, "4.3.0 try later", DEFERRED, SYSTEM, False),
    # ... but for the size that MAIL declares
    ("mail", 552, "5.3.4 Message size exceeds fixed limit", FAILED, CONTENT, True),
    ("mail", 552, "too big", FAILED, CONTENT, True),
    ("mail", 553, "5.6.7 Non-ASCII addresses not permitted", FAILED, CONTENT, True),
    ("mail", 452, "4.3.4 Message too big for now", DEFERRED, SYSTEM, False),
    # The recipient
    ("rcpt", 550, "5.1.1 User unknown", BOUNCED, RECIPIENT, True),
    ("rcpt", 550, "5.2.1 Mailbox disabled", BOUNCED, RECIPIENT, True),
    ("rcpt", 550, "5.1.10 Null MX", BOUNCED, RECIPIENT, True),
    ("rcpt", 550, "5.4.1 Recipient address rejected: Access denied", BOUNCED, RECIPIENT, True),
    ("rcpt", 550, "5.5.0 Requested action not taken: mailbox unavailable", BOUNCED, RECIPIENT, True),
    ("rcpt", 550, "No such user here", BOUNCED, RECIPIENT, True),
    ("rcpt", 551, "User not local", BOUNCED, RECIPIENT, True),
    ("rcpt", 553, "Requested action not taken: mailbox name not allowed", BOUNCED, RECIPIENT, True),
    ("rcpt", 556, "Domain does not accept mail", BOUNCED, RECIPIENT, True),
    ("dot", 550, "5.1.1 User unknown", BOUNCED, RECIPIENT, True),
    ("dot", 550, "5.2.1 disabled", BOUNCED, RECIPIENT, True),
    # ... in words, where the status is of another kind and nothing speaks of us
    ("rcpt", 550, "5.7.1 No such user!", BOUNCED, RECIPIENT, True),
    ("rcpt", 553, "5.3.0 <eva@kommun.example>... No such user here", BOUNCED, RECIPIENT, True),
    ("rcpt", 553, "sorry, this recipient is not in my validrcptto list (#5.7.1)", BOUNCED, RECIPIENT, True),
    ("rcpt", 554, "Mailbox for eva@kommun.example has been abandoned", BOUNCED, RECIPIENT, True),
    ("rcpt", 554, "5.7.1 <eva@kommun.example>: Recipient address rejected: Access denied", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "5.7.1 No such user in our policy", DEFERRED, SYSTEM, True),
    ("rcpt", 503, "5.5.1 No such user", DEFERRED, SYSTEM, True),
    ("mail", 550, "5.7.1 No such user", DEFERRED, SYSTEM, False),
    ("dot", 550, "5.7.1 No such user", DEFERRED, SYSTEM, True),
    # A full mailbox is emptied some day
    ("rcpt", 452, "4.2.2 Over quota", DEFERRED, RECIPIENT, True),
    ("rcpt", 552, "5.2.2 Over quota", DEFERRED, RECIPIENT, True),
    ("rcpt", 552, "Mailbox full", DEFERRED, RECIPIENT, True),
    # Greylisting and throttling are nobody's fault
    ("rcpt", 450, "4.7.1 Greylisted", DEFERRED, NONE, True),
    ("rcpt", 450, "4.2.0 Recipient address rejected: Greylisted", DEFERRED, NONE, True),
    ("rcpt", 451, "try again later", DEFERRED, NONE, True),
    ("rcpt", 450, "4.1.2 Domain not found", DEFERRED, RECIPIENT, True),
    ("dot", 452, "4.3.1 Insufficient system storage", DEFERRED, SYSTEM, True),
    ("data", 451, "4.7.1 later", DEFERRED, NONE, True),
    # About us, whoever was the recipient: nobody may be suppressed for it
    ("rcpt", 550, "5.7.1 Client host blocked using zen.spamhaus.org", DEFERRED, SYSTEM, True),
    ("rcpt", 554, "5.7.1 Relay access denied", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Blocked by reputation", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "relaying denied", DEFERRED, SYSTEM, True),
    ("rcpt", 554, "Transaction failed", DEFERRED, SYSTEM, True),
    ("rcpt", 530, "Must issue a STARTTLS command first", DEFERRED, SYSTEM, True),
    ("rcpt", 503, "5.5.1 Bad sequence", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "5.1.8 Bad sender", DEFERRED, SYSTEM, True),
    ("rcpt", 553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Administrative prohibition", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Verification failed for <nyheter@forbundet.example>\nSender verify failed", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Delivery is not allowed to this address.", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Your IP is listed, see https://www.abuseat.org", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Bad HELO: does not match reverse DNS", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "SPF check failed", DEFERRED, SYSTEM, True),
    ("dot", 550, "5.7.26 Unauthenticated mail", DEFERRED, SYSTEM, True),
    ("dot", 554, "Rejected as spam", DEFERRED, SYSTEM, True),
    # ... also where the code or the status speaks of the recipient, and the words do not
    ("rcpt", 550, "5.2.1 The user is receiving mail at a rate that prevents more messages", DEFERRED, SYSTEM, True),
    ("dot", 550, "5.2.0 Message rejected due to DMARC", DEFERRED, SYSTEM, True),
    ("dot", 550, "5.1.1 Message looks like spam", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "5.1.0 sender domain is not valid", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Callback setup failed while verifying <nyheter@forbundet.example>", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Mail from your country is rejected by this host", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Administrative Lockout", DEFERRED, SYSTEM, True),
    ("rcpt", 550, "Mailbox temporarily disabled", DEFERRED, NONE, True),
    ("rcpt", 550, "Mottagarens postlåda är full", DEFERRED, RECIPIENT, True),
    ("rcpt", 552, "5.1.1 Recipient overquota", DEFERRED, RECIPIENT, True),
    # A broken server, or one that lost count, refuses no content
    ("data", 500, "5.3.0 Error: command failed", DEFERRED, SYSTEM, True),
    ("dot", 550, "5.3.5 System incorrectly configured", DEFERRED, SYSTEM, True),
    ("data", 503, "5.5.1 Bad sequence of commands", DEFERRED, SYSTEM, True),
    # The content
    ("data", 554, "No", FAILED, CONTENT, True),
    ("dot", 554, "Transaction failed", FAILED, CONTENT, True),
    ("dot", 552, "5.3.4 Message too big", FAILED, CONTENT, True),
    ("dot", 550, "5.6.0 Bad MIME", FAILED, CONTENT, True),
    ("rcpt", 552, "5.2.3 Message length exceeds limit", FAILED, CONTENT, True),
]


@pytest.mark.parametrize(("phase", "code", "text", "state", "fault", "counts"), TABLE)
def test_answers_are_judged_by_phase_and_code(phase, code, text, state, fault, counts):
    verdict = classify(Phase(phase), code, enhanced_status(text), text)

    assert (verdict.state, verdict.fault, verdict.counts) == (state, fault, counts)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("code", [None, *range(200, 600)])
def test_only_the_final_dot_can_have_delivered_and_only_5xx_can_end_it(phase, code):
    verdict = classify(phase, code, "", "")

    if verdict.state in (SENT, UNCERTAIN):
        assert phase is Phase.DOT
    if verdict.state in (BOUNCED, FAILED):
        assert code is not None and code >= 500 and (phase not in (Phase.CONNECT, Phase.AUTH))
    assert verdict.counts or (verdict.state is DEFERRED and verdict.fault is SYSTEM)


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("5.1.1 User unknown", "5.1.1"),
        ("5.1.10 Null MX", "5.1.10"),
        ("first line\n5.7.1 second line", "5.7.1"),
        ("sorry, no mailbox here by that name. (#5.1.1)", "5.1.1"),
        ("Ok", ""),
        ("10.5.1.1 is an address", ""),
        ("5.1.1.1 is one too", ""),
        ("3.1.1 is no class", ""),
    ],
)
def test_the_enhanced_status_is_read(text, enhanced):
    assert enhanced_status(text) == enhanced


def test_a_reply_is_kept_with_its_queue_id_and_without_what_a_terminal_obeys():
    ended = outcome(Ending(Phase.DOT, 250, "2.0.0 Ok\nqueued as 4F2A\x1b[2J\udcff"), timedelta(seconds=1))

    assert ended.reply == "2.0.0 Ok queued as 4F2A [2J "
    assert (ended.code, ended.enhanced, ended.phase) == (250, "2.0.0", "dot")


def test_a_reply_is_kept_to_four_kilobytes():
    assert len(printable("å" * 10_000).encode()) <= 4096
    assert len(printable("a" * 10_000)) == 4096
