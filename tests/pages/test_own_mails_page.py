"""Somebody's own mails in a real browser: by keyboard, wide and narrow, without a barrier."""

from datetime import timedelta

from tests.integration.distributor.conftest import CLOCK, MemorySender, batch, people, snapshot
from tests.integration.distributor.webhook_room import HookRoom
from tests.pages.test_endpoint_page import hooks
from tests.pages.visitor import Visitor

from distributor.channels import Outcome
from distributor.states import SENT
from shared import extracts
from shared.contracts.mail import Exclusion, ExclusionReason
from shared.contracts.news import Audience
from shared.ids import new_id
from shared.tokens import TokenSigner

__all__ = ["hooks"]

LONG_ADDRESS = "anna-karin.bengtsson-lindqvist.samordnare@kommunalforbundet-kalmarsund.example"
LONG_REPLY = "2.0.0 Ok: queued as " + "4XkQ7d2Z3Bz9s5V1" * 6


async def test_own_mails_are_read_by_keyboard(hooks: tuple[HookRoom, str], visitor: Visitor) -> None:
    room, origin = hooks
    signer = TokenSigner([key.get_secret_value() for key in room.settings.secret_keys])
    mine = people(1)[0].model_copy(update={"address": LONG_ADDRESS})
    room.room.sender = MemorySender()
    room.room.sender.answer = lambda d: Outcome(SENT, 250, reply=LONG_REPLY)
    for number in range(51):
        await room.room.hear(batch(snapshot(new_id(), title=f"Nyhet {number}"), (mine,)))
    await room.room.drain()
    paused = Exclusion(
        recipient_id=mine.recipient_id, audience=Audience.POLITICIAN, reason=ExclusionReason.PAUSED, detail="pausad"
    )
    await room.room.hear(batch(snapshot(new_id(), title="Nya siffror"), (), exclusions=(paused,)))
    page, at = visitor.page, extracts.begun(CLOCK.now())
    await page.goto(origin + extracts.mails_path(signer, mine.recipient_id, at))
    await visitor.look("own-mails", "Mejl vi har skickat till dig", LONG_ADDRESS, "Nya siffror", LONG_REPLY)
    await visitor.press("Äldre mejl")
    await visitor.look("own-mails-older", "Nyhet 0")
    ended = extracts.begun(CLOCK.now() - timedelta(hours=1))
    await page.goto(origin + extracts.mails_path(signer, mine.recipient_id, ended))
    await visitor.look("own-mails-ended", "Länken gäller inte längre")
    await page.goto(origin + extracts.mails_path(signer, mine.recipient_id, at) + "?lang=en")
    await visitor.look("own-mails-english", "Mails that we have sent you")
    assert visitor.asked == {origin}
    assert [one for one in visitor.complaints if "404" not in one] == []
