"""The link to an endpoint's own page: it stands in the mails to the contact, and opens that endpoint alone.

It holds as long as the endpoint has the same contact: a new contact raises the generation, and the old link is dead.
"""

from uuid import UUID

from shared.tokens import Claim, TokenSigner

PURPOSE = "endpoint"


class EndpointLinks:
    """Makes and reads them."""

    def __init__(self, public_url: str, signer: TokenSigner) -> None:
        self._public_url = public_url.rstrip("/")
        self._signer = signer

    def page(self, endpoint_id: UUID, generation: int) -> str:
        """The page's whole address."""
        return f"{self._public_url}/intranat/{self._signer.sign(PURPOSE, Claim(endpoint_id, generation))}"

    def read(self, token: str) -> Claim:
        """Which endpoint, and of which generation; may raise `InvalidToken`."""
        return self._signer.verify(PURPOSE, token)
