"""The items that the benches publish."""

from collections.abc import Mapping

import httpx2
from tests.deployments import Deployment

PARAGRAPH = (
    "Samordningsförbundet i Kalmar län har under året följt hur insatserna når fram. Fler deltagare än året före har gått "
    "vidare till arbete eller studier, och väntetiden till det första mötet har blivit kortare i elva av tolv kommuner. "
)
BODY = "\n\n".join(f"## Del {number}\n\n{PARAGRAPH * 2}" for number in range(1, 5))


def fields(kind: str, audience: str, title: str) -> Mapping[str, object]:
    return {
        "kind": kind,
        "title": title,
        "lead": PARAGRAPH.strip(),
        "body": BODY,
        "language": "sv",
        "audiences": [audience],
        "contacts": [{"name": "Åsa Öberg", "role": "Pressansvarig", "phone": "0480-00 00 00"}],
    }


class Editor:
    """Drafts ahead, so that only the publish call is in the measured time."""

    def __init__(self, deployment: Deployment, key: str) -> None:
        self._api = httpx2.Client(
            base_url=deployment.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )

    def draft(self, kind: str, audience: str, title: str) -> str:
        answer = self._api.post("/api/content/v1/items", json=fields(kind, audience, title))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def publish(self, item: str) -> None:
        answer = self._api.post(f"/api/content/v1/items/{item}/publish")
        assert answer.status_code == 202, answer.text

    def reach(self, item: str) -> dict[str, object]:
        answer = self._api.get(f"/api/content/v1/items/{item}/reach")
        assert answer.status_code == 200, answer.text
        reach: dict[str, object] = answer.json()
        return reach

    def close(self) -> None:
        self._api.close()
