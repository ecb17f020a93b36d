"""A dispatcher of jobs with a hot standby.

usage: RAFTCKPT_ENDPOINTS=... python dispatcher.py
       raftckpt section write jobs todo/0001 'some work'        (whoever has work, any time)

Start it twice. Jobs are sections of the checkpoint ``jobs``; the active one does them in the order
of their ids and puts the result in the place of the job, both in one transaction. The standby has
the whole table in memory when it takes over. A job that was under way is done again, and no result
is written twice.
"""

import os
import sys
import time

from raftckpt import Attributes, Change, CheckpointError, Fenced, ha

TODO, DONE = b"todo/", b"done/"


def work(job: bytes) -> bytes:
    return job.upper()


class Dispatcher:
    def __init__(self) -> None:
        self.table: dict[bytes, bytes] = {}
        self.active = False

    def told(self, change: Change) -> None:
        change.apply_to(self.table)

    def begin(self, assignment: ha.Assignment) -> None:
        self.active = True
        print(f"active, {sum(id.startswith(TODO) for id in self.table)} to do", flush=True)

    def end(self, assignment: ha.Assignment) -> None:
        self.active = False
        print("standby", flush=True)

    def run(self) -> None:
        with ha.connect(os.environ["RAFTCKPT_ENDPOINTS"]) as service:
            jobs = service.open("jobs", create=Attributes())
            with ha.Component(
                service,
                "dispatchers",
                f"dispatcher-{os.getpid()}",
                on_active=self.begin,
                on_standby=self.end,
                on_quiesced=self.end,
                on_removed=self.end,
            ) as component:
                component.track(jobs, self.told)  # of its own changes, too
                while True:
                    todo = sorted(id for id in self.table if id.startswith(TODO))
                    component.dispatch(0.0 if todo and self.active else 1.0)
                    if not self.active or not todo:
                        continue
                    name = todo[0].removeprefix(TODO)
                    result = work(self.table[todo[0]])
                    try:
                        with jobs.transaction() as change:  # both or none
                            change.delete(todo[0])
                            change.put(DONE + name, result)
                    except Fenced:
                        continue  # another one is active: it does this job
                    print(f"done {name.decode()}", flush=True)
                    while todo[0] in self.table:  # only what is told changes the table
                        component.dispatch(1.0)


if __name__ == "__main__":
    while True:
        try:
            Dispatcher().run()
        except CheckpointError as error:  # the session was lost, or nobody can be reached
            print(error, file=sys.stderr, flush=True)
            time.sleep(0.5)  # what was known went with it: the next tracker begins with an image
