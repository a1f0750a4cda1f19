"""Cookies of every kind, and the laws of merging, held against models."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from cachekit.http.directives import CacheControl
from cachekit.http.headers import parse_vary
from cachekit.http.personal import dressed
from cachekit.sessions import SessionOptions
from cachekit.sessions.cookie import Cookies, Ticket
from cachekit.sessions.habits import Habits
from cachekit.sessions.merge import ABSENT, merge, queue, total, union
from cachekit.sessions.payload import About, Payloads
from cachekit.sessions.store import new_id

OPTIONS = SessionOptions(secrets=["newest" * 5, "older" * 5], claims=["role"])
COOKIES = Cookies(OPTIONS)
NOW = 1_800_000_000.0
VALID = COOKIES.issue(Ticket("0a" + "x" * 43, 0.0, claims={"role": b"\x01"}, user="ann"), NOW)

values = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), max_size=6)
anything = st.text(max_size=200) | st.text(alphabet=string.printable, max_size=50).map(lambda text: text * 100)


@given(st.lists(anything | anything.map(lambda text: f"__Host-session={text}"), max_size=4))
def test_no_cookie_is_an_error_and_none_is_adopted(lines) -> None:
    assert COOKIES.read(lines) is None


@given(st.data())
def test_a_cookie_that_was_changed_anywhere_is_none(data) -> None:
    at = data.draw(st.integers(0, len(VALID) - 1))
    other = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=\x00é "))
    changed = VALID[:at] + other + VALID[at + 1 :]
    ticket = COOKIES.read([f"__Host-session={changed}"])
    # The last character of base64 carries two bits that mean nothing: the same signature in another spelling.
    assert ticket is None or changed.rpartition(".")[0] == VALID.rpartition(".")[0]


def test_a_cookie_that_says_it_all_is_known() -> None:
    ticket = COOKIES.read([f"__Host-session={VALID}"])
    said = {"session_id": ticket.id, "remembered": False, "detached": False, "claims": {"role": b"\x01"}, "user": "ann"}
    assert ticket.text == VALID and ticket.tells(**said)
    other = {"session_id": new_id(), "remembered": True, "detached": True, "claims": {}, "user": "bob"}
    assert not any(ticket.tells(**{**said, name: value}) for name, value in other.items())
    older = Cookies(SessionOptions(secrets="older" * 5, claims=["role"])).issue(ticket, NOW)
    found = COOKIES.read([f"__Host-session={older}"])
    assert found.id == ticket.id and not found.tells(**said), "the newest secret has to sign it"


@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)))
def test_a_part_of_a_cookie_is_none(begin, end) -> None:
    part = VALID[begin:end]
    assert part == VALID or COOKIES.read([f"__Host-session={part}"]) is None


@given(st.text(max_size=100), st.binary(max_size=100), st.booleans(), st.booleans(), st.integers(0, 2**40))
def test_what_is_issued_is_read(user, claim, remembered, detached, now) -> None:
    identity = new_id()
    ticket = Ticket(identity, 0.0, remembered, detached, {"role": claim}, user.encode("utf-8", "replace").decode())
    read = COOKIES.read([f'a=b; __Host-session="{COOKIES.issue(ticket, now)}"; c=d'])
    assert read is not None
    assert (read.id, read.remembered, read.detached, read.claims, read.user, read.issued) == (
        ticket.id, remembered, detached, ticket.claims, ticket.user, now
    )  # fmt: skip


@given(st.text(max_size=300))
def test_only_tokens_of_this_session_are_taken(text) -> None:
    assert COOKIES.is_csrf("0a" + "x" * 43, text) is False


@given(values, values)
def test_a_side_that_changed_nothing_changes_nothing(base, other) -> None:
    assert merge(base, base, other) == other
    assert merge(base, other, base) == other


@given(values, values, values)
def test_merging_against_a_model(base, mine, theirs) -> None:
    expected = {}
    for key in "abcdef":
        old, own, other = (side.get(key, ABSENT) for side in (base, mine, theirs))
        value = other if own == old else own
        if value is not ABSENT:
            expected[key] = value
    assert merge(base, mine, theirs) == expected


@given(values, values, values)
def test_one_that_yields_takes_only_what_nobody_touched(base, mine, theirs) -> None:
    merged = merge(base, mine, theirs, yielding=True)
    for key in "abcdef":
        old, own, other = (side.get(key, ABSENT) for side in (base, mine, theirs))
        assert merged.get(key, ABSENT) == (own if other == old else other)


@given(values, values, values)
def test_keys_that_only_one_side_touched_do_not_depend_on_the_order(base, mine, theirs) -> None:
    both = {k for k in "abcdef" if base.get(k) != mine.get(k) and base.get(k) != theirs.get(k)}
    one, other = merge(base, mine, theirs), merge(base, theirs, mine)
    assert {k: v for k, v in one.items() if k not in both} == {k: v for k, v in other.items() if k not in both}


@given(st.integers(), st.lists(st.integers(), max_size=8))
def test_counters_add_up_whatever_the_order(base, added) -> None:
    stored = base
    for amount in added:
        stored = total(base, base + amount, stored)
    assert stored == base + sum(added)


@given(st.sets(st.integers(0, 9)), st.lists(st.sets(st.integers(0, 9)), max_size=5))
def test_sets_that_grow_lose_nothing(base, added) -> None:
    as_set, as_list = set(base), sorted(base)
    for more in added:
        as_set = union(base, base | more, as_set)
        as_list = union(sorted(base), sorted(base | more), as_list)
    assert as_set == base.union(*added)
    assert sorted(as_list) == sorted(as_set)


@given(st.lists(st.integers(0, 9), unique=True), st.sets(st.integers(0, 9)), st.sets(st.integers(10, 19)))
def test_a_queue_is_taken_from_and_added_to(base, taken, added) -> None:
    mine = [item for item in base if item not in taken]
    theirs = [*base, *sorted(added)]
    merged = queue(base, mine, theirs)
    assert (merged if merged is not ABSENT else []) == [*mine, *sorted(added)]


payloads = st.dictionaries(
    st.text(max_size=10), st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=50) | st.lists(st.booleans())
)


@given(payloads, st.sampled_from(["snappy", "zstd"]))
def test_a_session_comes_back(session, compression) -> None:
    codec = Payloads(SessionOptions(secrets="x" * 32, compression=compression, compress_from=20))
    packed = {key: codec.encode(value) for key, value in session.items()}
    content = codec.unpack(codec.pack(About("ann", "x", True), packed, b"c"), b"c")
    about, read = content.about, content.cells
    assert about == About("ann", "x", True)
    assert {key: codec.decode(value) for key, value in read.items()} == session


@given(st.binary(max_size=300), st.integers(0, 60), st.integers(0, 255))
def test_damaged_bytes_are_a_codec_error_and_nothing_else(junk, at, byte) -> None:
    from cachekit import CodecError

    codec = Payloads(SessionOptions(secrets="x" * 32))
    good = codec.pack(About("ann", "x", True), {"k": codec.encode("v" * 30)}, b"c")
    changed = bytearray(good)
    changed[at % len(good)] = byte
    for data in (junk, bytes(changed), good[: at % len(good)]):
        try:
            codec.unpack(data, b"c")
        except CodecError:
            continue


names = st.sampled_from(["Cache-Control", "cache-control", "Vary", "CDN-Cache-Control", "Surrogate-Control", "X-Other"])
parts = st.sampled_from(["public", "private", "s-maxage=9", "no-store", "must-understand", 'private="x"', "max-age=1",
                         "Accept", "*", "cookie", '"', "no-cache", ""])  # fmt: skip


@given(st.lists(st.tuples(names, st.lists(parts, max_size=3).map(", ".join)), max_size=5))
def test_no_shared_cache_may_keep_what_was_made_by_looking(headers) -> None:
    from cachekit.http.options import HttpOptions
    from cachekit.http.storable import judge_response

    fields = dressed(headers, accessed=True, cookies=["a=b"])
    control = CacheControl.of(fields)
    assert "private" in control
    assert not {"public", "s-maxage", "must-understand"} & {name for name, _ in control.pairs}
    assert parse_vary(fields) == ("*",) or "cookie" in parse_vary(fields)
    assert judge_response(200, fields, fields, None, (), HttpOptions(), NOW).refused
    assert dressed(headers, accessed=False, cookies=[]) == headers


@given(st.lists(st.tuples(st.text(max_size=30), st.booleans()), max_size=50))
def test_habits_are_bounded_and_forget(requests) -> None:
    habits = Habits()
    for path, looked in requests:
        habits.learn(habits.shape("GET", path), looked)
        assert looked or not habits.expects(habits.shape("GET", path))
