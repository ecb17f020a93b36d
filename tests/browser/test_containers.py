"""The files for containers: valid, in agreement with each other, and run as they say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from raftckpt.node.config import parse
from tests.waiting import PATIENCE, until

FILES = Path(__file__).parents[2] / "operate" / "containers"
TLS_NAMES = ("replica.pem", "replica.key", "peers-ca.pem", "clients-ca.pem",
             "raftckpt-0.pem", "raftckpt-0.key")  # fmt: skip
UID = 10001


def kubernetes() -> dict[str, dict]:
    documents = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


def read_configuration(text: str, tmp_path: Path):
    """The file as the container reads it, beside certificates that are there."""
    (tmp_path / "tls").mkdir()
    for name in TLS_NAMES:
        (tmp_path / "tls" / name).write_text("x", "ascii")
    return parse(text, str(tmp_path / "cluster.yaml"))


@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_kubernetes_takes_it(version) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install '.[browser]'")
    for document in kubernetes().values():
        validator.validate(document, version, strict=True)


def test_what_founds_a_cluster_and_keeps_it() -> None:
    found = kubernetes()
    pods, names = found["StatefulSet"]["spec"], found["Service"]["spec"]
    assert pods["podManagementPolicy"] == "Parallel"
    assert names["publishNotReadyAddresses"] is True
    assert names["clusterIP"] == "None"
    assert found["Service"]["metadata"]["name"] == pods["serviceName"]
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    labels = pods["template"]["metadata"]["labels"]
    assert labels == pods["selector"]["matchLabels"] == names["selector"]
    assert labels == found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    (container,) = pods["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pods["template"]["spec"]["securityContext"]["runAsUser"] == UID
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_the_configuration_of_the_pods_is_one(tmp_path) -> None:
    found = kubernetes()
    config = read_configuration(found["ConfigMap"]["data"]["cluster.yaml"], tmp_path)
    replicas = found["StatefulSet"]["spec"]["replicas"]
    name, service = found["StatefulSet"]["metadata"]["name"], found["Service"]["metadata"]["name"]
    assert set(config.replicas) == {f"{name}-{number}" for number in range(replicas)}
    ports = {port["name"]: port["port"] for port in found["Service"]["spec"]["ports"]}
    for node, at in config.replicas.items():
        assert at.client == (f"{node}.{service}", ports["client"])
        assert at.peer == (f"{node}.{service}", ports["peer"])
    (container,) = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["data"] == str(config.data_dir)
    claims = found["StatefulSet"]["spec"]["volumeClaimTemplates"]
    assert [claim["metadata"]["name"] for claim in claims] == ["data"]


def test_compose_takes_it_and_it_agrees_with_its_configuration(tmp_path) -> None:
    text = (FILES / "compose.yaml").read_text("utf-8")
    found = yaml.safe_load(text)
    models = pytest.importorskip("compose_spec", reason="pip install '.[browser]'")
    models.ComposeSpecification.model_validate(found)
    config = read_configuration((FILES / "cluster.yaml").read_text("utf-8"), tmp_path)
    replicas = {name: each for name, each in found["services"].items() if name != "cli"}
    assert set(replicas) == set(config.replicas)
    for name, each in replicas.items():
        assert each["read_only"] is True
        assert each["user"] == f"{UID}:{UID}"
        assert each["cap_drop"] == ["ALL"]
        assert each["command"] == ["--node", name]
        assert f"{name}:/var/lib/raftckpt" in each["volumes"]
        assert config.replicas[name].client.host == each["hostname"] == name
    assert set(found["volumes"]) == set(replicas)
    endpoints = found["services"]["cli"]["environment"]["RAFTCKPT_ENDPOINTS"].split(",")
    assert endpoints == [str(at.client) for at in config.replicas.values()]


def test_the_containerfile_says_what_the_others_rely_on() -> None:
    parser = pytest.importorskip("dockerfile_parse", reason="pip install '.[browser]'")
    with (FILES / "Containerfile").open("rb") as file:
        lines = parser.DockerfileParser(fileobj=file).structure
    last = len(lines) - 1 - [line["instruction"] for line in lines[::-1]].index("FROM")
    said = {line["instruction"]: line["value"] for line in lines[last:]}
    assert said["USER"] == f"{UID}:{UID}"
    assert said["ENTRYPOINT"] == '["raftckpt", "serve"]'  # not through a shell: it gets the signals
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["VOLUME"] == "/var/lib/raftckpt"
    for name in re.findall(r"RAFTCKPT_\w+", said["ENV"]):
        assert name in ("RAFTCKPT_CONFIG", "RAFTCKPT_DATA_DIR", "RAFTCKPT_LOG_FORMAT")
    for line in lines:
        if line["instruction"] == "COPY" and "--from" not in line["value"]:
            source = line["value"].split()[-2]
            assert (Path(__file__).parents[2] / source).exists(), source


START = """
mount --make-rprivate /
mount -t tmpfs -o mode=0755 data "$DATA" && chown 10001:10001 "$DATA" && chmod 0750 "$DATA"
mount -o remount,ro,bind /
for each in /tmp /var /run /dev/shm; do mount -o remount,ro,bind $each 2>/dev/null; done
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \
    --inh-caps -all,+dac_read_search --ambient-caps -all,+dac_read_search \
    --bounding-set -all,+dac_read_search "$PYTHON" -m raftckpt.process --node n1 --found
