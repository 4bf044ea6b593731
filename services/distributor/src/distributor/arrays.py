"""PostgreSQL's own words for arrays, for statements that carry hundreds of rows.

The driver dumps a list element by element, which costs ten microseconds a row of fifteen columns; a joined string, a
tenth of that. The statement casts it: `%(ids)s::uuid[]`.
"""

from collections.abc import Iterable


def bare(values: Iterable[object], unit: str = "") -> str:
    """Numbers, ids and the like, whose words hold no comma, brace, quote or white space; `None` is NULL."""
    return f"{{{','.join(['NULL' if value is None else f'{value}{unit}' for value in values])}}}"


def quoted(values: Iterable[str | None]) -> str:
    """Any text; `None` is NULL."""
    return f"{{{','.join(['NULL' if value is None else _quoted(value) for value in values])}}}"


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
