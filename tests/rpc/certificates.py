"""Authorities and certificates for tests, made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def locked(self) -> bytes:
        locked = serialization.BestAvailableEncryption(b"password")
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)

    def write(self, folder: Path, name: str = "server") -> dict[str, Path]:
        """Both files, by the names of the settings."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        key.write_bytes(self.key_pem)
        certificate.write_bytes(self.pem)
        return {"tls_certificate": certificate, "tls_key": key}


def authority(name: str = "authority") -> Pair:
    return _made(name, None, True, -DAY, 30 * DAY)


def issued(
    issuer: Pair, name: str, begins: datetime.timedelta = -DAY, ends: datetime.timedelta = 10 * DAY
) -> Pair:
    """A certificate for localhost."""
    return _made(name, issuer, False, begins, ends)


def _made(
    name: str, issuer: Pair | None, is_authority: bool, begins: datetime.timedelta, ends: datetime.timedelta
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if not is_authority:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)
