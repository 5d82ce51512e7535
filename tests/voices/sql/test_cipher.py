import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import DatabaseError
from voices.sql.cipher import KEY_VARIABLE, KeyRing, read_key, seal, unseal

KEY = bytes(range(200, 232))


@given(st.binary(max_size=100), st.text(max_size=20))
def test_what_is_sealed_opens_in_its_place_only(text: bytes, place: str) -> None:
    sealed = seal(KEY, text, place)
    assert unseal(KEY, sealed, place) == text
    assert len(sealed) == len(text) + 28 and sealed != seal(KEY, text, place)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for key, content, where in [
        (KEY, sealed, place + "x"),
        (bytes(32), sealed, place),
        (KEY, changed, place),
        (KEY, sealed[:20], place),
        (KEY, b"", place),
    ]:
        with pytest.raises(DatabaseError, match="cannot be decrypted"):
            unseal(key, content, where)


def test_read_key() -> None:
    assert read_key({}) is None and read_key({KEY_VARIABLE: " "}) is None
    for encoded in (base64.b64encode(KEY).decode(), KEY.hex(), KEY.hex().upper()):
        assert read_key({KEY_VARIABLE: f" {encoded}\n"}) == KEY


@pytest.mark.parametrize(
    "text", ["secret", "A" * 40, "ab" * 31, "ä" * 44, base64.b64encode(bytes(31)).decode()]
)
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(DatabaseError, match="does not hold a key") as error:
        read_key({KEY_VARIABLE: text})
    assert text not in str(error.value)


@pytest.mark.parametrize("master", [None, KEY])
def test_record_keys(master: bytes | None) -> None:
    ring = KeyRing(master)
    (first, stored), (second, other) = ring.new(), ring.new()
    assert first != second and len(first) == 32 and len(stored) == len(other) == 60
    assert ring.open(stored) == first
    assert (first in stored) is (master is None)
    if master is not None:
        with pytest.raises(DatabaseError):
            ring.open(bytes(60))


def test_check() -> None:
    text = KeyRing(KEY).check_text()
    assert KeyRing().check_text() is None
    KeyRing(KEY).check(text, "d")
    KeyRing().check(None, "d")
    with pytest.raises(DatabaseError, match="d is encrypted; give its key in VOICEPRINT_KEY"):
        KeyRing().check(text, "d")
    with pytest.raises(DatabaseError, match="d is encrypted with another key"):
        KeyRing(bytes(32)).check(text, "d")
    with pytest.raises(DatabaseError, match="d is not encrypted, but a key was given"):
        KeyRing(KEY).check(None, "d")
