"""LocalCluster: real replica processes on loopback, with faults on demand.

Layout of the data directory: ``cluster.yaml`` (for clients; it keeps the ports), ``NODE/`` (data of
a replica), ``NODE.yaml`` (what that replica reads when its links to the others go through our
proxies), ``NODE.log``. All processes end with this one, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

from raftckpt.client.blocking import Service, connect
from raftckpt.client.types import TlsOptions
from raftckpt.errors import Exist
from raftckpt.rights import Rights, known_token, make_token
from raftckpt.testing import background
from raftckpt.testing.probe import replica_status
from raftckpt.testing.proxy import LinkProxy

__all__ = ["ClusterNotReady", "LocalCluster"]

_LOG_TAIL_LINES = 15
_READY_S = 60.0
"""A machine that does much else takes half a minute to start three interpreters."""
_POLL_S = 0.02

_CLIENT_FILES = {"ca": "authority.pem", "cert": "client.pem", "key": "client.key"}
_live: weakref.WeakSet[LocalCluster] = weakref.WeakSet()


class ClusterNotReady(RuntimeError):
    """The cluster did not reach the wanted state in time; the message shows the replicas' logs."""


class LocalCluster:
    """A cluster of real replica processes on this machine, for tests, demos and development.

    Arguments:
        replicas: number of replicas (n1, n2, ...); ignored if the directory holds a cluster.
        data_dir: where everything lives; None: a temporary directory, removed at the end.
            Started again on the same directory it is the same cluster on the same ports.
        durability: "fsync" or "os".
        faults: route the links between replicas through proxies, as :meth:`partition` needs.
        spares: hosts that :meth:`add` may make members of.
        settings: more keys for the configuration file.
        wrap: commands put before that of a replica, by node (``{"n1": ["nice"]}``); each must
            execute the rest of its arguments in place of itself.
        module: what a replica runs (``python -m MODULE``).
        auth: switch rights on when it is ready, with a principal ``operator`` that has all of them
            on all names; its token is in ``token_path``. A path: of a file with the token to use.
        tls: True: all links and clients speak TLS, with certificates that are made below
            ``certs/`` (needs the extra ``certs``); ``cluster.yaml`` says to clients what to show.
            TlsOptions: what this class shows to the replicas; they show the same, and ask clients
            for a certificate of that authority, unless ``settings`` say otherwise. None, and
            settings that have ``tls.client``: it shows what the replicas show, which will do if
            one authority signed both.
        peers: what the replicas show to each other, unless ``settings`` say otherwise; a
            certificate that names all of them (n1, n2, ...) as hosts, of an authority that signs
            no clients.

    Example::

        with LocalCluster() as cluster, raftckpt.connect(cluster.endpoints) as service:
            cluster.kill(cluster.leader())
    """

    def __init__(
        self,
        replicas: int = 3,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        durability: str = "fsync",
        faults: bool = True,
        spares: int = 0,
        settings: Mapping[str, Any] | None = None,
        wrap: Mapping[str, Sequence[str]] | None = None,
        module: str = "raftckpt.process",
        auth: bool | str | os.PathLike[str] = False,
        tls: TlsOptions | bool | None = None,
        peers: TlsOptions | None = None,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="raftckpt-")).absolute()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock_directory()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._paused: set[str] = set()
        self._tokens: dict[str, str] = {}
        """Of hosts that were added."""
        self._proxies: dict[tuple[str, str], LinkProxy] = {}
        self._faults = faults
        self._wrap = dict(wrap or {})
        self._module = module
        self._tls = tls if isinstance(tls, TlsOptions) else None
        self.token_path = self.data_dir / "operator.token"
        """File with the token of the principal ``operator``, if there is one."""
        if not isinstance(auth, bool):
            self.token_path = Path(auth)
        self._enables = auth is not False and not (self.data_dir / "rights").exists()
        self._auth = auth is not False or (self.data_dir / "rights").exists()
        self.config_path = self.data_dir / "cluster.yaml"
        if not self.config_path.exists():
            sides = {"peer": peers, "client": self._tls}
            shown = {port: _pem_files(each) for port, each in sides.items() if each is not None}
            tls_section = {"tls": shown} if shown else {}
            self._write_new(replicas, durability, {**tls_section, **(settings or {})})
            if tls is True:
                self._certify()
        self._config: dict[str, Any] = yaml.safe_load(self.config_path.read_text("utf-8"))
        client = self._config.pop("credentials", None)
        self._certified = client is not None
        if client is not None:
            own = {name: str(self.data_dir / client[name]) for name in _CLIENT_FILES}
            self._tls = TlsOptions(own["ca"], own["cert"], own["key"])
        elif self._tls is None and "RAFTCKPT_CA" not in os.environ:
            self._tls = _replicas_own(self._config, self.data_dir)
        self._addresses: dict[str, dict[str, str]] = dict(self._config["replicas"])
        self._nodes = list(self._addresses)
        ports = _free_ports(2 * spares)
        for number in range(spares):
            client, peer = (f"127.0.0.1:{port}" for port in ports[2 * number : 2 * number + 2])
            spare = f"n{len(self._addresses) + 1}"
            self._addresses[spare] = {"client": client, "peer": peer}
        if self._certified:
            self._renew()
        _live.add(self)

    # --- what it is ------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """Node ids of the members, in order."""
        return list(self._nodes)

    @property
    def hosts(self) -> list[str]:
        """Node ids of members and spares."""
        return list(self._addresses)

    @property
    def spares(self) -> list[str]:
        """Node ids of the hosts that :meth:`add` may use."""
        return [node for node in self._addresses if node not in self._nodes]

    @property
    def endpoints(self) -> str:
        """Endpoints of all replicas as :func:`raftckpt.connect` takes them."""
        return ",".join(self.endpoint(node) for node in self.nodes)

    def endpoint(self, node: str) -> str:
        """``host:port`` of a replica's client port."""
        return self._addresses[node]["client"]

    def peer_endpoint(self, node: str) -> str:
        """``host:port`` of a replica's peer port (the real one, not a proxy)."""
        return self._addresses[node]["peer"]

    def node_dir(self, node: str) -> Path:
        """Data directory of a replica."""
        return self.data_dir / node

    def pid(self, node: str) -> int | None:
        """Process id of a replica, None if it does not run."""
        process = self._processes.get(node)
        return process.pid if process is not None and process.poll() is None else None

    def exit_code(self, node: str) -> int | None:
        """Exit code of a replica that ended (negative: signal), None if it runs or never ran."""
        process = self._processes.get(node)
        return process.poll() if process is not None else None

    def log(self, node: str, lines: int | None = None) -> str:
        """What a replica wrote to its log (its last ``lines``)."""
        try:
            text = (self.data_dir / f"{node}.log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def status(self, node: str, timeout: float = 1.0) -> dict[str, Any] | None:
        """What a replica tells about itself, None if it does not answer within ``timeout`` s."""
        told = self._ask_status(node, timeout, self.token or "")
        if told is None and self._enables and self.token_path.exists():
            # a state that was restored, or recovered, has rights on already
            token = self.token_path.read_text("utf-8").strip()
            told = self._ask_status(node, timeout, token)
            if told is not None:
                self._rights_are_on()
        return told

    def _ask_status(self, node: str, timeout: float, token: str) -> dict[str, Any] | None:
        speaks = self._certified or "client" in (self._config.get("tls") or {})
        tls = self._tls if speaks else False  # a developer's own RAFTCKPT_CA is for another cluster
        return replica_status(self.endpoint(node), timeout=timeout, token=token, tls=tls)

    @property
    def token(self) -> str | None:
        """Token of the principal ``operator``; None: rights are not on."""
        if not self._auth or self._enables:
            return None
        return self.token_path.read_text("utf-8").strip()

    def connect(self, **options: Any) -> Service:
        """Connect as the operator, as :func:`raftckpt.connect` does."""
        return connect(self.endpoints, token=self.token or "", tls=self._tls, **options)

    def leader(self, timeout: float = _READY_S) -> str:
        """Node that leads and can serve.

        Raises:
            ClusterNotReady: if there is none within ``timeout`` seconds.
        """
        found: list[str] = []

        def ask() -> bool:
            best: tuple[int, str] | None = None
            for node in self.nodes:
                status = self.status(node, 0.5) if self._reachable(node) else None
                if status is not None and status["leader"] == node:
                    best = max(best or (-1, ""), (int(status["term"]), node))
            found[:] = [best[1]] if best else []
            return bool(found)

        self._until(ask, timeout, "no replica leads")
        return found[0]

    # --- life ------------------------------------------------------------------------------

    def start(self, *nodes: str) -> LocalCluster:
        """Start the replicas named (none named: all), but for those that run; returns at once.

        See :meth:`wait_ready`.
        """
        if self._faults and not self._proxies:
            self._start_proxies()
        for node in nodes or self.nodes:
            if self.pid(node) is None:
                self._start(node)
        return self

    def wait_ready(self, timeout: float = _READY_S, nodes: Iterable[str] | None = None) -> None:
        """Wait until all running replicas (or ``nodes``) answer and agree on a leader that serves.

        Raises:
            ClusterNotReady: if that takes more than ``timeout`` seconds.
        """
        wanted = list(nodes) if nodes is not None else [n for n in self.nodes if self._reachable(n)]

        def ready() -> bool:
            dead = [node for node in wanted if self.exit_code(node) is not None]
            if dead:
                raise ClusterNotReady(self._explain(f"replica {dead[0]} ended", dead))
            statuses = [self.status(node, 0.5) for node in wanted]
            leaders = {None if status is None else status["leader"] for status in statuses}
            return len(leaders) == 1 and None not in leaders

        self._until(ready, timeout, "the cluster is not ready")
        if self._enables:
            self._enable_rights()

    def _enable_rights(self) -> None:
        """Make the operator, then switch on; each step may have been taken before."""
        if self.token_path.exists():
            token = known_token(self.token_path.read_text("utf-8").strip())
        else:
            token = make_token()
            file = os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(file, token.text.encode() + b"\n")
            finally:
                os.close(file)
        with connect(self.endpoints, token="", tls=self._tls) as service:
            rights = Rights(service)
            with contextlib.suppress(Exist):
                rights.create_principal("operator", token, certificate=self._certified)
            rights.grant("", "operator", "read,write,create,drop,operate")
            rights.enable()
        self._rights_are_on()

    def _rights_are_on(self) -> None:
        (self.data_dir / "rights").touch()
        self._enables = False

    def stop(self, timeout: float = 10.0) -> None:
        """Stop everything (SIGTERM, then SIGKILL after ``timeout`` s); idempotent.

        A temporary data directory is removed, so its replicas are killed without ceremony.
        """
        running = [node for node in self.nodes if self.pid(node) is not None]
        if self._temporary:
            running = []
        for node in running:
            self._signal(node, signal.SIGCONT)
            self._signal(node, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        for node in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._processes[node].wait(max(0.0, deadline - time.monotonic()))
        self._end()

    def __enter__(self) -> LocalCluster:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and isinstance(error, Exception):
            error.add_note(self._explain("state of the cluster", self.nodes))
        self.stop()

    # --- faults: processes -------------------------------------------------------------------

    def kill(self, *nodes: str) -> None:
        """Kill -9 the replicas named, all at once (none named: all); wait until they are gone."""
        chosen = [node for node in (nodes or self.nodes) if self.pid(node) is not None]
        for node in chosen:
            self._signal(node, signal.SIGKILL)
        for node in chosen:
            self._processes[node].wait()
            self._paused.discard(node)

    def terminate(self, node: str, timeout: float = 10.0) -> int:
        """Ask a replica to leave (SIGTERM) and return its exit code.

        Raises:
            ClusterNotReady: if it is still there after ``timeout`` seconds.
        """
        self._signal(node, signal.SIGTERM)
        try:
            return self._processes[node].wait(timeout)
        except subprocess.TimeoutExpired:
            raise ClusterNotReady(self._explain(f"{node} ignores SIGTERM", [node])) from None

    def pause(self, node: str) -> None:
        """Stop a replica in its tracks (SIGSTOP)."""
        self._signal(node, signal.SIGSTOP)
        self._paused.add(node)

    def resume(self, node: str) -> None:
        """Let a paused replica go on (SIGCONT)."""
        self._signal(node, signal.SIGCONT)
        self._paused.discard(node)

    def restart(
        self, node: str, *, rejoin: bool = False, wait: bool = True, timeout: float = _READY_S
    ) -> None:
        """Start a replica again (a running one is asked to leave first).

        Arguments:
            node: which.
            rejoin: start it with ``--rejoin`` (its data directory was lost).
            wait: until it answers and knows a leader.
            timeout: seconds to wait.

        Raises:
            ClusterNotReady: if it ended or is not ready in time.
        """
        if self.pid(node) is not None:
            self.resume(node)
            self.terminate(node)
        self._start(node, rejoin=rejoin)
        if wait:
            self.wait_ready(timeout, [node])

    # --- members -----------------------------------------------------------------------------

    def add(
        self,
        node: str | None = None,
        *,
        replaces: str | None = None,
        learner: bool = False,
        timeout: float = 60.0,
    ) -> str:
        """Add a spare host (made by ``spares=``) to the cluster; return its node id.

        Arguments:
            node: which; None: the first one.
            replaces: the member that leaves for it (its process ends by itself).
            learner: it never votes.
            timeout: seconds until it is there.

        Raises:
            ClusterNotReady: it is not there in time.
        """
        node = node or self.spares[0]
        token = os.urandom(8).hex()
        deadline = time.monotonic() + timeout
        self.ask_add(node, token, replaces=replaces, learner=learner, timeout=timeout)
        self.start_added(node, token)
        self._until(
            lambda: self.arrived(node, replaces=replaces, learner=learner),
            deadline - time.monotonic(),
            f"{node} is not a member",
        )
        if replaces is not None:
            self.forget(replaces)
        return node

    def ask_add(
        self,
        node: str,
        token: str,
        *,
        replaces: str | None = None,
        learner: bool = False,
        timeout: float = 60.0,
    ) -> None:
        """Have a place kept for a spare host; asking again with the same token is harmless."""
        with self.connect(session=False, timeout=timeout) as service:
            service.add_member(
                node,
                peer=self.peer_endpoint(node),
                client=self.endpoint(node),
                token=token,
                learner=learner,
                replaces=replaces,
            )

    def start_added(self, node: str, token: str) -> None:
        """Start the host for which a place is kept."""
        self._nodes.append(node)
        self._tokens[node] = token
        self._start(node)

    def arrived(self, node: str, *, replaces: str | None = None, learner: bool = False) -> bool:
        """Whether the leader has it as a member, and the one that it replaces no more."""
        members = {member["node"]: member for member in self._told_members()}
        there = members.get(node)
        if there is not None and there["directory"]:
            self._tokens.pop(node, None)  # it has opened its place
        return (
            there is not None
            and bool(there["directory"])
            and (learner or there["voter"])
            and replaces not in members
        )

    def remove(self, node: str, timeout: float = 60.0) -> int | None:
        """Remove a member; return the exit code of its replica, None if it did not run.

        Raises:
            ClusterNotReady: it still runs after ``timeout`` seconds.
        """
        with self.connect(session=False, timeout=timeout) as service:
            service.remove_member(node)
        return self.forget(node)

    def forget(self, node: str) -> int | None:
        """A member was removed: its replica ends by itself, the host is a spare with no data."""
        code = self.wait_exit(node, 20.0) if self.pid(node) is not None else None
        self._nodes.remove(node)
        self._tokens.pop(node, None)
        shutil.rmtree(self.node_dir(node), ignore_errors=True)
        return code

    def _told_members(self) -> list[dict[str, Any]]:
        """Members as the leader has them."""
        for node in self.nodes:
            status = self.status(node, 0.5) if self._reachable(node) else None
            if status is not None and status["leader"] == node:
                return list(status["members"])
        return []

    def wrap(self, node: str, command: Sequence[str]) -> None:
        """Put ``command`` before that of ``node`` from its next start on; see ``wrap=``."""
        self._wrap[node] = command

    def wait_exit(self, node: str, timeout: float = 10.0) -> int:
        """Wait until a replica ends and return its exit code.

        Raises:
            ClusterNotReady: if it still runs after ``timeout`` seconds.
        """
        try:
            return self._processes[node].wait(timeout)
        except subprocess.TimeoutExpired:
            raise ClusterNotReady(self._explain(f"{node} still runs", [node])) from None

    # --- faults: links between replicas ------------------------------------------------------

    def partition(self, *groups: str | Iterable[str]) -> None:
        """Cut the links between groups of replicas; those not named form one more group.

        Nothing is reset: bytes wait and arrive late once the partition heals.

        Example: ``partition("n1")`` isolates n1; ``partition(["n1", "n2"], ["n3"])``.
        """
        sets = [{group} if isinstance(group, str) else set(group) for group in groups]
        sets.append(set(self._addresses) - set().union(*sets))
        side = {node: number for number, group in enumerate(sets) for node in group}
        for source in self._addresses:
            for target in self._addresses:
                if source != target:
                    self.block(source, target, blocked=side[source] != side[target])

    def block(self, source: str, target: str, *, blocked: bool = True) -> None:
        """Stall (or let flow) what ``source`` sends to ``target``; the other way is not touched."""
        there, back = self._link(source, target)

        def work() -> None:
            there.stall(forward=blocked)
            back.stall(backward=blocked)

        background.call(work)

    def latency(self, seconds: float, source: str | None = None, target: str | None = None) -> None:
        """Delay what replicas send to each other (from ``source`` and to ``target`` if given)."""
        for one in [source] if source else self._addresses:
            for other in [target] if target else self._addresses:
                if one != other:
                    there, back = self._link(one, other)
                    background.call(functools.partial(there.delay, forward_s=seconds))
                    background.call(functools.partial(back.delay, backward_s=seconds))

    def reset_links(self, node: str | None = None) -> None:
        """Break all connections between replicas (those of ``node``); they reconnect."""
        for pair, proxy in self._proxies.items():
            if node is None or node in pair:
                background.call(proxy.reset)

    def links(self, node: str | None = None) -> list[tuple[tuple[str, str], LinkProxy]]:
        """The proxies between replicas (those from or to ``node``) by (dialer, target).

        Their methods run in the helper thread: ``background.call(proxy.reset)``.
        """
        return [
            (pair, proxy) for pair, proxy in self._proxies.items() if node is None or node in pair
        ]

    def heal(self) -> None:
        """End all partitions, delays and other troubles of links, and resume paused replicas."""
        if self._proxies:
            self.partition()
            self.latency(0.0)
            for _, proxy in self.links():
                background.call(functools.partial(proxy.slow, None))
                background.call(functools.partial(proxy.slice, None))
        for node in list(self._paused):
            if self.pid(node) is not None:
                self.resume(node)

    # --- inside ----------------------------------------------------------------------------

    def _lock_directory(self) -> IO[str]:
        lock = (self.data_dir / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise ClusterNotReady(f"{self.data_dir} is in use by {owner}") from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()}")
        lock.flush()
        return lock

    def _write_new(self, replicas: int, durability: str, settings: dict[str, Any]) -> None:
        ports = _free_ports(2 * replicas)
        nodes = {
            f"n{number + 1}": {
                "client": f"127.0.0.1:{ports[2 * number]}",
                "peer": f"127.0.0.1:{ports[2 * number + 1]}",
            }
            for number in range(replicas)
        }
        # The name is part of the identity of every data directory: two local clusters that meet on
        # a re-used port must refuse each other.
        name = f"local-{os.urandom(4).hex()}"
        config = {
            "cluster": name,
            "data_dir": ".",
            "durability": durability,
            "replicas": nodes,
            **settings,
        }
        # a replica a line, for who replaces one by hand
        text = yaml.safe_dump(config, sort_keys=False, default_flow_style=None)
        self.config_path.write_text(text, "utf-8")

    def _certify(self) -> None:
        """Make certificates for all, and say in cluster.yaml what clients are to show."""
        from raftckpt.node.issuing import CertificateStore, Spans  # wants an extra

        store = CertificateStore(self.data_dir / "certs")
        store.found(str(self.config_path), ["operator"], Spans())
        where = {name: f"certs/clients/operator/{file}" for name, file in _CLIENT_FILES.items()}
        text = yaml.safe_dump({"credentials": where}, sort_keys=False)
        with self.config_path.open("a", encoding="utf-8") as file:
            file.write(text)

    def _renew(self) -> None:
        """Have certificates for the spares, too, and none that ends soon."""
        from raftckpt.node.issuing import CertificateStore, Spans

        path = self.data_dir / "certs/cluster.yaml"
        config = {**yaml.safe_load(path.read_text("utf-8")), "replicas": self._addresses}
        path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        CertificateStore(path.parent).renew(Spans())

    def _start_proxies(self) -> None:
        for source in self._addresses:
            for target in self._addresses:
                if source != target:
                    host, _, port = self.peer_endpoint(target).rpartition(":")
                    proxy = LinkProxy(host, int(port))
                    background.run(proxy.start())
                    self._proxies[source, target] = proxy

    def _link(self, source: str, target: str) -> tuple[LinkProxy, LinkProxy]:
        if not self._proxies:
            raise RuntimeError("this cluster was made with faults=False, or is not started")
        return self._proxies[source, target], self._proxies[target, source]

    def _config_for(self, node: str) -> Path:
        plain = not self._addresses.keys() - self._config["replicas"].keys()
        if plain and not self._proxies and not self._certified:
            return self.config_path
        routes = {
            other: f"127.0.0.1:{proxy.port}"
            for (source, other), proxy in self._proxies.items()
            if source == node
        }
        path = self.data_dir / f"{node}.yaml"
        replicas = {member: self._addresses[member] for member in {*self._nodes, node}}
        config = {**self._config, "replicas": replicas, "routes": routes}
        if self._certified:
            certs = f"certs/hosts/{node}/tls"
            files = {"cert": "replica.pem", "key": "replica.key", "ca": "authority.pem"}
            files = {name: f"{certs}/{file}" for name, file in files.items()}
            config["tls"] = {"peer": files, "client": dict(files)}
        text = yaml.safe_dump(config, sort_keys=False)
        path.write_text(text, "utf-8")
        return path

    def _start(self, node: str, *flags: str, rejoin: bool = False) -> None:
        command = ["-m", self._module, "--config", str(self._config_for(node)), "--node", node]
        command += flags
        if rejoin:
            command.append("--rejoin")
        elif node in self._tokens and not (self.node_dir(node) / "identity").exists():
            command += ["--join", self._tokens[node]]  # it may have died before it noted the token
        elif len(self._config["replicas"]) == 1:
            command.append("--found")
        with (self.data_dir / f"{node}.log").open("ab") as log:
            # Settings of this process's environment are not the cluster's.
            env = {k: v for k, v in os.environ.items() if not k.startswith("RAFTCKPT_")}
            self._processes[node] = background.spawn(
                command, stdout=log, stderr=log, env=env, prefix=self._wrap.get(node, ())
            )

    def _signal(self, node: str, number: signal.Signals) -> None:
        process = self._processes.get(node)
        if process is not None:
            process.send_signal(number)

    def _reachable(self, node: str) -> bool:
        return self.pid(node) is not None and node not in self._paused

    def _until(self, ready: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                raise ClusterNotReady(self._explain(f"{what} after {timeout:g} s", self.nodes))
            time.sleep(_POLL_S)

    def _explain(self, what: str, nodes: Iterable[str]) -> str:
        parts = [what]
        if self._tls is not None:
            parts.append(f"asked over TLS, with {self._tls}; another tls= may be needed")
        for node in nodes:
            code = self.exit_code(node)
            state = "running" if code is None else f"ended with {code}"
            state = "paused" if node in self._paused else state
            parts.append(
                f"--- {node} ({state}), end of its log:\n{self.log(node, _LOG_TAIL_LINES)}"
            )
        return "\n".join(parts)

    def _end(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
        for process in self._processes.values():
            process.wait()
        for proxy in self._proxies.values():
            background.run(proxy.close())
        self._proxies.clear()
        self._paused.clear()
        self._lock.close()
        _live.discard(self)
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)


def _pem_files(tls: TlsOptions) -> dict[str, str]:
    """What a section of ``tls`` in cluster.yaml says."""
    cert = tls.cert or ""
    return {"cert": cert, "key": tls.key or cert, "ca": tls.ca}


def _replicas_own(config: Mapping[str, Any], base: Path) -> TlsOptions | None:
    """What the replicas of a configuration show to clients, as what a client shows to them."""
    files = (config.get("tls") or {}).get("client")
    if not files:
        return None
    cert, key = (str(base / files[name]) for name in ("cert", "key"))
    ca = str(base / files["ca"]) if files.get("ca") else cert
    return TlsOptions(ca, cert, key, check_hostname=False)


def _free_ports(count: int) -> list[int]:
    # Below the ephemeral range: a port of that range, free while its replica is down, may become
    # the local port of some outgoing connection, and the replica could not come back.
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    # Each worker of pytest-xdist has ports of its own: those of a replica that is down look free.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(10_000 + worker, low, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    candidates = random.sample(own, min(500, len(own))) if low > 11_000 else []
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in [*candidates, *[0] * count]:
            each = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("127.0.0.1", port))
                ports.append(each.getsockname()[1])
            if len(ports) == count:
                break
    return ports


@atexit.register
def _end_all() -> None:
    for cluster in list(_live):
        cluster._end()


if sys.platform != "linux":
    raise ImportError("raftckpt.testing.LocalCluster needs Linux")
