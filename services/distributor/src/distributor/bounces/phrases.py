"""What servers say, and what it means: the tables of `phrases.txt`, and how a text is held against them.

A rule holds where one of its `says` stands in the text and, if it has any, one of its `near` stands close to that
(`NEAR` characters to either side, not beyond a sentence). The first rule that holds decides, so the order is the
knowledge: "mailbox full" before "mailbox unavailable", what speaks of us before what speaks of the recipient. Texts
come normalised: lower case, single spaces, addresses and host names taken out, so that `spam@…` is no spam.

Strong rules decide alone, and against a vague status. Weak ones decide only where nothing better is known.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files


class Kind(StrEnum):
    """What a report is. Only `hard` and `complaint` may ever stop mail to anybody."""

    HARD = "hard"
    SOFT = "soft"
    POLICY = "policy"
    FULL = "full"
    DELAYED = "delayed"
    AUTO_REPLY = "auto_reply"
    OUT_OF_OFFICE = "out_of_office"
    COMPLAINT = "complaint"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a table."""

    kind: Kind
    reason: str
    says: tuple[str, ...]
    near: tuple[str, ...] = ()


A_MAILBOX = "<@>"
"""An address, in a normalised text and in the tables."""
NEAR = 90
BESIDE = 12
"""How near an address must stand to count: "<@> is unknown", but not "to <@> failed, the reason is unknown"."""
MOST_FINDS = 20
LONGEST_TEXT = 6_000

ADDRESS = re.compile(r"[^\s<>()\[\]\"',;:@]{1,64}@[^\s<>()\[\]\"',;:@]{1,255}")
NAMED_ADDRESS = re.compile(rf"[<(\[\"']{{0,2}}{ADDRESS.pattern}[>)\]\"']{{0,2}}")
HOST = re.compile(r"https?://[^\s>]{1,300}|\b[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}")
CODE = re.compile(r"\d+\.\d+(?:\.\d+)?")
BLOCK_LIST = re.compile(
    r"dnsbl|rbl\b|block-?list|blacklist|spamhaus|spamcop|barracudacentral|sorbs\.|abuseat|uceprotect"
)
"""A host that says why: some servers give the page of a block list as their only reason."""
SPACE = re.compile(r"\s+")
IDEOGRAPHS = re.compile(r"(?<=[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]) (?=[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef])")
SENTENCE_ENDS = (". ", "! ", "? ", " | ", "。")


def normalised(text: str) -> str:
    """`text` as the tables want it."""
    lowered = text[:LONGEST_TEXT].lower().replace("’", "'").replace("`", "'").replace("...", ":")
    bare = HOST.sub(_code_or_name, NAMED_ADDRESS.sub(f" {A_MAILBOX} ", lowered))
    return f" {IDEOGRAPHS.sub('', SPACE.sub(' ', bare)).strip()} "


def _code_or_name(found: re.Match[str]) -> str:
    name = found[0]
    if CODE.fullmatch(name) or name.startswith("resolver."):  # Exchange writes its reasons like host names
        return name
    return " blocklist … " if BLOCK_LIST.search(name) else "…"


def matching(rules: Sequence[Rule], text: str) -> Rule | None:
    """The first rule that holds for a normalised text."""
    return next((rule for rule in rules if _holds(rule, text)), None)


def _holds(rule: Rule, text: str) -> bool:
    said = [phrase for phrase in rule.says if phrase in text]
    if not said or not rule.near:
        return bool(said)
    words = [word for word in rule.near if word in text]
    return bool(words) and any(_stands_near(phrase, words, text) for phrase in said)


def _stands_near(phrase: str, words: Sequence[str], text: str) -> bool:
    at = text.find(phrase)
    for _ in range(MOST_FINDS):
        if at < 0:
            return False
        before, after = text[max(0, at - NEAR) : at], text[at + len(phrase) : at + len(phrase) + NEAR]
        for end in SENTENCE_ENDS:
            before, after = before.rpartition(end)[2], after.partition(end)[0]
        if any(word in before or word in phrase or word in after for word in words if word != A_MAILBOX):
            return True
        if A_MAILBOX in words and A_MAILBOX in f"{before[-BESIDE:]} {after[:BESIDE]}":
            return True
        at = text.find(phrase, at + 1)
    return False


def _tables() -> dict[str, tuple[Rule, ...]]:
    """Sections in brackets; a rule's kind and reason; its phrases, indented, with ` / ` between them."""
    source = (files(__package__) / "phrases.txt").read_text(encoding="utf-8")
    sections = re.split(r"^\[(\w+)\]$", source, flags=re.MULTILINE)
    return {sections[at]: tuple(_rules(sections[at + 1])) for at in range(1, len(sections), 2)}


def _rules(section: str) -> Iterator[Rule]:
    lines = [line for line in section.splitlines() if line and not line.startswith("#")]
    for block in re.split(r"\n(?=\S)", "\n".join(lines)):
        head, _, rest = block.partition("\n")
        kind, _, reason = head.partition(": ")
        says, _, near = rest.partition("  near: ")
        yield Rule(Kind(kind), reason, split_phrases(says.partition("says: ")[2]), split_phrases(near))


def split_phrases(text: str) -> tuple[str, ...]:
    """Phrases with ` / ` between them; an underscore at a phrase's edge stands for a space."""
    phrases = SPACE.sub(" ", text).strip().split(" / ") if text.strip() else []
    return tuple(re.sub(r"^_|_$", " ", phrase) for phrase in phrases)


TABLES = _tables()
