"""What a demo remembers between two starts on one directory: what it loaded, the items' ids, the intranets' secrets.

Written whole after every step, and before a step that could not be asked about afterwards (a secret) or must be said
again in the same words (the end of a pause), so that a demo that was stopped half-way goes on where it was and
publishes nothing twice.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from standalone.demo.failure import Failed


@dataclass(slots=True)
class PublishedItem:
    """One sample item. `url` is its page; empty until it is published."""

    id: str
    title: str
    url: str = ""


@dataclass(slots=True)
class DemoState:
    """`items` and `endpoints` are by the sample's own names; an endpoint's value is its id."""

    path: Path
    people_loaded: bool = False
    pause_ends: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    digest_run: str = ""
    items: dict[str, PublishedItem] = field(default_factory=dict)

    @classmethod
    def opened(cls, path: Path) -> "DemoState":
        """What was remembered, or a clean sheet."""
        if not path.exists():
            return cls(path)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            items = {name: PublishedItem(**item) for name, item in kept.pop("items").items()}
            return cls(path, items=items, **kept)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Failed(f"{path} is not what a demo wrote; remove {path.parent} and start again") from error

    def save(self) -> None:
        """Write it down; a crash leaves the old or the new, never half of one."""
        kept = asdict(self)
        del kept["path"]
        draft = self.path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(self.path)
