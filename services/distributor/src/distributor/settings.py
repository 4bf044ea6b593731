"""The distributor's settings."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from distributor.webhooks.addresses import AddressPolicy, parse_networks
from shared.settings import Settings


class DistributorSettings(Settings):
    """What the distributor is told beside what every service is told."""

    smtp_url: SecretStr = Field(
        default=SecretStr("smtp://localhost:25?starttls=required"),
        description="smtp://user:pass@host:port?starttls=required|never, or smtps://…",
    )
    sender: str = Field(default="nyheter@budkavle.example", description="the From address")
    sender_name: str = ""
    reply_to: str = ""
    return_path: str = Field(default="", description="the envelope sender; the From address when empty")
    smtp_connections: int = Field(default=16, ge=1, le=200, description="also the window of doubt after a crash")
    smtp_timeout_s: float = Field(default=60, gt=0)
    smtp_dot_timeout_s: float = Field(default=600, ge=1, description="RFC 5321, section 4.5.3.2.6: ten minutes")
    smtp_ca_file: str = Field(default="", description="PEM of the authority that signed the relay's certificate")
    webhook_slots: int = Field(default=32, ge=1, le=500)
    webhook_allow_loopback: bool = Field(default=False, description="for the demo and the tests")
    webhook_allowed_networks: str = Field(default="", description="private networks of intranets, comma between")
    webhook_ca_file: str = Field(default="", description="PEM of authorities of intranets, beside the system's own")
    webhook_timeout_s: float = Field(default=15, gt=0, le=30, description="from the first look-up to the last byte")
    uncertain: str = Field(default="repeat", pattern="^(repeat|hold)$", description="what to do with doubtful mail")
    personal_data_days: int = Field(default=365, ge=1, description="addresses in the ledger are kept this long")
    retry_scale: float = Field(default=1.0, gt=0, description="scales the retry schedules, for tests")

    @field_validator("sender", "reply_to", "return_path")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if value and (value.count("@") != 1 or not value.isprintable() or " " in value):
            raise ValueError("must be one mail address")
        return value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _private_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("webhook_ca_file")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError("is not a file")
        return value

    @property
    def address_policy(self) -> AddressPolicy:
        """Where webhooks may be dialled."""
        return AddressPolicy(self.webhook_allow_loopback, parse_networks(self.webhook_allowed_networks))
