"""What there is to load, and for whom it is counted: the values that callers hand to the engine.

Must not know how a load is run, nor where its result is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cachekit.loading import Outcomes
from cachekit.policy import Policy
from cachekit.stores.base import AnyEntry
from cachekit.stores.memory import Tally

Loader: TypeAlias = Callable[[], Awaitable[Any]]


class Counters:
    """What one function, or one TTL class, did. Hits of the first level are added from its nodes."""

    __slots__ = ("errors", "load_seconds", "loads", "misses", "stale", "tally")

    def __init__(self, label: str = "") -> None:
        self.tally = Tally(label)
        self.misses = 0
        self.stale = 0
        self.loads = 0
        self.errors = 0
        self.load_seconds = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the engine needs to know of one kind of call.

    Attributes:
        name: the function, for events.
        policy: how long results may be used.
        result_tags: tags learnt from the result, or None.
        shared_flight: whether other processes wait for the one that loads.
        counters: where it is counted.
        outcomes: which results are kept.
        yields: whether what was set while the load ran is the answer in place of what it made.
        beta: the eagerness of early refresh: where no lease keeps processes from loading at once, chance must.
    """

    name: str
    policy: Policy
    result_tags: Callable[[Any], Sequence[str]] | None = None
    shared_flight: bool = True
    counters: Counters = field(default_factory=Counters)
    outcomes: Outcomes = field(default_factory=Outcomes)
    yields: bool = False
    beta: float = field(init=False)

    def __post_init__(self) -> None:
        beta = self.policy.beta
        object.__setattr__(self, "beta", beta if beta is not None else 0.0 if self.shared_flight else 1.0)


@dataclass(frozen=True, slots=True)
class Job:
    """One load to be done.

    Attributes:
        key: what is loaded.
        tags: the tags that are known before.
        load: the loader.
        plan: the kind of call.
        seen: the entry that the caller has already, which makes no load needless.
        force: whether a value that is there already does not count.
        behind: whether nobody waits for it: a refresh.
    """

    key: str
    tags: Sequence[str]
    load: Loader
    plan: Plan
    seen: AnyEntry | None = None
    force: bool = False
    behind: bool = False
