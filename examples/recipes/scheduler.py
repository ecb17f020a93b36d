"""One active scheduler: a job for each slot of time, whoever of us lives.

usage: RAFTCKPT_ENDPOINTS=... python scheduler.py [SECONDS-PER-SLOT]

Start it two or three times. Which slots are done is in the checkpoint ``schedule``; a job that was
begun and not noted as done is run again under the same number, so it must bear that.
"""

import os
import struct
import sys
import time

from raftckpt import Attributes, CheckpointError, ha

PERIOD_S = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0


def job(slot: int) -> None:
    print(f"report for slot {slot}", flush=True)  # send it, with the number: the other end knows it


class Scheduler:
    def __init__(self) -> None:
        self.known: dict[bytes, bytes] = {}  # up to date while standing by
        self.next: int | None = None  # slot that is due next; None: not active

    def begin(self, assignment: ha.Assignment) -> None:
        done = self.known.get(b"report")
        now = int(time.time() / PERIOD_S)
        self.next = now if done is None else struct.unpack("!Q", done)[0] + 1
        print(f"active, next is slot {self.next}", flush=True)

    def end(self, assignment: ha.Assignment) -> None:
        self.next = None
        print("standby", flush=True)

    def run(self) -> None:
        with ha.connect(os.environ["RAFTCKPT_ENDPOINTS"]) as service:
            ckpt = service.open("schedule", create=Attributes())
            with ha.Component(
                service,
                "scheduler",
                f"scheduler-{os.getpid()}",
                on_active=self.begin,
                on_standby=self.end,
                on_quiesced=self.end,
                on_removed=self.end,
            ) as component:
                component.track(ckpt, lambda change: change.apply_to(self.known))
                while True:
                    late = -1.0 if self.next is None else time.time() - self.next * PERIOD_S
                    component.dispatch(min(max(-late, 0.0), 1.0))
                    if self.next is not None and time.time() >= self.next * PERIOD_S:
                        job(self.next)
                        done = struct.pack("!Q", self.next)
                        ckpt.put("report", done)  # Fenced: it is not ours any more
                        self.next += 1


if __name__ == "__main__":
    while True:
        try:
            Scheduler().run()
        except CheckpointError as error:  # the session was lost, or nobody can be reached
            print(error, file=sys.stderr, flush=True)
            time.sleep(0.5)  # what was known went with it: the next tracker begins with an image
