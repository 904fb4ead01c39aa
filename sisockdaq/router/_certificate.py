"""The router's self-signed TLS certificate: made at the first start, made anew before it expires."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["ensure_certificate"]

LIFETIME = datetime.timedelta(days=730)
"""Browsers refuse server certificates that live longer than 825 days."""

RENEWAL = datetime.timedelta(days=60)
"""Remaining life at which the next start of the router makes a new certificate."""


def ensure_certificate(folder: Path, names: Iterable[str] = ()) -> tuple[Path, Path]:
    """Return the paths of certificate and key, after making them where needed.

    Parameters
    ----------
    folder : Path
        Holds ``server_cert.pem`` and ``server_key.pem`` (mode 0600).
    names : iterable of str
        Host names and addresses that it must be valid for, beside this machine's own.
    """
    wanted = dict.fromkeys(["localhost", "127.0.0.1", socket.gethostname(), *names])
    certificate, key = folder / "server_cert.pem", folder / "server_key.pem"
    if not (key.is_file() and _still_good(certificate, wanted)):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(certificate, key, list(wanted))
    return certificate, key


def _still_good(path: Path, names: Iterable[str]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    remaining = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return remaining > RENEWAL and all(_general_name(name) in alternatives for name in names)


def _make(certificate_path: Path, key_path: Path, names: list[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sisockdaq router")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # A client that is given this certificate must be able to take it as the end of the chain.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key_path, private)
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    temporary.replace(path)
