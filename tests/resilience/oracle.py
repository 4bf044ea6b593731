"""What must have happened, kept from the calls that the API accepted, against what the receivers really got.

lost: should have it and has not. unexpected: has it and should not, of an item that nobody accepted too. repeats: copies beyond the first, which must be
the same to the byte under the same id. ambiguous: the receiver had all of it and the sender never heard its answer.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from tests.deployments import WINDOW_OF_DOUBT
from tests.inboxes import Mail
from tests.servers.receiver import ReceivedRequest

WEBHOOKS_IN_FLIGHT = 4
"""To one endpoint at a time."""


@dataclass(frozen=True)
class Copy:
    """One arrival: who got what, under which id, with which bytes, and whether the sender was answered."""

    receiver: str
    id: str
    digest: object
    answered: bool

    @classmethod
    def of_mail(cls, mail: Mail) -> Self:
        return cls(mail.to, mail.message_id, mail.sha256, mail.answered_at is not None)

    @classmethod
    def of_webhook(cls, request: ReceivedRequest) -> Self:
        """Its time and signature are new each time; the rest is not."""
        return cls(request.path, request.header("webhook-id") or "", request.body, request.status is not None)


@dataclass(frozen=True)
class Balance:
    """How the arrivals of one item, of one channel, differ from what was to arrive."""

    lost: frozenset[str]
    unexpected: frozenset[str]
    repeats: int
    unlike: tuple[str, ...]
    """Who got copies that differ."""
    ambiguous: int

    @classmethod
    def of(cls, copies: Iterable[Copy], expected: frozenset[str]) -> Self:
        by_receiver: dict[str, list[Copy]] = defaultdict(list)
        for copy in copies:
            by_receiver[copy.receiver].append(copy)
        got = frozenset(by_receiver)
        return cls(
            lost=expected - got,
            unexpected=got - expected,
            repeats=sum(len(same) - 1 for same in by_receiver.values()),
            unlike=tuple(who for who, same in by_receiver.items() if len({(c.id, c.digest) for c in same}) > 1),
            ambiguous=sum(not copy.answered for same in by_receiver.values() for copy in same),
        )

    def check(self, *, repeats: int = 0) -> None:
        """Nothing lost, nobody unexpected, at most so many repeats, and those alike."""
        assert not self.lost, f"{len(self.lost)} lost {sorted(self.lost)[:5]}"
        assert not self.unexpected, f"{len(self.unexpected)} unexpected {sorted(self.unexpected)[:5]}"
        assert not self.unlike, f"{len(self.unlike)} got copies that differ {self.unlike[:5]}"
        assert self.repeats <= repeats, f"{self.repeats} repeats, {repeats} at most"


@dataclass
class Oracle:
    """Accepted items, with who is to get each; `kills` are the deaths of a sender that may each leave doubts."""

    mails: dict[str, frozenset[str]] = field(default_factory=dict)
    hooks: dict[str, frozenset[str]] = field(default_factory=dict)
    askers: set[str] = field(default_factory=set)
    """Who asked on the site for a mail of their own, which belongs to no item."""
    kills: int = 0

    def accepted(self, item: str, recipients: frozenset[str], hooks: frozenset[str] = frozenset()) -> None:
        """The API answered the publication with a 2xx."""
        self.mails[item], self.hooks[item] = recipients, hooks

    def check(self, mails: Sequence[Mail], requests: Sequence[ReceivedRequest]) -> Counter[str]:
        """Every item's balance holds, and all repeats together are no more than the deaths explain. Gives the totals."""
        by_mail, by_hook = defaultdict(list), defaultdict(list)
        for mail in mails:
            by_mail[mail.item].append(Copy.of_mail(mail))
        for request in requests:
            by_hook[json.loads(request.body)["subject"]].append(Copy.of_webhook(request))
        unasked = {copy.receiver for copy in by_mail.pop("", [])} - self.askers
        assert not unasked, f"{len(unasked)} got a mail of no item {sorted(unasked)[:5]}"
        unaccepted = {*by_mail, *by_hook} - set(self.mails)
        assert not unaccepted, f"{len(unaccepted)} items went out that nobody accepted {sorted(unaccepted)[:5]}"
        totals = Counter(items=len(self.mails), expected=0, repeats=0, ambiguous=0)
        self._settle(totals, "repeated_mails", self.mails, by_mail, WINDOW_OF_DOUBT * self.kills)
        for hook in frozenset().union(*self.hooks.values(), (copy.receiver for of in by_hook.values() for copy in of)):
            own = {item: [copy for copy in copies if copy.receiver == hook] for item, copies in by_hook.items()}
            expected = {item: hooks & {hook} for item, hooks in self.hooks.items()}
            self._settle(totals, "repeated_hooks", expected, own, WEBHOOKS_IN_FLIGHT * self.kills)
        return totals

    @staticmethod
    def _settle(
        totals: Counter[str],
        repeated: str,
        expected: Mapping[str, frozenset[str]],
        copies: Mapping[str, list[Copy]],
        allowed: int,
    ) -> None:
        for item, receivers in expected.items():
            balance = Balance.of(copies.get(item, ()), receivers)
            balance.check(repeats=allowed)
            allowed -= balance.repeats
            totals.update(expected=len(receivers), repeats=balance.repeats, ambiguous=balance.ambiguous)
            totals[repeated] += balance.repeats
