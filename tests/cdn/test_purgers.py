"""What each CDN is told, and what its answers mean: pure, no network."""

from __future__ import annotations

import json

import pytest

from cachekit import Cloudflare, ConfigError, Fastly, Varnish
from cachekit.cdn import Outcome, Reply, Scope, Target, Verdict

CF = Cloudflare(zone="z1", token="sesame")
FASTLY = Fastly(service="s1", token="sesame")
VARNISH = Varnish("http://10.0.0.5:6081")


def reply(status: int, body: object = b"", **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, tuple((k.replace("_", "-"), v) for k, v in headers.items()), raw, at=1_000_000.0)


def test_cloudflare_purges_by_tag_by_url_and_everything() -> None:
    (tags,) = CF.build(tags=["product:42", "catalog"])
    assert (tags.method, tags.url) == ("POST", "https://api.cloudflare.com/client/v4/zones/z1/purge_cache")
    assert json.loads(tags.body) == {"tags": ["product:42", "catalog"]}
    assert ("Authorization", "Bearer sesame") in tags.headers
    (urls,) = CF.build(urls=["https://shop.example/p/42"])
    assert json.loads(urls.body) == {"files": ["https://shop.example/p/42"]}
    (everything,) = CF.build(tags=["x"], everything=True)
    assert json.loads(everything.body) == {"purge_everything": True}


@pytest.mark.parametrize(("plan", "size"), [("free", 100), ("business", 100), ("enterprise", 500)])
def test_cloudflare_keeps_to_the_batches_of_the_plan(plan: str, size: int) -> None:
    purger = Cloudflare(zone="z1", token="t", plan=plan)
    assert [len(c.targets) for c in purger.build(tags=[f"t{i}" for i in range(250)])] == [100, 100, 50]
    urls = [f"https://e.example/{i}" for i in range(size + 1)]
    assert [len(c.targets) for c in purger.build(urls=urls)] == [size, 1]


def test_fastly_purges_one_key_many_keys_urls_and_everything() -> None:
    (one,) = FASTLY.build(tags=["product:42"])
    assert (one.method, one.url, one.body) == ("POST", "https://api.fastly.com/service/s1/purge/product:42", b"")
    (many,) = FASTLY.build(tags=["a", "b"])
    assert many.url == "https://api.fastly.com/service/s1/purge"
    assert json.loads(many.body) == {"surrogate_keys": ["a", "b"]}
    assert [len(call.targets) for call in FASTLY.build(tags=[f"k{i}" for i in range(300)])] == [256, 44]
    (url,) = FASTLY.build(urls=["https://shop.example/p/42?a=1"])
    assert url.url == "https://api.fastly.com/purge/shop.example/p/42?a=1"
    assert not [name for name, _ in (*one.headers, *many.headers, *url.headers) if name == "Fastly-Soft-Purge"]


def test_fastly_soft_purges_everything_but_everything() -> None:
    soft = Fastly(service="s1", token="t", soft=True)
    for call in (*soft.build(tags=["a"]), *soft.build(tags=["a", "b"]), *soft.build(urls=["https://e.example/"])):
        assert ("Fastly-Soft-Purge", "1") in call.headers
    (everything,) = soft.build(everything=True)
    assert everything.url.endswith("/service/s1/purge_all")
    assert "Fastly-Soft-Purge" not in dict(everything.headers)


def test_varnish_speaks_to_its_vcl() -> None:
    (keys,) = VARNISH.build(tags=["product:42", "catalog"])
    assert (keys.method, keys.url, keys.headers) == (
        "PURGE", "http://10.0.0.5:6081/", (("xkey-purge", "product:42 catalog"),)
    )  # fmt: skip
    (soft,) = Varnish("http://v:1", soft=True).build(tags=["a"])
    assert soft.headers == (("xkey-softpurge", "a"),)
    (url,) = VARNISH.build(urls=["https://shop.example/p/42?a=1"])
    assert (url.method, url.url) == ("PURGE", "http://10.0.0.5:6081/p/42?a=1")
    assert url.headers == (("Host", "shop.example"),)
    (ban,) = Varnish("http://v:1", mode="ban", secret="s").build(tags=["a.b"])
    assert (ban.method, ban.headers) == ("BAN", (("x-ban-tag", "a\\.b"), ("X-Purge-Token", "s")))


def test_long_tags_do_not_overflow_a_line_of_varnish() -> None:
    calls = VARNISH.build(tags=[f"{i}" + "x" * 500 for i in range(60)])
    assert max(len(value) for call in calls for _, value in call.headers) < 8000
    assert sum(len(call.targets) for call in calls) == 60


@pytest.mark.parametrize("purger", [CF, FASTLY, VARNISH], ids=lambda p: p.name)
def test_a_purge_names_tags_as_the_responses_name_them(purger) -> None:
    """Space, comma and percent are encoded in Cache-Tag, Surrogate-Key and xkey: the purge has to say the same."""
    from cachekit.http.headers import print_tags

    name = print_tags(["a b,c%é"])
    calls = purger.build(tags=["a b,c%é", "other"])
    sent = b"".join(call.body for call in calls).decode() + str([v for call in calls for _, v in call.headers])
    assert name in sent
    assert calls[0].targets[0] == Target(Scope.TAG, "a b,c%é")


