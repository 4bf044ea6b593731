"""What `subscriptions` is told, beside what every service is told."""

from pydantic import Field

from shared.settings import OrganisationSettings
from subscriptions.limits import Counted, Limit


class SubscriptionsSettings(OrganisationSettings):
    """The organisation stands on the pages; the limits keep strangers from having us fill somebody's inbox."""

    asks_per_address: int = Field(default=5, ge=1, description="mails to one address that may be asked for in an hour")
    asks_per_network: int = Field(default=60, ge=1, description="such mails asked for from one network in an hour")
    changes_per_person: int = Field(default=20, ge=1, description="changes to one subscription by links in an hour")
    mandate_kept_days: int = Field(default=90, ge=0, description="days that a former representative is remembered")

    @property
    def address_limit(self) -> Limit:
        return Limit(Counted.ADDRESS, self.asks_per_address)

    @property
    def network_limit(self) -> Limit:
        return Limit(Counted.NETWORK, self.asks_per_network)

    @property
    def person_limit(self) -> Limit:
        return Limit(Counted.PERSON, self.changes_per_person)
