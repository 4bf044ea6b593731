"""What content is told. It needs nothing beyond what every service with pages needs."""

from shared.settings import OrganisationSettings


class ContentSettings(OrganisationSettings):
    """The site's address is `public_url`; who publishes is `organisation`."""