"""
"""What an engine does: namespaces, a read-only root, a volume, a user. The one capability has the
interpreter found where it is: below the home of somebody else, perhaps."""


def test_the_entry_point_as_first_process_without_root_on_a_read_only_root(tmp_path) -> None:
    if os.geteuid() or not all(map(shutil.which, ("unshare", "setpriv", "nsenter"))):
        pytest.skip("namespaces need root, unshare, setpriv and nsenter")
    if subprocess.run(["unshare", "-pmf", "--mount-proc", "true"], check=False).returncode:
        pytest.skip("no namespaces here")
    data = tmp_path / "data"
    data.mkdir()
    config = tmp_path / "cluster.yaml"
    config.write_text(
        "cluster: contained\nreplicas: {n1: {client: '127.0.0.1:17401', peer: '127.0.0.1:17501', "
        "admin: '127.0.0.1:19401'}}\n", "utf-8",
    )  # fmt: skip
    environ = os.environ | {
        "DATA": str(data), "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAFTCKPT_CONFIG": str(config), "RAFTCKPT_DATA_DIR": str(data),
        "RAFTCKPT_LOG_FORMAT": "json",
    }  # fmt: skip
    log = (tmp_path / "log").open("w+b")
    # a network of its own, too: the ports of the host are none of its business
    outer = subprocess.Popen(
        ["unshare", "-pmnf", "--mount-proc", "sh", "-c", f"ip link set lo up;{START}"],
        env=environ, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        (pid,) = until(lambda: children.read_text().split(), "it is started")

        def inside(*command: str) -> subprocess.CompletedProcess[str]:
            enter = ["nsenter", "-t", pid, "-p", "-n", "-m", "--"]
            return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)

        def probe() -> bool:
            assert outer.poll() is None, Path(log.name).read_text("utf-8")
            asked = inside(sys.executable, str(FILES / "probe"), "readyz", "19401")
            return (asked.returncode, asked.stdout) == (0, "ok\n")

        until(probe, "it serves")
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        assert re.search(r"NSpid:.*\t1$", status, re.MULTILINE)  # it is the first process
        assert re.search(rf"Uid:\t{UID}\t{UID}", status)
        assert "NoNewPrivs:\t1" in status
        assert inside("touch", str(tmp_path / "no")).returncode  # the root cannot be written
        # an orphan is left to the first process, which has to reap it
        inside("sh", "-c", "(sleep 0.2 & exec true) & exit 0")

        def zombies() -> list[str]:
            return [
                path.name for path in Path("/proc").glob("[0-9]*")
                if re.search(rf"State:\tZ.*^PPid:\t{pid}$", _status(path), re.M | re.S)
            ]  # fmt: skip

        time.sleep(0.5)
        until(lambda: not zombies(), "nobody is left a zombie")
        os.kill(int(pid), signal.SIGHUP)
        until(lambda: '"event": "reloaded"' in Path(log.name).read_text("utf-8"), "it hears")
        os.kill(int(pid), signal.SIGTERM)
        assert outer.wait(PATIENCE) == 0
        assert '"event": "stopped"' in Path(log.name).read_text("utf-8")
    finally:
        outer.kill()
        outer.wait()
        log.close()


def _status(path: Path) -> str:
    try:
        return (path / "status").read_text("ascii", "replace")
    except OSError:
        return ""
