"""A program of the SA Forum standard, moved: its calls and their return codes stay what they were.

usage: RAFTCKPT_ENDPOINTS=... python moved.py

It counts, and goes on where it was when it is killed and started again. In C the text is the same
with other punctuation: examples/c/counter.c.
"""

import struct
import sys
import time

from raftckpt.saf import (
    SA_AIS_ERR_NOT_EXIST,
    SA_AIS_ERR_TIMEOUT,
    SA_AIS_ERR_TRY_AGAIN,
    SA_AIS_OK,
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
    SA_TIME_ONE_MINUTE,
    SA_TIME_ONE_SECOND,
    SaAisErrorT,
    SaCkptCheckpointCreationAttributesT,
    SaCkptIOVectorElementT,
    SaCkptSectionCreationAttributesT,
    SaCkptSectionIdT,
    SaVersionT,
    saCkptCheckpointOpen,
    saCkptCheckpointRead,
    saCkptInitialize,
    saCkptSectionCreate,
    saCkptSectionOverwrite,
)

AGAIN = (SA_AIS_ERR_TRY_AGAIN, SA_AIS_ERR_TIMEOUT)  # an overwrite may be repeated in both cases
SECTION = SaCkptSectionIdT(b"1")
ATTRIBUTES = SaCkptCheckpointCreationAttributesT(
    creationFlags=SA_CKPT_WR_ALL_REPLICAS,
    checkpointSize=8,
    retentionDuration=10 * SA_TIME_ONE_MINUTE,  # it outlives its only user for so long
    maxSections=2,  # with 1 the standard has one section without an id, and no other
    maxSectionSize=8,
    maxSectionIdSize=8,
)


def demand(rc: SaAisErrorT, what: str) -> None:
    if rc != SA_AIS_OK:
        sys.exit(f"{what}: {rc.name}")


def main() -> None:
    rc, library, _ = saCkptInitialize(None, SaVersionT("B", 2, 2))
    demand(rc, "initialize")
    flags = SA_CKPT_CHECKPOINT_CREATE | SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE
    name = "safCkpt=moved"
    rc, checkpoint = saCkptCheckpointOpen(library, name, ATTRIBUTES, flags, 10 * SA_TIME_ONE_SECOND)
    demand(rc, "open")

    number = 0
    element = SaCkptIOVectorElementT(SECTION)
    while (answer := saCkptCheckpointRead(checkpoint, [element]))[0] in AGAIN:
        pass
    if answer[0] != SA_AIS_ERR_NOT_EXIST:
        demand(answer[0], "read")
        (number,) = struct.unpack("!Q", element.dataBuffer)
    print(f"goes on from {number}", flush=True)

    while True:
        data = struct.pack("!Q", number + 1)
        while (rc := saCkptSectionOverwrite(checkpoint, SECTION, data)) in AGAIN:
            pass
        if rc == SA_AIS_ERR_NOT_EXIST:
            made = SaCkptSectionCreationAttributesT(SECTION, SA_TIME_END)
            rc = saCkptSectionCreate(checkpoint, made, data)
        demand(rc, "write")
        number += 1
        print(number, flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
