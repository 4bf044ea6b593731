"""The pipelined dialogue against a server that speaks as it likes: any cut, any split, any words, one consistent verdict."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributor.mail.dialogue import ENOUGH, Announced, Composed, Ending, Line, Transaction
from distributor.mail.pipelining import MAX_REPLY_OCTETS, PipelinedLine
from distributor.mail.replies import Phase

TEXT = b"Subject: x\r\n\r\n.dot\r\n"
ON_WIRE = b"Subject: x\r\n\r\n..dot\r\n.\r\n"


def mail(number: int = 0, size: int = 0) -> Composed:
    return Composed("a@forbundet.example", f"b{number}@kommun.example", TEXT + b"x" * size, f"<{number}@x.example>")


class Wire(asyncio.Transport):
    """What was written, and whether we hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.hung_up = ""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.hung_up = "abort"

    def close(self) -> None:
        self.hung_up = "close"

    def heard(self) -> bytes:
        """What was written since it was last asked."""
        written, self.written = self.written, b""
        return written


class Waiting:
    """A pool of one line that hands out the mails one after the other."""

    def __init__(self, mails: Sequence[Composed], announced: Announced, timeout_s: float = 60) -> None:
        self.wire = Wire()
        self.transactions = [Transaction(each) for each in mails]
        self._left = list(self.transactions)
        self.strikes: int | None = None
        self.line = PipelinedLine(self, announced, timeout_s=timeout_s, dot_timeout_s=timeout_s)
        self.line.take_over(self.wire)
        self.rests(self.line)

    def following(self, line: Line) -> Transaction | None:
        return self._left.pop(0) if self._left else None

    def rests(self, line: Line) -> None:
        if self._left and self.strikes is None:
            line.begin(self._left.pop(0))

    def over(self, line: Line, *, strikes: int) -> None:
        assert self.strikes is None, "a line ends once"
        self.strikes = strikes

    def endings(self) -> list[tuple[Phase, int | None] | None]:
        ended = [each.ended.result() if each.ended.done() else None for each in self.transactions]
        return [(one.phase, one.code) if one is not None else None for one in ended]


def waiting(count: int = 1, announced: Announced = Announced(pipelining=True), **more: Any) -> Waiting:  # noqa: B008
    return Waiting([mail(number) for number in range(count)], announced, **more)


def group(number: int) -> bytes:
    return b"MAIL FROM:<a@forbundet.example>\r\nRCPT TO:<b%d@kommun.example>\r\nDATA\r\n" % number


OK, GO_ON = b"250 2.1.0 Ok\r\n", b"354 go on\r\n"
LET = OK + OK + GO_ON
TAKEN = b"250 2.0.0 queued\r\n"


async def test_a_mail_costs_one_round_trip() -> None:
    pool = waiting(3)
    assert pool.wire.heard() == group(0)
    pool.line.data_received(LET)
    assert pool.wire.heard() == ON_WIRE + group(1)
    pool.line.data_received(TAKEN + LET)
    assert pool.endings() == [(Phase.DOT, 250), None, None]
    assert pool.wire.heard() == ON_WIRE + group(2)
    pool.line.data_received(TAKEN + LET)
    pool.line.data_received(TAKEN)
    assert pool.endings() == [(Phase.DOT, 250)] * 3
    assert pool.strikes is None


async def test_what_the_server_announced_is_used() -> None:
    pool = waiting(1, Announced(size=True, size_limit=10, pipelining=True))
    assert (pool.wire.heard(), pool.endings()) == (b"", [(Phase.MAIL, None)])
    pool = Waiting([Composed("a@x.example", "å@x.example", TEXT, "<1@x>", smtputf8=True)], Announced(True, 0, True))
    assert pool.wire.heard().startswith(b"MAIL FROM:<a@x.example> SIZE=20 SMTPUTF8\r\n")


async def test_behind_a_mail_that_this_server_will_never_take_the_next_one_goes() -> None:
    pool = Waiting([mail(0), mail(1, size=100), mail(2)], Announced(size_limit=50, pipelining=True))
    pool.line.data_received(LET)
    assert pool.wire.heard().endswith(ON_WIRE + group(2))
    assert pool.endings() == [None, (Phase.MAIL, None), None]