TAGS = CF.build(tags=["a", "b"])[0]
TAG = CF.build(tags=["a"])[0]


@pytest.mark.parametrize(
    ("call", "answer", "verdict"),
    [
        (TAGS, reply(200, {"success": True, "errors": [], "result": {"id": "z1"}}), Verdict.DONE),
        (TAGS, reply(200, {"success": False, "errors": [{"code": 1, "message": "no"}]}), Verdict.RETRY),
        (TAGS, reply(200, b"<html>maintenance</html>"), Verdict.RETRY),
        (TAGS, reply(200, ["success"]), Verdict.RETRY),
        (TAGS, reply(429, {"success": False}), Verdict.RETRY),
        (TAGS, reply(500), Verdict.RETRY),
        (TAGS, reply(400, {"success": False, "errors": [{"code": 1, "message": "bad tag"}]}), Verdict.SPLIT),
        (TAG, reply(400, {"success": False, "errors": [{"code": 1, "message": "bad tag"}]}), Verdict.FAILED),
        (TAGS, reply(401), Verdict.FAILED),
        (TAGS, reply(403, {"success": False, "errors": [{"code": 10000, "message": "auth"}]}), Verdict.FAILED),
        (TAGS, reply(302, b"", location="https://elsewhere.example"), Verdict.FAILED),
    ],
)
def test_what_cloudflare_means(call, answer: Reply, verdict: Verdict) -> None:
    assert CF.check(call, answer).verdict is verdict


def test_errors_of_the_api_are_told() -> None:
    refused = reply(403, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]})
    assert CF.check(TAGS, refused).detail == "403: 10000 Authentication error"


def test_fastly_tells_which_keys_were_purged() -> None:
    (call,) = FASTLY.build(tags=["a", "b", "c"])
    assert FASTLY.check(call, reply(200, {"a": "1-1", "b": "1-2", "c": "1-3"})).verdict is Verdict.DONE
    partly = FASTLY.check(call, reply(200, {"a": "1-1", "c": "1-3"}))
    assert partly.verdict is Verdict.RETRY
    assert partly.landed == (Target(Scope.TAG, "a"), Target(Scope.TAG, "c"))
    assert not partly.everywhere
    (one,) = FASTLY.build(tags=["a"])
    assert FASTLY.check(one, reply(200, {"status": "ok", "id": "1"})).verdict is Verdict.DONE
    assert FASTLY.check(one, reply(200, {"status": "busy"})).verdict is Verdict.RETRY
    assert FASTLY.check(one, reply(200, b"\xff\xfe")).verdict is Verdict.RETRY


def test_varnish_that_knows_no_such_key_is_content() -> None:
    (keys,) = VARNISH.build(tags=["a"])
    (url,) = VARNISH.build(urls=["https://e.example/"])
    assert VARNISH.check(keys, reply(200)).verdict is Verdict.DONE
    assert VARNISH.check(keys, reply(404)).verdict is Verdict.DONE
    assert VARNISH.check(url, reply(404)).verdict is Verdict.FAILED
    assert "VCL" in VARNISH.check(keys, reply(405)).detail
    assert VARNISH.check(keys, reply(503)).verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("7", 7.0),
        ("Mon, 12 Jan 1970 13:47:00 GMT", 20.0),
        ("Mon, 12 Jan 1970 13:00:00 GMT", 0.0),
        ("99999999999", 3600.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
    ],
)
def test_retry_after(value: str, wanted: float | None) -> None:
    assert CF.check(TAGS, reply(429, Retry_After=value)).retry_after == wanted


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Cloudflare(zone="a/b", token="t"), "zone="),
        (lambda: Cloudflare(zone="z", token=""), "token"),
        (lambda: Cloudflare(zone="z", token="two words\r\n"), "token"),
        (lambda: Cloudflare(zone="z", token="t", plan="gold"), "plan="),
        (lambda: Cloudflare(zone="z", token="t", base_url="ftp://x"), "base_url="),
        (lambda: Cloudflare(zone="z", token="t", base_url="https://u:p@x"), "credentials"),
        (lambda: Cloudflare(zone="z", token="t", name="a b"), "name="),
        (lambda: Fastly(service="../x", token="t"), "service="),
        (lambda: Fastly(service="s", token="t", soft=1), "soft="),  # type: ignore[arg-type]
        (lambda: Varnish("localhost:6081"), "url="),
        (lambda: Varnish("http://v", mode="purge"), "mode="),
        (lambda: Varnish("http://v", mode="ban", soft=True), "soft"),
    ],
)
def test_wrong_options_are_refused_by_name(make, names: str) -> None:
    with pytest.raises(ConfigError, match=names) as caught:
        make()
    assert "two words" not in str(caught.value)


def test_tokens_are_never_shown() -> None:
    secret = Varnish("http://v", secret="sesame")
    for purger in (CF, FASTLY, secret):
        calls = [*purger.build(tags=["a", "b"], urls=["https://e.example/"]), *purger.build(everything=True)]
        assert "sesame" not in repr(purger) + repr(calls) + str(purger)
        assert all(call.secrets == ("sesame",) for call in calls)


def test_an_outcome_concerns_every_call_unless_one_target_is_wrong() -> None:
    assert CF.check(TAG, reply(400)) == Outcome(Verdict.FAILED, "status 400", everywhere=False)
