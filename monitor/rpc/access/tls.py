"""TLS certificates: read, checked, and read again when they change, without a restart.

gRPC asks for the certificates at every new connection (`grpc.dynamic_ssl_server_credentials`); open connections keep
the certificate that they began with. gRPC's core speaks TLS 1.2 and later, and Python cannot exclude 1.2 there, so
`tls_minimum: 1.3` is enforced at the beginning of every call instead.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from monitor.errors import ConfigurationError
from monitor.rpc.access.watched_files import WatchedFiles
from monitor.settings import Settings
from monitor.telemetry.metrics.security import SecurityMetrics

LARGEST_FILE = 1 << 20
_NOBODY_NAMED = (
    "tls_client_ca is set and callers is not: everybody with a certificate of that authority would have every role, "
    "administrators' included, and all would share their sessions. Set callers to a file with a line for each of them, "
    'such as {"name": "gateway", "roles": ["infer"], "certificate": "NAME-IN-THE-CERTIFICATE"}'
)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Certificate, key and client authorities as PEM bytes, checked to belong together and to be valid now."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    expires: float
    """When the first certificate of the chain expires, in seconds since 1970."""
    client_ca_expires: float | None
    """When the first client authority expires, in seconds since 1970; None without one."""

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The certificates as gRPC takes them."""
        pairs = [(self.key, self.certificate)]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=self.client_ca)

    def context(self, minimum: str) -> ssl.SSLContext:
        """The certificates as Python's TLS takes them. `minimum` is the oldest version of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if minimum == "1.3" else ssl.TLSVersion.TLSv1_2
        with _in_memory(self.certificate) as certificate, _in_memory(self.key) as key:
            context.load_cert_chain(certificate, key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.client_ca.decode("ascii"))
        return context


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path at which this process reads `content`: the ssl module takes certificates from files alone."""
    handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(handle, content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def credentials(settings: Settings, metrics: SecurityMetrics) -> grpc.ServerCredentials | None:
    """Server credentials that follow changes of the files; None where no certificate is set.

    Raises ConfigurationError as `watched_certificates`.
    """
    files = watched_certificates(settings, metrics)
    if files is None:
        return None
    return grpc.dynamic_ssl_server_credentials(
        files.value().configuration(),
        lambda: files.value().configuration(),
        require_client_authentication=settings.tls_client_ca is not None,
    )


def watched_certificates(settings: Settings, metrics: SecurityMetrics) -> WatchedFiles[Certificates] | None:
    """The certificates of the settings, read again when their files change; None where no certificate is set.

    Raises ConfigurationError where a file is missing, unreadable, not PEM or expired, or where the key does not belong
    to the certificate. It is raised too where clients must show certificates and no callers file says who they are:
    they could not be told from each other.
    """
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        wanted = "tls_key" if key is None and certificate is not None else "tls_certificate"
        raise ConfigurationError(f"TLS needs both tls_certificate and tls_key; {wanted} is missing")

    def read() -> Certificates:
        found = read_certificates(certificate, key, client_ca)
        metrics.expires("certificate", found.expires)
        if found.client_ca_expires is not None:
            metrics.expires("client_ca", found.client_ca_expires)
        return found

    paths = [path for path in (certificate, key, client_ca) if path is not None]
    files = WatchedFiles("tls", paths, read, metrics.read)
    if client_ca is not None and settings.callers is None:
        raise ConfigurationError(_NOBODY_NAMED)
    return files


def read_certificates(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Read and check the files. Raises ConfigurationError where they cannot be used now."""
    chain = _parsed(certificate, _read(certificate))
    chain_pem, key_pem = _written(chain), _checked_key(certificate, chain[0], key, _read(key))
    expires = _valid_until(certificate, chain)
    if client_ca is None:
        return Certificates(chain_pem, key_pem, None, expires, None)
    authorities = _parsed(client_ca, _read(client_ca))
    return Certificates(
        chain_pem, key_pem, _written(authorities), expires, _valid_until(client_ca, authorities)
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise ConfigurationError(f"{path}: larger than {LARGEST_FILE} bytes; this is not a PEM file")
    return content


def _parsed(path: Path, content: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigurationError(
            f"{path}: holds no certificate; write PEM, with lines of BEGIN CERTIFICATE and END CERTIFICATE"
        ) from None


def _written(certificates: Sequence[x509.Certificate]) -> bytes:
    """The certificates as PEM and nothing else.

    A file may hold more: a byte order mark, comments in any language. Of the three libraries that read PEM here, one
    takes what another refuses without saying why.
    """
    return b"".join(found.public_bytes(serialization.Encoding.PEM) for found in certificates)


def _checked_key(certificate: Path, leaf: x509.Certificate, path: Path, content: bytes) -> bytes:
    """The private key as PEM and nothing else. Raises ConfigurationError where it is not the certificate's."""
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise ConfigurationError(f"{path}: needs a password; write the key without one") from None
    except (ValueError, ssl.SSLError):
        raise ConfigurationError(f"{path}: holds no private key; write PEM, with BEGIN PRIVATE KEY") from None
    if _public(key.public_key()) != _public(leaf.public_key()):
        raise ConfigurationError(
            f"{path}: is not the key of the first certificate in {certificate}; put the server's own certificate first"
        )
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _public(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    content: bytes = key.public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined]
    return content


def _valid_until(path: Path, certificates: Sequence[x509.Certificate]) -> float:
    now = datetime.now(UTC)
    for found in certificates:
        if found.not_valid_after_utc <= now:
            raise ConfigurationError(
                f"{path}: the certificate of {found.subject.rfc4514_string()} ended on "
                f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; write a new one"
            )
        if found.not_valid_before_utc > now:
            raise ConfigurationError(
                f"{path}: the certificate of {found.subject.rfc4514_string()} begins on "
                f"{found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check this machine's clock"
            )
    return min(found.not_valid_after_utc.timestamp() for found in certificates)
