"""`skerry model` as a person calls it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet_protocol.errors import SkerryError
from model_pipeline.cli import app
from provisioning.layout import Authority
from tests.simulators.release_server import TOKEN, ReleaseServer
from tests.unit.model_pipeline.conftest import PASSPHRASE, make_bundle
from tests.unit.model_pipeline.test_pack import REFERENCE, WRONG


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(result: Result) -> str:
    assert isinstance(result.exception, SkerryError)
    return str(result.exception)


def test_pack_and_inspect(tmp_path: Path) -> None:
    out = tmp_path / "release.bundle"
    packed = run("pack", REFERENCE, "--version", "1.1.0", "--variant", "int8", "--out", out)
    assert packed.exit_code == 0
    assert "fashion_mnist 1.1.0" in packed.stdout
    assert "fashion_mnist 1.1.0" in run("inspect", out).stdout
    manifest = json.loads(run("inspect", out, "--json").stdout)
    assert manifest["variants"][0]["name"] == "int8"


def test_limits_and_reference_are_packed(tmp_path: Path) -> None:
    out, reference = tmp_path / "release.bundle", tmp_path / "reference.json"
    reference.write_text(json.dumps({"Bag": 3, "Coat": 1}))
    packed = run(
        *("pack", REFERENCE, "--version", "1.1.0", "--variant", "int8", "--out", out),
        *("--max-error-rate", "0.02", "--max-error-rate-increase", "0.01", "--max-p95-ms", "50"),
        *("--max-p95-ratio", "1.5", "--shadow-requests", "20", "--shadow-agreement", "0.9"),
        *("--shadow-max-error", "0.5", "--shadow-timeout-s", "60", "--reference", reference),
    )
    assert packed.exit_code == 0
    manifest = json.loads(run("inspect", out, "--json").stdout)
    assert manifest["acceptance"] == {
        "max_error_rate": 0.02,
        "max_error_rate_increase": 0.01,
        "max_p95_latency_ms": 50.0,
        "max_p95_ratio": 1.5,
        "shadow": {
            "requests": 20,
            "min_agreement": 0.9,
            "max_abs_error": 0.5,
            "timeout_s": 60.0,
        },
    }
    assert manifest["reference"] == {"Bag": 0.75, "Coat": 0.25}
    assert "max_p95_ratio" in run("inspect", out).stdout


def test_a_reference_of_unknown_labels_is_not_packed(tmp_path: Path) -> None:
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps({"Bag": 3, "Unicorn": 1}))
    said = refusal(
        run(
            *("pack", REFERENCE, "--version", "1.1.0", "--variant", "int8"),
            *("--out", tmp_path / "release.bundle", "--reference", reference),
        )
    )
    assert "Unicorn" in said


def test_skipping_the_golden_check_is_loud(tmp_path: Path) -> None:
    result = run(
        *("pack", REFERENCE, "--version", "1.2.0", "--variant", "int8", "--model-file", WRONG),
        *("--skip-golden-check", "--out", tmp_path / "release.bundle"),
    )
    assert result.exit_code == 0
    assert result.stderr.startswith("WARNING: the golden check is skipped")


def test_inspect_of_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.bundle").write_bytes(b"x")
    assert "cut short" in refusal(run("inspect", tmp_path / "x.bundle"))


@pytest.fixture
def arguments(authority: Authority, server: ReleaseServer, tmp_path: Path) -> dict[str, object]:
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "passphrase").write_bytes(PASSPHRASE + b"\n")
    (tmp_path / "passphrase").chmod(0o600)
    return {
        "bundle": make_bundle(tmp_path, b"content").path,
        "--server": server.url,
        "--authority": authority.root,
        "--token-file": tmp_path / "token",
        "--passphrase-file": tmp_path / "passphrase",
    }


def publish(arguments: dict[str, object]) -> Result:
    options = {name: value for name, value in arguments.items() if name != "bundle"}
    return run("publish", arguments["bundle"], *(part for pair in options.items() for part in pair))


def test_publish_twice(arguments: dict[str, object]) -> None:
    first = publish(arguments)
    assert first.exit_code == 0
    assert first.stdout.startswith("Published letters 1.0.0 at https://localhost:")
    assert publish(arguments).stdout.startswith("Nothing to do")


def test_yank_says_what_it_does_and_asks(arguments: dict[str, object], tmp_path: Path) -> None:
    publish(arguments)
    arguments["bundle"] = make_bundle(tmp_path, b"other", version="1.1.0").path
    publish(arguments)
    del arguments["bundle"]
    options = [part for pair in arguments.items() for part in pair]
    command = ("yank", "letters", "1.0.0", "--reason", "mislabelled", "--raise-counter", 2)
    unsure = run(*command, *options)
    assert unsure.exit_code == 1
    assert "goes on serving it" in unsure.stderr
    assert "Withdraw letters 1.0.0?" in unsure.stderr
    done = run(*command, "--yes", "--json", *options)
    assert json.loads(done.stdout) == {
        "family": "letters",
        "version": "1.0.0",
        "changed": True,
        "reason": "mislabelled",
        "security_floor": 2,
    }
    assert run(*command, *options).stdout.startswith("Nothing to do")
    assert "has no letters 7.0.0" in refusal(
        run("yank", "letters", "7.0.0", "--reason", "x", *options)
    )


@pytest.mark.parametrize(
    ("option", "content", "sentence"),
    [
        ("--token-file", b"", "one token"),
        ("--token-file", b"two tokens", "one token"),
        ("--token-file", b"line\nline", "one token"),
        ("--token-file", b"\xff", "cannot read the token file"),
        ("--token-file", None, "cannot read the token file"),
        ("--passphrase-file", b"wrong", "the passphrase is wrong"),
        ("--passphrase-file", b"\n", "one line"),
        ("--passphrase-file", None, "cannot read the passphrase file"),
        ("bundle", b"", "cut short"),
        ("bundle", None, "cannot read the bundle"),
    ],
)
def test_bad_files(
    arguments: dict[str, object], server: ReleaseServer, option: str, content: bytes | None,
    sentence: str,
) -> None:  # fmt: skip
    path = Path(str(arguments[option]))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    assert sentence in refusal(publish(arguments))
    assert server.uploads == 0


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("public/release-root.json", "skerry provision init"),
        ("public/fleet-ca.crt", "certificate authority"),
        ("offline/publisher-letters.pem", "cannot read the key"),
    ],
)
def test_an_authority_with_something_missing(
    arguments: dict[str, object], authority: Authority, file: str, sentence: str
) -> None:
    (authority.root / file).unlink()
    assert sentence in refusal(publish(arguments))


def test_a_key_of_another_kind(arguments: dict[str, object], authority: Authority) -> None:
    authority.claim_key.replace(authority.publisher_key("letters"))
    assert "cannot sign for letters" in refusal(publish(arguments))


def test_without_a_terminal_nobody_is_asked(arguments: dict[str, object]) -> None:
    del arguments["--passphrase-file"]
    assert "--passphrase-file" in refusal(publish(arguments))