async def test_a_refused_recipient_with_data_allowed_gets_a_lone_dot() -> None:
    pool = waiting(2)
    pool.wire.heard()
    pool.line.data_received(OK + b"550 5.1.1 no such user\r\n" + GO_ON)
    assert pool.wire.heard() == b".\r\n"
    pool.line.data_received(b"554 5.5.1 no valid recipients\r\n")
    assert pool.wire.heard() == b"RSET\r\n" + group(1)
    for answer in (OK + LET, TAKEN):
        pool.line.data_received(answer)
    assert pool.endings() == [(Phase.RCPT, 550), (Phase.DOT, 250)]


async def test_a_mail_without_recipients_that_was_taken_is_not_sent() -> None:
    pool = waiting(1)
    for answer in (OK + b"550 5.1.1 no\r\n" + GO_ON, TAKEN):
        pool.line.data_received(answer)
    assert pool.endings() == [(Phase.RCPT, 550)]


@pytest.mark.parametrize(
    ("answers", "ending"),
    [
        (b"550 5.7.1 no\r\n503 5.5.1 MAIL first\r\n503 5.5.1 RCPT first\r\n", (Phase.MAIL, 550)),
        (OK + b"550-5.1.1 no\r\n550 5.1.1 such user\r\n554 5.5.1 no valid recipients\r\n", (Phase.RCPT, 550)),
        (OK + b"450 4.7.1 greylisted\r\n503 5.5.1 RCPT first\r\n", (Phase.RCPT, 450)),
        (OK + OK + b"554 5.7.1 not from you\r\n", (Phase.DATA, 554)),
        (OK + OK + b"451 4.3.0 later\r\n", (Phase.DATA, 451)),
    ],
)
async def test_a_refusal_keeps_its_code_and_the_line(answers: bytes, ending: tuple[Phase, int]) -> None:
    pool = waiting(2)
    pool.wire.heard()
    pool.line.data_received(answers)
    assert pool.wire.heard() == b"RSET\r\n" + group(1)
    pool.line.data_received(OK + LET)
    pool.line.data_received(TAKEN)
    assert pool.endings() == [ending, (Phase.DOT, 250)]
    assert pool.strikes is None


async def test_a_server_that_will_not_start_anew_is_left() -> None:
    pool = waiting(2)
    pool.line.data_received(OK + OK + b"554 5.7.1 no\r\n")
    pool.line.data_received(b"500 5.5.2 what\r\n")
    assert pool.endings() == [(Phase.DATA, 554), (Phase.MAIL, 500)]
    assert pool.wire.hung_up == "abort"


@pytest.mark.parametrize(
    ("answers", "first", "second"),
    [
        (b"421 4.3.2 bye\r\n", (Phase.MAIL, 421), None),
        (OK + b"421 4.3.2 bye\r\n", (Phase.RCPT, 421), None),
        (OK + OK + b"421 4.3.2 bye\r\n", (Phase.DATA, 421), None),
        (LET + b"|421 4.3.2 bye\r\n", (Phase.DOT, 421), (Phase.MAIL, None)),
        (LET + b"|" + TAKEN + b"421 4.3.2 bye\r\n", (Phase.DOT, 250), (Phase.MAIL, 421)),
        (LET + b"|" + TAKEN + OK + b"421 4.3.2 bye\r\n", (Phase.DOT, 250), (Phase.RCPT, 421)),
    ],
)
async def test_a_goodbye_in_mid_flow_ends_the_line_and_says_whose_it_was(
    answers: bytes, first: tuple[Phase, int], second: tuple[Phase, int | None] | None
) -> None:
    pool = waiting(2)
    for answer in answers.split(b"|"):
        pool.line.data_received(answer)
    assert pool.endings() == [first, second]
    assert (pool.wire.hung_up, pool.strikes) == ("abort", 0)


async def test_a_goodbye_to_nobody_harms_nobody() -> None:
    pool = waiting(1)
    pool.line.data_received(LET)
    pool.line.data_received(TAKEN + b"421 4.3.2 bye\r\n")
    assert (pool.endings(), pool.strikes) == ([(Phase.DOT, 250)], 0)


