"""Signatures: what is accepted, what is refused, and what nobody can learn from it. Pure."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from cachekit import ConfigError, SignatureError
from cachekit.webhook import GITHUB, STANDARD, STRIPE, Scheme, sign
from cachekit.webhook.signature import DEFAULT, Verifier

NOW = 1_700_000_000
BODY = b'{"event": "product.updated"}'
SECRET = "correct horse battery"
EACH = pytest.mark.parametrize(
    "scheme", [DEFAULT, GITHUB, STRIPE, STANDARD], ids=["default", "github", "stripe", "std"]
)


def replaced(headers, name, value):
    return [(n, value if n.lower() == name.lower() else v) for n, v in headers]


@EACH
def test_what_was_signed_is_accepted(scheme: Scheme) -> None:
    headers = sign(SECRET, BODY, delivery_id="d1", now=NOW, scheme=scheme)
    delivery = Verifier(SECRET, scheme=scheme).verify(headers, BODY, NOW + 10)
    assert delivery.body == BODY
    assert delivery.id == "d1" or scheme is STRIPE


def test_the_default_is_what_the_documentation_says() -> None:
    mac = hmac.new(SECRET.encode(), b"1700000000." + BODY, hashlib.sha256).hexdigest()
    headers = [("x-webhook-signature", f"sha256={mac}"), ("X-WEBHOOK-TIMESTAMP", "1700000000")]
    assert Verifier(SECRET).verify(headers, BODY, NOW).body == BODY


def test_a_vector_of_standard_webhooks() -> None:
    """The example of the specification's reference libraries."""
    headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]
    verifier = Verifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", scheme="standard")
    assert verifier.verify(headers, b'{"test": 2432232314}', 1614265330).id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_a_vector_of_github() -> None:
    """docs.github.com: secret "It's a Secret to Everybody", body "Hello, World!"."""
    line = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verifier = Verifier("It's a Secret to Everybody", scheme="github")
    assert verifier.verify([("X-Hub-Signature-256", line)], b"Hello, World!", NOW)


@EACH
def test_each_changed_byte_is_refused(scheme: Scheme) -> None:
    headers = sign(SECRET, BODY, delivery_id="d1", now=NOW, scheme=scheme)
    verifier = Verifier(SECRET, scheme=scheme)
    for i in range(len(BODY)):
        with pytest.raises(SignatureError):
            verifier.verify(headers, BODY[:i] + bytes([BODY[i] ^ 1]) + BODY[i + 1 :], NOW)
    for other in (b"", BODY[:-1], BODY + b" "):
        with pytest.raises(SignatureError):
            verifier.verify(headers, other, NOW)
    with pytest.raises(SignatureError):
        Verifier("another secret", scheme=scheme).verify(headers, BODY, NOW)


@EACH
def test_missing_fields_are_refused(scheme: Scheme) -> None:
    headers = sign(SECRET, BODY, delivery_id="d1", now=NOW, scheme=scheme)
    needed = {scheme.signature_header}
    if scheme.is_timed and scheme.timestamp_header:
        needed.add(scheme.timestamp_header)
    if "{id}" in scheme.signed:
        needed.add(scheme.id_header)
    for name in needed:
        with pytest.raises(SignatureError, match="missing"):
            Verifier(SECRET, scheme=scheme).verify([h for h in headers if h[0] != name], BODY, NOW)
        with pytest.raises(SignatureError, match="twice"):
            Verifier(SECRET, scheme=scheme).verify([*headers, (name.lower(), "x")], BODY, NOW)


@pytest.mark.parametrize("age", [301, -301, 10**9])
@pytest.mark.parametrize("scheme", [DEFAULT, STRIPE, STANDARD])
def test_old_and_early_deliveries_are_refused(scheme: Scheme, age: int) -> None:
    headers = sign(SECRET, BODY, delivery_id="d1", now=NOW, scheme=scheme)
    with pytest.raises(SignatureError, match="old|ahead"):
        Verifier(SECRET, scheme=scheme).verify(headers, BODY, NOW + age)
    Verifier(SECRET, scheme=scheme).verify(headers, BODY, NOW + (300 if age > 0 else -300))


def test_a_new_time_on_an_old_signature_is_refused() -> None:
    headers = replaced(sign(SECRET, BODY, now=NOW), "X-Webhook-Timestamp", str(NOW + 1000))
    with pytest.raises(SignatureError, match="wrong"):
        Verifier(SECRET).verify(headers, BODY, NOW + 1000)


def test_secrets_are_rotated() -> None:
    verifier = Verifier(["the new secret", SECRET])
    for secret in ("the new secret", SECRET):
        verifier.verify(sign(secret, BODY, now=NOW), BODY, NOW)
    with pytest.raises(SignatureError):
        verifier.verify(sign("the older one", BODY, now=NOW), BODY, NOW)
    both = sign("the older one", BODY, now=NOW)[0][1] + ", " + sign(SECRET, BODY, now=NOW)[0][1]
    verifier.verify(replaced(sign(SECRET, BODY, now=NOW), "X-Webhook-Signature", both), BODY, NOW)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sha256=",
        "sha256=zz",
        "sha1=00",
        "00" * 32,
        "sha256=" + "0" * 63,
        "sha256=" + "00" * 31,
        "é",
        "\x00",
        "a" * 3000,
    ],
)
def test_nonsense_is_refused(line: str) -> None:
    headers = replaced(sign(SECRET, BODY, now=NOW), "X-Webhook-Signature", line)
    with pytest.raises(SignatureError):
        Verifier(SECRET).verify(headers, BODY, NOW)


@pytest.mark.parametrize("when", ["soon", "1e9", "-5", "²", "9" * 13, "1700000000.5"])
def test_times_that_are_none_are_refused(when: str) -> None:
    mac = hmac.new(SECRET.encode(), when.encode("latin-1", "replace") + b"." + BODY, hashlib.sha256).hexdigest()
    with pytest.raises(SignatureError):
        Verifier(SECRET).verify(
            [("X-Webhook-Signature", f"sha256={mac}"), ("X-Webhook-Timestamp", when)], BODY, NOW
        )  # fmt: skip


def test_comparison_is_the_constant_time_one(monkeypatch) -> None:
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    Verifier([SECRET, "another secret"]).verify(sign(SECRET, BODY, now=NOW), BODY, NOW)
    assert len(compared) == 2  # each pair, also after one was right


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Verifier([]), "at least one"),
        (lambda: Verifier("short"), "8 bytes"),
        (lambda: Verifier([SECRET, 5]), "8 bytes"),
        (lambda: Verifier("whsec_!!"), "base64"),
        (lambda: Verifier(SECRET, scheme="gitlab"), "scheme="),
        (lambda: Verifier(SECRET, tolerance=0), "tolerance"),
        (lambda: Scheme(signature_header="a b"), "signature_header"),
        (lambda: Scheme(signed="{timestamp}"), "signed="),
        (lambda: Scheme(signed="{host}.{body}"), "signed="),
        (lambda: Scheme(signed="{id}.{body}", id_header=None), "id_header"),
        (lambda: Scheme(encoding="base32"), "encoding="),
    ],
)
def test_wrong_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(Verifier(SECRET))
