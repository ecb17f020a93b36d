"""The Python half of libSaCkpt.so: C structs in, a call of :mod:`raftckpt.saf`, C structs out.

Runs only inside the library's interpreter. Decides nothing: the order of checks and every return
code are :mod:`raftckpt.saf`'s. What it owns is memory: whatever a program may get from the library
is allocated with ``malloc``, because programs of version B.01 release it with ``free()``.

Everything here may run in several threads at once; each step that touches shared state is one
operation on a dictionary, and memory is freed only by whoever took it out of there.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from raftckpt import saf
from raftckpt.client.kit import Change
from raftckpt.errors import SaAisError
from raftckpt.protocol import contract
from raftckpt.saf.data import VECTOR_BYTES_MAX
from raftckpt.saf.initialization import CHECKPOINTS, ITERATIONS, LIBRARIES
from raftckpt.saf.lifecycle import dispatching

__all__ = ["attach"]

_OK: Final = SaAisError.OK
_DONE: Final = int(_OK)
_ENVIRONMENT: Final = (
    "ENDPOINTS",
    "CONFIG",
    "NODE",
    "CA",
    "CERT",
    "KEY",
    "CHECK_HOSTNAME",
    "TOKEN_FILE",
    "SAF_COMPAT",
)
_CONSUMED: Final = frozenset({"written", "overwritten", "deleted", "transaction", "resync"})
"""What SAFplus tells: deletions, but no creations."""
_Consumer: TypeAlias = Callable[[list[saf.SaCkptIOVectorElementT]], None]
_ID_NOT_POSSIBLE: Final = bytes(1 << 16)
"""Longer than any section id: what an id that C has and Python has not is passed on as."""
_ENDLESS: Final = (1 << 32) - 1  # more callbacks than one dispatch ever makes
_LEFT_AT_FIRST: Final = {saf.SA_DISPATCH_ONE: 1, saf.SA_DISPATCH_BLOCKING: _ENDLESS}
"""Callbacks that a dispatch may make; SA_DISPATCH_ALL: those pending when it began."""


def attach(ffi: Any, lib: Any) -> None:
    """Connect the functions of bridge.h to their implementations."""
    binding = _Binding(ffi, lib)
    for name in dir(binding):
        if name.startswith("py_"):
            ffi.def_extern(name=name, onerror=_failed)(getattr(binding, name))


def _failed(kind: type[BaseException], error: BaseException, trace: Any) -> int:
    """Answer for a call that raised: an exception cannot travel through C."""
    if issubclass(kind, MemoryError):
        return int(SaAisError.ERR_NO_MEMORY)
    traceback.print_exception(kind, error, trace, file=sys.stderr)
    return int(SaAisError.ERR_LIBRARY)


class _Binding:
    """The py_ functions of bridge.h."""

    def __init__(self, ffi: Any, lib: Any) -> None:
        self._ffi = ffi
        self._lib = lib
        self._null = ffi.NULL
        self._starting = threading.Lock()
        self._turns = threading.local()
        self._consumers: dict[int, _Consumer | None] = {}
        """What is told of changes at once, by checkpoint handle."""
        self._lent: dict[int, Any] = {}
        """Id memory of the last descriptor, by iteration handle: ours until the next call."""

    # --- life cycle ----------------------------------------------------------------------

    def py_initialize(self, out_handle: Any, callbacks: Any, version: Any, second: int) -> int:
        self._take_environment()
        given = saf.SaVersionT(chr(version.releaseCode), version.majorVersion, version.minorVersion)
        initialize = saf.saCkptInitialize_2 if second else saf.saCkptInitialize
        rc, handle, supported = initialize(self._callbacks(callbacks), given)
        if supported is not None:
            version.releaseCode = ord(supported.releaseCode)
            version.majorVersion = supported.majorVersion
            version.minorVersion = supported.minorVersion
        if rc == _OK:
            library = LIBRARIES[handle]
            library.watch(self._lib.wake_dispatchers)
            library.starting_thread = self._without_signals
            out_handle[0] = handle
        return int(rc)

    def _take_environment(self) -> None:
        """Follow what the program did to its environment since Python read it."""
        for suffix in _ENVIRONMENT:
            name = f"RAFTCKPT_{suffix}"
            value = self._lib.getenv(name.encode())
            text = None if value == self._null else os.fsdecode(self._ffi.string(value))
            if text is None:
                os.environ.pop(name, None)
            elif os.environ.get(name) != text:
                os.environ[name] = text

    @contextmanager
    def _without_signals(self) -> Iterator[None]:
        """A thread inherits the mask: it must not run the program's signal handlers."""
        self._lib.keep_signals_away()
        try:
            yield
        finally:
            self._lib.let_signals_in()

    def _callbacks(self, callbacks: Any) -> saf.SaCkptCallbacksT_2 | None:
        if callbacks == self._null:
            return None
        opened = callbacks.saCkptCheckpointOpenCallback
        synchronized = callbacks.saCkptCheckpointSynchronizeCallback

        def note_opened(invocation: int, checkpoint: int, error: int) -> None:
            turn = self._turn()
            turn.opened, turn.invocation, turn.checkpoint = opened, invocation, checkpoint
            turn.error = error

        def note_synchronized(invocation: int, error: int) -> None:
            turn = self._turn()
            turn.synchronized, turn.invocation, turn.error = synchronized, invocation, error

        tracked = callbacks.saCkptCheckpointTrackCallback
        return saf.SaCkptCallbacksT_2(
            note_opened if opened else None,
            note_synchronized if synchronized else None,
            self._track_callback(tracked) if tracked else None,
        )

    def _track_callback(
        self, callback: Any
    ) -> Callable[[int, list[saf.SaCkptIOVectorElementT], int], None]:
        def note_tracked(
            checkpoint: int, vector: list[saf.SaCkptIOVectorElementT], count: int
        ) -> None:
            turn = self._turn()
            turn.tracked, turn.checkpoint = callback, checkpoint
            turn.vector, turn.count = self._places(vector), count

        return note_tracked

    def _turn(self) -> Any:
        """Return where this thread, which is in py_dispatch, notes what C is to call."""
        return self._turns.now

    def py_selection_object_get(self, handle: int, out_descriptor: Any) -> int:
        rc, descriptor = saf.saCkptSelectionObjectGet(handle)
        if rc == _OK:
            out_descriptor[0] = descriptor
        return int(rc)

    def py_dispatch(self, handle: int, flags: int, turn: Any) -> int:
        """Take the next pending callback for the C half to make, which has no Python under it."""
        left = turn.left
        if left == 0:
            library = dispatching(handle, flags)
            if isinstance(library, SaAisError):
                return int(library)
            left = _LEFT_AT_FIRST.get(flags) or library.pending
            if left == 0:
                return _DONE
        else:
            turn.left = turn.waits = 0
            turn.opened = turn.synchronized = turn.tracked = turn.vector = self._null
            library = LIBRARIES.get(handle, _OK)
            if isinstance(library, SaAisError):  # finalized, maybe by the last callback
                return _DONE
        self._turns.now = turn
        while left and library.dispatch_one():
            left -= left != _ENDLESS
            if turn.opened or turn.synchronized or turn.tracked:  # else it was cancelled
                turn.left = left
                return _DONE
        if left == _ENDLESS:
            turn.left, turn.waits = left, 1
        return _DONE

    def py_finalize(self, handle: int) -> int:
        rc = saf.saCkptFinalize(handle)
        self._tidy()
        return int(rc)

    def _tidy(self) -> None:
        """Forget what ended with its checkpoint."""
        for checkpoint in list(self._consumers):
            if checkpoint not in CHECKPOINTS:
                self._consumers.pop(checkpoint, None)
        for iteration in list(self._lent):
            if iteration not in ITERATIONS:
                self._take_back(iteration)

    def _take_back(self, iteration: int) -> None:
        memory = self._lent.pop(iteration, None)
        if memory is not None:
            self._lib.free(memory)

    # --- checkpoints ---------------------------------------------------------------------

    def py_open(
        self, handle: int, name: Any, length: int, attributes: Any, flags: int, timeout: int,
        out_checkpoint: Any,
    ) -> int:  # fmt: skip
        rc, checkpoint = saf.saCkptCheckpointOpen(
            handle, self._name(name, length), self._attributes(attributes), flags, timeout
        )
        if rc == _OK:
            out_checkpoint[0] = checkpoint
        return int(rc)

    def py_open_async(
        self, handle: int, invocation: int, name: Any, length: int, attributes: Any, flags: int
    ) -> int:
        return int(
            saf.saCkptCheckpointOpenAsync(
                handle, invocation, self._name(name, length), self._attributes(attributes), flags
            )
        )

    def py_close(self, checkpoint: int) -> int:
        rc = saf.saCkptCheckpointClose(checkpoint)
        self._tidy()
        return int(rc)

    def py_unlink(self, handle: int, name: Any, length: int) -> int:
        return int(saf.saCkptCheckpointUnlink(handle, self._name(name, length)))

    def py_retention_duration_set(self, checkpoint: int, duration: int) -> int:
        return int(saf.saCkptCheckpointRetentionDurationSet(checkpoint, duration))

    def py_active_replica_set(self, checkpoint: int) -> int:
        return int(saf.saCkptActiveReplicaSet(checkpoint))

    def py_status_get(self, checkpoint: int, out_status: Any) -> int:
        rc, status = saf.saCkptCheckpointStatusGet(checkpoint)
        if status is not None:
            source = status.checkpointCreationAttributes
            target = out_status.checkpointCreationAttributes
            for field in _ATTRIBUTES:
                setattr(target, field, getattr(source, field))
            out_status.numberOfSections = status.numberOfSections
            out_status.memoryUsed = status.memoryUsed
        return int(rc)

    def _name(self, name: Any, length: int) -> bytes | None:
        return None if name == self._null else bytes(self._ffi.buffer(name, length))

    def _attributes(self, attributes: Any) -> saf.SaCkptCheckpointCreationAttributesT | None:
        if attributes == self._null:
            return None
        return saf.SaCkptCheckpointCreationAttributesT(
            **{field: getattr(attributes, field) for field in _ATTRIBUTES}
        )

    # --- sections ------------------------------------------------------------------------

    def py_section_create(self, checkpoint: int, attributes: Any, data: Any, size: int) -> int:
        given = None
        if attributes != self._null:
            given = saf.SaCkptSectionCreationAttributesT(
                self._section(attributes.sectionId), attributes.expirationTime
            )
        rc = saf.saCkptSectionCreate(
            checkpoint, given, self._data(data, size), min(size, sys.maxsize)
        )
        wanted = None if given is None else given.sectionId
        if rc == _OK and wanted is not None and attributes.sectionId.idLen == 0:
            generated = wanted.id or b""
            attributes.sectionId.id = self._allocated(generated)
            attributes.sectionId.idLen = len(generated)
        return int(rc)

    def py_section_delete(self, checkpoint: int, section: Any) -> int:
        return int(saf.saCkptSectionDelete(checkpoint, self._section(section)))

    def py_section_id_free(self, checkpoint: int, memory: Any) -> int:
        rc = saf.saCkptSectionIdFree(checkpoint, None if memory == self._null else b"\0")
        if rc == _OK:
            # the id of a descriptor may be given back early; it must not be freed twice
            for iteration, lent in list(self._lent.items()):
                if lent == memory:
                    self._take_back(iteration)
                    return int(rc)
            self._lib.free(memory)
        return int(rc)

    def py_expiration_time_set(self, checkpoint: int, section: Any, expiration: int) -> int:
        return int(
            saf.saCkptSectionExpirationTimeSet(checkpoint, self._section(section), expiration)
        )

    def py_iteration_initialize(
        self, checkpoint: int, chosen: int, expiration: int, out_iteration: Any
    ) -> int:
        rc, iteration = saf.saCkptSectionIterationInitialize(checkpoint, chosen, expiration)
        if rc == _OK:
            out_iteration[0] = iteration
        return int(rc)

    def py_iteration_next(self, iteration: int, out_descriptor: Any) -> int:
        rc, found = saf.saCkptSectionIterationNext(iteration)
        self._take_back(iteration)
        if found is None:
            return int(rc)
        section = found.sectionId.id or b""
        memory = self._allocated(section) if section else self._null
        if section:
            self._lent[iteration] = memory
        out_descriptor.sectionId.idLen = len(section)
        out_descriptor.sectionId.id = memory
        out_descriptor.expirationTime = found.expirationTime
        out_descriptor.sectionSize = found.sectionSize
        out_descriptor.sectionState = found.sectionState
        out_descriptor.lastUpdate = found.lastUpdate
        return int(rc)

    def py_iteration_finalize(self, iteration: int) -> int:
        rc = saf.saCkptSectionIterationFinalize(iteration)
        self._take_back(iteration)
        return int(rc)

    def _section(self, section: Any) -> saf.SaCkptSectionIdT | None:
        """Return what a pointer to a section id points to; None for NULL."""
        return None if section == self._null else self._id(section)

    def _id(self, section: Any) -> saf.SaCkptSectionIdT:
        length, memory = section.idLen, section.id
        if (memory == self._null) != (length == 0):
            return saf.SaCkptSectionIdT(_ID_NOT_POSSIBLE)
        return saf.SaCkptSectionIdT(bytes(self._ffi.buffer(memory, length)) if length else b"")

    # --- data ----------------------------------------------------------------------------

    def py_write(self, checkpoint: int, vector: Any, count: int, erroneous: Any) -> int:
        rc, index = saf.saCkptCheckpointWrite(checkpoint, self._writes(vector, count))
        return self._with_index(rc, index, erroneous)

    def py_overwrite(self, checkpoint: int, section: Any, data: Any, size: int) -> int:
        given = None if data == self._null else self._data(data, size)
        return int(saf.saCkptSectionOverwrite(checkpoint, self._section(section), given))

    def py_read(self, checkpoint: int, vector: Any, count: int, erroneous: Any) -> int:
        elements = self._vector(vector, count, self._read)
        rc, index = saf.saCkptCheckpointRead(checkpoint, elements)
        if rc == _OK and elements is not None:
            for position, element in enumerate(elements):
                target = vector[position]
                if target.dataBuffer == self._null:
                    target.dataBuffer = self._allocated(element.dataBuffer)
                target.readSize = element.readSize
        return self._with_index(rc, index, erroneous)

    def py_data_free(self, checkpoint: int, memory: Any) -> int:
        rc = saf.saCkptIOVectorElementDataFree(
            checkpoint, None if memory == self._null else bytearray(1)
        )
        if rc == _OK:
            self._lib.free(memory)
        return int(rc)

    def py_synchronize(self, checkpoint: int, timeout: int) -> int:
        return int(saf.saCkptCheckpointSynchronize(checkpoint, timeout))

    def py_synchronize_async(self, checkpoint: int, invocation: int) -> int:
        return int(saf.saCkptCheckpointSynchronizeAsync(checkpoint, invocation))

    def _vector(
        self, vector: Any, count: int, element: Callable[[Any], saf.SaCkptIOVectorElementT]
    ) -> list[saf.SaCkptIOVectorElementT] | None:
        if vector == self._null:
            return None
        if count > contract.VECTOR_ELEMENTS_MAX:
            # refused by their number; there may be no such memory, so only the first is looked at
            return [element(vector[0])] * (contract.VECTOR_ELEMENTS_MAX + 1)
        return [element(vector[position]) for position in range(count)]

    def _writes(self, vector: Any, count: int) -> list[saf.SaCkptIOVectorElementT] | None:
        copied = 0

        def write(element: Any) -> saf.SaCkptIOVectorElementT:
            nonlocal copied
            data, size = element.dataBuffer, element.dataSize
            copied += size
            if data == self._null:
                content = None
            elif copied > VECTOR_BYTES_MAX:
                content = self._view(data, size)  # refused by its length alone
            else:
                content = self._data(data, size)
            return saf.SaCkptIOVectorElementT(
                self._id(element.sectionId), content, size, element.dataOffset
            )

        return self._vector(vector, count, write)

    def _read(self, element: Any) -> saf.SaCkptIOVectorElementT:
        data, size = element.dataBuffer, element.dataSize
        return saf.SaCkptIOVectorElementT(
            self._id(element.sectionId),
            None if data == self._null else self._view(data, size),
            size,
            element.dataOffset,
        )

    def _data(self, data: Any, size: int) -> Any:
        """Return a copy of a program's bytes: asynchronous writes outlive the call.

        What is over the write limit will be refused by its length alone and is not copied.
        """
        if data == self._null:
            return None if size else b""
        if size > contract.WRITE_BYTES_MAX:
            return self._view(data, size)
        return self._ffi.buffer(data, size)[:]

    def _view(self, data: Any, size: int) -> memoryview:
        return memoryview(self._ffi.buffer(data, min(size, sys.maxsize)))

    def _allocated(self, data: bytes | bytearray | memoryview) -> Any:
        """Copy into memory that ``free()`` releases; also empty data gets an address."""
        memory = self._lib.malloc(max(1, len(data)))
        if memory == self._null:
            raise MemoryError
        self._ffi.memmove(memory, data, len(data))
        return memory

    @staticmethod
    def _with_index(rc: int, index: int | None, erroneous: Any) -> int:
        if erroneous and index is not None and rc != _OK:
            erroneous[0] = index
        return int(rc)

    # --- what other implementations add --------------------------------------------------

    def py_track(self, handle: int) -> int:
        return int(saf.saCkptTrack(handle))

    def py_track_stop(self, handle: int) -> int:
        return int(saf.saCkptTrackStop(handle))

    def py_arrival_register(self, handle: int, callback: Any) -> int:
        register = saf.ncsCkptRegisterCkptArrivalCallback
        return int(register(handle, self._track_callback(callback)))

    def py_consumption_register(self, handle: int, callback: Any, cookie: Any) -> int:
        checkpoint = CHECKPOINTS.get(handle)
        if checkpoint is None:
            return int(SaAisError.ERR_BAD_HANDLE)
        if not checkpoint.reads:
            return int(SaAisError.ERR_ACCESS)
        if callback == self._null:
            if handle in self._consumers:
                self._consumers[handle] = None
            return int(_OK)
        name = checkpoint.opened.name.encode()

        def consume(parts: list[saf.SaCkptIOVectorElementT]) -> None:
            vector, kept = self._elements(parts)
            self._lib.call_consumption_callback(callback, handle, name, vector, len(parts), cookie)
            del kept

        with self._starting:
            # one registration for all callbacks of a handle: they are told in order, one at a time
            if handle not in self._consumers:
                rc = saf.immediate_consumption_register(
                    handle, self._consume, through_dispatch=False
                )
                if rc != _OK:
                    return int(rc)
            self._consumers[handle] = consume
            if checkpoint.closed:  # meanwhile, by another thread
                self._tidy()
                return int(SaAisError.ERR_BAD_HANDLE)
        return int(_OK)

    def _consume(
        self,
        handle: int,
        name: str,
        vector: list[saf.SaCkptIOVectorElementT],
        cookie: Any,
        change: Change,
    ) -> None:
        consumer = self._consumers.get(handle)
        if consumer is not None and change.kind in _CONSUMED:
            consumer(vector)

    def py_section_check(self, checkpoint: int, section: Any) -> int:
        return int(saf.clCkptSectionCheck(checkpoint, self._section(section)))

    def _places(self, parts: list[saf.SaCkptIOVectorElementT]) -> Any:
        """Return a C vector without data, in one piece of memory that ``free()`` releases."""
        ffi = self._ffi
        head = len(parts) * ffi.sizeof("SaCkptIOVectorElementT")
        ids = [part.sectionId.id or b"" for part in parts]
        memory = self._allocated(bytes(head) + b"".join(ids))
        vector = ffi.cast("SaCkptIOVectorElementT *", memory)
        at = ffi.cast("SaUint8T *", memory) + head
        for position, (part, section) in enumerate(zip(parts, ids, strict=True)):
            target = vector[position]
            if section:
                target.sectionId.idLen, target.sectionId.id = len(section), at
                at += len(section)
            target.dataSize, target.dataOffset = part.dataSize, part.dataOffset
        return vector

    def _elements(self, parts: list[saf.SaCkptIOVectorElementT]) -> tuple[Any, list[Any]]:
        """Return a C vector, and what has to live as long as it is used.

        All is copied: a program may change what it is given.
        """
        ffi = self._ffi
        vector = ffi.new("SaCkptIOVectorElementT[]", len(parts))
        kept: list[Any] = []

        def copied(content: bytes) -> Any:
            memory = ffi.new("SaUint8T[]", max(1, len(content)))
            ffi.memmove(memory, content, len(content))
            kept.append(memory)
            return memory

        for target, part in zip(vector, parts, strict=True):
            section = part.sectionId.id
            if section:
                target.sectionId.idLen = len(section)
                target.sectionId.id = copied(section)
            target.dataSize = target.readSize = part.dataSize
            target.dataOffset = part.dataOffset
            if part.dataBuffer is not None:
                target.dataBuffer = copied(part.dataBuffer)
        return vector, kept


_ATTRIBUTES: Final = (
    "creationFlags",
    "checkpointSize",
    "retentionDuration",
    "maxSections",
    "maxSectionSize",
    "maxSectionIdSize",
)
