"""csa103: a counter that survives its process. Blocking client.

usage: python csa103_sync.py ENDPOINTS [SECONDS-BETWEEN-NUMBERS]

Start it twice. Tell one ACTIVE and the other STANDBY by a line on stdin; kill the active one, tell
the other ACTIVE, and it goes on at the next number.
"""

import struct
import sys
import threading

import raftckpt

ATTRIBUTES = raftckpt.Attributes(
    update="weak", collocated=True, size=4, retention=10e-9, max_sections=2,
    max_section_size=4, max_section_id_size=64,
)  # fmt: skip


def write_seq(ckpt: raftckpt.Checkpoint, seq: int) -> None:
    data = struct.pack("!I", seq)
    try:
        ckpt.overwrite("1", data)
    except raftckpt.SectionNotExist:
        ckpt.create("1", data)
    ckpt.synchronize()


def active(ckpt: raftckpt.Checkpoint, stop: threading.Event, period: float) -> None:
    ckpt.active_replica_set()
    saved = ckpt.get("1")
    seq = 0 if saved is None else struct.unpack("!I", saved)[0] + 1
    while not stop.is_set():
        write_seq(ckpt, seq)
        print(f"Hello World! (seq={seq})", flush=True)
        seq += 1
        stop.wait(period)


def main() -> None:
    endpoints = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
    period = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with raftckpt.connect(endpoints, disconnect_grace=0.0, name="csa103") as service:
        ckpt = service.open("csa103Ckpt", create=ATTRIBUTES)
        print("ready", flush=True)
        stop, worker = threading.Event(), None
        for line in sys.stdin:
            stop.set()
            if worker is not None:
                worker.join()
            if line.strip() == "ACTIVE":
                stop = threading.Event()
                worker = threading.Thread(target=active, args=(ckpt, stop, period), daemon=True)
                worker.start()
            print(line.strip(), file=sys.stderr, flush=True)
        stop.set()


main()
