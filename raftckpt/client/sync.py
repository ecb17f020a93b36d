"""The blocking face, thread-safe.

Made from ``aio.py`` by ``tools/faces.py``: do not edit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, Final

from raftckpt.client import operations
from raftckpt.client.calls import Call
from raftckpt.client.operations import Opened, checkpoint_name_of
from raftckpt.client.parts import Appended, Parts, appended, change, new_part
from raftckpt.client.probe import (
    CHECK_ROUND_SECONDS,
    CHECK_ROUNDS_SILENT_MAX,
    digest,
    replica_status,
)
from raftckpt.client.saving import PIECES_AHEAD, SNAPSHOT_TRIES, SnapshotSink, sources
from raftckpt.client.sync_driver import Driver
from raftckpt.client.sync_extras import CheckpointExtras, ServiceExtras
from raftckpt.client.sync_tracking import Tracker, open_tracker
from raftckpt.client.tracking import target_of, track_point
from raftckpt.client.types import (
    Attributes,
    CheckpointStatus,
    CheckReport,
    ClusterLimits,
    ClusterStatus,
    Consistency,
    Image,
    Lately,
    MemberRecord,
    ReplicaStatus,
    SavedSnapshot,
    SectionId,
    SectionStatus,
)
from raftckpt.errors import (
    BadHandle,
    BadOperation,
    CheckpointError,
    InvalidParam,
    SectionNotExist,
    TryAgain,
    Unavailable,
)
from raftckpt.limits import PAGE_ROWS_MAX
from raftckpt.protocol.kinds import PartKind

__all__ = ["Checkpoint", "Service", "Transaction", "View"]


_PLAIN: Final[dict[PartKind, Callable[[Opened, Any, Any, int], Call]]] = {
    PartKind.PUT: lambda opened, id, data, _: operations.put(opened, id, data),
    PartKind.OVERWRITE: lambda opened, id, data, _: operations.overwrite(opened, id, data),
    PartKind.WRITE: operations.write,
    PartKind.DELETE: lambda opened, id, *_: operations.delete(opened, id),
}
"""The changes that have a command of their own without a condition."""


def _pages(
    run: Callable[..., Any],
    page: Callable[[Any, int], Call],
    key: Callable[[Any], Any],
    after: Any,
    limit: int | None,
    timeout: float | None,
) -> list[Any]:
    """Ask for pages until there are ``limit`` rows, or no more."""
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidParam(f"limit is at least 1, not {limit!r}")
    found: list[Any] = []
    while True:
        rows = PAGE_ROWS_MAX if limit is None else min(PAGE_ROWS_MAX, limit - len(found))
        more = run(page(after, rows), timeout)
        found += more
        if len(more) < rows or len(found) == limit:
            return found
        after = key(more[-1])


class Service(ServiceExtras):
    """A session with the cluster. Made by ``connect()``; close it, or use it in a ``with``.

    Every call takes ``timeout`` (seconds; None: that of ``connect()``) and raises a
    :class:`~raftckpt.CheckpointError` that says by ``.definite`` whether the call certainly did
    not happen.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._run = driver.run

    @property
    def state(self) -> str:
        """In a word: "connected", "searching", "isolated" (components are suspended), "closed"."""
        return self._driver.core.state

    @property
    def on_state(self) -> Callable[[str], object] | None:
        """Called with :attr:`state` when that has changed; None: nobody is.

        By whoever reads for the client: it must be quick, block nowhere and call nothing here.
        """
        return self._driver.states.told

    @on_state.setter
    def on_state(self, told: Callable[[str], object] | None) -> None:
        self._driver.states.told = told

    def open(
        self,
        name: str | bytes,
        *,
        create: Attributes | None = None,
        mode: str = "rw",
        timeout: float | None = None,
    ) -> Checkpoint:
        """Open a checkpoint.

        Arguments:
            name: 1..2048 bytes of UTF-8.
            create: create it with these attributes unless it exists; if it exists they must be
                equal, except for the retention.
            mode: "r", "w" or "rw".
            timeout: seconds.

        Raises:
            NotExist: it does not exist and ``create`` was not given.
            Exist: it exists with other attributes; the message names them.
            BadFlags: the mode is none of the three.
        """
        opened: Opened = self._run(operations.open_checkpoint(name, create, mode), timeout)
        return Checkpoint(self, opened)

    def view(self, name: str | bytes) -> View:
        """Read a checkpoint by its name, without opening it; nothing is asked before it is read.

        Its reads raise :class:`~raftckpt.NotExist` if no checkpoint has this name.
        """
        return View(self, operations.named(name))

    def unlink(self, name: str | bytes, *, timeout: float | None = None) -> int:
        """Remove the name of a checkpoint; it is dropped when its last opener closes it.

        Raises:
            NotExist: no checkpoint has this name.
        """
        return self._run(operations.unlink(name), timeout)

    def checkpoints(
        self,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int | None = None,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> list[CheckpointStatus]:
        """Describe all checkpoints, or a page of those that have a name, in the order of the names.

        Arguments:
            prefix: only names that begin with it.
            after: only names behind this one.
            limit: at most so many; None: all.
            consistency: "linearizable" or "local".
            timeout: seconds, of each page.
        """
        if not prefix and after is None and limit is None:
            call = operations.checkpoints(consistency)
            return self._run(call, timeout)

        def page(after: Any, rows: int) -> Call:
            return operations.checkpoint_page(prefix, after, rows, consistency)

        return _pages(self._run, page, lambda row: row.name, after, limit, timeout)

    def track(
        self,
        name: str | bytes,
        from_revision: int | None = None,
        image: bool = True,
        *,
        timeout: float | None = None,
    ) -> Tracker:
        """Track a checkpoint without opening it; as :meth:`Checkpoint.track`.

        It does not keep the checkpoint from being dropped when its retention ends.

        Raises:
            NotExist: no checkpoint has this name.
        """
        point = self._run(track_point(name), timeout)
        target = target_of(checkpoint_name_of(name), point, from_revision, image)
        return open_tracker(self._driver, target, self._seconds(timeout))

    def cluster(self, *, timeout: float | None = None) -> ClusterStatus:
        """Ask every replica about itself; one that does not answer is reported so.

        Replicas whose endpoints were not given are asked too: those that answer tell of them.
        """
        core = self._driver.core
        answers = self._driver.ask_all(
            list(core.router.endpoints), replica_status, self._seconds(timeout), others=True
        )
        nodes = {endpoint: node for node, endpoint in core.members.items()}
        replicas = []
        for answer in answers:
            if answer.error is None:
                replicas.append(ReplicaStatus.from_wire(answer.endpoint, answer.value))
            else:
                node = answer.node or nodes.get(answer.endpoint, answer.endpoint)
                replicas.append(
                    ReplicaStatus(
                        node,
                        answer.endpoint,
                        False,
                        problem=answer.error.message,
                        cause=answer.cause,
                    )
                )
        return ClusterStatus.of(replicas)

    def members(self, *, timeout: float | None = None) -> tuple[MemberRecord, ...]:
        """Return the members of the cluster, by the configuration that the leader has in force.

        Raises:
            TryAgain: nobody leads, or the leader could not be asked.
        """
        return MemberRecord.all_in(self.cluster(timeout=timeout))

    def transfer_leadership(self, node: str | None = None, *, timeout: float | None = None) -> None:
        """Hand leadership to ``node`` (None: the follower that is furthest).

        Raises:
            TryAgain: it was refused, the message says why.
            Timeout: the outcome is unknown.
        """
        self._run(operations.transfer(node), timeout)

    def add_member(
        self,
        node: str,
        *,
        peer: str,
        client: str,
        token: str,
        learner: bool = False,
        replaces: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Keep a place for a new replica; asking again is harmless.

        It takes the place by ``raftckpt serve --join TOKEN``, is sent the state as a learner, and
        becomes a voter by itself once it has kept up.

        Arguments:
            node: its node id.
            peer: ``host:port`` where the other replicas reach it.
            client: ``host:port`` where clients reach it.
            token: what it will show, 8 to 300 visible ASCII characters, "-" not the first; the
                cluster keeps only its hash.
            learner: it never becomes a voter.
            replaces: node id of the member that leaves for it.
            timeout: seconds; None: the client's.

        Raises:
            InvalidParam: the token is none.
            TryAgain: something stands against it for now, the message says what.
            BadOperation: it cannot be, the message says why.
            Access: over a port that is neither loopback nor TLS.
        """
        call = operations.add_member(node, peer, client, token, learner, replaces)
        self._run(call, timeout)

    def remove_member(self, node: str, *, timeout: float | None = None) -> None:
        """Take a member out; if it leads, leadership goes to another one first.

        Raises:
            TryAgain: something stands against it for now, the message says what.
            BadOperation: it cannot be, the message says why.
            Access: over a port that is neither loopback nor TLS.
        """
        self._run(operations.remove_member(node), timeout)

    def lately(self, *, timeout: float | None = None) -> Lately:
        """Return what the replica this client is connected to saw of late: rates, what is busy.

        Connect to that replica alone.
        """
        return self._run(operations.lately(), timeout)

    def drain_member(
        self, node: str, drained: bool = True, *, timeout: float | None = None
    ) -> None:
        """Have a member lead no more, whatever is restarted, until it is undrained (False).

        If it leads, leadership goes to another voter. Only while nobody else can lead, it does.

        Raises:
            BadOperation: no other voter could lead, or it is no member; the message says which.
            TryAgain: something stands against it for now, the message says what.
            Access: over a port that is neither loopback nor TLS.
        """
        self._run(operations.drain_member(node, drained), timeout)

    def pin_level(self, pinned: bool, *, timeout: float | None = None) -> None:
        """Hold the cluster's level where it is (True), or let it rise again (False).

        Raises:
            Access: over a port that is neither loopback nor TLS.
        """
        self._run(operations.pin_level(pinned), timeout)

    def limits(
        self, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> ClusterLimits:
        """Limits of the state, what of them is used, and whether it takes no new data."""
        return self._run(operations.limits_now(consistency), timeout)

    def set_limits(self, values: Mapping[str, int], *, timeout: float | None = None) -> None:
        """Set limits of the state on all replicas, all of those named or none.

        Arguments:
            values: by name (:class:`ClusterLimits`); memory 0: no limit. A limit below what is
                used refuses what is new, and takes nothing away.
            timeout: seconds; None: the client's.

        Raises:
            InvalidParam: no such limit, out of bounds, or they contradict each other.
            Access: over a port that is neither loopback nor TLS.
        """
        self._run(operations.set_limits(values), timeout)

    def clear_alarms(self, *, timeout: float | None = None) -> None:
        """Clear the alarm about a state that differed, of the replica this client is connected to.

        Connect to that replica alone.

        Raises:
            Access: over a port that is neither loopback nor TLS.
        """
        self._run(operations.clear_alarms(), timeout)

    def snapshot(
        self,
        path: str | PathLike[str],
        *,
        consistency: Consistency = "linearizable",
        progress: Callable[[int], object] | None = None,
        timeout: float | None = None,
    ) -> SavedSnapshot:
        """Save the whole state at one revision to a file, from a follower if there is one.

        The file appears, or replaces the one of that name, when it is complete and on disk; until
        then the data are in ``path`` + ".part". If the replica dies, another one is begun with.

        Arguments:
            path: of the file; readable by its owner only.
            consistency: "linearizable": with everything that was acknowledged before; "local":
                what one replica has applied, without a leader; the one that has most.
            progress: called with the bytes written so far.
            timeout: seconds for each step; None: the client's.

        Raises:
            TryAgain: no replica is so far, or all are busy with other copies.
            Unavailable: no replica could be reached.
            OSError: the file cannot be written.
        """
        run = self._run
        at_least = 0 if consistency == "local" else run(operations.revision_now(), timeout)
        error: CheckpointError = Unavailable("snapshot: no replica answers; nothing was written")
        for _ in range(SNAPSHOT_TRIES):
            endpoints = sources(self.cluster(timeout=timeout), consistency)
            for endpoint in endpoints:
                beside = self._driver.beside(endpoint)
                try:
                    return self._save(beside, path, at_least, progress, timeout)
                except CheckpointError as failure:  # it died, is behind, too old or busy
                    error = failure
                finally:
                    beside.leave()
        raise error

    def _save(
        self,
        beside: Driver,
        path: str | PathLike[str],
        at_least: int,
        progress: Callable[[int], object] | None,
        timeout: float | None,
    ) -> SavedSnapshot:
        """Save the state of one replica."""
        copy, head = beside.run(operations.snapshot_begin(at_least), timeout)
        sink = SnapshotSink(path, head)
        try:
            asked: deque[Call] = deque()
            number, last = 0, False
            while not last:
                while len(asked) < PIECES_AHEAD:
                    call = operations.snapshot_piece(copy, number)
                    beside.begin(call, timeout)
                    asked.append(call)
                    number += 1
                last, data = beside.end(asked.popleft())
                if sink.write(data):
                    beside.aside(sink.sync)
                if progress is not None:
                    progress(sink.size)
            beside.aside(sink.commit)
        finally:
            sink.close()
        return sink.saved()

    def check(self, *, timeout: float | None = None) -> CheckReport:
        """Compare the states of all replicas after the same entry of the log.

        One that is silent is given up after two seconds, so that the others are not kept waiting.
        """
        nonce, index = self._run(operations.check_start(), timeout)
        core = self._driver.core  # it knows all replicas: one has just answered
        nodes = {endpoint: node for node, endpoint in core.members.items()}
        waiting = list(core.router.endpoints)
        digests: dict[str, str | None] = dict.fromkeys(core.members)
        problems: dict[str, str] = {}
        silent: Counter[str] = Counter()
        for _ in self._rounds(timeout):
            answers = self._driver.ask_all(
                waiting, lambda: digest(nonce), min(CHECK_ROUND_SECONDS, self._seconds(timeout))
            )
            waiting = []
            for answer in answers:
                node = answer.node or nodes.get(answer.endpoint, answer.endpoint)
                if answer.error is None:
                    digests[node] = answer.value[1]
                    problems.pop(node, None)
                    continue
                problems[node] = answer.error.message
                silent[node] += answer.cause == "silent"
                late = answer.cause == "silent" and silent[node] < CHECK_ROUNDS_SILENT_MAX
                if late or isinstance(answer.error, TryAgain):
                    waiting.append(answer.endpoint)
            if not waiting:
                break
            self._driver.pause(0.05)
        return CheckReport(index, digests, problems)

    def close(self, *, timeout: float | None = None) -> None:
        """Wait for accepted writes, say goodbye, end the session. Idempotent.

        Raises:
            Timeout: accepted writes were not confirmed in time; they may or may not survive.
            CheckpointError: the first refusal of an accepted write that nobody heard of yet.
        """
        driver = self._driver
        if driver.closed:
            return
        try:
            self._run(operations.synchronize(None), timeout)
        finally:
            try:
                if driver.core.session and driver.core.lost is None:
                    self._run(operations.close_session(), min(self._seconds(timeout), 2.0))
            except CheckpointError:
                pass  # the session ends by itself when its connection is closed
            finally:
                driver.close()


class View:
    """What can be read of a checkpoint by its name. Made by ``Service.view()``.

    It opens nothing, needs no session and no right, and shows what there is. With
    ``consistency="local"`` any replica answers, also one that knows no leader.
    """

    def __init__(self, service: Service, opened: Opened) -> None:
        self._service = service
        self._opened = opened
        self._run = service._run

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._opened.name

    def read(
        self,
        id: SectionId,
        offset: int = 0,
        size: int | None = None,
        *,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> bytes:
        """Read a section, or ``size`` bytes of it from ``offset`` (fewer at its end).

        Raises:
            SectionNotExist: there is no such section.
            InvalidParam: the offset lies beyond its end.
        """
        return self._run(operations.read(self._opened, id, offset, size, consistency), timeout)

    def get(
        self,
        id: SectionId,
        default: Any = None,
        *,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> Any:
        """Read a section; return ``default`` if it does not exist."""
        try:
            return self._run(operations.read(self._opened, id, 0, None, consistency), timeout)
        except SectionNotExist:
            return default

    def exists(
        self,
        id: SectionId,
        *,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> bool:
        """Tell whether a section exists."""
        try:
            self._run(operations.read(self._opened, id, 0, 0, consistency), timeout)
        except SectionNotExist:
            return False
        return True

    def read_many(
        self,
        reads: Iterable[tuple[SectionId, int, int | None]],
        *,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> list[bytes]:
        """Read (id, offset, size) each, of one consistent state."""
        return self._run(operations.read_many(self._opened, reads, consistency), timeout)

    def read_versioned(
        self,
        id: SectionId,
        *,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> tuple[bytes, int]:
        """Read a section and the revision of its last change."""
        return self._run(operations.read_versioned(self._opened, id, consistency), timeout)

    def read_all(
        self, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> Image:
        """Read all sections, of one consistent state."""
        return self._run(operations.read_all(self._opened, consistency), timeout)

    def ids(
        self,
        *,
        prefix: SectionId = b"",
        after: SectionId | None = None,
        limit: int | None = None,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> list[bytes]:
        """List the ids of the sections: all, or a page of them in the order of the ids.

        Arguments:
            prefix: only ids that begin with it.
            after: only ids behind this one: the last of the page before.
            limit: at most so many; None: all. More than 10,000 are asked for in several pages,
                each of a state of its own.
            consistency: "linearizable" or "local".
            timeout: seconds, of each page.
        """
        if not prefix and after is None and limit is None:
            call = operations.section_ids(self._opened, consistency)
            return self._run(call, timeout)

        def page(after: Any, rows: int) -> Call:
            return operations.section_id_page(self._opened, prefix, after, rows, consistency)

        return _pages(self._run, page, lambda row: row, after, limit, timeout)

    def count(
        self, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> int:
        """Count the sections."""
        return self._run(operations.count(self._opened, consistency), timeout)

    def sections(
        self,
        which: str = "any",
        expiration: float | datetime | None = None,
        *,
        prefix: SectionId = b"",
        after: SectionId | None = None,
        limit: int | None = None,
        consistency: Consistency = "linearizable",
        timeout: float | None = None,
    ) -> list[SectionStatus]:
        """Describe the sections: all, or a page of them in the order of the ids (:meth:`ids`).

        Arguments:
            which: "any", "forever", "expiring_by" or "expiring_from" (``expiration``),
                "corrupted".
            expiration: aware datetime or seconds since the epoch.
            prefix: only ids that begin with it.
            after: only ids behind this one.
            limit: at most so many.
            consistency: "linearizable" or "local".
            timeout: seconds.
        """
        if not prefix and after is None and limit is None:
            call = operations.sections(self._opened, which, expiration, consistency)
            return self._run(call, timeout)
        if which != "any" or expiration is not None:
            raise InvalidParam("give which, or prefix, after and limit")

        def page(after: Any, rows: int) -> Call:
            return operations.section_page(self._opened, prefix, after, rows, consistency)

        return _pages(self._run, page, lambda row: row.id, after, limit, timeout)

    def status(
        self, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> CheckpointStatus:
        """Describe the checkpoint."""
        return self._run(operations.status(self._opened, consistency), timeout)


class Checkpoint(CheckpointExtras, View):
    """An open checkpoint. Made by ``Service.open()``; close it, or use it in a ``with``.

    Section ids are bytes; str is taken as UTF-8. Changes return the revision, except in the
    asynchronous modes (``update="active"`` or ``"weak"``), where they return None and
    :meth:`synchronize` returns it. A change by a handle that was not opened for writing raises
    :class:`~raftckpt.Access`, also a read by one that was not opened for reading.
    """

    @property
    def attributes(self) -> Attributes:
        """Creation attributes, as of the open."""
        return self._opened.attributes

    @property
    def created(self) -> bool:
        """Whether this open created it."""
        return self._opened.created

    # --- changes -------------------------------------------------------------------------

    def put(
        self,
        id: SectionId,
        data: Any,
        *,
        if_revision: int | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Replace the content of a section; create the section if it is missing. Atomic.

        Arguments:
            id: of the section.
            data: its new content.
            if_revision: only if the section has this revision (as :meth:`read_versioned` tells),
                0: only if it does not exist. Then it returns the revision in every update mode.
            timeout: seconds.

        Raises:
            Conflict: the section has another revision; nothing was done.
            NoSpace: the checkpoint holds all that it may, or there is no memory for data.
            InvalidParam: the id or the data is longer than the checkpoint allows.
        """
        return self._change("put", PartKind.PUT, id, data, 0, if_revision, timeout)

    def _change(
        self,
        name: str,
        kind: PartKind,
        id: SectionId,
        data: Any,
        offset: int,
        if_revision: int | None,
        timeout: float | None,
    ) -> int | None:
        """Make a change, under a condition if there is one."""
        opened = self._opened
        if if_revision is None:
            call = _PLAIN[kind](opened, id, data, offset)
        else:
            part = new_part(kind, id, data, offset=offset, if_revision=if_revision)
            call = change(name, opened, part)
        return self._run(call, timeout)

    def append(
        self,
        id: SectionId,
        data: Any,
        *,
        if_revision: int | None = None,
        timeout: float | None = None,
    ) -> Appended:
        """Write at the end of a section; create the section if it is missing.

        Returns:
            The offset at which the data stands, and the revision; in every update mode.

        Raises:
            Conflict: the section does not have the revision ``if_revision``.
            NoResources: it would grow over the checkpoint's maximum.
        """
        part = new_part(PartKind.APPEND, id, data, if_revision=if_revision)
        call = change("append", self._opened, part, appended)
        return self._run(call, timeout)

    def transaction(self, *, timeout: float | None = None) -> Transaction:
        """Collect changes of this checkpoint that are made together, or not at all.

        Example::

            with ckpt.transaction() as tx:
                tx.put("balance", b"90", if_revision=seen)
                tx.append("log", b"-10")
            print(tx.revision)

        They are sent at the end of the block, not after an exception.
        """
        return Transaction(self, timeout)

    def overwrite(
        self,
        id: SectionId,
        data: Any,
        *,
        if_revision: int | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Replace the content of a section.

        Raises:
            Conflict: the section does not have the revision ``if_revision``.
            SectionNotExist: there is no such section.
            InvalidParam: the data is longer than the checkpoint allows.
        """
        return self._change("overwrite", PartKind.OVERWRITE, id, data, 0, if_revision, timeout)

    def write(
        self,
        id: SectionId,
        data: Any,
        offset: int = 0,
        *,
        if_revision: int | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Write into a section at ``offset``; it grows if need be (gaps read as zeros).

        Raises:
            Conflict: the section does not have the revision ``if_revision``.
            SectionNotExist: there is no such section.
            NoResources: it would grow over the checkpoint's maximum.
        """
        return self._change("write", PartKind.WRITE, id, data, offset, if_revision, timeout)

    def write_many(
        self, writes: Iterable[tuple[SectionId, int, Any]], *, timeout: float | None = None
    ) -> int | None:
        """Write (id, offset, data) each, all or nothing, in order.

        Raises:
            CheckpointError: ``.index`` is the position of the element that was refused.
        """
        return self._run(operations.write_many(self._opened, writes), timeout)

    def create(
        self,
        id: SectionId | None = None,
        data: Any = b"",
        *,
        expires: float | datetime | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Create a section and return its id.

        Arguments:
            id: None: the service chooses one.
            data: first content.
            expires: aware datetime or seconds since the epoch; None: never.
            ttl: seconds it lives, instead of ``expires``.
            timeout: seconds.

        Raises:
            Exist: there is one already.
            NoSpace: the checkpoint holds all that it may, or there is no memory for data.
        """
        return self._run(operations.create(self._opened, id, data, expires, ttl), timeout)

    def delete(
        self, id: SectionId, *, if_revision: int | None = None, timeout: float | None = None
    ) -> int | None:
        """Delete a section.

        Raises:
            Conflict: the section does not have the revision ``if_revision``.
            SectionNotExist: there is no such section.
        """
        return self._change("delete", PartKind.DELETE, id, b"", 0, if_revision, timeout)

    def set_expiration(
        self,
        id: SectionId,
        at: float | datetime | None = None,
        ttl: float | None = None,
        *,
        timeout: float | None = None,
    ) -> int | None:
        """Set when a section expires: ``at`` (None: never) or ``ttl`` seconds from now.

        Raises:
            SectionNotExist: there is no such section.
            InvalidParam: the time lies in the past.
        """
        return self._run(operations.set_expiration(self._opened, id, at, ttl), timeout)

    def set_retention(self, seconds: float | None, *, timeout: float | None = None) -> int | None:
        """Set how long the checkpoint outlives its last opener (None: for ever).

        Raises:
            BadOperation: it is unlinked.
        """
        return self._run(operations.set_retention(self._opened, seconds), timeout)

    def active_replica_set(self, exclusive: bool = False, *, timeout: float | None = None) -> int:
        """Make this session's node the active one and return the fencing epoch.

        Arguments:
            exclusive: also refuse changes by all other sessions from now on.
            timeout: seconds.
        """
        return self._run(operations.active_replica_set(self._opened, exclusive), timeout)

    def synchronize(self, timeout: float | None = None) -> int:
        """Wait until everything this session wrote before is committed; return the revision.

        Raises:
            Timeout: not confirmed in time; call it again.
            CheckpointError: the first refusal of an accepted write.
        """
        return self._run(operations.synchronize(self._opened), timeout)

    # --- changes as they happen ----------------------------------------------------------

    def track(
        self,
        from_revision: int | None = None,
        image: bool = True,
        *,
        timeout: float | None = None,
    ) -> Tracker:
        """Follow the checkpoint: every committed change once, in order, with its data.

        Arguments:
            from_revision: every change after this revision; None: from now on.
            image: begin with an image of all sections, unless ``from_revision`` is given.
            timeout: seconds until a replica must serve it.

        A tracker that is too far behind gets a "resync" (an image) instead of a gap. It goes on
        after this handle or the session is gone.

        Raises:
            Access: the handle was not opened for reading.
            InvalidParam: the revision has not been given out.
        """
        point = self._run(track_point(self._opened), timeout)
        target = target_of(self.name, point, from_revision, image)
        return open_tracker(self._service._driver, target, self._service._seconds(timeout))

    # --- the end -------------------------------------------------------------------------

    def unlink(self, *, timeout: float | None = None) -> int:
        """Remove the checkpoint's name; open handles go on working."""
        return self._run(operations.unlink(self._opened.name), timeout)

    def close(self, *, timeout: float | None = None) -> None:
        """Wait for accepted writes and close the handle. Idempotent.

        Raises:
            Timeout: accepted writes were not confirmed in time; they may or may not survive.
            CheckpointError: the first refusal of an accepted write that nobody heard of yet.
        """
        run = self._run
        if self._closed or self._service._driver.closed:
            return
        self._closed = True
        self._run = self._run_closed
        try:
            if self._opened.asynchronous:
                run(operations.synchronize(self._opened), timeout)
        finally:
            run(operations.close_checkpoint(self._opened), timeout)

    def _run_closed(self, call: Any, timeout: float | None = None) -> Any:
        raise BadHandle(f"{call.what}: the checkpoint is closed; open it again")


class Transaction(Parts):
    """Changes of a checkpoint that happen together or not at all; see ``Checkpoint.transaction``.

    Raises at the end of the block:
        Conflict: the first condition that does not hold; ``.section`` and ``.revision`` say where
            and what was found. Nothing was done.
        CheckpointError: ``.index`` is the position of the part that was refused; nothing was done.
    """

    def __init__(self, checkpoint: Checkpoint, timeout: float | None) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._timeout = timeout

    def __enter__(self) -> Transaction:
        if self._over:
            raise BadOperation("the transaction is over: begin another one")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        if kind is None and self._parts:
            checkpoint = self._checkpoint
            checkpoint._run(self._call(checkpoint._opened), self._timeout)
