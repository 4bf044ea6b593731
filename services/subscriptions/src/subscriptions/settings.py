"""What `subscriptions` is told, beside what every service is told."""

from shared.settings import OrganisationSettings


class SubscriptionsSettings(OrganisationSettings):
    """The organisation stands on the preference pages; there is nothing of our own to set."""
