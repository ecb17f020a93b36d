"""A component that lives through everything: python outer_loop.py ENDPOINTS NAME [SESSION_TIMEOUT]

Counts while it is active. The outer loop connects again after the session was lost; what was known
goes with it, and the image of the next tracker begins anew.
"""

import sys
import time

from raftckpt import Attributes, CheckpointError, SessionLost, ha


def serve(service, name):
    """Be a component until the session is lost."""
    known = {}  # what the tracker told, by others and by ourselves
    active = False

    def on_active(assignment):
        nonlocal active, count
        count = int(known.get(b"n", b"0"))  # from here on our own variable is the truth
        active = True
        print("active", count, flush=True)

    def on_other(assignment):
        nonlocal active
        active = False  # also when we are cut off (reason "isolated")
        print(assignment.state.name.lower(), flush=True)

    count = 0
    ckpt = service.open("counter", create=Attributes())
    component = ha.Component(
        service, "counters", name, on_active=on_active, on_standby=on_other, on_quiesced=on_other
    )
    component.track(ckpt, lambda change: change.apply_to(known))
    while True:
        component.dispatch(0.1)
        if active:
            count += 1
            ckpt.put("n", b"%d" % count)  # not int(known[b"n"]) + 1: that copy lags behind


def main(endpoints, name, session_timeout="5"):
    """Connect again, for ever."""
    while True:
        try:
            with ha.connect(endpoints, session_timeout=float(session_timeout)) as service:
                serve(service, name)
        except SessionLost as error:
            print("lost", file=sys.stderr, flush=True)
            print(error, file=sys.stderr)
        except CheckpointError as error:  # the cluster is not there now: it will be
            print(error, file=sys.stderr)
        time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
