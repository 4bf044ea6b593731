"""An API against its own OpenAPI document, with every check that Schemathesis has: call by call, at every edge of the
document, and in chains of calls that use what the one before made. No input makes it fail, or answer what it does not promise; what the document calls
valid is taken, unless the present state stands in the way, and what it calls invalid is refused.
"""

import contextlib
import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as budget
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import CHECKS, CheckContext, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from content.attachments.examining import COMPLAINTS

SOAKING = os.environ.get("BUDKAVLE_TEST_EXAMPLES")
SEED = os.environ.get("BUDKAVLE_SEED", "b5")
"""The same examples each time; others with another."""
HOUSE = budget(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
load_all_checks()

STATE = ["404", "409", "412", "428"]
"""What well-formed data may be answered with, since only the present state can tell."""
CONFIG = SchemathesisConfig.from_dict(
    {"request-timeout": 60, "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", *STATE]}}}
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
    # What stands in a file, and what is needed beside a file of that kind.
    "attach_file": {*COMPLAINTS, "missing_field"},
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
    if (
        _name(case) in DRY_RUNS
        and _bent(case) == {"body"}
        and response.status_code == 200
        and response.json()["errors"]
    ):
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


def calls_hold(operation: Any, mode: schemathesis.GenerationMode, headers: dict[str, str], usual: int) -> None:
    """Single calls of one operation."""

    @seed(SEED)
    @budget(HOUSE, max_examples=examples(usual))
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case) -> None:
        _call(case, headers)

    holds()


def edges_hold(operation: Any, headers: dict[str, str]) -> None:
    """What can be counted out: the document's examples, each limit on both sides, each field of a wrong type or left out,
    each method and content type that is none.
    """

    def holds(case: schemathesis.Case) -> None:
        _call(case, headers)

    modes = [HypothesisTestMode.EXAMPLES, HypothesisTestMode.COVERAGE]
    config = HypothesisTestConfig(
        project=CONFIG.projects.get_default(), modes=modes, settings=budget(HOUSE, phases=[Phase.explicit])
    )
    create_test(operation=operation, test_func=holds, config=config)()


def _call(case: schemathesis.Case, headers: dict[str, str]) -> None:
    case.call_and_validate(headers={} if "header" in _bent(case) else headers, checks=EVERY)


def _bent(case: schemathesis.Case) -> set[str]:
    """The parts that were made to be refused: a key that we add would make a header whole again."""
    parts = case.meta.components if case.meta else {}
    return {place.value for place, part in parts.items() if part.mode is schemathesis.GenerationMode.NEGATIVE}


def chains_hold(document: Any, headers: dict[str, str], usual: int, steps: int = 6) -> None:
    """Chains of calls, along the links that the document says and those that its ids suggest. A service remembers the
    chains before, so that the same draws may lead elsewhere (a name that is taken now); Hypothesis stops at that, and
    is begun anew with other draws. What failed stays failed, whether it can be repeated or not.
    """
    begun, wanted = 0, examples(usual)
    failed: list[BaseException] = []

    class Chains(document.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            nonlocal begun
            begun += 1

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"headers": headers}

        def validate_response(self, response: Any, case: schemathesis.Case, **options: Any) -> None:
            try:
                case.validate_response(response, checks=EVERY, headers=headers)
            except BaseException as failure:
                failed.append(failure)
                raise

    while begun < wanted and not failed:
        chains = seed(f"{SEED} {begun}")(Chains)
        with contextlib.suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(
                chains, settings=budget(HOUSE, max_examples=wanted - begun, stateful_step_count=steps)
            )
    if failed:
        raise failed[0]
