"""The links in mails: to the preference page and to the way out in every one, and those of one purpose in one mail.

Both are deterministic (the same person, audience and generation give the same link), so that a mail that is sent again
is byte-identical. Each is bound to its purpose: whoever holds the link that unsubscribes can open no preference page.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared import extracts
from shared.contracts.news import Audience
from shared.extracts import begun, still_fresh
from shared.tokens import Claim, InvalidToken, TokenSigner

PREFERENCES, UNSUBSCRIBE, CONFIRM, UNDO = "preferences", "unsubscribe", "confirm", "undo"
FRESH, ADDRESS, TAKE_BACK = "fresh", "address", "take_back"
DESK = "desk"
GROUP, MEMBERS, INVITATION = "group", "group_members", "invitation"
GROUP_UNDO, GROUP_RETURN = "group_undo", "group_return"


@dataclass(frozen=True, slots=True)
class Departing:
    """What an unsubscribe link says: who leaves which audience; all of them, where it was several audiences' digest."""

    subscriber_id: UUID
    generation: int
    audience: Audience | None


class Links:
    """Makes and reads the links."""

    def __init__(self, public_url: str, signer: TokenSigner) -> None:
        self._public_url = public_url
        self._signer = signer

    def preferences(self, subscriber_id: UUID, generation: int) -> str:
        token = self._signer.sign(PREFERENCES, Claim(subscriber_id, generation))
        return f"{self._public_url}/prenumeration/{token}"

    def unsubscribe(self, subscriber_id: UUID, generation: int, audience: Audience | None) -> str:
        """Leads to a page, and takes the POST of RFC 8058."""
        token = self._signer.sign(UNSUBSCRIBE, Claim(subscriber_id, generation, audience or ""))
        return f"{self._public_url}/avregistrera/{token}"

    def confirm(self, sign_up_id: UUID) -> str:
        """Leads to the page where a sign-up is confirmed."""
        return f"{self._public_url}/prenumerera/bekrafta/{self._signer.sign(CONFIRM, Claim(sign_up_id, 1))}"

    def read_confirm(self, token: str) -> UUID:
        """Which sign-up; `InvalidToken` where it is none of ours."""
        return self._signer.verify(CONFIRM, token).subject

    def undo(self, change_id: UUID, generation: int) -> str:
        """Leads to the page where one change is undone; ends with the person's other links."""
        return f"{self._public_url}/prenumeration/angra/{self._signer.sign(UNDO, Claim(change_id, generation))}"

    def read_undo(self, token: str) -> Claim:
        """Which change, and of which generation; `InvalidToken` where it is none of ours."""
        return self._signer.verify(UNDO, token)

    def fresh(self, subscriber_id: UUID, generation: int, at: datetime) -> str:
        """Leads to a person's own data, for half an hour from `at`."""
        token = self._signer.sign(FRESH, Claim(subscriber_id, generation, begun(at)))
        return f"{self._public_url}/prenumeration/uppgifter/{token}"

    def read_fresh(self, token: str, at: datetime) -> Claim:
        """Whose data; `InvalidToken` where it is none of ours, or half an hour has passed."""
        return still_fresh(self._signer.verify(FRESH, token), at)

    def mails(self, fresh: Claim) -> str:
        """Leads to the mails that the person has got; `distributor` shows them for as long as the fresh link holds."""
        return self.mails_of(fresh.subject, fresh.extra)

    def mails_of(self, subscriber_id: UUID, begun_at: str) -> str:
        """The same, until half an hour after `begun_at`."""
        return f"{self._public_url}{extracts.mails_path(self._signer, subscriber_id, begun_at)}"

    def confirm_address(self, change_id: UUID) -> str:
        """Leads to the page where a new address is confirmed; mailed to that address."""
        return f"{self._public_url}/prenumeration/adress/{self._signer.sign(ADDRESS, Claim(change_id, 1))}"

    def read_confirm_address(self, token: str) -> UUID:
        """Which change of address."""
        return self._signer.verify(ADDRESS, token).subject

    def take_back_address(self, change_id: UUID) -> str:
        """Leads to the page where a change of address is taken back; mailed to the old address."""
        return f"{self._public_url}/prenumeration/adress-tillbaka/{self._signer.sign(TAKE_BACK, Claim(change_id, 1))}"

    def read_take_back_address(self, token: str) -> UUID:
        """Which change of address."""
        return self._signer.verify(TAKE_BACK, token).subject

    def desk(self, organisation_id: UUID, generation: int) -> str:
        """Leads to the page where a newsroom's desk says whether its address and beat are right."""
        return (
            f"{self._public_url}/prenumeration/redaktion/{self._signer.sign(DESK, Claim(organisation_id, generation))}"
        )

    def read_desk(self, token: str) -> Claim:
        """Which newsroom's desk; `InvalidToken` where it is none of ours."""
        return self._signer.verify(DESK, token)

    def group(self, group_id: UUID, generation: int) -> str:
        """Leads a contact person to the group's page, for as long as they are it."""
        return f"{self._public_url}/prenumeration/grupp/{self._signer.sign(GROUP, Claim(group_id, generation))}"

    def read_group(self, token: str) -> Claim:
        """Which group."""
        return self._signer.verify(GROUP, token)

    def members(self, group_id: UUID, generation: int, at: datetime) -> str:
        """Leads a contact person to the group's members, for half an hour from `at`."""
        token = self._signer.sign(MEMBERS, Claim(group_id, generation, begun(at)))
        return f"{self._public_url}/prenumeration/grupp/medlemmar/{token}"

    def read_members(self, token: str, at: datetime) -> Claim:
        """Which group; `InvalidToken` where it is none of ours, or half an hour has passed."""
        return still_fresh(self._signer.verify(MEMBERS, token), at)

    def invitation(self, invitation_id: UUID) -> str:
        """Leads whoever is invited to the answer."""
        return f"{self._public_url}/prenumeration/inbjudan/{self._signer.sign(INVITATION, Claim(invitation_id, 1))}"

    def read_invitation(self, token: str) -> UUID:
        """Which invitation."""
        return self._signer.verify(INVITATION, token).subject

    def undo_group_change(self, change_id: UUID, generation: int) -> str:
        """Leads a contact person to the page where one change of the group is undone."""
        token = self._signer.sign(GROUP_UNDO, Claim(change_id, generation))
        return f"{self._public_url}/prenumeration/grupp/angra/{token}"

    def read_group_undo(self, token: str) -> Claim:
        """Which change, and of which contact."""
        return self._signer.verify(GROUP_UNDO, token)

    def return_to_group(self, change_id: UUID, generation: int) -> str:
        """Leads somebody who was removed to the page where they say that they want to stay."""
        token = self._signer.sign(GROUP_RETURN, Claim(change_id, generation))
        return f"{self._public_url}/prenumeration/grupp/kvar/{token}"

    def read_group_return(self, token: str) -> Claim:
        """Which change, and of which of the person's generations."""
        return self._signer.verify(GROUP_RETURN, token)

    def read_preferences(self, token: str) -> Claim:
        """Whose preferences; `InvalidToken` where it is none of ours."""
        return self._signer.verify(PREFERENCES, token)

    def read_unsubscribe(self, token: str) -> Departing:
        """Who leaves what; `InvalidToken` where it is none of ours."""
        claim = self._signer.verify(UNSUBSCRIBE, token)
        try:
            return Departing(claim.subject, claim.generation, Audience(claim.extra) if claim.extra else None)
        except ValueError as error:
            raise InvalidToken from error
