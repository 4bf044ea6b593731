"""Days and instants (RFC 3339) and whole numbers as callers write them in JSON.

pydantic takes more than our schemas say: numbers, and digits alone, as seconds since 1970, and for a number a text or
true. Whoever sends 0 where a day belongs means no day.
"""

import re
from datetime import date
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator
from pydantic_core import PydanticKnownError

DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _day(written: object) -> object:
    if isinstance(written, int | float) or (isinstance(written, str) and not DAY.fullmatch(written)):
        raise PydanticKnownError("date_type")
    return written


def _instant(written: object) -> object:
    if isinstance(written, int | float) or (isinstance(written, str) and not DAY.match(written)):
        raise PydanticKnownError("datetime_type")
    return written


def _number(written: object) -> object:
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise PydanticKnownError("int_type")
    return written


Day = Annotated[date, BeforeValidator(_day)]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]
WholeNumber = Annotated[int, BeforeValidator(_number)]
