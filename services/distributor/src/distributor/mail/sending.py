"""
The mail channel: compose, transmit, judge.

Promises the port's promise: an outcome for every dispatch, whatever a receiver does. `uncertain` is said only when the
final dot was written and no usable answer came.
"""

import time
from datetime import timedelta

from distributor.channels import Dispatch, Fault, Outcome
from distributor.mail.composer import Composer
from distributor.mail.letters import Unsendable
from distributor.mail.relay_url import RelayUrl
from distributor.mail.replies import classify, enhanced_status, printable
from distributor.mail.smtp import Ending, RelaySettings, SmtpRelay
from distributor.settings import DistributorSettings
from shared.contracts.delivery import Channel, DeliveryState

INVALID_ADDRESS = "invalid_address"


class MailSender:
    """Sends mail through the relay; see `channels.Sender`."""

    channel = Channel.MAIL

    def __init__(self, settings: DistributorSettings) -> None:
        self.slots = settings.smtp_connections
        self._composer = Composer(settings)
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

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Send one mail and say how it ended."""
        began = time.monotonic()
        try:
            mail = self._composer.compose(dispatch)
        except Unsendable as refusal:
            return _unsendable(str(refusal))
        ending = await self._relay.transmit(mail)
        return outcome(ending, timedelta(seconds=time.monotonic() - began))

    async def close(self) -> None:
        """Hang up."""
        await self._relay.close()


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
    )


def _unsendable(reason: str) -> Outcome:
    if reason.startswith(INVALID_ADDRESS):
        return Outcome(DeliveryState.BOUNCED, enhanced="5.1.3", reply=reason, phase="compose", fault=Fault.RECIPIENT)
    return Outcome(DeliveryState.FAILED, reply=reason, phase="compose", fault=Fault.CONTENT)
