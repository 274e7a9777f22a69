"""The probe believes whom MLflow's client believes, and goes where it is sent."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.processes import free_ports
from raydc.errors import TrackingError
from raydc.tracking.reach import PAGE, probe


class Answers(BaseHTTPRequestHandler):
    """Sends on to /there what is asked elsewhere, and lets those in there who bring a token."""

    def do_GET(self) -> None:
        if not self.path.startswith("/there"):
            self.send_response(308)
            self.send_header("Location", f"/there{self.path}")
        else:
            inside = self.path == f"/there{PAGE}" and self.headers.get("Authorization") == "Bearer one"
            self.send_response(200 if inside else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: tests are quiet."""


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of 127.0.0.1 that nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(host, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose only way to MLflow is a token."""
    for name in ("USERNAME", "PASSWORD", "SERVER_CERT_PATH", "CLIENT_CERT_PATH", "INSECURE_TLS"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "one")


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    with (
        serving(certificate) as uri,
        pytest.raises(TrackingError, match=r"does not answer \(.*CERTIFICATE_VERIFY"),
    ):
        probe(uri)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH"])
def test_a_certificate_that_the_environment_names_is_believed(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(certificate))
    with serving(certificate) as uri:
        probe(uri)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_certificates_go_unchecked_where_mlflow_does_not_check_them(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    with serving(certificate) as uri:
        probe(uri)


def test_what_is_wrong_is_said_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackingError, match=r"does not answer \(\[Errno \d+\] Connection refused\)$"):
        probe(f"http://127.0.0.1:{free_ports(1)}")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "other")
    with serving() as uri, pytest.raises(TrackingError, match=r"as MLflow does \(HTTP 404\); does it take"):
        probe(uri)
