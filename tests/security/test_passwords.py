"""MLflow behind a password: a wrong one is refused before work, a right one works, none is written down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.mlflow_server import Server
from raydc.errors import TrackingError
from raydc.tracking.mlflow_client import reason
from raydc.tracking.reach import probe
from tests.shell import Shell

PASSWORD = "right-canary-51c0"
WRONG = "wrong-canary-7e2a"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-canary-93bd",
    "AWS_SESSION_TOKEN": "session-canary-08f4",
    "AZURE_STORAGE_KEY": "azure-canary-6610",
    "HF_TOKEN": "hub-canary-2d75",
    "RAY_AUTH_TOKEN": "ray-canary-e9a8-with-the-length-of-a-token",
}
CONFIG = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server that asks for a password, as docs/mlflow.md starts it."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "auth.ini").write_text(CONFIG.format(folder=folder))
    made = Server(
        folder,
        options=["--app-name", "basic-auth"],
        MLFLOW_FLASK_SERVER_SECRET_KEY="any text",
        MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
    )
    try:
        made.start()
        with pytest.raises(TrackingError, match="rejects the name"):
            made.wait()
        yield made
    finally:
        made.stop()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell whose environment has no way to MLflow but what a test adds."""
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    return Shell(tmp_path)


def holders(secret: str, folder: Path) -> list[str]:
    """Files below a folder that hold a text, also inside of Parquet."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            inside = str(pq.read_table(path).to_pydict()) if path.suffix == ".parquet" else ""
            if secret.encode() in path.read_bytes() or secret in inside:
                found.append(str(path))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": WRONG},
        {"URI": f"admin:{WRONG}@"},
        {},
    ],
    ids=["password", "address", "none"],
)
def test_a_wrong_password_is_refused_before_work(way: dict[str, str], server: Server, shell: Shell) -> None:
    uri = server.uri.replace("://", "://" + way.pop("URI", ""))
    shell.environment |= way
    for command in (["run", "tiny.yaml", "--out", "out"], ["results", "mlflow:tiny"]):
        ran = shell(*command, "--tracking-uri", uri, code=2)
        (line,) = ran.stderr.strip().splitlines()
        assert "rejects the name, password or token (HTTP 401)" in line
        assert WRONG not in ran.stdout + ran.stderr
    assert not (shell.folder / "out" / "ledger.jsonl").exists()
    assert holders(WRONG, shell.folder) == []


@pytest.mark.slow
def test_a_token_is_no_password(server: Server, shell: Shell) -> None:
    """MLflow's own server of passwords falls over a token; the sentence says what it may be."""
    shell.environment["MLFLOW_TRACKING_TOKEN"] = WRONG
    ran = shell("results", "mlflow:tiny", "--tracking-uri", server.uri, code=2)
    (line,) = ran.stderr.strip().splitlines()
    assert "does it take MLFLOW_TRACKING_TOKEN, or a name and a password?" in line
    assert WRONG not in ran.stdout + ran.stderr


class Keeper(BaseHTTPRequestHandler):
    """Lets one token in, as a proxy before MLflow does."""

    def do_GET(self) -> None:
        inside = self.headers.get("Authorization") == f"Bearer {PASSWORD}"
        self.send_response(200 if inside else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: tests are quiet."""


def test_a_wrong_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    with HTTPServer(("127.0.0.1", 0), Keeper) as keeper:
        threading.Thread(target=keeper.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{keeper.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
        probe(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", WRONG)
        with pytest.raises(TrackingError, match=r"rejects the name, password or token \(HTTP 403\)") as error:
            probe(uri)
        assert WRONG not in str(error.value)
        keeper.shutdown()


def test_an_error_that_names_the_address_keeps_the_password(tmp_path: Path) -> None:
    """Whatever a library makes of the address in its own words."""
    error = OSError(f"GET http://me:{WRONG}@lab:5000/api failed: see http://me:{WRONG}@lab:5000//")
    said = reason(f"http://me:{WRONG}@lab:5000/", error)
    assert WRONG not in said
    assert "http://me@lab:5000/api failed" in said


@pytest.mark.command
@pytest.mark.ray
@pytest.mark.slow
def test_a_right_password_works_and_no_secret_is_written_down(server: Server, shell: Shell) -> None:
    shell.environment |= SECRETS
    shell.environment |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    small = ["--set=grid={images.ipc: [1], labels.kind: [hard, soft]}", "--set=seeds=1"]
    ran = shell.process("run", "tiny.yaml", "--out", "out", "--tracking-uri", server.uri, *small)
    assert "2 of 2 evaluations finished" in ran.stdout
    listed = shell.process("results", "mlflow:tiny", "--tracking-uri", server.uri, "--json")
    doctor = shell.start("doctor")
    found, warned = doctor.communicate(timeout=300)
    assert doctor.returncode in (0, 2)  # this machine's disk may be too full
    assert "raydc doctor" in found
    said = ran.stdout + ran.stderr + listed.stdout + found + warned
    secrets = {**SECRETS, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    assert holders("tiny", server.folder)  # MLflow's database, where everything else is
    for name, secret in secrets.items():
        assert secret not in said, name
        assert holders(secret, shell.folder) == [], name
        assert holders(secret, server.folder) == [], name


@pytest.mark.slow
def test_a_password_in_the_address_works_and_is_cut_out(
    server: Server, shell: Shell, ray_cluster: object
) -> None:
    uri = server.uri.replace("://", f"://admin:{PASSWORD}@")
    small = ["--set=grid={images.ipc: [1]}", "--set=seeds=1", "--set=name=other"]
    ran = shell("run", "tiny.yaml", "--out", "out", "--tracking-uri", uri, *small)
    assert "1 of 1 evaluations finished" in ran.stdout
    assert PASSWORD not in ran.stdout + ran.stderr
    assert holders(PASSWORD, shell.folder) == []
