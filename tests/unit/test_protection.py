"""Encryption and signing: vectors, keys, and bytes that were changed or moved."""

from __future__ import annotations

import builtins
import secrets
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit import AuthenticityError, Cache, ConfigError, Encryption, Signing
from cachekit.codecs.frame import open_frame, open_meta, seal
from cachekit.codecs.protection import _derivation
from cachekit.stores.memory import Memory

ONE, TWO = b"1" * 32, b"2" * 32
WAYS = [Encryption, Signing]


@pytest.mark.parametrize(
    ("byte", "aad", "expected"),
    [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_the_published_vectors_of_xaes_256_gcm(byte, aad, expected) -> None:
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    cipher = _derivation(bytes([byte]) * 32)(nonce[:12])
    assert cipher.encrypt(nonce[12:], b"XAES-256-GCM", aad).hex() == expected


@pytest.mark.parametrize("way", WAYS)
@given(meta=st.binary(max_size=50), payload=st.binary(max_size=3000), context=st.binary(max_size=300))
def test_what_was_protected_comes_back(way, meta, payload, context) -> None:
    protection = way([ONE])
    data = seal(meta, payload, codec_id=1, protection=protection, context=context)
    assert open_frame(data, protection=protection, context=context).payload == payload
    assert open_meta(data, protection=protection, context=context) == meta
    with pytest.raises(AuthenticityError):
        open_frame(data, protection=protection, context=context + b"x")


@pytest.mark.parametrize("way", WAYS)
def test_no_byte_can_be_changed(way) -> None:
    """Whoever changes a byte can mend the checksum too: it protects from accidents only."""
    from zlib import crc32

    protection = way([ONE])
    data = seal(b"meta", b"payload", codec_id=1, protection=protection, context=b"k")
    for index in [*range(3, 9), *range(13, len(data))]:
        for bit in (1, 128):
            changed = bytearray(data)
            changed[index] ^= bit
            changed[9:13] = crc32(changed[13:], crc32(changed[:9])).to_bytes(4, "big")
            with pytest.raises(Exception) as caught:
                open_frame(bytes(changed), protection=protection, context=b"k")
            assert type(caught.value).__name__ in ("AuthenticityError", "FrameError"), (index, caught.value)
    for size in range(13, len(data)):
        cut = bytearray(data[:size])
        cut[9:13] = crc32(cut[13:], crc32(cut[:9])).to_bytes(4, "big")
        with pytest.raises(AuthenticityError):
            open_frame(bytes(cut), protection=protection, context=b"k")


def test_only_encryption_hides() -> None:
    assert b"secret" not in seal(b"", b"secret", codec_id=1, protection=Encryption([ONE]))
    assert b"secret" in seal(b"", b"secret", codec_id=1, protection=Signing([ONE]))
    protection = Encryption([ONE])
    assert protection.protect(b"", b"") != protection.protect(b"", b"")


@pytest.mark.parametrize("way", WAYS)
def test_keys_rotate(way) -> None:
    old, both, new = way([ONE]), way([TWO, ONE]), way([TWO])
    before, after = (seal(b"", b"v", codec_id=1, protection=p) for p in (old, both))
    assert open_frame(before, protection=both).payload == b"v"
    assert open_frame(after, protection=both).payload == b"v"
    assert open_frame(after, protection=new).payload == b"v"
    for data, keys in ((before, new), (after, old)):
        with pytest.raises(AuthenticityError, match="is not configured here"):
            open_frame(data, protection=keys)


def test_one_kind_is_not_taken_for_another() -> None:
    plain = seal(b"", b"v", codec_id=1)
    encrypted = seal(b"", b"v", codec_id=1, protection=Encryption([ONE]))
    signed = seal(b"", b"v", codec_id=1, protection=Signing([ONE]))
    assert (plain[2], encrypted[2], signed[2]) == (1, 2, 2)
    for data, protection, says in (
        (plain, Encryption([ONE]), "not protected"),
        (plain, Signing([ONE]), "not protected"),
        (signed, Encryption([ONE]), "is signed, and this cache takes only what is encrypted"),
        (encrypted, Signing([ONE]), "is encrypted"),
        (encrypted, None, "no keys"),
        (signed, None, "no keys"),
    ):
        for opened in (open_frame, open_meta):
            with pytest.raises(AuthenticityError, match=says):
                opened(data, protection=protection)


@pytest.mark.parametrize("way", WAYS)
def test_keys_as_text(way) -> None:
    key = secrets.token_bytes(32)
    text = urlsafe_b64encode(key).decode()
    data = seal(b"", b"v", codec_id=1, protection=way([key]))
    assert open_frame(data, protection=way([text])).payload == b"v"
    assert repr(way([text, ONE])) == f"{way.__name__}(2 keys)"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "list of keys"),
        (ONE, "list of keys"),
        ("text", "list of keys"),
        ([b"short"], r"keys\[0\] must be 32"),
        ([ONE, "c2hvcnQ="], r"keys\[1\] must be 32"),
        ([5], r"keys\[0\] must be 32"),
        (["no base64!"], "base64"),
        ([ONE, ONE], "twice"),
    ],
)
def test_keys_that_cannot_be_used(way, keys, says) -> None:
    with pytest.raises(ConfigError, match=says):
        way(keys)


def test_without_cryptography(monkeypatch) -> None:
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "cryptography":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="install the extra `encryption`"):
        Encryption([ONE])
    assert Signing([ONE]).protect(b"", b"")


def test_it_is_refused_where_it_would_have_no_effect(clock) -> None:
    with pytest.raises(ConfigError, match="protect values there"):
        Cache(Memory(clock=clock), protection=Signing([ONE]))
    assert Cache("memory://", protection=Signing([ONE])).get("k") is None  # nothing leaves the process
