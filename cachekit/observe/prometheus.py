"""A collector for ``prometheus_client``: counts nothing itself, reads a snapshot whenever Prometheus asks.

Thin: what is exported stands in ``series.py``. Registering is up to the caller, nothing happens on import. Needs the
extra ``prometheus``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ImportError("cachekit.observe.prometheus needs the extra `prometheus`") from exc

from cachekit.observe.series import SERIES, Caches, Counted, Measure, Series
from cachekit.stats import Stats

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily

PREFIX: Final = "cachekit_"


class CacheCollector(Collector):
    """Shows one cache or several; register one of it in a registry.

    Args:
        caches: a cache, or caches by name.
        name: value of the label ``name`` for a single cache.

    Example:
        >>> from cachekit import Cache
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> registry = CollectorRegistry()
        >>> registry.register(CacheCollector(Cache(), name="products"))
        >>> b'cachekit_entries{name="products"} 0.0' in generate_latest(registry)
        True
    """

    def __init__(self, caches: Counted | Mapping[str, Counted], *, name: str = "default") -> None:
        self.caches = Caches(caches, name=name)

    def add(self, name: str, cache: Counted) -> None:
        """Show *cache* as *name* too. Raises ``ConfigError`` when *name* belongs to another cache."""
        self.caches.add(name, cache)

    def remove(self, name: str) -> None:
        """Show the cache called *name* no longer."""
        self.caches.remove(name)

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples: a second collector in one registry is refused when it is registered."""
        return self._families({})

    def collect(self) -> Iterator[Family]:
        """Yield the families, from one snapshot of each cache."""
        return self._families(self.caches.snapshots())

    @staticmethod
    def _families(snapshots: Mapping[str, Stats]) -> Iterator[Family]:
        for series in SERIES:
            family = _family(series)
            for name, stats in snapshots.items():
                for labels, value in series.read(stats):
                    family.add_metric((name, *labels), value)
            yield family


def _family(series: Series) -> Family:
    kind = CounterMetricFamily if series.measure is Measure.COUNTER else GaugeMetricFamily
    return kind(PREFIX + series.name, series.help, labels=("name", *series.labels), unit=series.unit.value)


__all__ = ["CacheCollector"]
