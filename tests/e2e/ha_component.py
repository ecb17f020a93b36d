"""A component in a process of its own: counts in a checkpoint while it is active.

    python -m tests.e2e.ha_component ENDPOINTS GROUP NAME [HEALTH_CHECK]

Prints a line per assignment and per refused write.
"""

from __future__ import annotations

import sys
import threading
import time

from raftckpt import Attributes, CheckpointError, ha


def main() -> None:
    endpoints, group, name, *rest = sys.argv[1:]
    working = threading.Event()

    def told(assignment: ha.Assignment) -> None:
        if assignment.state is ha.HaState.ACTIVE:
            working.set()
        else:
            working.clear()
        print(
            "told", assignment.state.name, assignment.reason, assignment.previous_active or "-",
            flush=True,
        )  # fmt: skip

    with ha.connect(endpoints, name=name, session_timeout=60.0, timeout=60.0) as service:
        ckpt = service.open("counter", create=Attributes())

        def work() -> None:
            number = 0
            while True:
                working.wait()
                number += 1
                try:
                    ckpt.put(name, str(number).encode())
                except CheckpointError as error:
                    print("refused", type(error).__name__, error.reason, error.definite, flush=True)
                time.sleep(0.02)

        threading.Thread(target=work, daemon=True).start()
        component = ha.Component(
            service,
            group,
            name,
            on_active=told,
            on_standby=told,
            on_quiesced=told,
            # slow to learn that it was removed: what it writes meanwhile is refused
            on_removed=lambda assignment: (time.sleep(0.5), told(assignment)),
            health_check=float(rest[0]) if rest else None,
        )
        component.run()


if __name__ == "__main__":
    main()
