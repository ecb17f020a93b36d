"""A spike, never shipped: what two stretches of a leader's way would cost in C (native.c).

    python benchmarks/native.py [--operations 2000] [--cold-mib 4] [--batches 1,25,85,85/8]

*Bytes to record*: what a client sent -> frames -> checked commands, admitted -> entry -> record of
the journal. *Results to reply*: results of the model -> the frame that tells them. And, as the
followers have it, *entry to commands*. For the plain overwrite alone, with the checks of the
product, on the product's own leader (path.py); C and Python in turns, operation by operation.

First both make the same frames into the same bytes, and frames damaged in every bit, cut, and
changed below a right checksum: whatever the product refuses, the C refuses, too. Then the times:
*warm*, and *cold*, when so much memory was touched before each stretch that the caches nearest to
the processor hold nothing of it, as when four interpreters share two processors. "C alone" are the
calls into C; "C" has around it what must stay in Python as long as the rest of the rooms do. A
batch "85/8" comes in eight frames, as those of eight clients do.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
from path import Cluster

from raftckpt import limits
from raftckpt.model.types import Result
from raftckpt.node.admission import ENTRY_BYTES_MAX
from raftckpt.protocol import contract
from raftckpt.protocol.batch import decode_batch
from raftckpt.protocol.frames import FrameError, encode_frame
from raftckpt.protocol.operations import OPERATIONS, SectionOverwrite, SectionPut
from raftckpt.raft.configuration import REGULAR
from raftckpt.server.inbound import Inbound
from raftckpt.storage import RealFileSystem, _records
from raftckpt.storage.journal import Journal
from raftckpt.version import BATCH_VERSION

HERE = Path(__file__).parent
REPLIES_PER_FRAME = 256
TERM = 7
STAMP_NS = 1_800_000_000 * 10**9
STRETCHES = ("bytes to record", "results to reply", "entry to commands")


def can_build() -> bool:
    return bool(shutil.which("cc")) and Path(sysconfig.get_path("include"), "Python.h").exists()


def built(directory: Path) -> Any:
    """Compile native.c for this interpreter, load it and tell it the product's numbers."""
    library = directory / f"native{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_path("include")
    command = ["cc", "-O2", "-shared", "-fPIC", f"-I{include}", "-o", str(library)]
    subprocess.run([*command, str(HERE / "native.c")], check=True)
    spec = importlib.util.spec_from_file_location("native", library)
    assert spec is not None
    assert spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    native.set_up(
        SectionOverwrite,
        OPERATIONS[SectionOverwrite].tag,
        SectionPut,
        OPERATIONS[SectionPut].tag,
        (
            contract.SECTION_ID_BYTES_MAX,
            contract.INLINE_WRITE_BYTES_MAX,
            limits.FRAME_BYTES_MAX,
            limits.MESSAGES_PER_FRAME_MAX,
            contract.BATCH_COMMANDS_MAX,
            REPLIES_PER_FRAME,
        ),
        BATCH_VERSION,
        _records.ENTRY,
        REGULAR[0],
    )
    assert contract.INLINE_WRITE_BYTES_MAX + contract.SECTION_ID_BYTES_MAX + 60 <= ENTRY_BYTES_MAX
    return native


class Made(NamedTuple):
    """What became of bytes that came in."""

    requests: list[int]
    commands: list[Any]
    costs: list[int]
    payload: bytes
    header: bytes


