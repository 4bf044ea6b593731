"""An API against its own OpenAPI document, with every check that Schemathesis has: call by call, and in chains of calls
that use what the one before made. No input makes it fail, or answer what it does not promise; what the document calls
valid is taken, unless the present state stands in the way, and what it calls invalid is refused.
"""

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as budget
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import CHECKS, CheckContext, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from content.attachments.examining import COMPLAINTS

SOAKING = os.environ.get("BUDKAVLE_TEST_EXAMPLES")
SEED = os.environ.get("BUDKAVLE_SEED")
load_all_checks()

STATE = ["401", "403", "404", "409", "410", "412", "428", "429"]
"""What well-formed data may be answered with, since only the present state can tell."""
CONFIG = SchemathesisConfig.from_dict(
    {"request-timeout": 60, "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", *STATE]}}}
)

BEYOND_SCHEMA = {
    # Where the address leads and whether that may be dialled, a secret that somebody has, a header's name in another case.
    "create_endpoint": {"url_not_allowed", "secret_reused", "duplicate_header"},
    "change_endpoint": {"url_not_allowed", "duplicate_header"},
    "rotate_secret": {"secret_reused"},
    # A draft that lacks something; what is frozen once it is published.
    "publish_item": {"needed_to_publish", "report_only"},
    "correct_item": {"needed_to_publish", "report_only"},
    "edit_item": {"frozen_field"},
    # Whether what an id names exists; of two days, which is first; a role that stands twice but for its municipalities.
    "add_subscriber": {"unknown_place", "mandate_ends_before_it_begins", "duplicate_role"},
    "change_subscriber": {"unknown_place", "mandate_ends_before_it_begins", "duplicate_role"},
    "name_desk": {"unknown_subscriber"},
    "name_contact": {"unknown_subscriber"},
    # What stands in a file, and what is needed beside a file of that kind; a form's schema cannot be closed.
    "attach_file": {*COMPLAINTS, "missing_field", "unknown_field"},
    "import_file": {"import_refused"},
    "import_roll": {"import_refused"},
}
"""By operation, the codes of a 422 about what no JSON Schema can say; everything else it must say."""
WITH_A_KEY = {"idempotency_mismatch"}
"""Another request has used the key."""
DRY_RUNS = {"import_file", "import_roll"}


def valid_data_is_taken(context: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """Schemathesis' own check, but for the codes above."""
    if response.status_code == 422:
        problem = response.json()
        codes = (
            {one["code"] for one in problem["errors"]} if problem["code"] == "invalid_request" else {problem["code"]}
        )
        if codes and codes <= BEYOND_SCHEMA.get(_name(case), set()) | WITH_A_KEY:
            return None
    checked: bool | None = positive_data_acceptance(context, response, case)
    return checked


def invalid_data_is_refused(
    context: CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    """Schemathesis' own check, but for dry runs of imports: whatever it puts in a form as the file is octets like any
    others when it arrives, and a dry run answers 200 and lists what is wrong with them.
    """
    if _name(case) in DRY_RUNS and response.status_code == 200 and response.json()["errors"]:
        return None
    checked: bool | None = negative_data_rejection(context, response, case)
    return checked


def _name(case: schemathesis.Case) -> str:
    return str(case.operation.definition.raw["operationId"])


OURS = {positive_data_acceptance: valid_data_is_taken, negative_data_rejection: invalid_data_is_refused}


EVERY = [OURS.get(check, check) for check in CHECKS.get_all()]


def examples(usual: int) -> int:
    """How many; `BUDKAVLE_TEST_EXAMPLES` says otherwise."""
    return int(SOAKING or usual)


def _seeded(test: Any) -> Any:
    """The same examples each time; others with each `BUDKAVLE_SEED`."""
    return seed(SEED)(test) if SEED else test


def calls_hold(operation: Any, mode: schemathesis.GenerationMode, headers: dict[str, str], usual: int) -> None:
    """Single calls of one operation."""

    @_seeded
    @budget(
        max_examples=examples(usual),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.explicit, Phase.generate],
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={} if _is_bent(case, "header") else headers, checks=EVERY)

    holds()


def _is_bent(case: schemathesis.Case, component: str) -> bool:
    """Whether this part was made to be refused: a key that we add would make it whole again."""
    parts = case.meta.components if case.meta else {}
    return any(
        place.value == component and part.mode is schemathesis.GenerationMode.NEGATIVE for place, part in parts.items()
    )


def chains_hold(document: Any, headers: dict[str, str], usual: int, steps: int = 6) -> None:
    """Chains of calls, along the links that the document says and those that its ids suggest."""

    @_seeded
    class Chains(document.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"headers": headers}

        def validate_response(self, response: Any, case: schemathesis.Case, **options: Any) -> None:
            case.validate_response(response, checks=EVERY, headers=headers)

    run_state_machine_as_test(
        Chains,
        settings=budget(
            max_examples=examples(usual),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate],
            derandomize=True,
        ),
    )
