"""F58: every key in its old and its new form, how a replica is told of the new ones, and whether what was signed and linked
with either still holds."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from standardwebhooks import Webhook
from tests.desk import DISTRIBUTOR
from tests.inboxes import Mail
from tests.resilience.scene import HOOK, Scene
from tests.servers.receiver import ReceivedRequest

OLD_KEY, NEW_KEY = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
OLD, NEW = "gammal", "ny"
"""The selectors of the DKIM keys."""


@dataclass(frozen=True)
class Keys:
    """`folder` holds the DKIM keys by selector, and the secrets of each service once it is told of the new ones."""

    folder: Path

    def make(self) -> None:
        pem, plainly = serialization.Encoding.PEM, serialization.NoEncryption()
        for selector in (OLD, NEW):
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self._dkim(selector).write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plainly))

    @property
    def old(self) -> dict[str, str]:
        """The settings of a deployment that has the old ones."""
        return {"SECRET_KEYS": OLD_KEY, "DKIM_KEYS": f"{OLD}={self._dkim(OLD)}"}

    @property
    def known(self) -> dict[str, str]:
        """The same after the first step: what the new key signs is known as ours, and nothing is signed with it yet."""
        return {**self.old, "SECRET_KEYS": f"{OLD_KEY},{NEW_KEY}"}

    def new(self, service: str, **logins: str) -> dict[str, str | None]:
        """The second step: the environment of a replica's next start. Secrets, and logins that are new too, lie in files, as
        Docker's or Kubernetes' would; the environment names their folder alone."""
        folder = self.folder / service
        folder.mkdir(exist_ok=True)
        secrets = {"BUDKAVLE_SECRET_KEYS": f"{NEW_KEY},{OLD_KEY}", **logins}
        for name, value in secrets.items():
            (folder / name.lower()).write_text(f"{value}\n")
        named = {"BUDKAVLE_SECRETS_DIR": str(folder), "BUDKAVLE_DKIM_KEYS": f"{NEW}={self._dkim(NEW)}"}
        return {**dict.fromkeys(secrets), **named}

    def signed_with(self, mails: Sequence[Mail]) -> set[str]:
        """By which selectors; each mail verifies, by a verifier that looks the selector up."""
        for mail in mails:
            assert dkim.verify(mail.content, dnsfunc=self._record), mail.to
        return {OLD if f"s={OLD}" in mail.header("DKIM-Signature") else NEW for mail in mails}

    def _record(self, name: bytes, timeout: int = 5) -> bytes:
        selector = name.decode().partition(".")[0]
        private = serialization.load_pem_private_key(self._dkim(selector).read_bytes(), None)
        der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return b"v=DKIM1; p=" + b64encode(private.public_key().public_bytes(der, info))

    def _dkim(self, selector: str) -> Path:
        return self.folder / f"{selector}.pem"


async def new_webhook_secret(scene: Scene) -> str:
    """From now on webhooks are signed with both, for a day."""
    endpoints = await scene.desk.all_pages(f"{DISTRIBUTOR}/endpoints")
    (endpoint,) = [one for one in endpoints if one["url"].endswith(HOOK)]
    made = await scene.desk.call("POST", f"{DISTRIBUTOR}/endpoints/{endpoint['id']}/secrets", json={"overlap_h": 24})
    return str(made["secret"])


def check_webhooks(scene: Scene, new_secret: str) -> None:
    """Who knows the old secret verifies each, and who knows the new one the last, which went out after it was made."""
    told = [one for one in scene.told if one.path == HOOK]
    assert all(_signed(request, scene.hook_secret) for request in told)
    assert _signed(told[-1], new_secret)


def _signed(request: ReceivedRequest, secret: str) -> bool:
    """Whether one of its signatures is of this secret; `Webhook.verify` refuses what is five minutes old."""
    at = datetime.fromtimestamp(int(request.header("webhook-timestamp") or 0), UTC)
    expected = Webhook(secret).sign(request.header("webhook-id") or "", at, request.body.decode())
    return expected in (request.header("webhook-signature") or "").split()


async def opened(scene: Scene, mails: Sequence[Mail]) -> list[int]:
    """What the link in each of these answers, twice: the proxy asks the replicas in turn."""
    links = [mail.header("List-Unsubscribe").strip("<>") for mail in mails for _ in range(2)]
    return [(await scene.desk.api.get(link)).status_code for link in links]
