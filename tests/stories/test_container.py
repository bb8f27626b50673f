"""The server as a container runs it: any user, a read-only root, one folder; and its door to the network."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from conftest import ROOT, start_server


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proveout", "up", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of its own authority for `localhost`, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt", folder / "tls.key"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_nothing_is_served_beyond_loopback_in_the_clear(host: str, tmp_path: Path) -> None:
    done = up("--data", str(tmp_path / "d"), "--port", "0", "--host", host)
    assert done.returncode == 2
    assert "keys would cross the network in the clear: give --tls-certificate" in done.stderr
    assert not (tmp_path / "d").exists()


def test_certificates_that_cannot_be_used(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    crt, key = certificate
    half = up("--data", str(tmp_path / "d"), "--tls-certificate", str(crt))
    assert (half.returncode, "needs both" in half.stderr) == (2, True)
    absent = up("--data", str(tmp_path / "d"), "--tls-certificate", str(crt), "--tls-key", str(tmp_path / "no"))
    assert (absent.returncode, "No such file" in absent.stderr) == (2, True)
    swapped = up("--data", str(tmp_path / "d"), "--tls-certificate", str(key), "--tls-key", str(crt))
    assert (swapped.returncode, "cannot be used for TLS" in swapped.stderr) == (2, True)


def test_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    crt, key = certificate
    server = start_server(tmp_path / "d", "--host", "0.0.0.0", "--tls-certificate", str(crt), "--tls-key", str(key))
    try:
        assert server.url.startswith("https://0.0.0.0:")
        address = server.url.replace("0.0.0.0", "localhost")
        trusting = ssl.create_default_context(cafile=str(crt))
        with urllib.request.urlopen(f"{address}/readyz", context=trusting, timeout=10) as answer:
            assert json.load(answer)["status"] == "ready"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"{address}/readyz", context=ssl.create_default_context(), timeout=10)
    finally:
        assert server.stop() == 0


# The root of the tree can be read only, the data folder alone is writable; nobody is user 12345 here, and no further
# user namespaces are to be had, as in most containers.
CONTAINER = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / && echo 1 > /proc/sys/user/max_user_namespaces
shift
exec unshare --user --map-user=12345 --map-group=12345 "$@"
"""


def test_any_user_a_root_that_cannot_be_written_and_one_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    volume = tmp_path_factory.mktemp("v")  # short: nothing beside it can be written, so its sockets must be in it
    within = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", CONTAINER, "sh", str(volume)]
    if said := subprocess.run([*within, "true"], check=False, capture_output=True, text=True).stderr:
        pytest.skip(f"this machine forbids what a container is made of: {said}")
    if (
        subprocess.run(["sh", "-c", "LD_PRELOAD=libnss_wrapper.so true 2>&1 | grep -q ERROR"], check=False).returncode
        == 0
    ):
        pytest.skip("no libnss-wrapper, which the image has: `apt-get install libnss-wrapper`")
    beside = subprocess.run([*within, "touch", str(tmp_path / "x")], check=False, capture_output=True, text=True)
    assert "Read-only file system" in beside.stderr
    server = start_server(volume / "proveout", "--host", "0.0.0.0", "--behind-proxy", within=within)
    try:
        assert (volume / "proveout" / "passwd").read_text().startswith("postgres:x:12345:")
        with urllib.request.urlopen(server.url.replace("0.0.0.0", "127.0.0.1") + "/readyz", timeout=10) as answer:
            assert json.load(answer)["status"] == "ready"
    finally:
        assert server.stop() == 0


def test_the_container_files() -> None:
    """No engine for containers is needed to see that what they name exists and is what the tests above start."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = [
        line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ") and "--from" not in line
    ]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists(), path
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    command = compose["services"]["proveout"]["command"]
    assert command[0] == "up" and "--behind-proxy" in command
