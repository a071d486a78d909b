"""Signs drafts and puts signatures together. A signature travels as a small file of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature, Signer

from provisioning.drafts import OpenDraft, Quorum
from provisioning.errors import ProvisioningError

MAX_BYTES = 64 * 1024


class SignatureFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signature on one draft.

    Attributes:
        draft: the draft in words.
        fingerprint: of what was signed.
    """

    schema: Literal[1] = 1
    draft: str
    fingerprint: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    keyid: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    signature: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]+\Z", max_length=16384)]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one quorum is."""

    quorum: Quorum
    signed_by: Sequence[str]

    @property
    def missing(self) -> int:
        """How many signatures are still needed."""
        return max(0, self.quorum.threshold - len(self.signed_by))


def sign(draft: OpenDraft, signer: Signer) -> SignatureFile:
    """Sign a draft with a key that may.

    Raises:
        ProvisioningError: this key may not sign it.
        SigningKeyError: the key does not sign.
    """
    check_may_sign(draft, signer.public_key.keyid)
    made = signer.sign(draft.metadata.signed_bytes)
    return SignatureFile(
        draft=draft.title,
        fingerprint=draft.fingerprint,
        keyid=made.keyid,
        signature=made.signature,
    )


def check_may_sign(draft: OpenDraft, keyid: str) -> None:
    """Accept a key that a quorum of the draft asks for.

    Raises:
        ProvisioningError: none does.
    """
    if keyid not in draft.keys:
        asked = "; ".join(
            f"{quorum.who}: {', '.join(sorted(one[:16] for one in quorum.keys))}"
            for quorum in draft.quorums
        )
        raise ProvisioningError(
            f"the key {keyid[:16]} may not sign {draft.title}. It asks for {asked}"
        )


def decode(payload: bytes) -> SignatureFile:
    """Read a signature file.

    Raises:
        ProvisioningError: it is none.
    """
    try:
        if len(payload) > MAX_BYTES:
            raise ProvisioningError(f"a signature file has at most {MAX_BYTES} bytes")
        return msgspec.json.decode(payload, type=SignatureFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProvisioningError(
            f"this is no signature of `skerry provision ceremony sign`: {error}"
        ) from error


def encode(made: SignatureFile) -> bytes:
    """Return the file of a signature."""
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def progress(draft: OpenDraft, made: Iterable[SignatureFile]) -> list[Progress]:
    """Verify signatures and say how far each quorum is.

    Raises:
        ProvisioningError: a signature is of another draft, of a key that may not sign, invalid, or
            there twice.
    """
    signed_by: set[str] = set()
    for one in made:
        if one.fingerprint != draft.fingerprint:
            raise ProvisioningError(
                f"a signature of {one.keyid[:16]} is on another draft ({one.draft}, fingerprint "
                f"{one.fingerprint[:16]}) than this one ({draft.title}, {draft.fingerprint[:16]})"
            )
        check_may_sign(draft, one.keyid)
        if one.keyid in signed_by:
            raise ProvisioningError(f"the key {one.keyid[:16]} signed twice: one key counts once")
        _verify(draft, one)
        signed_by.add(one.keyid)
    return [Progress(quorum, sorted(signed_by & quorum.keys.keys())) for quorum in draft.quorums]


def combined(draft: OpenDraft, made: Sequence[SignatureFile]) -> bytes:
    """Return the signed metadata.

    Raises:
        ProvisioningError: a signature does not hold, or there are too few.
    """
    lacking = [
        f"{one.quorum.who}: {len(one.signed_by)} of {one.quorum.threshold}, {one.missing} missing"
        for one in progress(draft, made)
        if one.missing
    ]
    if lacking:
        raise ProvisioningError(f"{draft.title} lacks signatures ({'; '.join(lacking)})")
    draft.metadata.signatures.clear()
    for one in made:
        draft.metadata.signatures[one.keyid] = Signature(one.keyid, one.signature)
    content = draft.metadata.to_bytes()
    draft.metadata.signatures.clear()
    return content


def _verify(draft: OpenDraft, one: SignatureFile) -> None:
    try:
        draft.keys[one.keyid].verify_signature(
            Signature(one.keyid, one.signature), draft.metadata.signed_bytes
        )
    except (UnverifiedSignatureError, VerificationError, ValueError) as error:
        raise ProvisioningError(
            f"the signature of {one.keyid[:16]} on {draft.title} does not verify: {error}"
        ) from error
