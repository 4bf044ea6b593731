"""Which claimed rows may begin: a domain's places, who stands aside, and who follows."""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from distributor import at_hand
from distributor.at_hand import SHARE, SHORTEST, SOME, AtHand
from distributor.retry_policy import JITTER


@dataclass(frozen=True)
class Waiting:
    """As much of a ledger row as is looked at."""

    address: str | None
    lane: int = 3
    id: UUID = field(default_factory=uuid4)


def rows(domain: str, count: int, lane: int = 3) -> list[Any]:
    return [Waiting(f"p{number}@{domain}", lane) for number in range(count)]


def taken(queue: AtHand) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def test_a_domain_has_its_places_and_the_others_go_first() -> None:
    queue = AtHand(2, lambda: 16)
    slow, other = rows("Trog.example", 4), rows("kommun.example", 2)
    for row in (*slow, *other):
        queue.take_in(row, 0)
    assert taken(queue) == [*slow[:2], *other]
    assert queue.empty()
    queue.leave(slow[0])
    assert taken(queue) == [slow[2]]
    queue.leave(slow[0])
    assert queue.empty(), "twice is once"
    for row in (*slow[1:], *other):
        queue.leave(row)
    assert taken(queue) == [slow[3]]


def test_a_row_that_is_taken_back_keeps_its_place() -> None:
    queue = AtHand(1, lambda: 16)
    first, second = rows("trog.example", 2)
    queue.take_in(first, 0)
    queue.take_in(second, 0)
    queue.put_nowait(queue.get_nowait())
    assert taken(queue) == [first]


def test_at_a_start_a_domain_has_no_more_than_a_quarter() -> None:
    room = [4]
    queue = AtHand(2, lambda: room[0])
    slow = rows("trog.example", 3)
    for row in slow:
        queue.take_in(row, 0)
    assert taken(queue) == slow[:1]
    room[0] = 32
    queue.leave(slow[0])
    assert taken(queue) == slow[1:]


def test_nobody_waits_where_there_is_no_limit() -> None:
    queue = AtHand(0, lambda: 16)
    slow = [*rows("trog.example", 5), Waiting(None)]
    assert [queue.take_in(row, 0) for row in slow] == [None] * 6
    assert taken(queue) == slow
    for row in slow:
        queue.leave(row)
    assert queue.empty()


def test_domains_that_fill_the_lane_leave_a_few_places_aside_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 50 * SHARE)
    queue = AtHand(1, lambda: 64)
    for number in range(SHARE):
        assert {queue.take_in(row, 0) for row in rows(f"{number}.trog.example", 51)} == {None}
    late = [queue.take_in(row, 0) for row in rows("kommun.example", 13)]
    assert late == [None] * (1 + SOME) + [SHORTEST] * 2


def test_a_stronger_lane_is_not_put_off_until_the_weaker_one_has_been(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 50 * SHARE)
    queue = AtHand(1, lambda: 16)
    digest, press = rows("trog.example", 151), rows("trog.example", 70, lane=1)
    for row in digest[:51]:
        queue.take_in(row, 0)
    for _ in range(50):
        queue.leave(*taken(queue))
    weaker = [wait for row in digest[51:] if (wait := queue.take_in(row, 50.0))]
    stronger = [wait for row in press if (wait := queue.take_in(row, 50.0))]
    assert len(stronger) == 20
    assert stronger == weaker[:20]
    assert stronger[-1] < weaker[-1]


def test_what_is_too_much_for_a_domain_is_put_off_and_takes_nobody_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 3 * SHARE)
    queue = AtHand(1, lambda: 16)
    slow, other = rows("trog.example", 6), rows("kommun.example", 4)
    waits = [queue.take_in(row, 0) for row in slow]
    assert waits == [None] * 4 + [SHORTEST] * 2
    assert [queue.take_in(row, 0) for row in other] == [None] * 4, "of another domain as many may stand aside"
    assert queue.take_in(rows("trog.example", 1, lane=1)[0], 0) is None, "and of another lane"
    assert taken(queue) == [slow[0], other[0]]


@pytest.mark.parametrize(("a_mail_s", "count"), [(0.005, 8_000), (0.05, 6_000), (0.3, 3_000)])
def test_what_is_put_off_comes_back_in_time_and_not_again_and_again(a_mail_s: float, count: int) -> None:
    """A domain that takes one mail each such while, from the claim to the last mail, by a clock of its own. To claim
    takes a while too, and to put off.
    """
    queue, random = AtHand(1, lambda: 16), Random(1)
    due: list[tuple[float, int, Any]] = [(0.0, at, row) for at, row in enumerate(rows("snabb.example", count))]
    now, sent, idle_s, put_off = 0.0, 0, 0.0, 0
    while sent < count:
        began = now
        for _ in range(min(256, len(due))):
            if due[0][0] > began:
                break
            now += 0.0002
            _, at, row = heappop(due)
            if (wait := queue.take_in(row, now)) is not None:
                put_off += 1
                heappush(due, (now + wait.total_seconds() * (1 + JITTER * random.random()), at, row))
        going = taken(queue)
        sent += len(going)
        idle_s += 0 if going else a_mail_s
        now += a_mail_s
        for row in going:
            queue.leave(row)
    assert idle_s < 0.05 * now
    assert put_off < 2.5 * count


def test_a_stronger_lane_passes_those_who_wait_for_the_same_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 2 * SHARE)
    queue = AtHand(1, lambda: 16)
    digest, press, sign_in = rows("trog.example", 3), rows("trog.example", 2, lane=1), rows("trog.example", 1, lane=0)
    for row in (*digest, *press, *sign_in):
        queue.take_in(row, 0)
    first = queue.get_nowait()
    assert [first, *taken(queue)] == digest[:1]
    order = []
    while row := (order or [first])[-1]:
        queue.leave(row)
        if queue.empty():
            break
        order += taken(queue)
    assert order == [*sign_in, *press, *digest[1:]]


def test_a_stronger_lane_passes_what_is_ready() -> None:
    queue = AtHand(4, lambda: 64)
    digest, press = rows("kommun.example", 2), rows("tidning.example", 1, lane=1)
    for row in (*digest, *press):
        queue.take_in(row, 0)
    assert taken(queue) == [*press, *digest]
