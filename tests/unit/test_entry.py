"""Entries: when they are fresh, stale, expired and gone; jitter; early refresh."""

from __future__ import annotations

import math

import pytest

from cachekit import Policy
from cachekit.entry import Entry, Verdict, judge, quiet_until, refresh_early, seal

HIT, STALE, EXPIRED, MISS = Verdict.HIT, Verdict.STALE, Verdict.EXPIRED, Verdict.MISS


@pytest.mark.parametrize(
    ("swr", "sie", "verdicts"),
    [
        (0, 0, {0: HIT, 9.99: HIT, 10: MISS, 100: MISS}),
        (5, 0, {9.99: HIT, 10: STALE, 14.99: STALE, 15: MISS}),
        (0, 5, {9.99: HIT, 10: EXPIRED, 14.99: EXPIRED, 15: MISS}),
        (5, 20, {10: STALE, 14.99: STALE, 15: EXPIRED, 29.99: EXPIRED, 30: MISS}),
        (20, 5, {10: STALE, 29.99: STALE, 30: MISS}),
    ],
)
def test_verdicts(swr, sie, verdicts) -> None:
    entry = seal("v", Policy(ttl=10, stale_while_revalidate=swr, stale_if_error=sie), 1000.0)
    assert {after: judge(entry, 1000 + after) for after in verdicts} == verdicts


def test_nothing_is_a_miss_and_for_ever_is_a_hit() -> None:
    assert judge(None, 0) is MISS
    assert judge(seal(None, Policy(), 0), 1e12) is HIT


@pytest.mark.parametrize(("chance", "ttl"), [(0.0, 100), (0.5, 95), (1.0, 90)])
def test_jitter_only_shortens(chance, ttl) -> None:
    entry = seal("v", Policy(ttl=100, jitter=0.1, stale_if_error=7), 1000.0, chance=chance)
    assert entry.fresh_until == pytest.approx(1000 + ttl)
    assert entry.dead_at == pytest.approx(1000 + ttl + 7)
    assert seal("v", Policy(jitter=0.1), 1000.0, chance=chance).fresh_until == math.inf


def _entry(delta: float) -> Entry[str]:
    return seal("v", Policy(ttl=100), 0.0, delta=delta)


def test_early_refresh_follows_the_formula() -> None:
    assert refresh_early(_entry(10), 99.999, 1.0, 0.0) is False
    assert refresh_early(_entry(10), 80, 1.0, 1 - math.exp(-2.01)) is True
    assert refresh_early(_entry(10), 80, 1.0, 1 - math.exp(-1.99)) is False
    assert refresh_early(_entry(10), 80, 2.0, 1 - math.exp(-1.01)) is True
    assert refresh_early(_entry(10), 80, 0.0, 0.999999) is False
    assert refresh_early(_entry(0), 99.9, 1.0, 0.999999) is False
    assert refresh_early(seal("v", Policy(), 0.0, delta=10), 1e9, 1.0, 0.999999) is False


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
def test_until_then_no_number_needs_to_be_drawn(beta) -> None:
    entry = _entry(2.0)
    quiet = quiet_until(entry, beta)
    assert quiet <= entry.fresh_until
    assert not refresh_early(entry, quiet - 0.001, beta, 1 - math.exp(-12))
