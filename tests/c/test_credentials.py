"""C programs and a cluster that speaks TLS to clients: from the environment, and from a file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from raftckpt.testing import LocalCluster

from .conftest import CONFORMANCE, Program, environment_with, run_program


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the replicas, for hosts that are there and are not, and of clients."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    trustme.CA().cert_pem.write_to_path(directory / "other-ca.pem")
    for name, host in (("replica", "127.0.0.1"), ("elsewhere", "replica.example")):
        made = authority.issue_cert(host)
        made.private_key_and_cert_chain_pem.write_to_path(directory / f"{name}.pem")
    client = authority.issue_cert("client.example")
    client.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
    client.private_key_pem.write_to_path(directory / "client.key")
    client.cert_chain_pems[0].write_to_path(directory / "client.pem")
    (directory / "token").write_text("a secret\n", "ascii")
    return directory


def _secured(files: Path, name: str) -> LocalCluster:
    own = str(files / f"{name}.pem")
    tls = {"client": {"cert": own, "key": own, "ca": str(files / "ca.pem")}}
    return LocalCluster(3, durability="os", faults=False, settings={"tls": tls})


@pytest.fixture(scope="module")
def secured(compiler: str, files: Path) -> Iterator[LocalCluster]:
    with _secured(files, "replica") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def elsewhere(compiler: str, files: Path) -> Iterator[LocalCluster]:
    """Its certificate is that of another host."""
    with _secured(files, "elsewhere") as cluster:
        yield cluster


@pytest.fixture
def known(secured: LocalCluster, files: Path) -> dict[str, str]:
    """An environment in which everything is right."""
    return environment_with(
        RAFTCKPT_ENDPOINTS=secured.endpoints,
        RAFTCKPT_CA=str(files / "ca.pem"),
        RAFTCKPT_CERT=str(files / "client.pem"),
        RAFTCKPT_KEY=str(files / "client.key"),
    )


@pytest.fixture(scope="module", autouse=True)
def refused(
    program: Program, secured: LocalCluster, elsewhere: LocalCluster, files: Path
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Begun before everything else: each takes as long as a call may take."""
    both, authority = str(files / "both.pem"), str(files / "ca.pem")
    begun = {
        name: subprocess.Popen(
            [program("initialize.c")],
            env=environment_with(RAFTCKPT_ENDPOINTS=cluster.endpoints, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, cluster, more in (
            ("plain", secured, {}),
            ("no certificate", secured, {"RAFTCKPT_CA": authority}),
            ("other CA", secured,
             {"RAFTCKPT_CA": str(files / "other-ca.pem"), "RAFTCKPT_CERT": both}),
            ("other host", elsewhere, {"RAFTCKPT_CA": authority, "RAFTCKPT_CERT": both}),
        )
    }  # fmt: skip
    yield begun
    for process in begun.values():
        process.kill()
        process.communicate()


def test_calls_over_tls(program: Program, known: dict[str, str]) -> None:
    conformance = program(*CONFORMANCE, flags=("-D_GNU_SOURCE",))
    done = run_program(conformance, "dispatch", "data", "synchronize", "tracking", env=known)
    assert done.returncode == 0, done.stdout
    assert " 0 failures" in done.stdout


def test_key_in_the_file_of_the_certificate(
    program: Program, known: dict[str, str], files: Path
) -> None:
    known["RAFTCKPT_CERT"] = str(files / "both.pem")
    del known["RAFTCKPT_KEY"]
    assert run_program(program("initialize.c"), env=known).stdout == "1 1\n"


def test_host_that_the_certificate_does_not_name(
    program: Program, elsewhere: LocalCluster, known: dict[str, str]
) -> None:
    known["RAFTCKPT_ENDPOINTS"] = elsewhere.endpoints
    known["RAFTCKPT_CHECK_HOSTNAME"] = "no"
    assert run_program(program("initialize.c"), env=known).stdout == "1 1\n"
    known["RAFTCKPT_CHECK_HOSTNAME"] = "maybe"
    said = run_program(program("initialize.c"), env=known).stdout
    assert "RAFTCKPT_CHECK_HOSTNAME is yes or no, not 'maybe'" in said
    assert said.endswith("2 0\n")


def _file(files: Path, name: str, cluster: LocalCluster, **credentials: object) -> Path:
    """Write a configuration file of a program beside the certificates."""
    replicas = yaml.safe_load(cluster.config_path.read_text("utf-8"))["replicas"]
    path = files / name
    path.write_text(yaml.safe_dump({"replicas": replicas, "credentials": credentials}), "utf-8")
    return path


def test_from_a_file(program: Program, secured: LocalCluster, files: Path) -> None:
    """Paths are relative to the file; a variable goes before it."""
    path = _file(files, "good.yaml", secured, ca="ca.pem", cert="client.pem", key="client.key")
    env = environment_with(RAFTCKPT_CONFIG=str(path))
    assert run_program(program("initialize.c"), env=env).stdout == "1 1\n"
    path = _file(files, "bad.yaml", secured, ca="ca.pem", cert="nowhere.pem", key="client.key")
    env = environment_with(RAFTCKPT_CONFIG=str(path))
    done = run_program(program("initialize.c"), env=env)
    assert f"{files}/nowhere.pem" in done.stdout
    assert done.stdout.endswith("2 0\n")
    env["RAFTCKPT_CERT"] = str(files / "client.pem")
    assert run_program(program("initialize.c"), env=env).stdout == "1 1\n"


def test_a_token_is_refused(
    program: Program, secured: LocalCluster, known: dict[str, str], files: Path
) -> None:
    """Rights are off: replicas say so to whoever believes that they are on."""
    path = _file(files, "token.yaml", secured, ca="ca.pem", cert="both.pem", token_file="token")
    for env in (
        {**known, "RAFTCKPT_TOKEN_FILE": str(files / "token")},
        environment_with(RAFTCKPT_CONFIG=str(path)),
    ):
        done = run_program(program("initialize.c"), env=env)
        assert "tokens are not looked at: connect without one" in done.stdout
        assert "a secret" not in done.stdout
        assert done.stdout.endswith("11 0\n")


def test_file_of_the_replicas(program: Program, secured: LocalCluster) -> None:
    """It says that they speak TLS, and not what a client is to show."""
    env = environment_with(RAFTCKPT_CONFIG=str(secured.config_path))
    done = run_program(program("initialize.c"), env=env)
    assert "speak TLS to clients: set RAFTCKPT_CA" in done.stdout
    assert done.stdout.endswith("2 0\n")


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("plain", "closed the connection"),
        ("no certificate", "closed the connection"),
        ("other CA", "its certificate is not of"),
        ("other host", "not valid for '127.0.0.1'"),
    ],
)
def test_without_the_right_ones(
    refused: dict[str, subprocess.Popen[str]], which: str, why: str
) -> None:
    said, reason = refused[which].communicate(timeout=60)
    assert said == "6 0\n"
    assert why in reason
    assert reason.count("\n") == 1