@pytest.mark.parametrize(
    ("answers", "ending"),
    [
        (b"hello there\r\n", (Phase.MAIL, None)),
        (b"\r\n", (Phase.MAIL, None)),
        (b"999 what\r\n", (Phase.MAIL, None)),
        (b"25\r\n", (Phase.MAIL, None)),
        (b"2500 what\r\n", (Phase.MAIL, None)),
        (b"150 what\r\n", (Phase.MAIL, None)),
        (b"250-one\r\n251 two\r\n", (Phase.MAIL, None)),
        (OK + b"x" * (MAX_REPLY_OCTETS + 1), (Phase.RCPT, None)),
        (OK + b"250-y\r\n" * 20_000, (Phase.RCPT, None)),
        (OK + LET, (Phase.DATA, 250)),
        (GO_ON, (Phase.MAIL, None)),
        (OK + GO_ON, (Phase.RCPT, None)),
        (LET + b"|" + GO_ON, (Phase.DOT, None)),
        (OK + OK + b"503 5.5.0 improper use of pipelining\r\n", (Phase.DATA, 503)),
        (LET + TAKEN, (Phase.DATA, None)),
        (LET + b"2", (Phase.DATA, None)),
        (LET + b"|hello\r\n", (Phase.DOT, None)),
        (LET + b"|250-" + b"x" * 70_000, (Phase.DOT, None)),
        (LET + b"|250-y\r\n250", None),
        (LET + b"|" + TAKEN + OK, (Phase.DOT, 250)),
    ],
)
async def test_a_server_that_lost_count_is_not_trusted_again(
    answers: bytes, ending: tuple[Phase, int | None] | None
) -> None:
    pool = waiting(1)
    for answer in answers.split(b"|"):
        pool.line.data_received(answer)
    assert pool.endings() == [ending]
    assert pool.strikes == (ENOUGH if ending else None)


@pytest.mark.parametrize(
    ("answers", "ending", "strikes"),
    [
        (b"", (Phase.MAIL, None), 0),
        (OK, (Phase.RCPT, None), ENOUGH),
        (OK + OK, (Phase.DATA, None), ENOUGH),
        (LET, (Phase.DOT, None), 0),
    ],
)
async def test_silence_ends_in_time_and_amid_a_group_in_distrust(answers: bytes, ending: Any, strikes: int) -> None:
    pool = waiting(1, timeout_s=0.02)
    if answers:
        pool.line.data_received(answers)
    await asyncio.wait_for(pool.transactions[0].ended, 5)
    assert (pool.endings(), pool.strikes, pool.wire.hung_up) == ([ending], strikes, "abort")


async def test_the_dot_of_a_long_mail_waits_until_the_system_has_taken_the_rest() -> None:
    pool = Waiting([mail(size=100_000), mail(1)], Announced(pipelining=True))
    pool.wire.heard()
    pool.line.pause_writing()
    pool.line.data_received(LET)
    assert not pool.wire.heard().endswith(b"\r\n.\r\n")
    pool.line.resume_writing()
    assert pool.wire.heard() == b".\r\n" + group(1)


@pytest.mark.parametrize(
    ("answer", "code"), [(b"552 5.3.4 too much\r\n", 552), (b"421 4.3.2 bye\r\n", 421), (b"", None)]
)
async def test_a_long_mail_that_is_broken_off_before_its_dot_is_not_sent(answer: bytes, code: int | None) -> None:
    pool = Waiting([mail(size=100_000)], Announced(pipelining=True))
    pool.line.pause_writing()
    pool.line.data_received(LET)
    if answer:
        pool.line.data_received(answer)
    else:
        pool.line.connection_lost(ConnectionResetError())
    assert pool.endings() == [(Phase.DATA, code)]
    assert b"\r\n.\r\n" not in pool.wire.heard()


# Any stream of answers, cut and split anywhere

YES, LATER, NO, BYE, WORDY = range(5)
REPLIES = {
    YES: b"250 2.0.0 Ok\r\n",
    LATER: b"451 4.3.0 later\r\n",
    NO: b"554 5.7.1 no\r\n",
    BYE: b"421 4.3.2 bye\r\n",
    WORDY: b"250-2.0.0 well\r\n250-2.0.0 all\r\n250 2.0.0 right\r\n",
}


