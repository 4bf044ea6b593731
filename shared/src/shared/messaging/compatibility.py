"""Finds what a change to an event would break, by comparing the schema that was published with the one of today.

Either side may be last month's version: a message of the old producer must satisfy the new consumer, and one of the
new producer the old consumer. So what is published stays as it is, constraint for constraint; a field may be added as
long as nobody has to send it. Words about a field (title, description, examples) and its default may change.
"""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

WORDS = {"title", "description", "examples", "default", "$id", "$schema", "$comment"}
STRUCTURE = {"properties", "required", "items", "prefixItems", "anyOf", "oneOf", "allOf", "$defs", "enum", "$ref"}


def breaking_changes(published: Schema, present: Schema) -> list[str]:
    """One sentence for each thing that would break; empty when the change is safe."""
    return list(_Comparison(published, present).compare(published, present, ""))


class _Comparison:
    def __init__(self, published: Schema, present: Schema) -> None:
        self._published_definitions = published.get("$defs", {})
        self._present_definitions = present.get("$defs", {})
        self._seen: set[tuple[str, str]] = set()

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self._seen:
                return
            self._seen.add(pair)
        old, new = _resolved(old, self._published_definitions), _resolved(new, self._present_definitions)
        yield from _constraints(old, new, path)
        yield from _choices(old, new, path)
        yield from _requirements(old, new, path)
        yield from self._fields(old, new, path)
        yield from self._parts(old, new, path)

    def _fields(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        present = new.get("properties", {})
        for name, field in old.get("properties", {}).items():
            if name in present:
                yield from self.compare(field, present[name], f"{path}/{name}")
            else:
                yield f"The field {path}/{name} was removed or renamed."

    def _parts(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
            yield from self.compare(old["items"], new["items"], f"{path}/*")
        for combiner in ("anyOf", "oneOf", "allOf", "prefixItems"):
            before, after = old.get(combiner, []), new.get(combiner, [])
            if len(before) != len(after):
                yield f"The field {path or '/'} accepts other types than before."
            else:
                for one, other in zip(before, after, strict=True):
                    yield from self.compare(one, other, path)


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    if "$ref" not in schema:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**definitions[schema["$ref"].removeprefix("#/$defs/")], **beside}


def _constraints(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for key in sorted((old.keys() | new.keys()) - WORDS - STRUCTURE):
        if old.get(key) != new.get(key):
            yield f"The field {path or '/'} changed its {key} from {old.get(key)!r} to {new.get(key)!r}."


def _choices(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = set(old.get("enum", [])), set(new.get("enum", []))
    for value in sorted(before - after):
        yield f"The field {path or '/'} may no longer be {value!r}."
    for value in sorted(after - before):
        yield f"The field {path or '/'} may be {value!r}, which its consumers do not know."


def _requirements(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = set(old.get("required", [])), set(new.get("required", []))
    for name in sorted(after - before):
        yield f"The field {path}/{name} is newly required."
    for name in sorted((before - after) & new.get("properties", {}).keys()):
        yield f"The field {path}/{name} is no longer certain to be there."
