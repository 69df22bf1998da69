"""Sealing: what was sealed opens only here, unchanged, and for its purpose."""

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import VaultError
from kiosk.vault import Vault

SECRET = bytes(range(32))
VAULT = Vault(SECRET)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=2000), context=st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_opens_again(data, context):
    """Any bytes come back, also in a later process with the same secret."""
    blob = VAULT.seal(data, context)
    assert Vault(SECRET).unseal(blob, context) == data
    assert data not in blob or len(data) < 8


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=100), bit=st.integers(0, 10**6))
def test_a_flipped_bit_anywhere_is_noticed(data, bit):
    """Header, nonce, ciphertext and tag are all authenticated."""
    blob = bytearray(VAULT.seal(data, "row"))
    blob[bit // 8 % len(blob)] ^= 1 << bit % 8
    with pytest.raises(VaultError, match=r"^row: expected"):
        VAULT.unseal(bytes(blob), "row")


@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=100), cut=st.integers(1, 200), more=st.binary(min_size=1, max_size=9)
)
def test_lost_or_added_bytes_are_noticed(data, cut, more):
    """A torn write opens to an error, never to a part."""
    blob = VAULT.seal(data, "row")
    for wrong in (blob[: max(0, len(blob) - cut)], blob + more, more + blob):
        with pytest.raises(VaultError, match=r"^row: expected"):
            VAULT.unseal(wrong, "row")


def test_another_context_or_device_opens_nothing():
    """A row cannot be passed off as another row, nor be read on another device."""
    blob = VAULT.seal(b"data", "row 1")
    with pytest.raises(VaultError, match=r"do not authenticate.*device.secret is another"):
        VAULT.unseal(blob, "row 2")
    with pytest.raises(VaultError, match="do not authenticate"):
        Vault(bytes(32)).unseal(blob, "row 1")


def test_a_later_version_is_told_from_damage():
    """The header names the version, so that a file of the future is not called damaged."""
    blob = bytearray(VAULT.seal(b"data", "row"))
    blob[3] = 2
    with pytest.raises(VaultError, match="version 1, got another header"):
        VAULT.unseal(bytes(blob), "row")


def test_sealing_twice_gives_other_bytes():
    """A nonce is never used twice: equal rows cannot be seen to be equal."""
    nonces = {VAULT.seal(b"same", "row")[4:16] for _ in range(1000)}
    assert len(nonces) == 1000


def test_the_sign_key_is_hkdf_of_the_secret():
    """Another implementation derives the same key: HKDF-SHA256, no salt, the label as info."""
    extracted = hmac.digest(bytes(32), SECRET, "sha256")
    assert VAULT.sign_key == hmac.digest(extracted, b"sign\x01", "sha256")


def test_a_tag_finds_a_text_without_telling_it():
    """Tags are equal for equal text and label, differ otherwise, and need the secret."""
    tag = VAULT.tag("E-1001", "employee")
    assert len(tag) == 16
    assert tag == Vault(SECRET).tag("E-1001", "employee")
    others = {
        VAULT.tag("E-1002", "employee"),
        VAULT.tag("E-1001", "person"),
        VAULT.tag("eE-1001", "employe"),
        VAULT.tag("", "employeeE-1001"),
        Vault(bytes(32)).tag("E-1001", "employee"),
    }
    assert len(others | {tag}) == 6


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_secret_of_another_length_is_refused(size):
    """A cut or padded secret is told, not stretched to a key."""
    with pytest.raises(VaultError, match=f"32 bytes, got {size}"):
        Vault(bytes(size))


def test_a_vault_never_shows_its_keys():
    """No key is in the repr or among the attributes of a copy in a trace."""
    assert VAULT.sign_key.hex() not in repr(VAULT)
    assert repr(SECRET) not in repr(vars(VAULT))
