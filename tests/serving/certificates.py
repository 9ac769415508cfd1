"""Certificates that tests issue themselves."""

from pathlib import Path

import trustme


class Authority:
    """Issues certificates into files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.renew()

    def renew(self) -> None:
        """Begin anew: what was issued before counts no more."""
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, file: str, *names: str, common_name: str | None = None) -> tuple[Path, Path]:
        """Write a certificate and its key."""
        cert, key = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        issued = self._ca.issue_cert(*names, common_name=common_name, key_type=trustme.KeyType.ECDSA)
        issued.private_key_pem.write_to_path(key)
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return cert, key
