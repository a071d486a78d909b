"""`skerry provision ceremony`: keys held by several people on separate machines.

The steps pass files: `draft-root`, `draft-targets` or `draft-list` on one machine, `sign` on each
holder's, `combine` on any, `publish` where the authority's directory is. Nothing here needs a
network; `skerry fleet adopt` then takes the result to the server.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from provisioning import (
    ceremony_files,
    draft_commands,
    durable_files,
    key_files,
    signing_commands,
)
from provisioning.ceremony_options import PassphraseFile, PinFile
from provisioning.encrypted_pem import encrypted_pem
from provisioning.layout import Authority
from provisioning.recording import record
from signing_keys import key_file, opening, passphrases, public_keys
from signing_keys.passphrases import Secrets

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Create, rotate and revoke keys whose holders sit at separate machines: "
    "`key`, `draft-...`, `sign`, `combine`, `publish`. docs/key-ceremony.md walks through it.",
)


@app.command()
def key(
    out: Annotated[Path, typer.Option(help="Key file to make; its public half gets .pub.json.")],
    of: Annotated[
        str | None,
        typer.Option(help="Make no key: export the public half of hsm:, awskms:, file: ..."),
    ] = None,
    *,
    online: Annotated[
        bool,
        typer.Option("--online", help="Without a passphrase: for a key that a server opens alone."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
) -> None:
    """Make a signing key, or export the public half of one in a token, HSM or KMS.

    Hand the .pub.json file to whoever drafts; the private half stays with you.

    Examples: `skerry provision ceremony key --out alice.pem`,
    `skerry provision ceremony key --of "hsm:2?label=alice" --out alice`
    """
    public = out.with_suffix(".pub.json")
    for path in (public, *(() if of else (out,))):
        ceremony_files.check_absent(path)
    if of:
        found = opening.public_key(of, Secrets(passphrase_file=passphrase_file, pin_file=pin_file))
    else:
        made = key_files.new_ed25519()
        pem = (
            key_files.plain_pem(made)
            if online
            else encrypted_pem(made, passphrases.chosen(passphrase_file, "Passphrase for the key"))
        )
        ceremony_files.write(out, pem, mode=durable_files.PRIVATE_MODE)
        found = key_file.public_of(made)
    ceremony_files.write(public, public_keys.encode(found))
    sys.stdout.write(f"{public}  key {found.keyid}\n")


for command in (
    draft_commands.draft_root,
    draft_commands.draft_targets,
    draft_commands.draft_list,
    signing_commands.show,
    signing_commands.sign,
    signing_commands.combine,
):
    app.command()(command)


@app.command()
def publish(
    file: Annotated[list[Path], typer.Argument(help="Signed metadata of `combine`, in order.")],
    *,
    authority: Annotated[Path, typer.Option(help="Whose `public/` shall have it.")],
) -> None:
    """Verify signed metadata against the authority and make it the current one there.

    New claims carry the new roots from then on. Take the files to the server afterwards, all at
    once: `skerry fleet adopt FILE... --server URL`.
    """
    for written in record(
        Authority(authority), [ceremony_files.read(path) for path in file], now=datetime.now(UTC)
    ):
        sys.stdout.write(f"{written}\n")
    names = " ".join(str(path) for path in file)
    sys.stdout.write(f"Next: skerry fleet adopt {names} --server URL --token-file FILE\n")
