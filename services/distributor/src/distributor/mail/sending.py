"""The mail channel: compose, transmit, judge.

Promises the port's promise: an outcome for every dispatch, whatever a receiver does. `uncertain` is said only when the
final dot was written and no usable answer came.
"""

import time
from datetime import datetime, timedelta

from distributor.channels import Dispatch, Fault, Outcome
from distributor.mail.addresses import wire_address
from distributor.mail.composer import Composer
from distributor.mail.dialogue import Composed, Ending
from distributor.mail.dkim import DkimSigner, parse_keys, signed
from distributor.mail.domains import Crowded, DomainPace
from distributor.mail.letters import Unsendable
from distributor.mail.relay_url import RelayUrl
from distributor.mail.replies import classify, enhanced_status, greylisted, printable
from distributor.mail.signing import SigningFailed, SigningProcesses
from distributor.mail.smtp import RelaySettings, SmtpRelay
from distributor.settings import DistributorSettings
from shared.contracts.delivery import Channel, DeliveryState

INVALID_ADDRESS = "invalid_address"

GREYLIST_WINDOW = timedelta(minutes=5)
"""The usual one: whoever comes back sooner may have to begin anew."""


class MailSender:
    """Sends mail through the relay; see `channels.Sender`."""

    channel = Channel.MAIL

    def __init__(self, settings: DistributorSettings) -> None:
        self.slots = settings.smtp_connections * settings.smtp_pipeline
        self._pipeline = settings.smtp_pipeline
        self._domain_pace = DomainPace(settings.smtp_domain_rate_per_minute)
        self._composer = Composer(settings)
        keys = parse_keys(settings.dkim_keys)
        self._signer = DkimSigner(sender_domain(settings), keys) if keys else None
        self._signing = SigningProcesses(keys)
        self._relay = SmtpRelay(
            RelaySettings(
                url=RelayUrl.parse(settings.smtp_url.get_secret_value()),
                connections=settings.smtp_connections,
                timeout_s=settings.smtp_timeout_s,
                dot_timeout_s=settings.smtp_dot_timeout_s,
                ca_file=settings.smtp_ca_file,
                ehlo_name=settings.smtp_ehlo_name,
            )
        )

    @property
    def room(self) -> int:
        """Places on the connections that the relay bears at the moment."""
        return self._relay.connections_allowed * self._pipeline

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Send one mail and say how it ended, unless its domain has had its share of the minute."""
        try:
            self._domain_pace.enter(dispatch, time.monotonic())
        except Crowded as busy:
            return Outcome(DeliveryState.DEFERRED, reply=str(busy), phase="wait", retry_after=busy.wait, counts=False)
        return await self._deliver(dispatch)

    async def _deliver(self, dispatch: Dispatch) -> Outcome:
        began = time.monotonic()
        try:
            mail = self._composer.compose(dispatch)
        except Unsendable as refusal:
            return _unsendable(str(refusal))
        if self._signer is not None:
            try:
                mail = await self._signed(self._signer, mail, dispatch.planned_at)
            except SigningFailed as error:
                return Outcome(DeliveryState.DEFERRED, reply=str(error), phase="sign", fault=Fault.SYSTEM, counts=False)
        ending = await self._relay.transmit(mail)
        return outcome(ending, timedelta(seconds=time.monotonic() - began))

    async def close(self) -> None:
        """Hang up."""
        await self._relay.close()
        await self._signing.close()

    async def _signed(self, signer: DkimSigner, mail: Composed, at: datetime) -> Composed:
        assert mail.canonical is not None
        drafts = signer.drafts(mail.canonical, at)
        signatures = await self._signing.sign([draft.digest for draft in drafts])
        return mail._replace(data=signed(mail.data, drafts, signatures))


def sender_domain(settings: DistributorSettings) -> str:
    """The domain of the From address: the one that a signature must be of (DMARC, alignment)."""
    return wire_address(settings.sender).text.rpartition("@")[2]


def outcome(ending: Ending, duration: timedelta) -> Outcome:
    """What the end of a dialogue means for the delivery."""
    if ending.local:
        state, fault = DeliveryState.FAILED, Fault.CONTENT if ending.local == "5.3.4" else Fault.SYSTEM
        return Outcome(state, enhanced=ending.local, reply=ending.text, phase=ending.phase, fault=fault)
    enhanced = enhanced_status(ending.text) if ending.code is not None else ""
    verdict = classify(ending.phase, ending.code, enhanced, ending.text)
    return Outcome(
        state=verdict.state,
        code=ending.code,
        enhanced=enhanced,
        reply=printable(ending.text),
        phase=ending.phase,
        fault=verdict.fault,
        counts=verdict.counts,
        duration=duration,
        retry_after=GREYLIST_WINDOW if greylisted(ending.phase, ending.code, enhanced, ending.text) else None,
    )


def _unsendable(reason: str) -> Outcome:
    if reason.startswith(INVALID_ADDRESS):
        return Outcome(DeliveryState.BOUNCED, enhanced="5.1.3", reply=reason, phase="compose", fault=Fault.RECIPIENT)
    return Outcome(DeliveryState.FAILED, reply=reason, phase="compose", fault=Fault.CONTENT)
