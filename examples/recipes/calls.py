"""State of telephone calls, written in part: what matters is safe at once, what does not is cheap.

usage: RAFTCKPT_ENDPOINTS=... python calls.py [CALLS]

Start it twice. A call is a record of 16 bytes in one section, at its own offset: state, seconds of
talk, a sequence number. A tick of the meter is written in place and not waited for; that a call was
answered or ended is waited for before anybody is told. The standby has the table in memory.
"""

import os
import struct
import sys
import time

from raftckpt import Attributes, Change, CheckpointError, ha

RECORD = struct.Struct("!IIQ")  # state, seconds, sequence
IDLE, TALKING = 0, 1
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 100
# the leader's word is enough for a tick; synchronize() waits for what must not be lost
ATTRIBUTES = Attributes(update="weak", collocated=True, max_section_size=COUNT * RECORD.size)


class Switch:
    def __init__(self) -> None:
        self.sections: dict[bytes, bytes] = {}
        self.table: bytearray | None = None  # ours while active
        self.sequence = 0

    def told(self, change: Change) -> None:
        if self.table is None:
            change.apply_to(self.sections)

    def begin(self, assignment: ha.Assignment) -> None:
        size = COUNT * RECORD.size
        self.table = bytearray(self.sections.get(b"calls", b"").ljust(size, b"\0"))
        records = list(RECORD.iter_unpack(self.table))
        self.sequence = max(record[2] for record in records)
        talking = sum(record[0] == TALKING for record in records)
        print(f"active, {talking} calls go on, sequence {self.sequence}", flush=True)

    def end(self, assignment: ha.Assignment) -> None:
        raise SystemExit("not active any more: start again, and stand by with a fresh copy")

    def standby(self, assignment: ha.Assignment) -> None:
        print("standby", flush=True)

    def run(self) -> None:
        with ha.connect(os.environ["RAFTCKPT_ENDPOINTS"]) as service:
            ckpt = service.open("calls", create=ATTRIBUTES)
            with ha.Component(
                service,
                "switches",
                f"switch-{os.getpid()}",
                on_active=self.begin,
                on_standby=self.standby,
                on_quiesced=self.end,
                on_removed=self.end,
            ) as component:
                component.track(ckpt, self.told)
                while self.table is None:
                    component.dispatch(1.0)
                ckpt.active_replica_set()
                if not ckpt.exists("calls"):
                    ckpt.create("calls", bytes(self.table))
                while True:
                    component.dispatch(0.0)
                    self.second(ckpt)
                    time.sleep(0.02)

    def second(self, ckpt) -> None:
        """What happens in a second: one call begins or ends, all others go on."""
        assert self.table is not None
        turn = self.sequence % COUNT
        for number in range(COUNT):
            state, seconds, _ = RECORD.unpack_from(self.table, number * RECORD.size)
            if number == turn:
                state, seconds = (IDLE, seconds) if state == TALKING else (TALKING, 0)
            elif state == TALKING:
                seconds += 1
            else:
                continue
            self.sequence += 1
            RECORD.pack_into(self.table, number * RECORD.size, state, seconds, self.sequence)
            start = number * RECORD.size
            ckpt.write("calls", self.table[start : start + RECORD.size], offset=start)
        ckpt.synchronize()  # now the change of the one call is safe: tell its parties
        print(f"safe {self.sequence}", flush=True)


if __name__ == "__main__":
    while True:
        try:
            Switch().run()
        except CheckpointError as error:  # the session was lost, or nobody can be reached
            print(error, file=sys.stderr, flush=True)
            time.sleep(0.5)  # what was known went with it: the next tracker begins with an image
