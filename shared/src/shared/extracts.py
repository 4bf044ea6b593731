"""The link to the mails that somebody has got: `subscriptions` makes it, `distributor` opens it, and neither asks the
other. Both have the same keys; the link names a recipient by id and ends within half an hour.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from shared.tokens import Claim, InvalidToken, TokenSigner

MAILS: Final = "mails"
PATH: Final = "/utskick"
FRESH_FOR: Final = timedelta(minutes=30)


def begun(at: datetime) -> str:
    """How a token says when its half hour began."""
    return f"{int(at.timestamp()):x}"


def still_fresh(claim: Claim, at: datetime) -> Claim:
    """The claim, or `InvalidToken` where its half hour is over."""
    if at >= datetime.fromtimestamp(int(claim.extra, 16), UTC) + FRESH_FOR:
        raise InvalidToken
    return claim


def mails_path(signer: TokenSigner, recipient_id: UUID, begun_at: str) -> str:
    """Where the recipient's mails are shown, until half an hour after `begun_at`."""
    return f"{PATH}/{signer.sign(MAILS, Claim(recipient_id, 1, begun_at))}"


def read_mails(signer: TokenSigner, token: str, at: datetime) -> UUID:
    """Whose mails; `InvalidToken` where it is none of ours, or half an hour has passed."""
    return still_fresh(signer.verify(MAILS, token), at).subject