class _Log:
    """Takes proposals into a journal, which is never synced; the consensus is left out."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def propose(self, payload: bytes, context: Any) -> bool:
        self.journal.append_entry(REGULAR + payload, self.journal._next_index, TERM)
        return True


class Rig:
    """A leader of the product and its one client, up to where commands leave for the log."""

    def __init__(self, home: str, native: Any) -> None:
        self.native = native
        self.cluster = Cluster(home, reads=False)
        self.connection = self.cluster.connection
        self.outbox = self.connection.outbox
        self.listener = self.connection._listener
        self.replica = self.cluster.leader.replica
        self.flight, self.room = self.replica._flight, self.replica._room
        self.replica._admission._wake = lambda: None  # the log is not to go on with it
        assert self.connection.session is not None
        self.state = self.connection.session
        fs = RealFileSystem()
        self.log = _Log(Journal.open(fs, f"{home}/spike", None, fsync=False))
        self.journal = self.log.journal
        self.parts: list[bytes] = []
        """Encoded commands that wait for their entry; would be the queue's."""
        leadership = self.replica.situation.leadership
        assert leadership is not None
        self.leadership = leadership
        self.stamp = leadership.time.stamp

    def frame(self, batch: int) -> bytes:
        """So many writes as the client sends them: in one frame."""
        for _ in range(batch):
            self.cluster.contact.send(self.cluster.numbered(next(self.cluster.endless)[-1]))
        data: bytes = self.cluster.contact.data_to_send()
        return data

    def forget(self) -> None:
        """As if what came in were answered."""
        flight, queue = self.flight, self.flight.queue
        for waiting in (queue.commands, queue.requests, queue.costs, queue.runs, self.parts):
            waiting.clear()
        queue.bytes = flight.batches = flight.commands = flight.bytes = 0
        queue.special = False
        self.connection.inflight_bytes = 0
        self.outbox.owed, self.outbox._answered = 0, 0
        self.outbox._replies = []
        self.journal._buffers, self.journal._pending = [], 0

    def renew(self) -> None:
        """As if its client had just connected."""
        dispatcher, turns = self.listener.dispatcher, self.listener.turns
        self.outbox.listings.clear()
        turns._spent, turns._turning = 0.0, False  # or what was refused before used this turn up
        turns._queue.clear()
        inbound = Inbound(self.outbox, self.replica, dispatcher, turns)
        inbound.welcome()
        self.connection.inbound = inbound

    # --- the product's way ----------------------------------------------------------------------
    def receive(self, data: bytes) -> None:
        now = self.listener.clock.monotonic()
        inbound = self.connection.inbound
        inbound.receive(data, now)
        inbound.take(self.connection)

    def propose(self) -> None:
        self.flight.propose(self.leadership, self.log)  # type: ignore[arg-type]

    def reply(self, requests: list[int], results: list[Result]) -> list[bytes]:
        self.outbox.answer_all(requests, results)
        return self.outbox.flush()

    # --- the same with the spike -----------------------------------------------------------------
    def native_receive(self, data: bytes) -> bool:
        """What Inbound and Admission do for the plain case; False: nothing was done."""
        now = self.listener.clock.monotonic()
        inbound, outbox, state = self.connection.inbound, self.outbox, self.connection.session
        if (
            state is None
            or self.replica.situation.leadership is None
            or not inbound.greeted
            or inbound.attaching
            or inbound.held_bytes
            or inbound.bodies
            or inbound.requests
        ):
            return False
        flight, space, queue = self.flight, self.room, self.flight.queue
        pending = flight.bytes + queue.bytes
        room = limits.PENDING_COMMANDS_MAX - flight.commands - len(queue)
        left = min(space.pending_bytes_max, space.left(self.replica.situation.machine)) - pending
        taken = self.native.take(
            data,
            state.id,
            state.proposed,
            min(room, inbound._room()),
            int(left),
            state.asynchronous,
        )
        if taken is None:
            return False
        requests, commands, costs, encoded = taken
        count = len(commands)
        outbox.owed += count
        state.proposed += count
        state.seen = now
        queue.requests += requests
        queue.commands += commands
        queue.costs += costs
        queue.appended(self.connection, count, sum(costs))
        self.parts.append(encoded)
        self.replica._admission._wake()
        return True

    def native_propose(self) -> None:
        """What Flight and Journal do."""
        flight, journal, meters = self.flight, self.journal, self.flight._meters
        proposal = flight.queue.cut()
        parts, self.parts = self.parts, []
        proposal.begun = self.listener.clock.monotonic()
        proposal.now_ns = now_ns = self.leadership.time.stamp(proposal.begun)
        index = journal._next_index
        sequence = journal._sequence = journal._sequence + 1
        payload, header, journal._crc = self.native.record(
            now_ns, len(proposal.commands), parts, sequence, journal._claim, index, TERM,
            journal._salt,
        )  # fmt: skip
        journal._buffers += (header, payload)
        journal._pending += len(header) + len(payload)
        journal._next_index = index + 1
        journal._last_term = TERM
        list.append(journal, (payload, index, TERM))
        flight._fly(proposal)
        meters.batch_commands.observe(len(proposal.commands))
        meters.batch_bytes.observe(len(payload))

    def native_reply(self, requests: list[int], results: list[Result]) -> bytes | None:
        frame: bytes | None = self.native.replies(requests, results)
        if frame is not None:
            self.outbox.owed -= len(requests)
        return frame

    # --- the same? -------------------------------------------------------------------------------
    def made(self, data: bytes, *, native: bool) -> Made | None:
        """What becomes of bytes; None unless each command in them was taken, and nothing else."""
        self.forget()
        self.renew()
        proposed = self.state.proposed
        number = self.journal._sequence, self.journal._next_index
        self.leadership.time.stamp = lambda now: STAMP_NS  # type: ignore[method-assign]
        try:
            if native:
                if not self.native_receive(data):
                    return None
                assert self.flight.queue.commands, "it took nothing and said yes"
            else:
                self.receive(data)
            inbound, queue = self.connection.inbound, self.flight.queue
            if inbound.held_bytes or inbound.bodies or inbound.requests or self.outbox._replies:
                return None
            if self.outbox.owed != len(queue.commands) or not queue.commands:
                return None  # something else than commands
            lists = (queue.requests[:], queue.commands[:], queue.costs[:])
            (self.native_propose if native else self.propose)()
            header, payload = self.journal._buffers
            return Made(*lists, payload, header)
        except FrameError:
            return None
        finally:
            self.leadership.time.stamp = self.stamp  # type: ignore[method-assign]
            self.state.proposed, self.state.waits_for = proposed, "gap"
            self.journal._sequence, self.journal._next_index = number
            self.flight.early.marks.clear()
            self.forget()

    def agree(self, data: bytes) -> bool:
        """Whether the spike takes these bytes; then it makes of them what the product makes."""
        ours, theirs = self.made(data, native=True), self.made(data, native=False)
        if ours is None:
            return False
        assert ours == theirs, "the spike took what the product refuses, or made something else"
        results = [Result(1, 10**9 + at) for at in range(len(ours.requests))]
        frames = self.reply(ours.requests, results)
        assert [self.native_reply(ours.requests, results)] == frames
        self.forget()
        assert same_entry(self.native, ours.payload[1:])
        return True


