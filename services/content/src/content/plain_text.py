"""Markdown tokens as plain text for mails and readers of text: links written out, lists marked, no markup left.

Paragraphs are one line each; whoever shows them wraps them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markdown_it.token import Token

BULLET = "- "
QUOTE = "> "


@dataclass(slots=True)
class _Place:
    """Where in the document the reader is: list markers and quotes around the next block."""

    first: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    counters: list[int | None] = field(default_factory=list)

    def enter(self, first: str, rest: str) -> None:
        self.first.append(first)
        self.rest.append(rest)

    def leave(self) -> None:
        self.first.pop()
        self.rest.pop()

    def prefixed(self, block: str) -> str:
        """`block` behind its markers; a list marker stands before its first line alone."""
        heads, indents = "".join(self.first), "".join(self.rest)
        self.first = list(self.rest)
        return "\n".join((indents if number else heads) + line for number, line in enumerate(block.split("\n")))


def as_text(tokens: Sequence[Token]) -> str:
    """The document as plain text, blocks parted by empty lines, list items and table rows by line breaks."""
    place, text, was_tight = _Place(), "", False
    for opened, block in _blocks(tokens, place):
        tight = opened.hidden or opened.type == "row"
        gap = "\n" if tight and was_tight else "\n\n"
        text += (gap if text else "") + place.prefixed(block)
        was_tight = tight
    return text


def _blocks(tokens: Sequence[Token], place: _Place) -> Iterator[tuple[Token, str]]:
    """Each block of text with the token that opened it; keeps `place` on the way."""
    opened = Token("paragraph_open", "p", 1)
    row: list[str] = []
    for token in tokens:
        _move(token, place)
        if token.type in ("paragraph_open", "heading_open", "tr_open"):
            opened, row = token, []
        elif token.type == "inline" and opened.type == "tr_open":
            row.append(_inline(token.children or ()))
        elif token.type == "inline":
            yield opened, _inline(token.children or ())
        elif token.type == "tr_close":
            yield Token("row", "tr", 0), " | ".join(row)
        elif token.type in ("fence", "code_block"):
            yield token, token.content.rstrip("\n")
        elif token.type == "hr":
            yield token, "---"


def _move(token: Token, place: _Place) -> None:
    if token.type == "bullet_list_open":
        place.counters.append(None)
    elif token.type == "ordered_list_open":
        place.counters.append(int(token.attrGet("start") or 1))
    elif token.type in ("bullet_list_close", "ordered_list_close"):
        place.counters.pop()
    elif token.type == "list_item_open":
        marker = _marker(place)
        place.enter(marker, " " * len(marker))
    elif token.type == "blockquote_open":
        place.enter(QUOTE, QUOTE)
    elif token.type in ("list_item_close", "blockquote_close"):
        place.leave()


def _marker(place: _Place) -> str:
    number = place.counters[-1]
    if number is None:
        return BULLET
    place.counters[-1] = number + 1
    return f"{number}. "


def _inline(tokens: Sequence[Token]) -> str:
    text, links = "", []
    for token in tokens:
        if token.type in ("text", "code_inline"):
            text += token.content
        elif token.type == "softbreak":
            text += " "
        elif token.type == "hardbreak":
            text += "\n"
        elif token.type == "link_open":
            links.append((len(text), str(token.attrGet("href") or "")))
        elif token.type == "link_close":
            start, address = links.pop()
            text += _written_out(text[start:], address)
    return text


def _written_out(label: str, address: str) -> str:
    """What follows a link's label: its address, unless the label says it already."""
    plain = address.removeprefix("mailto:").removeprefix("tel:")
    return "" if label.strip() in (address, plain) else f" ({plain})"
