"""What csa103 does with the checkpoint service: its module of checkpoint functions, call by call.

The names, the order of the calls and the attributes are the tutorial's; so is the rule that a
missing section is created by the first write. Two things differ: the read takes a missing section
for "nobody has counted yet" (the tutorial's test is inverted), and what the service could not do
now (``TRY_AGAIN``) or may have done (``TIMEOUT``) is repeated, which is safe for an overwrite.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Final

from raftckpt.saf import (
    SA_AIS_ERR_NOT_EXIST,
    SA_AIS_ERR_TIMEOUT,
    SA_AIS_ERR_TRY_AGAIN,
    SA_AIS_OK,
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_DISPATCH_ALL,
    SA_TIME_END,
    SA_TIME_MAX,
    SaAisErrorT,
    SaCkptCallbacksT,
    SaCkptCheckpointCreationAttributesT,
    SaCkptIOVectorElementT,
    SaCkptSectionCreationAttributesT,
    SaCkptSectionIdT,
    SaVersionT,
    saCkptActiveReplicaSet,
    saCkptCheckpointOpen,
    saCkptCheckpointRead,
    saCkptCheckpointSynchronizeAsync,
    saCkptDispatch,
    saCkptFinalize,
    saCkptInitialize,
    saCkptSectionCreate,
    saCkptSectionOverwrite,
    saCkptSelectionObjectGet,
)

__all__ = ["CKPT_NAME", "CKPT_SID_NAME", "UPDATES", "CheckpointFailed", "CheckpointFns"]

CKPT_NAME: Final = "csa103Ckpt"
CKPT_SID_NAME: Final = b"1"
UPDATES: Final = {
    "weak": SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    "active": SA_CKPT_WR_ACTIVE_REPLICA,
    "all": SA_CKPT_WR_ALL_REPLICAS,
}
_AGAIN: Final = (SA_AIS_ERR_TRY_AGAIN, SA_AIS_ERR_TIMEOUT)
_SIZE: Final = struct.calcsize("!I")


class CheckpointFailed(RuntimeError):
    """A call was answered with a code that the application has no answer to."""

    def __init__(self, what: str, rc: SaAisErrorT) -> None:
        super().__init__(f"{what} failed with rc [{int(rc):#x}] {rc.name}")


class CheckpointFns:
    """The library handle, the checkpoint handle, and what is done with them.

    Arguments:
        say: told the lines of the log.
        update: "weak" (the tutorial's), "active" or "all".
        collocated: whether a process makes itself the active replica.
        sections: how many sections every number is written to (at most the two of the tutorial).
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        update: str = "weak",
        collocated: bool = True,
        sections: int = 1,
    ) -> None:
        self._say = say
        self._synchronous = update == "all"
        self._needs_active = collocated and not self._synchronous
        self._flags = UPDATES[update] | (SA_CKPT_CHECKPOINT_COLLOCATED if collocated else 0)
        self._sections = [SaCkptSectionIdT(b"%d" % (number + 1)) for number in range(sections)]
        self._synchronized = threading.Event()
        self._answer = SA_AIS_OK
        self.service = 0
        self.checkpoint = 0

    def initialize(self) -> None:
        """Initialize the library with both callbacks and open (or create) the checkpoint."""
        self._say("Checkpoint Initialize")
        callbacks = SaCkptCallbacksT(
            saCkptCheckpointOpenCallback=self._open_completed,
            saCkptCheckpointSynchronizeCallback=self._synchronize_completed,
        )
        rc, self.service, _ = saCkptInitialize(callbacks, SaVersionT("B", 1, 1))
        if rc != SA_AIS_OK:
            raise CheckpointFailed("checkpoint_initialize: Initialize", rc)
        self._say(f"Checkpoint service initialized (handle={self.service:#x})")
        attributes = SaCkptCheckpointCreationAttributesT(
            creationFlags=self._flags,
            checkpointSize=_SIZE,
            retentionDuration=10,  # nanoseconds: it goes with its last opener
            maxSections=2,
            maxSectionSize=_SIZE,
            maxSectionIdSize=64,
        )
        rc, self.checkpoint = saCkptCheckpointOpen(
            self.service,
            CKPT_NAME,
            attributes,
            SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE | SA_CKPT_CHECKPOINT_CREATE,
            SA_TIME_MAX,
        )
        if rc != SA_AIS_OK:
            raise CheckpointFailed("checkpoint_initialize: CheckpointOpen", rc)
        self._say(f"Checkpoint opened (handle={self.checkpoint:#x})")

    def finalize(self) -> None:
        """End it all: closes the checkpoint, too."""
        saCkptFinalize(self.service)

    def selection_object(self) -> int:
        """Return the descriptor for the select loop."""
        rc, descriptor = saCkptSelectionObjectGet(self.service)
        if rc != SA_AIS_OK:
            raise CheckpointFailed("SelectionObjectGet", rc)
        return descriptor

    def dispatch(self) -> None:
        """Call the callbacks that are pending."""
        saCkptDispatch(self.service, SA_DISPATCH_ALL)

    # --- what the active component does ------------------------------------------------------

    def replica_activate(self) -> None:
        """Make this node's replica the active one, so that it can be read and written."""
        if not self._needs_active:
            return
        while (rc := saCkptActiveReplicaSet(self.checkpoint)) in _AGAIN:
            pass
        if rc != SA_AIS_OK:
            raise CheckpointFailed("checkpoint_replica_activate: ActiveReplicaSet", rc)

    def read_seq(self) -> int | None:
        """Read the number that was checkpointed last; None if none ever was."""
        vector = [SaCkptIOVectorElementT(self._sections[0], bytearray(_SIZE), _SIZE, 0)]
        while (answer := saCkptCheckpointRead(self.checkpoint, vector))[0] in _AGAIN:
            pass
        rc, index = answer
        if rc == SA_AIS_ERR_NOT_EXIST:  # no active component has written yet
            return None
        if rc != SA_AIS_OK:
            raise CheckpointFailed(f"checkpoint read (err_idx = {index})", rc)
        return int(struct.unpack("!I", vector[0].dataBuffer)[0])

    def write_seq(self, seq: int) -> None:
        """Checkpoint a number and have it synchronized: :meth:`wait_synchronized` tells when."""
        data = struct.pack("!I", seq)  # network byte order
        for section in self._sections:
            while (rc := self._write(section, data)) in _AGAIN:
                pass
            if rc != SA_AIS_OK:
                raise CheckpointFailed("write to section", rc)
        self._synchronize(seq)

    def _write(self, section: SaCkptSectionIdT, data: bytes) -> SaAisErrorT:
        rc = saCkptSectionOverwrite(self.checkpoint, section, data)
        if rc == SA_AIS_ERR_NOT_EXIST:
            # this process is the active replica, so it must be the section that is missing
            attributes = SaCkptSectionCreationAttributesT(section, SA_TIME_END)
            rc = saCkptSectionCreate(self.checkpoint, attributes, data)
        return rc

    def _synchronize(self, seq: int) -> None:
        self._synchronized.clear()
        if self._synchronous:  # every write returned with all replicas updated
            self._synchronized.set()
            return
        while (rc := saCkptCheckpointSynchronizeAsync(self.checkpoint, seq)) in _AGAIN:
            pass
        if rc != SA_AIS_OK:
            raise CheckpointFailed("synchronize the checkpoint", rc)

    def wait_synchronized(self, seq: int) -> None:
        """Wait until the number written last is synchronized."""
        while True:
            self._synchronized.wait()
            if self._answer == SA_AIS_OK:
                return
            if self._answer not in _AGAIN:
                raise CheckpointFailed("synchronize the checkpoint", self._answer)
            self._synchronize(seq)

    # --- callbacks: they come through dispatch -------------------------------------------------

    def _open_completed(self, invocation: int, checkpoint: int, error: SaAisErrorT) -> None:
        self._say(f"Checkpoint open [{invocation}] completed")

    def _synchronize_completed(self, invocation: int, error: SaAisErrorT) -> None:
        if error == SA_AIS_OK:
            self._say(f"Checkpoint synchronize [{invocation}] completed")
        self._answer = error
        self._synchronized.set()
