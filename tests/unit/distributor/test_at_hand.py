"""Which claimed rows may begin: a domain's places, who stands aside, and who follows."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest

from distributor import at_hand
from distributor.at_hand import AtHand


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
        queue.put_nowait(row)
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
    queue.put_nowait(first)
    queue.put_nowait(second)
    queue.put_nowait(queue.get_nowait())
    assert taken(queue) == [first]


def test_at_a_start_a_domain_has_no_more_than_a_quarter() -> None:
    room = [4]
    queue = AtHand(2, lambda: room[0])
    slow = rows("trog.example", 3)
    for row in slow:
        queue.put_nowait(row)
    assert taken(queue) == slow[:1]
    room[0] = 32
    queue.leave(slow[0])
    assert taken(queue) == slow[1:]


@pytest.mark.parametrize("each", [0, 1])
def test_nobody_waits_where_there_is_no_limit_or_too_many_wait(monkeypatch: pytest.MonkeyPatch, each: int) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 1)
    queue = AtHand(each, lambda: 16)
    slow = [*rows("trog.example", 5), Waiting(None)]
    for row in slow:
        queue.put_nowait(row)
    ready = taken(queue)
    assert ready == (slow[:1] + slow[2:] if each else slow)
    for row in ready:
        queue.leave(row)
    assert taken(queue) == (slow[1:2] if each else [])


def test_a_stronger_lane_passes_those_who_wait_for_the_same_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 2)
    queue = AtHand(1, lambda: 16)
    digest, press, sign_in = rows("trog.example", 3), rows("trog.example", 2, lane=1), rows("trog.example", 1, lane=0)
    for row in (*digest, *press, *sign_in):
        queue.put_nowait(row)
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
        queue.put_nowait(row)
    assert taken(queue) == [*press, *digest]