class TrueServer:
    """Knows what it took. Answers each command once, in order, as `moods` say."""

    def __init__(self, moods: list[int]) -> None:
        self._moods = moods
        self._heard = b""
        self._recipient: bytes | None = None
        self._open = self._in_text = self._closed = False
        self.taken: list[bytes] = []
        self.refused: list[bytes] = []

    def hear(self, data: bytes) -> bytes:
        self._heard += data
        answers = b""
        while not self._closed:
            end = b"\r\n.\r\n" if self._in_text and not self._heard.startswith(b".\r\n") else b"\r\n"
            one, found, rest = self._heard.partition(end)
            if not found:
                break
            self._heard = rest
            answers += self._answer(one)
        return answers

    def _answer(self, said: bytes) -> bytes:
        mood = self._moods.pop(0) if self._moods else YES
        self._closed = mood == BYE
        good = mood in (YES, WORDY)
        if self._in_text:
            self._in_text = self._open = False
            assert self._recipient is not None or said == b".", "text without a recipient"
            (self.taken if good else self.refused).append(self._recipient or b"nobody")
            self._recipient = None
        elif said.startswith(b"MAIL"):
            assert not self._open, "MAIL within a transaction"
            self._open = good
        elif said.startswith(b"RCPT"):
            if not self._open:
                return REPLIES[BYE if mood == BYE else NO]
            self._recipient = said[9:-1] if good else None
        elif said == b"RSET":
            self._open, self._recipient = False, None
        elif said == b"DATA":
            # An awkward server lets a mail without recipients begin.
            if good and self._open and (self._recipient is not None or mood == WORDY):
                self._in_text = True
                return GO_ON
            return REPLIES[NO if good else mood]
        return REPLIES[mood]


@given(
    moods=st.lists(st.sampled_from([YES, YES, YES, YES, LATER, NO, BYE, WORDY]), max_size=24),
    pieces=st.lists(st.integers(1, 60), max_size=200),
    cut=st.integers(0, 900),
    count=st.integers(1, 4),
)
def test_wherever_the_answers_are_cut_no_mail_is_lost_or_called_lost_that_was_taken(
    moods: list[int], pieces: list[int], cut: int, count: int
) -> None:
    async def talk() -> None:
        server, pool = TrueServer(list(moods)), waiting(count)
        coming, heard = b"", 0
        while pool.strikes is None:
            coming += server.hear(pool.wire.heard())
            size = min(pieces.pop() if pieces else 40, cut - heard)
            piece, coming = coming[:size], coming[size:]
            if not piece:
                break
            heard += len(piece)
            pool.line.data_received(piece)
        server.hear(pool.wire.heard())
        pool.line.connection_lost(None)
        judge(server, pool)

    asyncio.run(talk())


def judge(server: TrueServer, pool: Waiting) -> None:
    for transaction in pool.transactions:
        recipient = transaction.mail.recipient.encode()
        if not transaction.ended.done():  # it never came to its turn
            assert recipient not in server.taken
            continue
        ending: Ending = transaction.ended.result()
        if ending.sent:
            assert recipient in server.taken
        elif recipient in server.taken:
            assert (ending.phase, ending.code) == (Phase.DOT, None), "taken, and called not sent"
        if ending.phase is not Phase.DOT:
            assert recipient not in server.taken + server.refused, "its text went out"
    assert len(set(server.taken)) == len(server.taken)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([OK, LET, GO_ON, TAKEN, b"250-", b"421 x\r\n"]), max_size=30))
def test_no_words_make_it_fall_over_or_believe_in_a_dot_that_was_never_written(answers: list[bytes]) -> None:
    async def talk() -> None:
        pool = waiting(3)
        for answer in answers:
            if pool.strikes is not None:
                break
            dots = pool.wire.written.count(ON_WIRE)
            pool.line.data_received(answer)
            sent = sum(ending == (Phase.DOT, code) for ending in pool.endings() for code in range(200, 300))
            assert sent <= dots, "a yes that was there before the dot"
        pool.line.connection_lost(None)
        assert pool.strikes is not None
        doubtful = pool.endings().count((Phase.DOT, None))
        assert doubtful <= 1

    asyncio.run(talk())
