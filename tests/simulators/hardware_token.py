"""A PKCS#11 token in software (SoftHSM2), with EC P-256 keys that never leave it."""

import os
import subprocess
from pathlib import Path

import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "271828"


class HardwareToken:
    """A token store below a folder; one for each process, as the library reads it once."""

    def __init__(self, folder: Path) -> None:
        self.label = "holders"
        self.config = folder / "softhsm2.conf"
        (folder / "tokens").mkdir()
        self.config.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        os.environ |= self.environment
        subprocess.run(
            [
                *("/usr/bin/softhsm2-util", "--init-token", "--free", "--label", self.label),
                *("--pin", PIN, "--so-pin", "31415926"),
            ],
            check=True,
            capture_output=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a process that uses the token needs."""
        return {"SOFTHSM2_CONF": str(self.config), "PYKCS11LIB": str(LIBRARY)}

    def make_key(self, number: int) -> str:
        """Make a P-256 key in the token and return its URI."""
        token = pkcs11.lib(str(LIBRARY)).get_token(token_label=self.label)
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        with token.open(user_pin=PIN, rw=True) as session:
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            parameters.generate_keypair(id=bytes([number]), store=True)
        return f"hsm:{number}?label={self.label}"
