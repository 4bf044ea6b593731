"""The distributor's settings."""

import ssl
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from distributor.bounces import return_path
from distributor.bounces.return_path import ReturnPaths
from distributor.mail.addresses import InvalidAddress, wire_address
from distributor.mail.dkim import parse_keys
from distributor.mail.relay_url import RelayUrl
from distributor.states import LANE_OF_RANK
from distributor.webhooks.addresses import AddressPolicy, parse_networks
from shared.contracts.delivery import Channel
from shared.contracts.mail import Lane
from shared.settings import OrganisationSettings

LANES = "|".join(Lane)


class DistributorSettings(OrganisationSettings):
    """What the distributor is told beside what every service is told."""

    smtp_url: SecretStr = Field(
        default=SecretStr("smtp://localhost:25?starttls=required"),
        description="smtp://user:pass@host:port?starttls=required|never, or smtps://…",
    )
    sender: str = Field(default="nyheter@budkavle.example", description="the From address")
    sender_name: str = Field(default="", description="the name beside it; the organisation's when empty")
    reply_to: str = Field(default="", description="where answers go; the From address when empty")
    return_path: str = Field(default="", description="the envelope sender; the From address when empty")
    bounce_address: str = Field(
        default="", description="where bounces come back to, each delivery to its own sub-address; see docs/bounces.md"
    )
    bounce_listen: str = Field(
        default="",
        pattern=r"^$|^[A-Za-z0-9.\-\[\]:]+:\d{1,5}$",
        description="host:port for LMTP or SMTP from the relay",
    )
    bounce_mailbox_url: SecretStr = Field(
        default=SecretStr(""), description="imaps://user:pass@host/INBOX, or pop3s://user:pass@host"
    )
    canary_subscriber: UUID | None = Field(
        default=None, description="the id of a subscriber of our own, whose mail comes to the bounce address"
    )
    canary_endpoint: UUID | None = Field(default=None, description="the id of an endpoint of our own: docs/runbook.md")
    about: str = Field(default="", description="four to six lines about the organisation, below press releases")
    smtp_connections: int = Field(default=16, ge=1, le=200, description="open to the relay at once, at most")
    smtp_pipeline: int = Field(
        default=4,
        ge=1,
        le=4,
        description="mails in hand a connection; together: the doubt after a crash",
    )
    smtp_per_domain: int = Field(default=0, ge=0, description="mails under way to one domain at once; 0: no limit")
    smtp_rate_per_minute: int = Field(default=0, ge=0, description="mails a minute in all; 0: no limit")
    smtp_domain_rate_per_minute: int = Field(
        default=0, ge=0, description="mails a minute to one domain, of each process; 0: no limit"
    )
    smtp_timeout_s: float = Field(default=60, gt=0, description="for the relay's answer to anything but the last dot")
    smtp_dot_timeout_s: float = Field(default=600, ge=1, description="RFC 5321, section 4.5.3.2.6: ten minutes")
    smtp_ca_file: str = Field(default="", description="PEM of the authority that signed the relay's certificate")
    smtp_ehlo_name: str = Field(
        default="", pattern=r"^[A-Za-z0-9.\-\[\]:]*$", description="this host's name to the relay"
    )
    dkim_keys: str = Field(default="", description="selector=/path/key.pem, comma between; empty: the relay signs")
    webhook_slots: int = Field(default=128, ge=1, le=500, description="in flight, four to an endpoint at most")
    webhook_allow_loopback: bool = Field(default=False, description="for the demo and the tests")
    webhook_allowed_networks: str = Field(default="", description="private networks of intranets, comma between")
    webhook_ca_file: str = Field(default="", description="PEM of authorities of intranets, beside the system's own")
    webhook_timeout_s: float = Field(default=15, gt=0, le=30, description="from the first look-up to the last byte")
    uncertain: str = Field(
        default="repeat",
        pattern=rf"^(repeat|hold(:({LANES})(,({LANES}))*)?)$",
        description="doubtful mail: repeat it once, hold it, or hold that of some lanes: hold:digest,news",
    )
    personal_data_days: int = Field(
        default=365, ge=1, le=36_500, description="addresses, links and servers' words are kept this long after the end"
    )
    request_days: int = Field(
        default=30,
        ge=1,
        le=36_500,
        description="the same of mails of their own, such as receipts, which nothing corrects",
    )
    ledger_days: int = Field(
        default=1095, ge=1, le=36_500, description="ended deliveries are kept this long; their counts for ever"
    )
    retry_scale: float = Field(default=1.0, gt=0, description="scales the retry schedules, for tests")

    @field_validator("sender", "reply_to", "return_path", "bounce_address")
    @classmethod
    def _one_address(cls, value: str) -> str:
        try:
            fit = not value or not wire_address(value).smtputf8
        except InvalidAddress:
            fit = False
        if not fit:
            raise ValueError("must be one mail address, without å, ä and ö before the @")
        return value

    @field_validator("bounce_address")
    @classmethod
    def _room_for_a_token(cls, value: str) -> str:
        if value and not return_path.fits(value):
            raise ValueError("has more than 15 characters before the @: no room for a delivery's own token")
        return value

    @field_validator("canary_subscriber", "canary_endpoint", mode="before")
    @classmethod
    def _none_when_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("bounce_listen", "bounce_mailbox_url", "canary_subscriber")
    @classmethod
    def _needs_an_address(cls, value: Any, info: ValidationInfo) -> Any:
        told = value.get_secret_value() if isinstance(value, SecretStr) else value
        if told and not info.data.get("bounce_address"):
            raise ValueError("needs BUDKAVLE_BOUNCE_ADDRESS beside it")
        return value

    @field_validator("bounce_mailbox_url")
    @classmethod
    def _known_mailbox(cls, value: SecretStr) -> SecretStr:
        url = urlsplit(value.get_secret_value())
        if value.get_secret_value() and (url.scheme not in {"imaps", "pop3s", "imap", "pop3"} or not url.hostname):
            raise ValueError("must begin with imaps:// or pop3s://, and name a host")
        return value

    @field_validator("ledger_days")
    @classmethod
    def _no_shorter_than_personal_data(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("personal_data_days", value):
            raise ValueError("must be no less than BUDKAVLE_PERSONAL_DATA_DAYS")
        return value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _private_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("smtp_url")
    @classmethod
    def _known_relay(cls, value: SecretStr) -> SecretStr:
        RelayUrl.parse(value.get_secret_value())
        return value

    @field_validator("dkim_keys")
    @classmethod
    def _usable_keys(cls, value: str) -> str:
        parse_keys(value)
        return value

    @field_validator("smtp_ca_file", "webhook_ca_file")
    @classmethod
    def _readable_authority(cls, value: str) -> str:
        if value:
            try:
                ssl.create_default_context(cafile=value)
            except OSError as error:
                raise ValueError("is not a readable PEM file of certificates") from error
        return value

    @property
    def repeated_lanes(self) -> frozenset[int]:
        """The ranks of the lanes whose doubtful mail is repeated."""
        policy, _, named = self.uncertain.partition(":")
        held = set(named.split(",")) if named else set(Lane) if policy == "hold" else set()
        return frozenset(rank for rank, lane in enumerate(LANE_OF_RANK) if lane not in held)

    @property
    def canaries(self) -> dict[Channel, UUID]:
        """Who of our own gets everything, by channel."""
        named = {Channel.MAIL: self.canary_subscriber, Channel.WEBHOOK: self.canary_endpoint}
        return {channel: key for channel, key in named.items() if key is not None}

    @property
    def office_address(self) -> str:
        """Where somebody of ours reads: where readers write, or else where answers to our mails go."""
        return self.contact_email or self.reply_to or self.sender

    @property
    def return_paths(self) -> ReturnPaths | None:
        """Signed return paths; none without a bounce address."""
        keys = [key.get_secret_value() for key in self.secret_keys]
        return ReturnPaths(self.bounce_address, keys) if self.bounce_address else None

    @property
    def address_policy(self) -> AddressPolicy:
        """Where webhooks may be dialled."""
        return AddressPolicy(self.webhook_allow_loopback, parse_networks(self.webhook_allowed_networks))
