"""Mail addresses: what we accept, how we write them, and when two are the same mailbox.

The domain is lower-cased and written in ASCII (IDNA 2008); the local part keeps its case, as RFC 5321 (section 2.4)
asks. Nobody runs two mailboxes that differ in case alone, so the key that tells mailboxes apart ignores it: one
person is not mailed twice for having typed a capital. Nothing here asks the DNS.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

MAX_LENGTH = 254
"""RFC 5321, section 4.5.3.1.3: a path has 256 octets, of which two are the angle brackets."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address as it is written to, and the key that tells mailboxes apart."""

    text: str
    key: str


class InvalidAddress(Exception):
    """No address that mail can be sent to; the message says why, in English and Swedish, without the address."""

    def __init__(self, message: str, message_sv: str) -> None:
        super().__init__(message)
        self.message = message
        self.message_sv = message_sv


REASONS = (
    (r"\A\s*\Z", "The address is empty.", "Skriv en e-postadress."),
    (r"[\x00-\x1f\x7f]", "The address holds a control character.", "Adressen innehåller ett otillåtet tecken."),
    (r"[,;]", "Give one address only.", "Skriv en enda adress."),
    (r"[<>]", "Write the address alone, without a name or <>.", "Skriv bara adressen, utan namn och <>."),
    (r"\s", "The address holds a space.", "Adressen innehåller ett mellanslag."),
    (r"\A[^@]*\Z", "The address has no @.", "Adressen saknar @."),
    (r"\A\"", "A quoted local part is not accepted.", "Citattecken före @ går inte att använda."),
    (r"@.*@", "The address has more than one @.", "Adressen har fler än ett @."),
    (r"@\[", "An IP address is not accepted as a domain.", "Skriv ett domännamn efter @, inte en IP-adress."),
    (r"@[^.]*\Z", "The domain has no dot.", "Det saknas en punkt i delen efter @."),
    (r"\.\Z", "The address ends with a dot.", "Adressen slutar med en punkt."),
)
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
PLAIN = re.compile(rf"({ATOM}(?:\.{ATOM})*)@([A-Za-z0-9.-]+)")
LOCAL_LENGTH = 64
"""RFC 5321, section 4.5.3.1.1, in octets."""
TOO_LONG = InvalidAddress(f"The address is longer than {MAX_LENGTH} characters.", "Adressen är för lång.")
LOCAL_TOO_LONG = InvalidAddress(
    f"The part before @ is longer than {LOCAL_LENGTH} characters.", f"Delen före @ är längre än {LOCAL_LENGTH} tecken."
)
OTHERWISE_SV = "Adressen är inte en giltig e-postadress. Skriv den så här: namn@exempel.se."


def parse(text: str) -> Address:
    """The address in `text` (surrounding space is forgiven); raises `InvalidAddress` with the reason."""
    text = text.strip(" ")
    if len(text) > MAX_LENGTH:
        raise TOO_LONG
    return _plain(text) or _validated(text)


def _plain(text: str) -> Address | None:
    """What nearly every address is, at once: a list has few domains and many people. `None` asks for a closer look."""
    matched = PLAIN.fullmatch(text)
    if matched is None or len(matched[1]) > LOCAL_LENGTH or not _is_domain(matched[2].lower()):
        return None
    domain = matched[2].lower()
    return Address(text=f"{matched[1]}@{domain}", key=f"{matched[1].casefold()}@{domain}")


@lru_cache(maxsize=5_000)
def _is_domain(domain: str) -> bool:
    """Whether mail goes to it as it is written."""
    try:
        return _validated(f"a@{domain}").text == f"a@{domain}"
    except InvalidAddress:
        return False


def _validated(text: str) -> Address:
    for pattern, message, message_sv in REASONS:
        if re.search(pattern, text):
            raise InvalidAddress(message, message_sv)
    if len(text.rpartition("@")[0].encode(errors="replace")) > LOCAL_LENGTH:
        raise LOCAL_TOO_LONG
    try:
        valid = validate_email(text, check_deliverability=False)
    except EmailNotValidError as error:
        raise InvalidAddress(str(error), OTHERWISE_SV) from error
    return Address(
        text=f"{valid.local_part}@{valid.ascii_domain}",
        key=f"{valid.local_part.casefold()}@{valid.ascii_domain}",
    )
