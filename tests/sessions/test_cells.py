"""The bytes of sessions: what is added to them, what is compressed by itself, and what older ones look like."""

from __future__ import annotations

import os
import random
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import packb

from cachekit import CodecError, ConfigError, Kind, Signing
from cachekit.codecs.frame import seal
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.sessions import SessionOptions, cells, payload
from cachekit.sessions.cells import MAP, Layout, Squeezed
from cachekit.sessions.memo import Memo
from cachekit.sessions.payload import About, Content, Extent, Payloads
from tests.sessions.conftest import InBytes, put

ANN = About("ann", "tests", True)
LONG = st.integers(3000, 9000).map(lambda size: f"{size} words " * (size // 10))
VALUES = st.integers(-(2**63), 2**63) | st.text(max_size=20) | st.lists(st.text(max_size=30), max_size=20) | LONG
NAMES = st.sampled_from(["a", "b", "cart", "\u00fc", ""])


def payloads(**more: Any) -> Payloads:
    return Payloads(SessionOptions(secrets="x" * 32, **more))


@given(
    st.dictionaries(NAMES, VALUES),
    st.lists(st.dictionaries(NAMES, VALUES | st.just(None), min_size=1), max_size=20),
    st.sampled_from(["snappy", "zstd"]),
)
def test_what_is_added_up_is_what_was_meant(first, changes, compression) -> None:
    """Whatever is changed in whatever order: what is read is what a dictionary would hold, and it does not grow for ever."""
    codec = payloads(compression=compression, compress_from=100)
    model = {key: codec.encode(value) for key, value in first.items()}
    body = codec.pack(ANN, model, b"c")
    content = codec.unpack(body, b"c")
    for change in changes:
        values = dict(content.cells)
        for key, value in change.items():
            if value is None:
                values.pop(key, None)
            else:
                values[key] = codec.encode(value)
        added = codec.addition(content.cells, values, content.extent)
        body = codec.pack(ANN, values, b"c") if added is None else body + added[0]
        content = codec.unpack(body, b"c")
        if added is not None:
            assert content.extent == added[1]
        assert content.about == ANN
        assert content.cells == values
        assert [codec.decode(cell) for cell in content.cells.values()] == [codec.decode(c) for c in values.values()]
        assert content.extent.times <= 8
        assert content.extent.added <= max(content.extent.size, 512)


@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_damage_is_a_codec_error_and_nothing_else(at, byte, cut) -> None:
    codec = payloads(compress_from=100)
    values = {"n": codec.encode(1), "small": codec.encode("v" * 150), "large": codec.encode("word " * 3000)}
    extent = codec.extent(codec.pack(ANN, values, b"c"))
    added, _ = codec.addition(values, {**values, "n": codec.encode(2)}, extent)
    good = codec.pack(ANN, values, b"c") + added
    at = len(good) - 1 - at % len(good)
    bad = good[:at] if cut else good[:at] + bytes((byte,)) + good[at + 1 :]
    try:
        content = codec.unpack(bad, b"c")
    except CodecError:
        return
    for cell in content.cells.values():
        try:
            codec.decode(cell)
        except CodecError:
            continue


NUMBERS = st.integers(-(2**63), 2**64 - 1)
ANYTHING = st.recursive(
    st.none() | NUMBERS | st.binary() | st.text(), lambda x: st.lists(x) | st.dictionaries(NUMBERS | st.text(), x)
)


@given(ANYTHING)
def test_a_map_that_says_nonsense_is_a_codec_error(said) -> None:
    """Its checksum is right: somebody wrote it so."""
    from zlib import crc32

    data = packb(said)
    block = b"\0" + len(data).to_bytes(4, "big") + crc32(data).to_bytes(4, "big") + data
    layout = Layout(limit=1000, compress_from=100, zstd=False, memo=Memo(0))
    try:
        groups = layout.read(block, 0)
    except CodecError:
        return
    assert all(type(cell) in (bytes, Squeezed) for cell in groups.cells.values())


@pytest.mark.parametrize("made", [1, 2])
def test_the_layout_before_is_read(made) -> None:
    """One frame around all values, as it was written before sessions were added to."""
    zstandard = pytest.importorskip("zstandard")
    codec = payloads()
    data = packb({"n": codec.codec.encode(1), "text": codec.codec.encode("word " * 500)})
    frame = seal(b"", data if made == 1 else zstandard.ZstdCompressor().compress(data), codec_id=MAP)
    head = packb(("ann", "tests", True))
    content = codec.unpack(len(head).to_bytes(2, "big") + head + bytes((made,)) + frame, b"c")
    assert content.about == ANN
    assert {key: codec.decode(cell) for key, cell in content.cells.items()} == {"n": 1, "text": "word " * 500}
    assert content.extent is None, "it is written as a whole the next time"


def test_what_is_not_looked_at_is_not_decompressed(site, monkeypatch) -> None:
    inner = InBytes()
    browser = site(inner).browser()
    browser.ask(lambda session: session.update(user=7, cart=["kettle"] * 3000))
    browser.edge = site(inner)  # another process: who wrote it knows what it was
    opened = []
    monkeypatch.setattr("cachekit.sessions.cells.opened", lambda *args, **kw: opened.append(args) or real(*args, **kw))
    from cachekit.codecs.frame import opened as real

    assert browser.look(lambda session: session["user"]) == 7
    browser.ask(put("user", 8))
    assert opened == []
    assert browser.look(lambda session: len(session["cart"])) == 3000
    assert len(opened) == 1


def test_damage_of_one_value_costs_that_value(site, watch, clock) -> None:
    inner = InBytes(clock=clock)
    browser = site(inner).browser()
    browser.ask(lambda session: session.update(user=7, cart=["kettle"] * 3000))
    ((key, (until, record)),) = inner._kept.items()

    inner._kept[key] = (until, record._replace(body=record.body[:-3] + b"???"))
    assert browser.look() == {"user": 7}
    assert len(watch.of(Kind.UNREADABLE)) == 1
    browser.ask(put("cart", []))
    assert browser.look() == {"user": 7, "cart": []}


def test_what_is_large_is_opened_once_for_the_requests_of_a_burst(site, monkeypatch) -> None:
    inner = InBytes()
    browser = site(inner).browser()
    browser.ask(lambda session: session.update(user=7, cart=words(3000), viewed=words(2000)))
    browser.edge = site(inner)  # another process
    opened: list[Any] = []
    real = cells.opened
    monkeypatch.setattr(cells, "opened", lambda *args, **kw: opened.append(args) or real(*args, **kw))
    for _ in range(3):
        assert browser.look(lambda session: len(session["cart"])) == 3000
    assert len(opened) == 1
    browser.ask(lambda session: session["cart"].append("cup"))
    for _ in range(3):
        assert browser.look(lambda session: (session["cart"][-1], len(session["viewed"]))) == ("cup", 2000)
    assert len(opened) == 2, "what nobody had looked at; what was written here is known"


def words(count: int) -> list[str]:
    """Return what compresses as text does."""
    chance = random.Random(count)
    known = ["".join(chance.choices("aeiounrstlm", k=chance.randint(5, 15))) for _ in range(100)]
    return chance.choices(known, k=count)


def test_what_one_request_does_to_what_it_opened_reaches_no_other(site) -> None:
    edge = site(InBytes())
    browser = edge.browser()
    browser.ask(lambda session: session.update(cart=["kettle"] * 3000))
    for _ in range(2):

        def spoil(session: Any) -> None:
            session["cart"].clear()
            raise RuntimeError("nothing of this is kept")

        with pytest.raises(RuntimeError):
            browser.ask(spoil)
        assert browser.look(lambda session: len(session["cart"])) == 3000


def test_what_is_remembered_is_bounded() -> None:
    bound = 200_000
    codec, chance = payloads(memo=bound), random.Random(1)
    for number in range(100):
        value = words(chance.randint(1500, 2500) if number % 10 else 9000)
        body = codec.pack(ANN, {"a": codec.encode(number), "b": codec.encode(value)}, b"c")
        content = codec.content(f"{number:016}", body, b"c")
        assert codec.decode(content.cells["b"]) == value
        kept = [value for value, _ in codec.memo._kept.values()]
        bodies = [codec.pack(ANN, one.cells, b"c") for one in kept if isinstance(one, Content)]
        opened = [len(cell) + len(data) for cell, data in (pair for pair in kept if not isinstance(pair, Content))]
        assert sum(map(len, bodies)) + sum(opened) <= codec.memo.size <= bound
        assert codec.content(f"{number:016}", body, b"c").cells == content.cells
    assert bodies and opened


def test_what_is_small_together_takes_the_room_that_it_takes_in_memory() -> None:
    codec = payloads(memo=1_000_000)
    values = {f"key {number}": codec.encode("again " * 50) for number in range(500)}
    held = sum(map(len, values.values()))
    for number in range(20):
        body = codec.pack(ANN, {**values, "n": codec.encode(number)}, b"c")
        assert len(body) * 10 < held
        codec.content(f"{number:016}", body, b"c")
        assert 0 < len(codec.memo) * held <= codec.memo.size


def test_what_was_not_asked_for_longest_goes_first() -> None:
    memo = Memo(100)
    for name in "abcd":
        memo.put(name, name.upper(), 25)
    assert memo.get("a") == "A"
    memo.put("e", "E", 20)
    memo.put("e", "e", 25)
    assert [memo.get(name) for name in "abcde"] == ["A", None, "C", "D", "e"]
    memo.put("f", "too large", 26)
    assert memo.get("f") is None
    assert (len(memo), memo.size) == (4, 100)


def test_what_another_thread_lets_go_in_between_was_found_all_the_same() -> None:
    class Losing(OrderedDict[Any, Any]):
        def get(self, key, default=None):
            return self.pop(key, default)

    memo = Memo(100)
    memo._kept = Losing(a=("A", 10))
    assert (memo.get("a"), memo.get("a")) == ("A", None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_wait_for_who_was_remembering_something() -> None:
    memo = Memo(100)
    memo.put("a", "A", 25)
    with memo._lock:
        memo.size += 25  # in the middle of it
        child = os.fork()
        if child == 0:
            free = memo._lock.acquire(blocking=False)
            os._exit(0 if free and memo.size == 25 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_remembered_without_room(site, monkeypatch) -> None:
    browser = site(InBytes(), memo=0).browser()
    browser.ask(put("cart", words(3000)))
    opened: list[Any] = []
    real = cells.opened
    monkeypatch.setattr(cells, "opened", lambda *args, **kw: opened.append(args) or real(*args, **kw))
    for _ in range(2):
        assert browser.look(lambda session: len(session["cart"])) == 3000
    assert len(opened) == 2
    for wrong in (-1, 1.5, None):
        with pytest.raises(ConfigError, match="memo="):
            payloads(memo=wrong)


def test_small_values_are_remembered_within_bounds(monkeypatch) -> None:
    monkeypatch.setattr(payload, "_SCALARS", 10)
    codec = payloads(compression="zstd", compress_from=100)
    for number in range(100):
        codec.learn(codec.encode(number), number)
        assert len(codec.scalars) <= 10
    assert codec.scalars
    codec.scalars.clear()
    long, squeezed = codec.encode("a" * 100), codec.encode("a" * 500_000)
    assert type(squeezed) is Squeezed
    assert len(squeezed) <= 64, "little stands for much here"
    for cell in (long, squeezed):
        codec.learn(cell, codec.decode(cell))
    assert codec.scalars == {}


def test_what_a_codec_of_one_s_own_reads_is_not_what_was_written() -> None:
    class AsText:
        id = 77

        def encode(self, value: Any) -> bytes:
            return str(value).encode()

        def decode(self, data: bytes) -> Any:
            return data.decode()

    codec = payloads(codec=AsText())
    before = codec.encode(1)
    assert codec.same(before, 2) == b"2"
    assert codec.scalars == {}


def test_what_is_remembered_of_one_version_is_not_taken_for_another() -> None:
    codec = payloads()
    one, other = ([f"{word} {number}" for number in range(1000)] for word in ("pot", "cup"))
    bodies = [codec.pack(ANN, {"cart": codec.encode(value)}, b"c") for value in (one, other)]
    for version, body, value in (("1" * 16, bodies[0], one), ("2" * 16, bodies[1], other), ("1" * 16, bodies[0], one)):
        assert codec.decode(codec.content(version, body, b"c").cells["cart"]) == value


@pytest.mark.server
def test_a_small_change_of_a_large_session_sends_the_change_alone(server, site) -> None:
    edge = site(server.url)
    browser = edge.browser()
    chance = random.Random(1)
    large = [chance.randbytes(20).hex() for _ in range(2500)]
    browser.ask(lambda session: session.update(hits=0, cart=large))
    with server.client() as client:
        browser.ask(put("hits", 1))  # the server knows the script
        before = client.info("stats")["total_net_input_bytes"]
        browser.ask(put("hits", 2))
        sent = client.info("stats")["total_net_input_bytes"] - before
        assert sent < 600
        (name,) = client.keys("*:s:*")
        assert client.memory_usage(name) < 1.3 * client.strlen(name), "what is added leaves no room behind"
    assert browser.look() == {"hits": 2, "cart": large}


def test_a_first_addition_to_a_tiny_session_is_worth_it() -> None:
    codec = payloads()
    values = {"n": codec.encode(1), "m": codec.encode("x" * 100)}
    assert codec.addition(values, {**values, "n": codec.encode(2)}, Extent(200)) is not None
    assert codec.addition(values, {**values, "m": codec.encode("y" * 100)}, Extent(200)) is not None
    assert codec.addition(values, {**values, "m": codec.encode("y" * 200)}, Extent(200)) is None


@pytest.mark.parametrize("protected", [False, True])
def test_a_key_that_is_no_text_is_a_codec_error(protected) -> None:
    codec = payloads(protection=Signing([b"k" * 32])) if protected else payloads()
    with pytest.raises(CodecError, match="a key of a session"):
        codec.pack(ANN, {"\ud800": codec.encode(1)}, b"c")


@pytest.mark.server
@pytest.mark.parametrize("size", [100, 3_900, 3_938, 3_950, 4_000, 5_000, 40_000])
def test_additions_to_sessions_of_any_size_are_the_same(server, site, clock, size) -> None:
    edge = site(server.url)
    browser = edge.browser()
    filling = random.Random(size).randbytes(size)
    browser.ask(lambda session: session.update(hits=0, filling=filling))
    with server.client() as client:
        (name,) = client.keys("*:s:*")
        head = client.getrange(name, 0, 100)
        for hits in (1, 2, 3):
            client.pexpire(name, 5000)
            browser.ask(put("hits", hits))
            assert client.pttl(name) > 100_000, "it lives as long as after any other use"
        now = client.getrange(name, 0, 100)
        assert client.keys("*:s:*") == [name]
        assert now[3:18] == head[3:18], "made when it was made"
        assert now[33:49] != head[33:49], "another version"
        assert now[49:] == head[49:], "the life, the end and the owner of before"
    assert browser.look() == {"hits": 3, "filling": filling}
    assert edge.sessions.count() == 1


def test_a_plain_value_that_differs_is_not_read_again_to_see_whether_it_does() -> None:
    class Counting(MsgpackCodec):
        __slots__ = ("decoded",)

        def decode(self, data: bytes):
            self.decoded = True
            return super().decode(data)

    codec = Counting()
    codec.decoded = False
    made = payloads(codec=codec)
    for value, other in ((1, 2), ("a", "b"), (True, None), (b"x", "x"), (1, True)):
        before = made.encode(value)
        assert made.same(before, value) is None
        fresh = made.same(before, other)
        assert fresh is not None
        assert not codec.decoded
        assert made.decode(fresh) == other
        codec.decoded = False
    # What may be written in several ways is: a set that was read, and has not changed.
    before = made.encode({f"tag {number}" for number in range(40)})
    assert made.same(before, made.decode(before)) is None


@pytest.mark.parametrize("how", ["small", "large", "protected", "huge"])
def test_bodies_are_taken_apart_once(how, monkeypatch) -> None:
    codec = (
        payloads(protection=Signing([b"k" * 32])) if how == "protected" else payloads(max_bytes=4_000_000, memo=4 << 20)
    )
    size = {"large": 9000, "huge": 1_500_000}.get(how, 90)
    values = {"n": codec.encode(1), "text": codec.encode(random.Random(1).randbytes(size))}
    body = codec.pack(ANN, values, b"c")
    again = bytes(bytearray(body))
    first = codec.content("v1", body, b"c")
    monkeypatch.setattr(codec, "_about", lambda *_: pytest.fail("taken apart again"))
    known = how in ("small", "large")
    if known:
        assert codec.content("v1", again, b"c") is first
    damaged = again[:-1] + b"?" if how == "small" else again + b"?"  # the checksum of what is large would cost too much
    for version, other in (("v1", damaged), ("v2", again), *([] if known else [("v1", again)])):
        with pytest.raises(pytest.fail.Exception):
            codec.content(version, other, b"c")


def test_what_was_written_is_not_taken_apart(monkeypatch) -> None:
    codec = payloads()
    values = {"n": codec.encode(1), "text": codec.encode("x" * 90)}
    body = codec.pack(ANN, values, b"c")
    extent = codec.extent(body)
    codec.remember("v1", Content(ANN, values, extent))
    changed = {**values, "n": codec.encode(2)}
    added, extent = codec.addition(values, changed, extent)
    codec.remember("v2", Content(ANN, changed, extent))
    assert codec.unpack(body + added, b"c") == Content(ANN, changed, extent)
    monkeypatch.setattr(codec, "_about", lambda *_: pytest.fail("taken apart"))
    assert codec.content("v1", body, b"c").cells is values
    assert codec.content("v2", body + added, b"c").cells is changed
