"""Encrypts a private key with a passphrase that a thief may try to guess.

The `cryptography` library writes encrypted PKCS8 with 2,048 rounds of PBKDF2 and no way to ask for
more: half a millisecond for each guess. The offline keys of a fleet deserve better, so this module
writes the same standard structure (RFC 5958 EncryptedPrivateKeyInfo, RFC 8018 PBES2 with
PBKDF2-HMAC-SHA256 and AES-256-CBC) with the number of rounds that OWASP recommends. Reading it
needs nothing of ours: `cryptography` and OpenSSL open the file.
"""

import base64
import os

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from provisioning.key_files import PrivateKey

_ROUNDS = 600_000
"""OWASP Password Storage Cheat Sheet, PBKDF2-HMAC-SHA256; about a tenth of a second."""

_SEQUENCE = 0x30
_OCTET_STRING = 0x04
_INTEGER = 0x02
# DER of the object identifiers, with tag and length; HMAC-SHA256 also with its NULL parameter.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("300c06082a864886f70d02090500")
_AES256_CBC = bytes.fromhex("060960864801650304012a")
_SALT_BYTES = 16
_SHORT_LENGTH = 0x80


def encrypted_pem(key: PrivateKey, passphrase: bytes) -> bytes:
    """Return the key as encrypted PKCS8 PEM."""
    salt, vector = os.urandom(_SALT_BYTES), os.urandom(AES256.block_size // 8)
    secret = PBKDF2HMAC(SHA256(), AES256.key_size // 8, salt, _ROUNDS).derive(passphrase)
    padder = PKCS7(AES256.block_size).padder()
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    encryptor = Cipher(AES256(secret), CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()

    derivation = _der(_SEQUENCE, _der(_OCTET_STRING, salt), _integer(_ROUNDS), _HMAC_SHA256)
    scheme = _der(
        _SEQUENCE,
        _PBES2,
        _der(
            _SEQUENCE,
            _der(_SEQUENCE, _PBKDF2, derivation),
            _der(_SEQUENCE, _AES256_CBC, _der(_OCTET_STRING, vector)),
        ),
    )
    return _pem(_der(_SEQUENCE, scheme, _der(_OCTET_STRING, sealed)))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < _SHORT_LENGTH:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, _SHORT_LENGTH | len(length))) + length + content


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    label = "ENCRYPTED PRIVATE KEY"
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()
