"""Durations, policies and TTL classes: what is understood, and how the rest is refused."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from cachekit import ConfigError, Policy
from cachekit.policy import FOREVER, TTLClasses, positive_seconds, seconds


@pytest.mark.parametrize(
    ("given", "means"),
    [
        (5, 5), (0.25, 0.25), (0, 0), (timedelta(minutes=2), 120), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200),
        ("1h30m", 5400), ("1d", 86400), ("2w", 1209600), ("1.5h", 5400), (" 5 M ", 300), ("1m 30s", 90), ("0s", 0),
        (math.inf, math.inf),
    ],
    ids=str,
)  # fmt: skip
def test_durations(given, means) -> None:
    assert seconds(given) == pytest.approx(means)


@pytest.mark.parametrize(
    "given",
    [-1, -0.001, math.nan, -math.inf, timedelta(seconds=-1), "", "5", "m", "-5m", "5 parsecs", "5m!", "1e3s", "5m5", b"5m",
     True, None, [5], object()],
    ids=repr,
)  # fmt: skip
def test_what_is_no_duration_is_named(given) -> None:
    with pytest.raises(ConfigError, match="shelf_life=") as caught:
        seconds(given, "shelf_life")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("zero", [0, 0.0, "0s", timedelta(0)])
def test_zero_is_no_lifetime(zero) -> None:
    with pytest.raises(ConfigError, match="ttl=0 would never be served"):
        positive_seconds(zero, "ttl")


def test_none_is_for_ever() -> None:
    assert positive_seconds(None, "ttl") == Policy().ttl == Policy.of(None).ttl == FOREVER


def test_a_policy_takes_durations_in_any_form() -> None:
    assert Policy.of("5m", stale_while_revalidate="1m", stale_if_error=timedelta(hours=1), lease="10s") == Policy(
        ttl=300, stale_while_revalidate=60, stale_if_error=3600, lease=10
    )
    assert Policy(ttl="5m") == Policy(ttl=300)
    with pytest.raises(FrozenInstanceError):
        Policy().ttl = 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("ttl", 0), ("ttl", -1), ("stale_while_revalidate", -1), ("stale_if_error", "x"), ("jitter", 1.0), ("jitter", -0.1),
     ("jitter", math.nan), ("beta", -0.1), ("beta", math.nan), ("lease", 0), ("lease", -1), ("lease", math.inf)],
)  # fmt: skip
def test_fields_out_of_range_are_named(field, value) -> None:
    with pytest.raises(ConfigError, match=field):
        Policy(**{field: value})


def test_classes() -> None:
    default = Policy(ttl=60, stale_if_error=5, jitter=0.2)
    slow = Policy(ttl=100, beta=1)
    classes = TTLClasses({"quick": "5s", "slow": slow}, jitter=0.1)
    assert classes.names == ("quick", "slow")
    assert classes.resolve("quick", default) == Policy(ttl=5, jitter=0.1, name="quick")
    assert classes.resolve("slow", default) == Policy(ttl=100, beta=1, name="slow")
    assert classes.resolve(None, default) is default
    assert classes.resolve(slow, default) is slow
    assert classes.resolve("30s", default) == Policy(ttl=30, stale_if_error=5, jitter=0.2)


@pytest.mark.parametrize("classes", [{"": 5}, {"5m": 5}, {"a": "b"}, {"a": 0}, {"a": -1}, {"a": None, "1h": 2}])
def test_bad_classes(classes) -> None:
    with pytest.raises(ConfigError):
        TTLClasses(classes)


def test_an_unknown_class_is_refused_with_those_there_are() -> None:
    for classes, says in ((TTLClasses({"quick": 5}), "'quick'"), (TTLClasses(), "none are defined")):
        with pytest.raises(ConfigError, match=f"'slow'.*{says}"):
            classes.resolve("slow", Policy())
