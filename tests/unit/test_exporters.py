"""The series of a cache, and what the exporters for Prometheus and OpenTelemetry make of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from urllib.request import urlopen

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from cachekit import Cache, ConfigError, Figures, Kind, Stats
from cachekit.observe.endpoint import expose
from cachekit.observe.otel import CacheInstruments
from cachekit.observe.prometheus import CacheCollector
from cachekit.observe.series import SERIES, Caches, Measure
from cachekit.stats import Waiting
from cachekit.testing import FlakyStore
from tests.ports import free_port

FIGURES = Figures(hits=1, misses=2, stale=3, loads=4, load_errors=5, load_seconds=6.5)
STATS = Stats(
    total=FIGURES,
    by_function_and_class={("shop.price", "quick"): FIGURES, ("", ""): Figures(hits=70)},
    events={"invalidated": 7, "miss": 2},
    entries=8,
    bytes=9,
    evictions=10,
    store="away",
    channel="lost",
    pending=11,
    purges={"edge": Waiting(12, 13.5)},
)


class Fixed:
    """A cache whose snapshot is given, and which counts how often it is asked."""

    def __init__(self, stats: Stats = STATS) -> None:
        self.given = stats
        self.asked = 0

    def stats(self) -> Stats:
        self.asked += 1
        return self.given


def test_every_number_of_a_snapshot_is_a_series() -> None:
    read = {series.name: dict(series.read(STATS)) for series in SERIES}
    events = read.pop("events")
    assert read == {
        "hits": {("shop.price", "quick"): 1, ("", ""): 70},
        "misses": {("shop.price", "quick"): 2, ("", ""): 0},
        "stale": {("shop.price", "quick"): 3, ("", ""): 0},
        "loads": {("shop.price", "quick"): 4, ("", ""): 0},
        "load_errors": {("shop.price", "quick"): 5, ("", ""): 0},
        "load_seconds": {("shop.price", "quick"): 6.5, ("", ""): 0},
        "entries": {(): 8},
        "bytes": {(): 9},
        "evictions": {(): 10},
        "invalidations": {(): 7},
        "pending_invalidations": {(): 11},
        "breaker_open": {(): 1},
        "channel_live": {(): 0},
        "pending_purges": {("edge",): 12},
        "oldest_purge": {("edge",): 13.5},
    }
    assert events == {(str(kind),): {"invalidated": 7, "miss": 2}.get(kind, 0) for kind in Kind}
    assert {field.name for field in fields(Figures)} <= read.keys()


@pytest.mark.parametrize(("channel", "samples"), [("none", []), ("live", [((), 1.0)]), ("lost", [((), 0.0)])])
def test_a_channel_that_is_not_needed_has_no_sample(channel, samples) -> None:
    [series] = [series for series in SERIES if series.name == "channel_live"]
    assert list(series.read(Stats(total=FIGURES, channel=channel))) == samples


def test_names_of_caches() -> None:
    one, two = Fixed(), Fixed()
    caches = Caches(one, name="one")
    caches.add("two", two)
    caches.add("two", two)
    assert list(caches.snapshots()) == ["one", "two"]
    with pytest.raises(ConfigError, match="name='two' belongs to another cache"):
        caches.add("two", one)
    with pytest.raises(ConfigError, match="name=''"):
        caches.add("", one)
    caches.remove("one")
    caches.remove("unknown")
    assert list(caches.snapshots()) == ["two"]
    assert list(Caches({"a": one, "b": two}).snapshots()) == ["a", "b"]
    assert list(Caches(one).snapshots()) == ["default"]


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_prometheus() -> None:
    registry = CollectorRegistry()
    registry.register(CacheCollector({"a": Fixed(), "b": Fixed(Stats(total=Figures()))}))
    found = samples(registry)
    for name, value in (
        ("hits_total", 1), ("misses_total", 2), ("stale_total", 3), ("loads_total", 4), ("load_errors_total", 5),
        ("load_seconds_total", 6.5),
    ):  # fmt: skip
        own = {labels: count for (sample, labels), count in found.items() if sample == f"cachekit_{name}"}
        assert own == {("shop.price", "a", "quick"): value, ("", "a", ""): 70 if name == "hits_total" else 0}, name
    for name, value in (
        ("entries", 8), ("bytes", 9), ("evictions_total", 10), ("invalidations_total", 7), ("breaker_open", 1),
        ("pending_invalidations", 11),
    ):  # fmt: skip
        assert (found[f"cachekit_{name}", ("a",)], found[f"cachekit_{name}", ("b",)]) == (value, 0), name
    assert found["cachekit_channel_live", ("a",)] == 0
    assert ("cachekit_channel_live", ("b",)) not in found
    assert found["cachekit_events_total", ("invalidated", "a")] == 7
    assert found["cachekit_pending_purges", ("a", "edge")] == 12
    assert found["cachekit_oldest_purge_seconds", ("a", "edge")] == 13.5
    text = generate_openmetrics(registry).decode()
    assert "# UNIT cachekit_load_seconds seconds" in text
    assert text.count("# TYPE cachekit_hits counter") == 1


def test_prometheus_takes_one_snapshot_a_scrape_and_none_before() -> None:
    registry, cache = CollectorRegistry(), Fixed()
    registry.register(CacheCollector(cache))
    assert cache.asked == 0
    samples(registry)
    assert cache.asked == 1
    cache.given = Stats(total=Figures(), entries=99)
    assert samples(registry)["cachekit_entries", ("default",)] == 99


def test_a_second_collector_in_one_registry_is_refused() -> None:
    """Both would write the same families, which Prometheus does not accept."""
    registry = CollectorRegistry()
    collector = CacheCollector(Fixed(), name="a")
    registry.register(collector)
    with pytest.raises(ValueError, match="cachekit_hits"):
        registry.register(CacheCollector(Fixed(), name="b"))
    collector.add("b", Fixed())
    assert samples(registry)["cachekit_entries", ("b",)] == 8
    collector.remove("a")
    assert ("cachekit_entries", ("a",)) not in samples(registry)


def collected(reader: InMemoryMetricReader) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    data = reader.get_metrics_data()
    return {
        metric.name: {frozenset(point.attributes.items()): point.value for point in metric.data.data_points}
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_figures_on_a_port_of_their_own() -> None:
    registry, cache = CollectorRegistry(), Cache()
    registry.register(CacheCollector(cache, name="own"))  # as an application does that shows its caches by itself
    first = free_port()
    assert expose(cache, "127.0.0.1", first, registry=registry) == first
    assert expose(cache, "127.0.0.1", first, registry=registry) is None
    with urlopen(f"http://127.0.0.1:{first}/metrics") as answer:
        text = answer.read().decode()
    assert 'cachekit_entries{name="own"} 0.0' in text
    assert 'name="default"' not in text


def test_otel() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    instruments = CacheInstruments(Fixed(), name="a", meter_provider=provider)
    found = collected(reader)
    name = ("cachekit.name", "a")
    labels = frozenset({name, ("cachekit.function", "shop.price"), ("cachekit.ttl_class", "quick")})
    assert {series: found[f"cachekit.{series}"][labels] for series in ("hits", "misses", "load_seconds")} == {
        "hits": 1,
        "misses": 2,
        "load_seconds": 6.5,
    }
    for series in SERIES:
        if not series.labels:
            assert found[f"cachekit.{series.name}"] == {frozenset({name}): dict(series.read(STATS))[()]}
    assert found["cachekit.events"][frozenset({name, ("cachekit.kind", "invalidated")})] == 7
    edge = frozenset({name, ("cachekit.purger", "edge")})
    assert [found[f"cachekit.{series}"][edge] for series in ("pending_purges", "oldest_purge")] == [12, 13.5]
    instruments.remove("a")
    instruments.add("b", Fixed())
    assert collected(reader)["cachekit.entries"] == {frozenset({("cachekit.name", "b")}): 8}
    provider.shutdown()


def test_otel_kinds_and_units() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    CacheInstruments(Fixed(), meter_provider=provider)
    metrics = {m.name: m for m in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics}
    for series in SERIES:
        metric = metrics[f"cachekit.{series.name}"]
        assert metric.description == series.help
        assert getattr(metric.data, "is_monotonic", None) == {
            Measure.COUNTER: True, Measure.LEVEL: False, Measure.STATE: None
        }[series.measure]  # fmt: skip
    assert (metrics["cachekit.bytes"].unit, metrics["cachekit.load_seconds"].unit) == ("By", "s")
    provider.shutdown()


def test_otel_takes_one_snapshot_a_collection() -> None:
    first, second = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([first, second])
    cache = Fixed()
    CacheInstruments(cache, meter_provider=provider)
    for number, reader in enumerate([first, second, second, first], 1):
        cache.given = Stats(total=Figures(), entries=number, evictions=number)
        found = collected(reader)
        assert cache.asked == number
        assert [list(found[name].values()) for name in ("cachekit.entries", "cachekit.evictions")] == [[number]] * 2
    provider.shutdown()


def test_a_real_cache(clock) -> None:
    store = FlakyStore(Cache(clock=clock).store)
    cache = Cache(store, clock=clock, ttl_classes={"quick": 5})
    registry, reader = CollectorRegistry(), InMemoryMetricReader()
    provider = MeterProvider([reader])
    registry.register(CacheCollector(cache, name="real"))
    CacheInstruments(cache, name="real", meter_provider=provider)

    @cache.cached(ttl="quick", tags=["t"])
    def load(x):
        return x

    assert [load(1), load(1), load(1), load(2)] == [1, 1, 1, 2]
    cache.invalidate("t")
    found = samples(registry)
    name = f"{__name__}.test_a_real_cache.<locals>.load"
    assert [found[f"cachekit_{kind}_total", (name, "real", "quick")] for kind in ("hits", "misses", "loads")] == [
        2,
        2,
        2,
    ]
    assert found["cachekit_invalidations_total", ("real",)] == 1
    assert found["cachekit_events_total", ("stored", "real")] == 2
    labels = {"cachekit.name": "real", "cachekit.function": name, "cachekit.ttl_class": "quick"}
    assert collected(reader)["cachekit.hits"][frozenset(labels.items())] == 2
    provider.shutdown()


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("prometheus", "prometheus_client", "prometheus"),
        ("endpoint", "prometheus_client", "prometheus"),
        ("otel", "opentelemetry", "otel"),
    ],
)
def test_without_its_client_an_exporter_names_the_extra(module, missing, extra) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import cachekit.observe.{module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert f"needs the extra `{extra}`" in done.stderr
