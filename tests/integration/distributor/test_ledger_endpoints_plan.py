"""Which endpoints an item is planned for, and in which revision, whatever order its events come in."""

from uuid import uuid4

from tests.integration.distributor.conftest import CLOCK, MemorySender, Room, snapshot

from distributor.channels import Outcome
from distributor.states import SENT
from distributor.webhooks.models import Endpoint
from shared.contracts.delivery import Channel
from shared.contracts.mail import Form
from shared.contracts.news import ItemState, NewsCorrected, NewsPublished, NewsWithdrawn
from shared.ids import new_id


async def endpoint(room: Room) -> None:
    """An enabled endpoint for officials, the default."""
    now = CLOCK.now()
    async with room.database.transaction() as session:
        session.add(
            Endpoint(
                id=new_id(),
                name="Insidan",
                organisation="Nybro kommun",
                url="https://intranat.example/budkavle",
                contact_email="intranat@kommun.example",
                audiences={"agency_official"},
                municipalities=set(),
                topics=set(),
                state="enabled",
                disabled_reason=None,
                version=1,
                created_at=now,
                updated_at=now,
            )
        )


async def drained(room: Room) -> list[tuple[Form, int]]:
    room.sender = MemorySender(Channel.WEBHOOK)
    room.sender.answer = lambda d: Outcome(SENT, 200)
    await room.follow_up()
    await room.drain()
    return [(d.form, d.content.revision) for d in room.sender.dispatched]


async def test_published_corrected_withdrawn(room: Room) -> None:
    await endpoint(room)
    item = snapshot(uuid4())
    await room.hear(NewsPublished(item=item))
    await room.hear(NewsPublished(item=item))
    assert await drained(room) == [(Form.NEWS, 1)]
    await room.hear(NewsCorrected(item=snapshot(item.item_id, 2, ItemState.CORRECTED), note="Fel."))
    assert await drained(room) == [(Form.CORRECTION, 2)]
    await room.hear(NewsWithdrawn(item=snapshot(item.item_id, 3, ItemState.WITHDRAWN), reason="Fel."))
    assert await drained(room) == [(Form.WITHDRAWAL, 3)]


async def test_a_correction_that_overtakes(room: Room) -> None:
    await endpoint(room)
    item = snapshot(uuid4())
    await room.hear(NewsCorrected(item=snapshot(item.item_id, 2, ItemState.CORRECTED), note="Fel."))
    await room.hear(NewsPublished(item=item))
    assert await drained(room) == [(Form.NEWS, 2)]


async def test_a_withdrawal_that_overtakes(room: Room) -> None:
    await endpoint(room)
    item = snapshot(uuid4())
    await room.hear(NewsWithdrawn(item=snapshot(item.item_id, 2, ItemState.WITHDRAWN), reason="Fel."))
    await room.hear(NewsPublished(item=item))
    assert await drained(room) == []


async def test_an_item_for_others_reaches_no_intranet(room: Room) -> None:
    await endpoint(room)
    await room.hear(NewsPublished(item=snapshot(uuid4(), audiences=("newsroom",))))
    assert await drained(room) == []
