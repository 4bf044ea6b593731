"""An API against its own OpenAPI document, with every check that Schemathesis has: call by call, and in chains of calls
that use what the one before made. No input makes it fail, or answer what it does not promise.
"""

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as budget
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

SOAKING = os.environ.get("BUDKAVLE_TEST_EXAMPLES")
load_all_checks()
LEFT_OUT = (positive_data_acceptance,)
"""A 409, 412 or 428 is the right answer to data that is well formed and does not fit the present state."""
EVERY = [check for check in CHECKS.get_all() if check not in LEFT_OUT]


def examples(usual: int) -> int:
    """How many; `BUDKAVLE_TEST_EXAMPLES` says otherwise."""
    return int(SOAKING or usual)


def calls_hold(operation: Any, mode: schemathesis.GenerationMode, headers: dict[str, str], usual: int) -> None:
    """Single calls of one operation."""

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
