"""Rights on real replicas: revoked in the middle of everything, with the leader killed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

import raftckpt
import raftckpt.aio
from raftckpt.rights import Rights, make_token
from raftckpt.testing import LocalCluster
from tests.admin import get, with_admin
from tests.authority import Authority
from tests.waiting import until

TENANT = "read,write,create,drop"


@pytest.fixture(scope="module")
def secured() -> Iterator[LocalCluster]:
    with LocalCluster(3, auth=True) as cluster:
        yield cluster


def tenant(cluster: LocalCluster, name: str) -> str:
    """A principal with a space of its name; returns its token."""
    token = make_token()
    with cluster.connect() as service:
        rights = Rights(service)
        rights.create_principal(name, token)
        rights.create_space(f"{name}/")
        rights.grant(f"{name}/", name, TENANT)
    return token.text


class _RevokedWriter(threading.Thread):
    """Puts 1, 2, 3, ... until it is refused; remembers what was acknowledged and why it ended."""

    def __init__(self, checkpoint: raftckpt.Checkpoint) -> None:
        super().__init__(daemon=True)
        self.checkpoint = checkpoint
        self.acknowledged = 0
        self.error: raftckpt.CheckpointError | None = None

    def run(self) -> None:
        number = 1
        try:
            while True:
                self.checkpoint.put("n", b"%d" % number)
                self.acknowledged, number = number, number + 1
        except raftckpt.CheckpointError as error:
            self.error = error


def _refusal(checkpoint: raftckpt.Checkpoint) -> raftckpt.CheckpointError | None:
    try:
        checkpoint.put("n", b"1")
    except raftckpt.CheckpointError as error:
        return error
    return None


@pytest.mark.parametrize("update", [pytest.param("all", marks=pytest.mark.long), "active"])
def test_a_principal_is_revoked_under_load_while_the_leader_dies(
    secured: LocalCluster, update: str
) -> None:
    """Nothing of it is there after the revision told; its tracker ends with the reason."""
    secured.start()
    secured.wait_ready()
    name = f"load-{update}"
    token = tenant(secured, name)
    seen: list[raftckpt.Change] = []
    ended: list[raftckpt.CheckpointError] = []
    with raftckpt.connect(secured.endpoints, token=token) as service:
        checkpoint = service.open(f"{name}/c", create=raftckpt.Attributes(update=update))
        checkpoint.put("n", b"0")
        checkpoint.synchronize() if update == "active" else None
        tracker = checkpoint.track()

        def follow() -> None:
            try:
                for change in tracker:
                    seen.append(change)
            except raftckpt.CheckpointError as error:
                ended.append(error)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        writer = _RevokedWriter(checkpoint)
        writer.start()
        until(lambda: writer.acknowledged > 50, "writes go on")
        with secured.connect(timeout=30.0) as operator:
            rights = Rights(operator)
            killer = threading.Thread(target=lambda: secured.kill(secured.leader()))
            killer.start()
            rights.grant(f"{name}/", "operator", "read")
            rights.revoke_principal(name)
            last = operator.checkpoints(prefix=f"{name}/")[0].revision
            killer.join()
            writer.join(60.0)
            follower.join(60.0)
            assert not writer.is_alive()
            assert not follower.is_alive()
            # Timeout: the replica that is dead might have known it, so it was asked for until then
            ends = raftckpt.SessionLost, raftckpt.Access, raftckpt.Timeout
            assert isinstance(writer.error, ends), writer.error
            assert isinstance(ended[0], raftckpt.Access), ended
            assert ended[0].reason in ("revoked", "credentials")
            kept = int(operator.view(f"{name}/c").read("n"))
            now = operator.checkpoints(prefix=f"{name}/")[0].revision
        assert now == last, "it changed after the revocation was acknowledged"
        assert max(change.revision for change in seen) <= last
        if update == "all":
            assert kept in (writer.acknowledged, writer.acknowledged + 1)
        else:
            assert kept <= writer.acknowledged + 1
    secured.start()
    with pytest.raises(raftckpt.Access) as refused:
        raftckpt.connect(secured.endpoints, token=token, timeout=20.0)
    assert refused.value.reason == "credentials"


@pytest.mark.long
def test_rights_outlive_all_replicas(secured: LocalCluster) -> None:
    token = tenant(secured, "lasting")
    secured.kill()
    secured.start()
    secured.wait_ready()
    with raftckpt.connect(secured.endpoints, token=token, timeout=30.0) as service:
        with service.open("lasting/c", create=raftckpt.Attributes()) as checkpoint:
            checkpoint.put("n", b"1")
        assert Rights(service).whoami().grants == {"lasting/": TENANT.split(",")}
        with pytest.raises(raftckpt.NotExist):
            service.open("else/c")
    with pytest.raises(raftckpt.Access):
        raftckpt.connect(secured.endpoints, timeout=20.0)


def test_a_rotated_token_goes_on_for_as_long_as_it_is_kept(secured: LocalCluster) -> None:
    secured.start()
    secured.wait_ready()
    first = tenant(secured, "rotating")
    second, third = make_token(), make_token()
    with secured.connect() as operator:
        rights = Rights(operator)
        rights.rotate_token("rotating", second, keep=3600.0)
        for token in (first, second.text):
            raftckpt.connect(secured.endpoints, token=token).close()
        with raftckpt.connect(secured.endpoints, token=first) as service:
            checkpoint = service.open("rotating/c", create=raftckpt.Attributes())
            rights.rotate_token("rotating", third)
            ended = until(lambda: _refusal(checkpoint), "its sessions end")
            assert isinstance(ended, raftckpt.SessionLost | raftckpt.Access)
        for token in (first, second.text):
            with pytest.raises(raftckpt.Access):
                raftckpt.connect(secured.endpoints, token=token)
        raftckpt.connect(secured.endpoints, token=third.text).close()


def test_the_admin_port_asks_for_the_right_to_operate(tmp_path: Path) -> None:
    """Two words are for everybody, the rest for operators; metrics may be opened."""
    cluster = with_admin(LocalCluster(1, tmp_path / "c", faults=False, auth=True))
    pages = ("/", "/now", "/charts", "/metrics", "/status", "/page.js")

    def codes(authorization: str = "") -> set[int]:
        return {get(cluster, "n1", path, authorization)[0] for path in pages}

    with cluster:
        token = tenant(cluster, "web")
        for path in ("/livez", "/readyz"):
            assert get(cluster, "n1", path) == (200, "ok\n")
        assert codes() == {401}
        assert codes("Bearer " + make_token().text) == {401}
        assert codes("Bearer " + token) == {403}
        assert codes("Digest x") == {400}
        assert "the page /metrics" in cluster.log("n1")
        own = f"Bearer {cluster.token}"
        assert codes(own) == {200}
        assert get(cluster, "n1", "/status", own)[1].startswith("ok\nnode n1\nleader n1\nterm ")
        assert codes("Basic " + b64encode(f"any:{cluster.token}".encode()).decode()) == {200}
        with cluster.connect() as operator:
            Rights(operator).revoke_principal("web")
        assert codes("Bearer " + token) == {401}
        text = cluster.config_path.read_text("utf-8")
        cluster.config_path.write_text(text + "admin_open: metrics\n", "utf-8")
        os.kill(cluster.pid("n1") or 0, signal.SIGHUP)
        until(lambda: 'reloaded taken="admin_open' in cluster.log("n1"), "it is read")
        assert get(cluster, "n1", "/metrics")[0] == 200
        assert get(cluster, "n1", "/")[0] == 401
        with cluster.connect() as operator:
            Rights(operator).disable()
        assert get(cluster, "n1", "/")[0] == 200
        assert get(cluster, "n1", "/", own)[0] == 403  # it would not be looked at


def test_quotas_hold_under_another_leader(secured: LocalCluster) -> None:
    """What was accepted early is there in the end, and what has no room is refused, by each."""
    secured.start()
    secured.wait_ready()
    token = tenant(secured, "bounded")
    with secured.connect(timeout=30.0) as operator:
        Rights(operator).set_quota("bounded/", {"bytes": 1000, "checkpoints": 1})
        with raftckpt.connect(secured.endpoints, token=token, timeout=30.0) as service:
            attributes = raftckpt.Attributes(update="active")
            checkpoint = service.open("bounded/c", create=attributes)
            for number in range(9):
                checkpoint.put(f"{number}", bytes(100))
            checkpoint.synchronize()
            leader = secured.leader()
            secured.kill(leader)
            with pytest.raises(raftckpt.NoSpace) as refused:
                checkpoint.put("more", bytes(101))
            assert refused.value.reason == "space_quota"
            assert refused.value.detail == ["bytes", 1000, "bounded/"]
            with pytest.raises(raftckpt.NoSpace):
                service.open("bounded/d", create=attributes)
            checkpoint.put("more", bytes(100))
            checkpoint.synchronize()
            spaces = {row.prefix: row for row in Rights(operator).spaces()[1]}
            assert spaces["bounded/"].quotas == {"checkpoints": (1, 1), "bytes": (1000, 1000)}
            Rights(operator).set_quota("bounded/", {"bytes": None, "checkpoints": None})
            service.open("bounded/d", create=attributes).put("more", bytes(2000))
    secured.start()


def test_the_awaitable_face(secured: LocalCluster) -> None:
    secured.start()
    secured.wait_ready()

    async def scenario() -> None:
        async with raftckpt.aio.connect(secured.endpoints, token=secured.token) as service:
            rights = raftckpt.aio.Rights(service)
            assert (await rights.status()).on
            assert (await rights.whoami()).principal == "operator"
            token = make_token()
            revision = await rights.create_principal("awaited", token)
            assert await rights.create_space("awaited/", expected=revision) == revision + 1
            with pytest.raises(raftckpt.BadOperation):
                await rights.grant("awaited/", "awaited", "read", expected=revision)
            await rights.grant("awaited/", "awaited", TENANT)
            spaces = {row.prefix: row.grants for row in (await rights.spaces())[1]}
            assert spaces["awaited/"] == {"awaited": TENANT.split(",")}
            async with raftckpt.aio.connect(secured.endpoints, token=token.text) as tenant:
                await tenant.open("awaited/c", create=raftckpt.Attributes())
            await rights.set_quota("awaited/", {"checkpoints": 5})
            assert (await rights.spaces())[1][-1].quotas == {"checkpoints": (5, 1)}
            await rights.revoke("awaited/", "awaited", "drop")
            await rights.rotate_token("awaited", make_token())
            await rights.delete_space("awaited/")
            await rights.revoke_principal("awaited")
            assert "awaited" not in [row.name for row in (await rights.principals())[1]]

    asyncio.run(scenario())


def test_a_certificate_is_a_principal_and_another_clusters_is_none(tmp_path: Path) -> None:
    """Over TLS, without a token: what the certificate says of whom, and of which cluster."""
    authority = Authority(tmp_path, "clients")
    uri = "raftckpt://secured/client/{}"
    replicas = authority.issue("replicas", "replicas", uris=["raftckpt://secured/replica/n1"])
    shown = {
        name: authority.issue(name, name, uris=[uri.format(name)])
        for name in ("ops", "web", "nobody")
    }
    shown["foreign"] = authority.issue("foreign", "x", uris=["raftckpt://other/client/web"])
    options = {
        name: raftckpt.TlsOptions(files["ca"], files["cert"], files["key"], check_hostname=False)
        for name, files in shown.items()
    }
    settings = {"cluster": "secured", "tls": {"client": replicas}}
    with LocalCluster(1, settings=settings, faults=False, tls=options["ops"]) as cluster:
        endpoints = cluster.endpoints
        with raftckpt.connect(endpoints, tls=options["ops"]) as service:
            rights = Rights(service)
            rights.create_principal("ops", certificate=True)
            rights.create_principal("web", certificate=True)
            rights.grant("", "ops", "operate")
            rights.create_space("web/")
            rights.grant("web/", "web", TENANT)
            rights.enable()
        with raftckpt.connect(endpoints, tls=options["web"]) as service:
            assert Rights(service).whoami().principal == "web"
            with service.open("web/c", create=raftckpt.Attributes()) as checkpoint:
                checkpoint.put("n", b"1")
        with pytest.raises(raftckpt.Access):
            raftckpt.connect(endpoints, tls=options["nobody"], timeout=20.0)
        with pytest.raises(raftckpt.Unavailable):  # it is not let in at all
            raftckpt.connect(endpoints, tls=options["foreign"], timeout=3.0)
