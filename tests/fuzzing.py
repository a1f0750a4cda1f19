"""What reads bytes from outside, each as a function of bytes that raises when something is wrong, for a fuzzer.

``python -m tests.fuzzing NAME -runs=N`` searches with atheris, whose further arguments are those of libFuzzer.
``tests/property/test_fuzzing.py`` tries each with a few inputs, and under ``make soak`` runs the search.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

SEEDS = [
    b"", b"max-age=60, public", b'private="set-cookie, x", no-cache', b"max-age=60;a=?1, no-store=?0", b"600+60,a=b",
    b"Fri, 15 Jan 2027 08:00:00 GMT", b"Friday, 15-Jan-27 08:00:00 GMT", b"Fri Jan 15 08:00:00 2027", b'W/"a", "b",*',
    b"bytes=0-1,-5,7-", b"bytes 0-9/100", b"bytes 4-9/20\n456789", b"session=a.p1800000000.x; b=c",
    b"accept: a\ncookie: a=1\nrange: bytes=0-1\n\ncache-control: max-age=60, public\nvary: accept, cookie",
    b"/%2e%2e/a b\xc3\xa9;c?utm_x=1&a=%20\ncookie: a=b", b"\x01\x00\x00\x00\x02\x8d\xc1\xff", b"\x82\xa1a\x01\xa1b\xc0",
]  # fmt: skip


def text_of(data: bytes) -> str:
    return data.decode("latin-1")


def pairs_of(data: bytes) -> list[tuple[str, str]]:
    """Read *data* as lines ``name: value``."""
    found = [line.partition(":") for line in text_of(data).split("\n")]
    return [(name.strip().lower() or "x", value.strip()) for name, _, value in found][:40]


def directives(data: bytes) -> None:
    from cachekit.http.directives import CacheControl, parse_surrogate, parse_targeted
    from cachekit.http.freshness import declared

    text = text_of(data)
    control = CacheControl.parse(text)
    assert CacheControl.parse(str(control)) == control
    for name in ("private", "no-cache"):
        listed = control.fields(name)
        assert (listed == frozenset()) is (name not in control)
    for field in ("cache-control", "cdn-cache-control", "surrogate-control"):
        said = declared([(field, text)], ["surrogate-control", "cdn-cache-control"], 1.8e9)
        assert said.lifetime is None or said.lifetime >= 0
    parse_surrogate([("surrogate-control", text)])
    parse_targeted([("cdn-cache-control", text)], "cdn-cache-control")


def fields(data: bytes) -> None:
    from cachekit.http.freshness import initial_age
    from cachekit.http.headers import (
        end_to_end,
        format_date,
        members,
        parse_date,
        parse_etag,
        parse_etags,
        parse_tags,
        parse_vary,
    )
    from cachekit.http.selecting import nominated

    text = text_of(data)
    if (date := parse_date(text, 1.8e9)) is not None and date >= 0:
        assert parse_date(format_date(date)) == date
    if (tag := parse_etag(text)) is not None:
        assert parse_etag(str(tag)) == tag
    assert all(member == member.strip(" \t") and member for member in members(text))
    assert all(name == "*" or name == name.lower() for name in parse_vary([("Vary", text)]))
    parse_etags(text)
    assert all(parse_tags(text))
    assert not any(name == "connection" for name, _ in end_to_end([("connection", text), *pairs_of(data)]))
    for name in ("accept-encoding;br,gzip", "accept-language;any-order", "cookie", "x"):
        assert nominated([(name.partition(";")[0], text)], name)
    assert initial_age([("age", text), ("date", text)], 1.8e9, 1.8e9) >= 0


def ranges(data: bytes) -> None:
    from cachekit.http.message import StoredResponse
    from cachekit.http.parts import combined, content_range
    from cachekit.http.ranges import cut, parse_range

    length = len(data) * 3
    spans = parse_range(text_of(data), length)
    assert all(0 <= begin < end <= length for begin, end in spans or ())
    assert sum(end - begin for begin, end in spans or ()) <= length
    found = StoredResponse(200, "", [("Content-Type", "text/plain")], bytes(length), 0.0, 0.0, 60.0)
    for asked in (text_of(data), "bytes=" + text_of(data)):
        made = cut([("range", asked)], found, list(found.headers))
        assert made is None or made[0] in (206, 416)
    head, _, body = data.partition(b"\n")
    old = StoredResponse(206, "", [("Content-Range", "bytes 0-3/20"), ("ETag", '"a"')], b"0123", 0.0, 0.0, 60.0)
    stated = [("Content-Range", text_of(head)), ("ETag", '"a"')]
    part = content_range(stated)
    if part is not None and part.end - part.begin == len(body):
        joined, content = combined(old, list(stated), body, 10_000)
        whole = content_range(joined)
        assert whole is not None and whole.end - whole.begin == len(content)


def exchange(data: bytes) -> None:
    """One request and its response, whatever both say, and what is stored of it read again."""
    from cachekit.http.decisions import Forward, Keep, Serve, Validate
    from cachekit.http.exchange import Exchange
    from cachekit.http.headers import first
    from cachekit.http.message import Request, StoredResponse
    from cachekit.http.options import HttpOptions
    from cachekit.http.rules import Rule, Rules

    asked, _, answered = data.partition(b"\n\n")
    status = 200 + (data[0] % 7 == 0) * 6 if data else 200
    request = Request("GET", "http", "example.org", "/x", "/x", pairs_of(asked))
    rules, options = Rules([Rule("/never", ttl=1)]), HttpOptions(status_key=True, status_detail=True)
    now = 1.8e9
    made = Exchange(request, rules, options)
    while made.wants() is not None:
        made.supply(None)
    if isinstance(made.decision(now), Serve):
        return
    headers = pairs_of(answered)
    made.start(status, "", headers, now)
    made.recording.feed(b"body")
    outcome = made.finish("nonce")
    if not isinstance(outcome, Keep):
        return
    assert (
        first(headers, "set-cookie") is None
        or first(StoredResponse.unpack(outcome.entry.value).headers, "set-cookie") is None
    )  # type: ignore[union-attr]
    again = Exchange(request, rules, options)
    while (key := again.wants()) is not None:
        again.supply(outcome.entry if key == outcome.key else None)
    decision = again.decision(now + 1)
    assert isinstance(decision, (Serve, Forward, Validate))
    if isinstance(decision, Serve):
        given = {value for _, value in headers}
        assert not any(set("\r\n") & set(value) for _, value in decision.headers if value not in given)


def requests(data: bytes) -> None:
    """The key of a request: printable, bounded, and the same by the short way."""
    from urllib.parse import unquote

    from cachekit.http.asgi_request import Reader, request_of
    from cachekit.http.options import HttpOptions

    raw, _, rest = data.partition(b"?")
    query, _, more = rest.partition(b"\n")
    headers = [(b"host", b"example.org"), *((n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs_of(more))]
    scope = {
        "type": "http", "method": "GET", "scheme": "http", "path": unquote(raw.decode("latin-1")), "raw_path": raw,
        "query_string": query, "headers": headers,
    }  # fmt: skip
    for options in (HttpOptions(), HttpOptions(sort_query=True, ignore_query=["utm_*"], key_cookies=["a"])):
        key = options.keying.key(request_of(scope))
        assert key is None or (key.isascii() and key.isprintable() and len(key) <= 200)
        reader = Reader(options)
        for _ in range(2):
            short, _ = reader.read(scope)
            assert short in (key, None)


def cookies(data: bytes) -> None:
    """The cookie of a session: what we did not sign is none, and what we signed is what it was."""
    from cachekit.sessions.cookie import Cookies
    from cachekit.sessions.options import SessionOptions

    options = SessionOptions(secrets="a secret of sixteen")
    reader, text = Cookies(options), text_of(data)
    assert reader.read([text]) is None
    assert reader.read([f"{options.cookie}={text}"]) is None


def records(data: bytes) -> None:
    """What lies on a server, the checksum right or wrong: an entry, or an error of the codec."""
    from cachekit.codecs.frame import seal
    from cachekit.codecs.msgpack import MsgpackCodec
    from cachekit.errors import CodecError
    from cachekit.http.message import StoredResponse
    from cachekit.stores.record import read_frame, read_record

    codec = MsgpackCodec()
    size = min(len(data), data[0] % 64) if data else 0
    frames = [data, seal(data[:size], data[size:], codec_id=codec.id), seal(bytes(40), data, codec_id=codec.id)]
    for frame in frames:
        try:
            entry = read_frame(frame, (), (), {codec.id: codec}, 1 << 20)
        except CodecError:
            continue
        stored = StoredResponse.unpack(entry.value)
        assert stored is None or StoredResponse.unpack(stored.pack()) is not None
    try:
        read_record(data)
    except CodecError:
        pass


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (directives, fields, ranges, exchange, requests, cookies, records)
}


def inputs() -> Iterator[bytes]:
    """Yield the seeds, and simple changes of each."""
    for seed in SEEDS:
        yield seed
        yield seed[::-1]
        yield seed + b"\n\ncache-control: max-age=60\nvary: a\nset-cookie: a=1"
        for at in range(0, len(seed), 3):
            yield seed[:at] + b'"' + seed[at:]
            yield seed[:at] + b"\xff\x00," + seed[at + 1 :]


def main() -> None:
    import atheris

    target = TARGETS[sys.argv.pop(1)]
    with atheris.instrument_imports(include=["cachekit"]):
        target(b"")
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
