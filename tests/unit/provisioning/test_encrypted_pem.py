"""Encrypted keys: standard files with a costly passphrase."""

import base64

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning import key_files
from provisioning.encrypted_pem import encrypted_pem
from provisioning.key_files import PrivateKey
from signing_keys.key_file import is_encrypted

KEYS = [key_files.new_ed25519(), key_files.new_p256()]
DER_OF_600_000 = bytes.fromhex("02030927c0")


@settings(max_examples=10, deadline=None)
@given(key=st.sampled_from(KEYS), passphrase=st.binary(min_size=1, max_size=1024))
def test_any_passphrase_opens_what_it_closed(key: PrivateKey, passphrase: bytes) -> None:
    pem = encrypted_pem(key, passphrase)
    opened = load_pem_private_key(pem, passphrase)
    assert opened.public_key() == key.public_key()
    assert is_encrypted(pem)


@pytest.mark.parametrize("key", KEYS)
def test_guessing_is_costly(key: PrivateKey) -> None:
    der = base64.b64decode(b"".join(encrypted_pem(key, b"secret").splitlines()[1:-1]))
    assert DER_OF_600_000 in der


@pytest.mark.parametrize("key", KEYS)
def test_two_files_of_one_key_share_nothing(key: PrivateKey) -> None:
    assert (
        encrypted_pem(key, b"secret").splitlines()[2]
        != (encrypted_pem(key, b"secret").splitlines()[2])
    )
