"""What keeps Budkavle from starting; apart, so that no command need know the services to say so."""


class PortInUse(Exception):
    """Somebody else listens on the port."""


class NotStarted(Exception):
    """The port did not answer in time."""
