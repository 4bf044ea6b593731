"""Markdown to HTML that is safe anywhere, and to plain text that reads well.

Both come from the same parse. Raw HTML is shown as text, never passed on; what is left goes through an allow-list all
the same. Links are http, https, mailto or tel; a path on the site becomes a whole address, since mails have no site
around them. Headings begin at level two, below the page's own title.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from content.plain_text import as_text
from content.wording import without_controls

SCHEMES = ("http://", "https://", "mailto:", "tel:")
TAGS = {
    *("p", "br", "strong", "em", "a", "ul", "ol", "li", "blockquote", "hr", "code", "pre"),
    *("h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
MOST_LINKED = 200_000
"""Characters of addresses and titles in a text's links. One that is defined once and used everywhere
(`[a]: https://…`) makes hundreds of megabytes of 50,000 characters, which no bus carries and nobody's mail takes."""
DEFINED_ONCE = "]:"
TOP_LEVEL, LOWEST_LEVEL = 2, 6


@dataclass(frozen=True, slots=True)
class Rendered:
    """One text in two forms."""

    html: str
    text: str


def render(markdown: str, site: str) -> Rendered:
    """Render `markdown`; `site` is the public origin that paths are completed with."""
    tokens = _parser.parse(markdown)
    _shift_headings(tokens)
    _complete_links(tokens, site)
    html = _parser.renderer.render(tokens, _parser.options, {})
    clean = nh3.clean(
        without_controls(html),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={scheme.rstrip(":/") for scheme in SCHEMES},
        link_rel=None,
    )
    return Rendered(without_controls(clean).strip(), without_controls(as_text(tokens)))


def swells(markdown: str) -> bool:
    """Whether its links, written out, are too much to send."""
    if DEFINED_ONCE not in markdown:
        return False  # each stands where it is used, and the text's own limit holds
    return _linked(_parser.parse(markdown)) > MOST_LINKED


def _linked(tokens: Sequence[Token]) -> int:
    own = sum(len(str(value)) for token in tokens for value in token.attrs.values())
    return own + sum(_linked(token.children) for token in tokens if token.children)


def _is_allowed(link: str) -> bool:
    lowered = link.lower()
    return lowered.startswith(SCHEMES) or (link.startswith("/") and not link.startswith("//"))


def _shift_headings(tokens: Sequence[Token]) -> None:
    """Make the highest heading that is used an h2, whichever the editor began with."""
    headings = [token for token in tokens if token.type in ("heading_open", "heading_close")]
    highest = min((int(token.tag[1]) for token in headings), default=TOP_LEVEL)
    for token in headings:
        token.tag = f"h{min(int(token.tag[1]) - highest + TOP_LEVEL, LOWEST_LEVEL)}"


def _complete_links(tokens: Sequence[Token], site: str) -> None:
    for token in tokens:
        href = token.attrGet("href") if token.type == "link_open" else None
        if isinstance(href, str) and href.startswith("/"):
            token.attrSet("href", site + href)
        _complete_links(token.children or (), site)


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.validateLink = _is_allowed  # type: ignore[method-assign,assignment]
    return parser


_parser = _make_parser()
