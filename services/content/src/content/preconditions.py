"""`ETag` and `If-Match` on items (RFC 9110, section 13): nobody overwrites what somebody else changed meanwhile."""

import re
from typing import Annotated

from fastapi import Depends, Header

from content.models import Item
from shared.problems import Problem

ENTITY_TAGS = re.compile(r'\s*(W/)?"([\x21\x23-\x7e]*)"\s*(?:,|$)')

IfMatchHeader = Annotated[str | None, Header(description="the ETag that you read", max_length=1000)]


def etag(item: Item) -> str:
    """The item's entity tag."""
    return f'"{item.version}"'


def _expected(if_match: IfMatchHeader = None) -> frozenset[int] | None:
    """The versions that may be changed; `None` for any. A weak tag never matches strongly, as the RFC asks."""
    if if_match is None or if_match.strip() == "*":
        return None
    strong = [tag for weak, tag in ENTITY_TAGS.findall(if_match) if not weak]
    return frozenset(int(tag) for tag in strong if tag.isascii() and tag.isdigit() and len(tag) < 10)


def _required(if_match: IfMatchHeader = None) -> frozenset[int] | None:
    if if_match is None:
        raise Problem(428)
    return _expected(if_match)


OptionalMatch = Annotated[frozenset[int] | None, Depends(_expected)]
RequiredMatch = Annotated[frozenset[int] | None, Depends(_required)]
