"""Keys in a PKCS#11 token sign what the project signs; a cloud's key names the library it lacks."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from fleet_protocol.errors import SkerryError
from fleet_server import settings
from fleet_server.data_dir import DataDir
from fleet_server.errors import SetupError
from fleet_server.online_keys import OnlineKeys
from model_pipeline import publisher_key
from signing_keys import opening
from signing_keys.errors import SigningKeyError
from signing_keys.opening import RefusedPinError
from signing_keys.passphrases import Secrets
from tests.simulators.hardware_token import PIN, HardwareToken
from tests.simulators.key_holders import Holder, done, files_below, refused


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HardwareToken]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SOFTHSM2_CONF", "PYKCS11LIB"):
            patch.setenv(name, "")  # so that the context restores what the token sets
        yield HardwareToken(tmp_path_factory.mktemp("token"))


@pytest.fixture(scope="module")
def uri(token: HardwareToken) -> str:
    return token.make_key(2)


def test_a_token_signs_a_root_beside_a_key_file(
    token: HardwareToken, uri: str, tmp_path: Path
) -> None:
    """Key, draft, sign, combine as commands; python-tuf verifies what comes out."""
    alice, pin = tmp_path / "alice", ("--pin-file", token.pin_file)
    done("key", "--of", uri, "--out", alice, *pin)
    assert not alice.exists()
    bob = Holder(tmp_path / "bob")
    others = {role: Holder(tmp_path / role) for role in ("targets", "snapshot", "timestamp")}
    adds = [f"--add=root={public}" for public in (alice.with_suffix(".pub.json"), bob.public)]
    adds += [f"--add={role}={holder.public}" for role, holder in others.items()]
    draft, signed = tmp_path / "1.draft", tmp_path / "1.root.json"
    done("draft-root", *adds, "--threshold", "root=2", "--out", draft)
    wrong = tmp_path / "wrong-pin"
    wrong.write_text("141421\n")
    wrong.chmod(0o600)
    for key, file, words in (
        (uri, wrong, "refuses the PIN"),
        ("hsm:9?label=holders", token.pin_file, "could not find ECDSA key"),
        ("hsm:2?label=elsewhere", token.pin_file, "No PKCS#11 token found for label elsewhere"),
    ):
        assert words in refused("sign", draft, "--key", key, "--yes", "--pin-file", file)
        assert not list(tmp_path.glob("*.sig"))
    signature = tmp_path / "alice.sig"
    done("sign", draft, "--key", uri, *pin, "--yes", "--out", signature)
    done("combine", draft, signature, bob.signs(draft), "--out", signed)

    root = Metadata[Root].from_bytes(signed.read_bytes())
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    schemes = [root.signed.keys[keyid].scheme for keyid in root.signatures]
    assert sorted(schemes) == ["ecdsa-sha2-nistp256", "ed25519"]
    for content in files_below(tmp_path).values():
        assert PIN.encode() not in content


def test_a_publisher_s_key_may_be_in_a_token(token: HardwareToken, uri: str) -> None:
    (signer,) = publisher_key.load([uri], Secrets(pin_file=token.pin_file))
    metadata = Metadata(Targets(version=1, expires=datetime.now(UTC) + timedelta(days=1)))
    metadata.sign(signer)
    signer.public_key.verify_signature(
        metadata.signatures[signer.public_key.keyid], metadata.signed_bytes
    )


def test_the_server_finds_its_assignment_key_in_a_token(
    token: HardwareToken, uri: str, tmp_path: Path
) -> None:
    def keys(uris: str) -> OnlineKeys:
        data = DataDir(tmp_path)
        environment = {
            "SKERRY_SERVER_ASSIGNMENT_KEYS": uris,
            "SKERRY_SERVER_PIN_FILE": str(token.pin_file),
        }
        return settings.assignment_keys(settings.load(data.settings_file, environment), data)

    root = Root(version=1, expires=datetime.now(UTC) + timedelta(days=1))
    public = opening.public_key(uri, None)
    root.add_key(public, "targets")
    other = token.make_key(3)
    signer = keys(f"{other} {uri}").signer_for(root, "targets")
    public.verify_signature(signer.sign(b"assignment"), b"assignment")
    with pytest.raises(SetupError, match="no key that root 1 names for assignment"):
        keys(other).signer_for(root, "targets")


def test_a_refused_pin_is_shown_once_or_the_token_would_lock_itself(uri: str) -> None:
    asked = []

    def wrong(name: str) -> str:
        asked.append(name)
        return "141421"

    signer = opening.signer_of(uri, wrong)
    for _ in range(3):
        with pytest.raises(
            RefusedPinError, match=r"hsm:2\?label=holders: .* refuses the PIN"
        ) as said:
            signer.sign(b"assignment")
        assert "141421" not in str(said.value)
    assert asked == ["pin"]


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("hsm:2?label=elsewhere", "No PKCS#11 token found for label elsewhere"),
        ("hsm:77?label=holders", "could not find ECDSA key on the PKCS#11 token"),
        ("hsm:two?label=holders", "use hsm:ID\\?label=TOKEN"),
        ("usb:2", "names no signing key: use file:, hsm:"),
    ],
)
def test_what_is_not_there_is_named(token: HardwareToken, wrong: str, words: str) -> None:
    with pytest.raises(SigningKeyError, match=words):
        opening.signer_of(wrong, Secrets(pin_file=token.pin_file))


def test_without_the_library_s_name_it_is_asked_for(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYKCS11LIB")
    with pytest.raises(SigningKeyError, match="PYKCS11LIB environment variable must be set"):
        opening.public_key(uri, None)


@pytest.mark.parametrize(
    ("uri", "extra"),
    [
        ("awskms:arn:aws:kms:eu-north-1:111122223333:key/1234", "awskms"),
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "gcpkms"),
        ("azurekms://vault.vault.azure.net/keys/name/version", "azurekms"),
        ("hv:name/1", "vault"),
    ],
)
def test_a_cloud_s_key_names_the_library_to_install(uri: str, extra: str) -> None:
    with pytest.raises(SigningKeyError, match=rf"pip install 'securesystemslib\[{extra}\]'"):
        opening.public_key(uri, None)


def test_a_vault_without_a_key_is_refused() -> None:
    with pytest.raises(SkerryError, match="use azurekms://VAULT"):
        opening.public_key("azurekms://vault.vault.azure.net", None)