def damaged(frame: bytes, dice: random.Random) -> Iterator[bytes]:
    """Every bit of it wrong, every length, and content that is wrong below a right checksum."""
    for bit in range(8 * len(frame)):
        wrong = bytearray(frame)
        wrong[bit // 8] ^= 1 << bit % 8
        yield bytes(wrong)
    yield from (frame[:size] for size in range(len(frame)))
    body = frame[8:]
    for at in range(len(body)):
        for value in {0, 0x7F, 0x80, 0xFF, body[at] ^ 1, dice.randrange(256)} - {body[at]}:
            yield encode_frame(body[:at] + bytes([value]) + body[at + 1 :])
        yield encode_frame(body[:at] + body[at + 1 :])
        yield encode_frame(body[: at + 1] + body[at:])


def strange(plain: list[Any]) -> Iterator[tuple[bool, list[Any]]]:
    """(whether both must take it, a message): at its bounds, and just beyond them."""
    fields = {"tag": 0, "request": 1, "sequence": 2, "answered": 3, "handle": 4, "id": 5, "data": 6}
    most, wide = (
        (1 << 63) - 1,
        [0, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 1 << 32, (1 << 63) - 1],
    )
    ids, data = contract.SECTION_ID_BYTES_MAX, contract.INLINE_WRITE_BYTES_MAX
    taken: dict[str, list[Any]] = {
        "tag": [OPERATIONS[kind].tag for kind in (SectionOverwrite, SectionPut)],
        "request": wide,
        "answered": wide,
        "id": [b"", bytes(255), bytes(256), bytes(ids)],
        "data": [b"", bytes(255), bytes(256), bytes(65_535), bytes(65_536), bytes(data)],
    }
    left: dict[str, list[Any]] = {
        "tag": [25, 10, -1, most],
        "request": [-1, -100, -1000, -(1 << 40), most + 1, None, True, 1.0],
        "sequence": [0, -1, most + 1, plain[2] - 1, plain[2] + 1, "1"],
        "answered": [-1, most + 1, False],
        "handle": [-1, plain[4] + 1, most, most + 1],
        "id": [bytes(ids + 1), "id", 5],
        "data": [bytes(data + 1), "data", 7, None, [b"data"]],
    }
    for must, table in ((True, taken), (False, left)):
        for name, values in table.items():
            at = fields[name]
            yield from ((must, [*plain[:at], value, *plain[at + 1 :]]) for value in values)
    yield from ((False, message) for message in (plain[:-1], [*plain, 1], [], [[]], [plain]))


def same_entry(native: Any, payload: bytes) -> bool:
    """Whether the spike takes this entry; then as the commands that the product finds in it."""
    found = native.commands(payload)
    if found is None:
        return False
    batch = decode_batch(payload)
    assert found == (batch.now_ns, batch.commands), "commands the product refuses, or others"
    return True


def check(rig: Rig, seed: int = 1) -> tuple[int, int]:
    """Compare both; (frames both took, damaged or whole, damaged ones left to the product)."""
    good = refused = 0
    dice = random.Random(seed)
    for batch in (1, 3, 25, 85):
        proposed = rig.state.proposed
        frame = rig.frame(batch)
        assert rig.agree(frame), "the plain case is taken"
        good += 1
        for wrong in damaged(frame, dice) if batch <= 3 else ():
            if rig.agree(wrong):
                good += 1  # other numbers or data below a right checksum: both take it
            else:
                refused += 1
        rig.state.proposed = proposed + batch
    plain = msgpack.unpackb(rig.frame(1)[9:])[0]
    for must, message in strange(plain):
        frame = encode_frame(b"\0" + msgpack.packb([message]))
        assert rig.agree(frame) is must, message
        same_entry(rig.native, msgpack.packb([1, STAMP_NS, [message]]))
    for wrong in ([], {}, [plain, plain], [plain, [9]]):
        assert not rig.agree(encode_frame(b"\0" + msgpack.packb(wrong)))
        same_entry(rig.native, msgpack.packb([1, STAMP_NS, wrong]))
    for entry in ([2, 5, [plain]], [1, -1, [plain]], [1, 1 << 63, [plain]], [1, 5], [1, 5, [], 0]):
        assert not same_entry(rig.native, msgpack.packb(entry))
    rig.state.proposed += 1
    frames = [rig.frame(2), rig.frame(3)]
    assert rig.agree(b"".join(frames))
    assert not rig.agree(frames[1]), "a sequence that does not follow"
    rig.state.proposed += 5
    return good, refused


# --- times ---------------------------------------------------------------------------------------
Times = dict[tuple[str, str], list[int]]


class Batch(NamedTuple):
    """Writes that share an entry, and in how many frames they come: those of so many clients."""

    writes: int
    frames: int

    @classmethod
    def parsed(cls, text: str) -> Batch:
        writes, _, frames = text.partition("/")
        return cls(int(writes), int(frames or 1))

    def __str__(self) -> str:
        return f"{self.writes} in {self.frames} frames" if self.frames > 1 else f"{self.writes}"

    def parts(self) -> list[int]:
        share, rest = divmod(self.writes, self.frames)
        return [share + (number < rest) for number in range(self.frames)]


def timed(rig: Rig, batch: Batch, operations: int, cold: bytearray | None) -> Times:
    """(stretch, flavour) -> nanoseconds of each operation."""
    times: Times = {}
    now = time.perf_counter_ns
    native, parts = rig.native, batch.parts()

    def chill() -> None:
        if cold is not None:
            native.walk(cold)

    def note(stretch: str, flavour: str, since: int) -> None:
        times.setdefault((stretch, flavour), []).append(now() - since)

    def python() -> None:
        ask("Python", rig.receive, rig.propose)
        answer("Python", rig.reply, decode_batch)

    def with_c() -> None:
        ask("C", rig.native_receive, rig.native_propose)
        answer("C", rig.native_reply, native.commands)

    def ask(flavour: str, receive: Callable[[bytes], Any], propose: Callable[[], Any]) -> None:
        frames = [rig.frame(part) for part in parts]
        chill()
        since = now()
        for data in frames:
            receive(data)
        propose()
        note(STRETCHES[0], flavour, since)

    def answer(flavour: str, reply: Callable[..., Any], commands: Callable[[bytes], Any]) -> None:
        assert rig.outbox.owed == batch.writes
        outcomes = [
            (list(range(10**6, 10**6 + part)), [Result(1, 10**9 + at) for at in range(part)])
            for part in parts
        ]
        chill()
        since = now()
        for requests, results in outcomes:
            reply(requests, results)
        note(STRETCHES[1], flavour, since)
        payload = rig.journal[-1][0][1:]
        chill()
        since = now()
        commands(payload)
        note(STRETCHES[2], flavour, since)
        rig.forget()

    def c_alone() -> None:
        state, known = rig.state, rig.state.asynchronous
        frames = [rig.frame(part) for part in parts]
        encoded = []
        chill()
        since = now()
        for data, part in zip(frames, parts, strict=True):
            encoded.append(native.take(data, state.id, state.proposed, 4096, 1 << 24, known)[3])
            state.proposed += part
        native.record(STAMP_NS, batch.writes, encoded, 9, 8, 7, TERM, 1)
        note(STRETCHES[0], "C alone", since)

    turns = [python, with_c, c_alone]
    for number in range(operations):
        for turn in turns[number % 3 :] + turns[: number % 3]:
            turn()
        if number % 64 == 0:
            list.__delitem__(rig.journal, slice(0, -1))  # not to grow with the operations
    return times


def median_us(values: Sequence[int]) -> float:
    return statistics.median(values) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--cold-mib", type=int, default=4)
    parser.add_argument("--batches", default="1,25,85,25/8,85/8")
    options = parser.parse_args()
    if not can_build():
        sys.exit("native.py needs a compiler (cc) and the headers of this interpreter")
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    home = Path(tempfile.mkdtemp(prefix="native-", dir=shared))
    load = os.getloadavg()[0]
    try:
        rig = Rig(str(home), built(home))
        good, refused = check(rig)
        print(f"{good} frames: the same bytes of both; {refused} damaged ones: not taken in C")
        gc.collect()
        gc.freeze()
        gc.disable()
        cold = bytearray(options.cold_mib << 20)
        print("\n| writes | stretch | caches | Python, us | C, us | C alone, us | less per write |")
        print("|---" * 7 + "|")
        for batch in map(Batch.parsed, options.batches.split(",")):
            operations = max(200, options.operations // max(1, batch.writes // 5))
            for caches, buffer in (("warm", None), ("cold", cold)):
                times = timed(rig, batch, operations, buffer)
                for stretch in STRETCHES:
                    python, c = (median_us(times[stretch, each]) for each in ("Python", "C"))
                    alone = times.get((stretch, "C alone"))
                    shown = f"{median_us(alone):.1f}" if alone else "the same"
                    print(
                        f"| {batch} | {stretch} | {caches} | {python:.1f} | {c:.1f} | {shown} "
                        f"| {(python - c) / batch.writes:.2f} |"
                    )
        print(f"\nload average {load:.1f}")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
