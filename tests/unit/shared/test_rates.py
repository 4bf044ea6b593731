"""How often one caller may call: B17's rule, on a clock of the test's."""

from shared.rates import BURST_S, MOST_CALLERS, Rates


def allowed(rates: Rates, caller: str, times: list[float]) -> int:
    return sum(rates.wait_s(caller, at) == 0 for at in times)


def test_b17_a_thousand_at_once_get_five_seconds_worth() -> None:
    rates = Rates(100)
    assert allowed(rates, "flood", [7.0] * 1_000) == 100 * BURST_S
    assert allowed(rates, "other", [7.0] * 10) == 10


def test_who_keeps_to_the_rate_is_never_refused() -> None:
    rates = Rates(100)
    assert allowed(rates, "steady", [number / 100 for number in range(10_000)]) == 10_000


def test_over_a_minute_it_is_the_rate_and_the_burst() -> None:
    rates = Rates(100)
    assert allowed(rates, "flood", [number / 1_000 for number in range(60_000)]) in range(6_495, 6_505)


def test_who_waits_as_told_goes_on() -> None:
    rates = Rates(10)
    while not (wait_s := rates.wait_s("a", 1.0)):
        pass
    assert 0 < wait_s <= 0.1
    assert rates.wait_s("a", 1.0 + wait_s + 1e-9) == 0


def test_no_limit_and_no_memory_without_end() -> None:
    assert allowed(Rates(0), "a", [1.0] * 5_000) == 5_000
    rates = Rates(100)
    for number in range(MOST_CALLERS * 2):
        rates.wait_s(number, number / 1_000)
    assert len(rates._even) <= MOST_CALLERS
