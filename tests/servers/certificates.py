"""Certificates for tests: an authority of our own and what it signs, good, expired or for somebody else."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

LOOPBACK = ("localhost", "127.0.0.1")


class CertificateAuthority:
    """Clients trust it by its PEM file: `SSL_CERT_FILE=<path>` in a process, or `client_context()` here."""

    def __init__(self) -> None:
        self._authority = trustme.CA(organization_name="Budkavle tests")

    def write(self, path: Path) -> Path:
        self._authority.cert_pem.write_to_path(str(path))
        return path

    def server_context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """For a server called by `names` (default: loopback)."""
        yesterday = datetime.now(UTC) - timedelta(days=1)
        certificate = self._authority.issue_cert(*(names or LOOPBACK), not_after=yesterday if expired else None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context
