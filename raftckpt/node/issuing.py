"""A directory of certificates: an authority, and what each host and each client gets.

``authority/`` signs and stays where it is; ``hosts/NODE/`` and ``clients/NAME/`` are whole: copied
to where they are used, they need nothing else. ``cluster.yaml`` is the file that all hosts have.
Keys are readable for their owner alone, and none is replaced that was not asked for.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from raftckpt.client.access_operations import known_principal
from raftckpt.net.authority import SigningAuthority, Written
from raftckpt.net.certificates import client_name, client_uri, replica_name
from raftckpt.net.inspection import ends_at, looked_at
from raftckpt.node.config import ConfigError, Outline, Problem, ReplicaAddresses, load, outline
from raftckpt.node.tls import certificate_faults

__all__ = ["CertificateStore", "Issued", "Spans"]

_FILE: Final = "cluster.yaml"
_ANCHOR: Final = "authority.pem"
_SECTION: Final = f"""\
tls:
  peer: {{ cert: tls/replica.pem, key: tls/replica.key, ca: tls/{_ANCHOR} }}
  client: {{ cert: tls/replica.pem, key: tls/replica.key, ca: tls/{_ANCHOR} }}
"""
_PORTS: Final = ("peer", "client")
_SETTINGS: Final = tuple(f"tls.{port}.{what}" for port in _PORTS for what in ("cert", "key", "ca"))
# modes of files
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
_DIRECTORY: Final = 0o700


class Spans(NamedTuple):
    """How long certificates hold, in days."""

    certificate: float = 365
    authority: float = 3650


class Issued(NamedTuple):
    """A certificate of the directory.

    Attributes:
        kind: "authority", "replica" or "client".
        name: node, or client; "" of the authority.
        path: its file.
        ends: seconds since the epoch; None: it cannot be read.
        faults: what is wrong with it.
    """

    kind: str
    name: str
    path: Path
    ends: int | None
    faults: tuple[str, ...] = ()

    @property
    def whose(self) -> str:
        """Kind and name, for people."""
        return f"{self.kind} {self.name}".strip()


class CertificateStore:
    """What ``raftckpt certs`` works on.

    Arguments:
        path: the directory.
        now: time of day, with its zone; None: that of the system.
    """

    def __init__(self, path: str | os.PathLike[str], now: datetime.datetime | None = None) -> None:
        self.path = Path(path)
        self.now = now or datetime.datetime.now(datetime.UTC)

    def found(self, config: str, clients: Sequence[str], spans: Spans) -> None:
        """Make an authority, and with it all that the hosts of a cluster.yaml and clients need.

        All of it is there afterwards, or nothing.

        Arguments:
            config: the cluster.yaml; a section ``tls`` is added if it has none.
            clients: their names.
            spans: how long certificates hold.

        Raises:
            ConfigError: the file cannot be used.
            FileExistsError: the directory is not empty.
            OSError: it cannot be written.
        """
        if self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path} is there already")
        text = _read(config)
        plan = outline(text, config)
        if not plan.files:
            text = text.rstrip("\n") + "\n" + _SECTION
            plan = outline(text, config)
        _below(plan, config)
        parent = self.path.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=parent))
        try:
            made = CertificateStore(making, self.now)
            made._write(_FILE, text.encode("utf-8"), _PUBLIC)
            authority = SigningAuthority.founded(
                f"{plan.cluster} authority", spans.authority, self.now
            )
            made._write(f"authority/{_ANCHOR}", authority.certificate, _PUBLIC)
            made._write("authority/authority.key", authority.key, _PRIVATE)
            made.renew(spans)
            for name in clients:
                made.issue_client(name, spans)
            for node in plan.replicas:  # what is wrong with the file is told now, not on the host
                load(made.path / "hosts" / node / _FILE, environ={})
            making.rename(self.path)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def issue_client(self, name: str, spans: Spans, *, replace: bool = False) -> Issued:
        """Make what a client needs: certificate, key, authority, and a file that says where.

        Raises:
            InvalidParam: no principal can have this name.
            FileExistsError: it has one, and ``replace`` does not say so.
            OSError: it cannot be read or written.
        """
        known_principal(name)
        where = f"clients/{name}"
        if (self.path / where / "client.key").exists() and not replace:
            raise FileExistsError(f"{self.path / where} has a certificate and its key")
        _, plan = self._plan()
        uri = client_uri(plan.cluster, name)
        written = self._authority().signed(name, uri, (), spans.certificate, self.now)
        self._hand_out(where, written)
        self._write(f"{where}/{_FILE}", _of_a_client(plan), _PUBLIC)
        return self._client(name, plan)

    def renew(
        self,
        spans: Spans,
        *,
        within_days: float = 30,
        everything: bool = False,
        new_keys: bool = False,
    ) -> list[Issued]:
        """Make anew what ends soon, is missing or has a fault; the authority stays.

        Hosts get the cluster.yaml of this directory as it is now, clients its addresses.

        Arguments:
            spans: how long the new ones hold.
            within_days: what ends in so many days ends soon.
            everything: the others, too.
            new_keys: else a certificate is made for the key that there is, so that certificate and
                key fit together at any moment of their way to a host.

        Returns:
            What was made.

        Raises:
            ConfigError: cluster.yaml cannot be used.
            NotUsable: the authority or a key cannot be read.
            OSError: something cannot be read or written.
        """
        text, plan = self._plan()
        authority = self._authority()
        soon = self.now.timestamp() + within_days * 86_400
        made: list[Issued] = []

        def due(each: Issued) -> bool:
            return everything or bool(each.faults) or each.ends is None or each.ends < soon

        for node, at in plan.replicas.items():
            if due(self._replica(node, plan, text)):
                self._certify(node, at, plan, authority, spans, new_keys=new_keys)
                self._write(f"hosts/{node}/{_FILE}", text.encode("utf-8"), _PUBLIC)
                made.append(self._replica(node, plan, text))
        for name in self._clients():
            if due(self._client(name, plan)):
                key = None if new_keys else self._kept(f"clients/{name}/client.key")
                uri = client_uri(plan.cluster, name)
                written = authority.signed(name, uri, (), spans.certificate, self.now, key)
                self._hand_out(f"clients/{name}", written)
                self._write(f"clients/{name}/{_FILE}", _of_a_client(plan), _PUBLIC)
                made.append(self._client(name, plan))
        return made

    def look(self) -> list[Issued]:
        """All certificates, and what is wrong with each.

        Raises:
            ConfigError: cluster.yaml cannot be used.
            OSError: it cannot be read.
        """
        text, plan = self._plan()
        anchor = self.path / "authority" / _ANCHOR
        ends = ends_at(anchor)
        faults = [] if ends is None or ends > self.now.timestamp() else ["it has ended"]
        faults += ["it cannot be read"] if ends is None else []
        found = [Issued("authority", "", anchor, ends, tuple(faults))]
        found += [self._replica(node, plan, text) for node in plan.replicas]
        return found + [self._client(name, plan) for name in self._clients()]

    # --- what there is ------------------------------------------------------------------------
    def _plan(self) -> tuple[str, Outline]:
        path = str(self.path / _FILE)
        text = _read(path)
        plan = outline(text, path)
        _below(plan, path)
        return text, plan

    def _authority(self) -> SigningAuthority:
        key = (self.path / "authority" / "authority.key").read_bytes()
        return SigningAuthority(Written(self._anchor(), key))

    def _anchor(self) -> bytes:
        return (self.path / "authority" / _ANCHOR).read_bytes()

    def _clients(self) -> list[str]:
        try:
            return sorted(each.name for each in (self.path / "clients").iterdir() if each.is_dir())
        except FileNotFoundError:
            return []

    def _kept(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def _replica(self, node: str, plan: Outline, text: str) -> Issued:
        host = self.path / "hosts" / node
        path = host / plan.files["tls.peer.cert"]
        faults: list[str] = []
        try:
            config = load(host / _FILE, environ={})
        except ConfigError as error:
            faults += [f"{problem.what}" for problem in error.problems]
        else:
            try:
                faults += [each.why for each in certificate_faults(config, node)]
            except ConfigError as error:
                faults += [problem.what for problem in error.problems]
            if _read(str(host / _FILE)) != text:
                faults.append(f"its {_FILE} is not that of {self.path}")
        anchors = {self._kept(f"hosts/{node}/{plan.files[f'tls.{port}.ca']}") for port in _PORTS}
        if anchors != {self._anchor()}:
            faults.append("its authority is not that of this directory")
        return Issued("replica", node, path, ends_at(path), tuple(dict.fromkeys(faults)))

    def _client(self, name: str, plan: Outline) -> Issued:
        path = self.path / "clients" / name / "client.pem"
        anchor = self.path / "authority" / _ANCHOR
        seen = looked_at(path, path.with_suffix(".key"), anchor, client=True)
        faults = [seen.why] if seen.why else []
        if not seen.why and client_name(seen.certificate, plan.cluster) != name:
            faults.append(f"it does not say {client_uri(plan.cluster, name)}")
        if self._kept(f"clients/{name}/{_FILE}") != _of_a_client(plan):
            faults.append(f"its {_FILE} does not name the replicas of that of {self.path}")
        return Issued("client", name, path, ends_at(path), tuple(faults))

    # --- what is made -------------------------------------------------------------------------
    def _certify(
        self,
        node: str,
        at: ReplicaAddresses,
        plan: Outline,
        authority: SigningAuthority,
        spans: Spans,
        *,
        new_keys: bool,
    ) -> None:
        hosts = dict.fromkeys(each.host for each in (at.client, at.peer, at.admin) if each)
        key = None if new_keys else self._kept(f"hosts/{node}/{plan.files['tls.peer.key']}")
        uri = replica_name(plan.cluster, node)
        written = authority.signed(node, uri, hosts, spans.certificate, self.now, key)
        for port in _PORTS:
            for what, data, mode in (
                ("ca", self._anchor(), _PUBLIC),
                ("key", written.key, _PRIVATE),
                ("cert", written.certificate, _PUBLIC),
            ):
                self._write(f"hosts/{node}/{plan.files[f'tls.{port}.{what}']}", data, mode)

    def _hand_out(self, where: str, written: Written) -> None:
        self._write(f"{where}/{_ANCHOR}", self._anchor(), _PUBLIC)
        self._write(f"{where}/client.key", written.key, _PRIVATE)
        self._write(f"{where}/client.pem", written.certificate, _PUBLIC)

    def _write(self, name: str, data: bytes, mode: int) -> None:
        """Have a file appear whole, readable for whom it may be from its first byte on."""
        path = self.path / name
        path.parent.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
        file, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(file, "wb") as writer:
                writer.write(data)
                os.fchmod(writer.fileno(), mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (UnicodeDecodeError, ValueError):
        problem = Problem(0, "not UTF-8 text", "save it as UTF-8")
        raise ConfigError(path, [problem]) from None


def _below(plan: Outline, path: str) -> None:
    """Refuse files that would not lie below a host's directory.

    Raises:
        ConfigError: one is missing, or lies elsewhere.
    """
    problems = [
        Problem(0, f"{name} is missing", f"leave the section tls out, or write it as\n{_SECTION}")
        for name in _SETTINGS
        if name not in plan.files
    ]
    for name, text in plan.files.items():
        parts = PurePosixPath(text).parts
        if text.startswith(("/", "~")) or ".." in parts:
            fix = "write it relative to cluster.yaml, below its directory, or leave tls out"
            problems.append(Problem(0, f"{name}: {text} is elsewhere on each host", fix))
    if len({plan.files.get(f"tls.{port}.key") for port in _PORTS}) != len(
        {plan.files.get(f"tls.{port}.cert") for port in _PORTS}
    ):
        problems.append(Problem(0, "tls: one key for two certificates", "name two, or one of each"))
    if problems:
        raise ConfigError(path, problems)


def _of_a_client(plan: Outline) -> bytes:
    lines = [f"cluster: {plan.cluster}", "replicas:"]
    lines += [f'  {node}: {{ client: "{at.client}" }}' for node, at in plan.replicas.items()]
    lines += ["credentials:", f"  ca: {_ANCHOR}", "  cert: client.pem", "  key: client.key"]
    return "\n".join([*lines, ""]).encode("utf-8")
