"""Entries: as time passes the verdict only gets worse, whatever the policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachekit import Policy
from cachekit.entry import MAX_AHEAD, Verdict, judge, quiet_until, refresh_early, seal

ORDER = [Verdict.HIT, Verdict.STALE, Verdict.EXPIRED, Verdict.MISS]
DURATIONS = st.floats(0, 1e6) | st.just(float("inf"))
POLICIES = st.builds(
    Policy,
    ttl=st.floats(1e-3, 1e6) | st.just(float("inf")),
    stale_while_revalidate=DURATIONS,
    stale_if_error=DURATIONS,
    jitter=st.floats(0, 0.99),
)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(POLICIES, CHANCE, st.floats(0, 2e9), st.lists(st.floats(0, 4e9), max_size=10))
def test_the_verdict_is_monotone_in_time(policy, chance, now, times) -> None:
    entry = seal("v", policy, now, chance=chance)
    early, late = [t for t in times if t < now - MAX_AHEAD], [t for t in times if t >= now - MAX_AHEAD]
    verdicts = [ORDER.index(judge(entry, time)) for time in sorted(late)]
    assert verdicts == sorted(verdicts)
    assert {judge(entry, time) for time in early} <= {Verdict.MISS}  # from the future: the clock was set back


@given(POLICIES, CHANCE, st.floats(0, 2e9))
def test_times_are_in_order(policy, chance, now) -> None:
    entry = seal("v", policy, now, chance=chance)
    assert now <= entry.fresh_until <= entry.swr_until <= entry.dead_at
    assert entry.fresh_until <= now + policy.ttl


@given(CHANCE, CHANCE, st.floats(0, 100), st.floats(0, 100), st.floats(0, 10), st.floats(0, 5))
def test_early_refresh_is_monotone_in_time_and_chance(low, high, sooner, later, delta, beta) -> None:
    low, high = sorted((low, high))
    sooner, later = sorted((sooner, later))
    entry = seal("v", Policy(ttl=100), 0.0, delta=delta)
    if refresh_early(entry, sooner, beta, low):
        assert refresh_early(entry, later, beta, high)
    assert quiet_until(entry, beta) <= entry.fresh_until
