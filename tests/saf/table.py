"""Every call with what makes it fail, in the order in which it is checked.

A row breaks one rule, or two at once: then the rule that is checked first gives the code. So the
order of this file *is* the order of checks. Rules ``on`` the same thing cannot be broken together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from raftckpt import saf as S
from raftckpt.protocol.contract import WRITE_BYTES_MAX

from .env import (
    ACTIVE,
    ALL,
    COLLOCATED,
    CREATE,
    MINUTE,
    READ,
    WEAK,
    WRITE,
    Library,
    attributes,
    create,
    new_name,
    sid,
)

OK = S.SA_AIS_OK
INVALID = S.SA_AIS_ERR_INVALID_PARAM
BAD_HANDLE = S.SA_AIS_ERR_BAD_HANDLE
ACCESS = S.SA_AIS_ERR_ACCESS
NOT_EXIST = S.SA_AIS_ERR_NOT_EXIST
EXIST = S.SA_AIS_ERR_EXIST
NO_SPACE = S.SA_AIS_ERR_NO_SPACE
NO_RESOURCES = S.SA_AIS_ERR_NO_RESOURCES
BAD_OPERATION = S.SA_AIS_ERR_BAD_OPERATION
BAD_FLAGS = S.SA_AIS_ERR_BAD_FLAGS
TOO_BIG = S.SA_AIS_ERR_TOO_BIG
INIT = S.SA_AIS_ERR_INIT
NO_SECTIONS = S.SA_AIS_ERR_NO_SECTIONS
HUGE = memoryview(bytearray(WRITE_BYTES_MAX + 1))

Given = dict[str, Any]


class Breach(NamedTuple):
    """A broken rule.

    Attributes:
        rule: in words.
        on: what it is broken on.
        code: what the call returns.
        changes: to what the call is given.
        version: the only one that has the rule; "" for both.
        pairs: whether it can be broken together with others.
    """

    rule: str
    on: str
    code: int
    changes: Given
    version: str = ""
    pairs: bool = True


class Call(NamedTuple):
    """A call: what it is given when all is well, how it is made, what can be wrong with it."""

    name: str
    given: Given
    make: Callable[[dict[str, Library], str, Given], int]
    breaches: list[Breach]


class Row(NamedTuple):
    call: Call
    version: str
    breaches: tuple[Breach, ...]
    code: int

    @property
    def rule(self) -> str:
        if not self.breaches:
            return "nothing is wrong"
        return ", wins over: ".join(breach.rule for breach in self.breaches)

    @property
    def id(self) -> str:
        words = "+".join(f"{breach.on}:{breach.rule}" for breach in self.breaches) or "well"
        return f"{self.call.name}-{self.version}-{words}".replace(" ", "_")


def rows() -> Iterator[Row]:
    for call in CALLS:
        for version in ("B.01", "B.02"):
            yield Row(call, version, (), OK)
            known = [b for b in call.breaches if b.version in ("", version)]
            for breach in known:
                yield Row(call, version, (breach,), breach.code)
            for first, second in itertools.combinations([b for b in known if b.pairs], 2):
                if first.on != second.on:
                    yield Row(call, version, (first, second), first.code)


# --- what the calls are given ---------------------------------------------------------------------


def library_of(libraries: dict[str, Library], version: str, given: Given) -> Any:
    handle = given.get("library", "good")
    if handle == "good":
        return libraries[version].handle
    if isinstance(handle, str):
        return libraries[handle].handle
    return handle


def checkpoint_of(libraries: dict[str, Library], version: str, given: Given) -> Any:
    """Make the checkpoint that is described, and return the handle to be used."""
    library = libraries[version]
    name = new_name()
    creation = given.get("creation", {})
    maker = library.open(name, **creation)
    if given.get("active", True) and _needs_active(creation):
        assert S.saCkptActiveReplicaSet(maker) == OK
    if creation.get("maxSections") != 1 and given.get("active", True):
        for section_id in given.get("sections", [b"s"]):
            create(maker, section_id, b"data")
    if not given.get("active", True):
        assert _needs_active(creation)
    if given.get("unlinked"):
        assert S.saCkptCheckpointUnlink(library.handle, name) == OK
        handle = maker
    elif "flags" in given:
        handle = library.open(name, given["flags"], **creation)
    else:
        handle = maker
    match given.get("handle", "good"):
        case "good":
            return handle
        case "closed":
            assert S.saCkptCheckpointClose(handle) == OK
            return handle
        case "library":
            return library.handle
        case other:
            return other


def _needs_active(creation: Given) -> bool:
    flags = creation.get("creationFlags", ALL)
    return bool(flags & COLLOCATED) and not flags & ALL


UNHEARD = 0x7777_0000_0000_0007
BAD_CHECKPOINTS = [
    Breach("a closed handle", "handle", BAD_HANDLE, {"handle": "closed"}),
    Breach("a handle never given out", "handle", BAD_HANDLE, {"handle": UNHEARD}, pairs=False),
    Breach("handle 0", "handle", BAD_HANDLE, {"handle": 0}, pairs=False),
    Breach("a handle of another kind", "handle", BAD_HANDLE, {"handle": "library"}, pairs=False),
    Breach("a handle that is no number", "handle", BAD_HANDLE, {"handle": []}, pairs=False),
]
BAD_LIBRARIES = [
    Breach("a finalized handle", "library", BAD_HANDLE, {"library": "finalized"}),
    Breach("a handle never given out", "library", BAD_HANDLE, {"library": UNHEARD}, pairs=False),
    Breach("handle 0", "library", BAD_HANDLE, {"library": 0}, pairs=False),
    Breach("a handle that is no number", "library", BAD_HANDLE, {"library": {}}, pairs=False),
]
NO_WRITE = Breach("not opened for writing", "flags", ACCESS, {"flags": READ})
CREATE_ONLY = Breach("opened with CREATE alone", "flags", ACCESS, {"flags": CREATE}, pairs=False)
NO_READ = Breach("not opened for reading", "flags", ACCESS, {"flags": WRITE})
WEAKLY = {"creationFlags": WEAK | COLLOCATED}
NO_ACTIVE = Breach("no active replica", "active", NOT_EXIST, {"active": False, "creation": WEAKLY})


# --- checkpoints ----------------------------------------------------------------------------------


def _open_arguments(libraries: dict[str, Library], version: str, given: Given) -> tuple[Any, ...]:
    name = given["name"]
    if given.get("existing") is not None:
        name = name or new_name()
        libraries[version].open(name, **given["existing"])
    flags = given["flags"]
    asked = given["attributes"]
    return library_of(libraries, version, given), name, asked, flags


def _open(libraries: dict[str, Library], version: str, given: Given) -> int:
    if given["name"] == "new":
        given["name"] = new_name()
    handle, name, asked, flags = _open_arguments(libraries, version, given)
    rc, checkpoint = S.saCkptCheckpointOpen(handle, name, asked, flags, given["timeout"])
    assert bool(checkpoint) == (rc == OK)
    return rc


def _open_async(libraries: dict[str, Library], version: str, given: Given) -> int:
    if given["name"] == "new":
        given["name"] = new_name()
    handle, name, asked, flags = _open_arguments(libraries, version, given)
    invocation = given["invocation"]
    rc = S.saCkptCheckpointOpenAsync(handle, invocation, name, asked, flags)
    if rc != OK:
        assert rc not in (NOT_EXIST, EXIST), "what the service says comes by the callback"
        return rc
    kind, _, checkpoint, error = libraries[version].wait(invocation)
    assert kind == "open"
    assert bool(checkpoint) == (error == OK)
    return error


def _attributes(rule: str, code: int = INVALID, *, pairs: bool = False, **changes: Any) -> Breach:
    return Breach(rule, "attributes", code, {"attributes": attributes(**changes)}, pairs=pairs)


OPEN_GIVEN = {
    "name": "new", "attributes": attributes(), "flags": READ | WRITE | CREATE, "timeout": MINUTE,
    "invocation": 77,
}  # fmt: skip
_NAMES = [
    Breach("no name", "name", INVALID, {"name": None}),
    Breach("an empty name", "name", INVALID, {"name": ""}, pairs=False),
    Breach("an empty name in bytes", "name", INVALID, {"name": b""}, pairs=False),
    Breach("a name that is no text", "name", INVALID, {"name": 7}, pairs=False),
    Breach("a name that is not UTF-8", "name", INVALID, {"name": b"\xff\xfe"}, pairs=False),
    Breach("a name of 2049 bytes", "name", TOO_BIG, {"name": "n" * 2049}),
]
_FLAGS = [
    Breach("no flag at all", "flags", BAD_FLAGS, {"flags": 0}),
    Breach("an unknown flag", "flags", BAD_FLAGS, {"flags": 0xF}, pairs=False),
    Breach("only an unknown flag", "flags", BAD_FLAGS, {"flags": 8}, pairs=False),
    Breach("a flag of our own", "flags", BAD_FLAGS, {"flags": 0x17}, pairs=False),
    Breach("negative flags", "flags", BAD_FLAGS, {"flags": -1}, pairs=False),
    Breach("flags that are no number", "flags", BAD_FLAGS, {"flags": "rw"}, pairs=False),
]
_CREATION = [
    Breach("CREATE without attributes", "attributes", INVALID, {"attributes": None}),
    Breach(
        "attributes without CREATE", "attributes", INVALID, {"flags": READ | WRITE}, pairs=False
    ),
    Breach("attributes that are none", "attributes", INVALID, {"attributes": 5}, pairs=False),
    *(
        _attributes(f"creation flags {flags:#x}", creationFlags=flags, pairs=flags == 0)
        for flags in (0, 3, 5, 6, 7, 8, 0xB, 0xF, 0x11, 0x10, -1)
    ),
    _attributes("creation flags that are no number", creationFlags="all"),
    _attributes("checkpointSize above maxSections x maxSectionSize", checkpointSize=1001),
    _attributes("negative checkpointSize", checkpointSize=-1),
    _attributes("checkpointSize above 64 bits", checkpointSize=1 << 64),
    _attributes(
        "a product that overflows 64 bits", maxSectionSize=1 << 63, maxSections=0,
        checkpointSize=0,
    ),
    _attributes("maxSections 0", maxSections=0, checkpointSize=0),
    _attributes("negative maxSections", maxSections=-1),
    _attributes("negative maxSectionSize", maxSectionSize=-1),
    _attributes("negative maxSectionIdSize", maxSectionIdSize=-1),
    _attributes("negative retention", retentionDuration=-1),
    _attributes("a retention above SA_TIME_MAX", retentionDuration=1 << 63),
]  # fmt: skip


def _existing(rule: str, code: int, version: str = "", **mine: Any) -> Breach:
    changes = {"existing": {"creationFlags": ALL}, "attributes": attributes(**mine)}
    return Breach(rule, "existing", code, changes, version, pairs=False)


_SERVICE = [
    Breach(
        "without CREATE a name that nobody created", "existing", NOT_EXIST,
        {"flags": READ, "attributes": None}, pairs=False,
    ),
    _existing("exists with other creation flags", EXIST, creationFlags=ACTIVE),
    _existing("exists, this one collocated", EXIST, creationFlags=ALL | COLLOCATED),
    _existing("exists with another checkpointSize", EXIST, checkpointSize=999),
    _existing("exists with other maxSections", EXIST, maxSections=11),
    _existing("exists with another maxSectionSize", EXIST, maxSectionSize=101),
    _existing("exists with another maxSectionIdSize", EXIST, maxSectionIdSize=21),
    _existing("exists with another retention", EXIST, "B.01", retentionDuration=5),
    _existing("exists with another retention, which B.02 does not compare", OK, "B.02",
              retentionDuration=5),
    _existing("exists with the same attributes", OK),
    Breach(
        "exists, opened without CREATE", "existing", OK,
        {"existing": {}, "flags": READ, "attributes": None}, pairs=False,
    ),
]  # fmt: skip
_TIMEOUTS = [
    Breach("a negative timeout", "timeout", INVALID, {"timeout": -1}),
    Breach("a timeout that is no number", "timeout", INVALID, {"timeout": 0.5}, pairs=False),
    Breach("SA_TIME_MAX as timeout", "timeout", OK, {"timeout": S.SA_TIME_MAX}, pairs=False),
]
_LEGAL = [
    Breach(f"creation flags {flags:#x} are legal", "attributes", OK,
           {"attributes": attributes(creationFlags=flags)}, pairs=False)
    for flags in (1, 2, 4, 9, 10, 12)
] + [
    Breach(f"open flags {flags:#x} are legal", "flags", OK, {"flags": flags}, pairs=False)
    for flags in (4, 5, 6)
] + [
    Breach("a name of 2048 bytes is legal", "name", OK, {"name": "m" * 2048}, pairs=False),
    Breach("a name in bytes is legal", "name", OK, {"name": "päth".encode()}, pairs=False),
]  # fmt: skip
_OPEN_SYNC = [*_NAMES, *_TIMEOUTS, *_FLAGS, *_CREATION, *BAD_LIBRARIES, *_SERVICE, *_LEGAL]
_OPEN_ASYNC = [
    *_NAMES,
    *_FLAGS,
    *_CREATION,
    *BAD_LIBRARIES,
    Breach("no open callback", "library", INIT, {"library": "silent"}, "B.02"),
    *_SERVICE,
    Breach("invocation 0 is legal", "invocation", OK, {"invocation": 0}, pairs=False),
    *_LEGAL,
]


def _on_checkpoint(function: Callable[..., Any], *names: str) -> Callable[..., int]:
    """Make a call from a function that takes a checkpoint handle first."""

    def make(libraries: dict[str, Library], version: str, given: Given) -> int:
        handle = checkpoint_of(libraries, version, given)
        result = function(handle, *(given[name] for name in names))
        return result[0] if isinstance(result, tuple) else result

    return make


def _unlink(libraries: dict[str, Library], version: str, given: Given) -> int:
    name = given["name"]
    if name == "new":
        name = new_name()
        if given.get("exists", True):
            libraries[version].open(name)
    return S.saCkptCheckpointUnlink(library_of(libraries, version, given), name)


_RETENTIONS = [
    Breach("a negative retention", "retention", INVALID, {"retention": -1}),
    Breach("SA_TIME_UNKNOWN", "retention", INVALID, {"retention": S.SA_TIME_UNKNOWN}, pairs=False),
    Breach("a retention that is no number", "retention", INVALID, {"retention": None}, pairs=False),
    *BAD_CHECKPOINTS,
    NO_WRITE._replace(version="B.02"),
    Breach("not opened for writing, which B.01 does not ask for", "flags", OK, {"flags": READ},
           "B.01", pairs=False),
    Breach("unlinked", "unlinked", BAD_OPERATION, {"unlinked": True}, pairs=False),
    Breach("retention 0", "retention", OK, {"retention": 0}, pairs=False),
    Breach("SA_TIME_END", "retention", OK, {"retention": S.SA_TIME_END}, pairs=False),
]  # fmt: skip

_REPLICAS = [
    *BAD_CHECKPOINTS,
    NO_WRITE,
    CREATE_ONLY,
    *(
        Breach(f"creation flags {flags:#x}: {why}", "creation", BAD_OPERATION,
               {"creation": {"creationFlags": flags}})
        for flags, why in (
            (ALL, "synchronous"), (ALL | COLLOCATED, "synchronous"), (ACTIVE, "not collocated"),
            (WEAK, "not collocated"),
        )
    ),
    Breach("ACTIVE and COLLOCATED is legal", "creation", OK,
           {"creation": {"creationFlags": ACTIVE | COLLOCATED}}, pairs=False),
    Breach("WRITE alone is enough", "flags", OK, {"flags": WRITE}, pairs=False),
]  # fmt: skip

_STATUS = [
    *BAD_CHECKPOINTS,
    NO_READ._replace(version="B.02"),
    Breach("not opened for reading, which B.01 does not ask for", "flags", OK, {"flags": WRITE},
           "B.01", pairs=False),
    NO_ACTIVE,
    Breach("collocated and synchronous needs no active replica", "creation", OK,
           {"creation": {"creationFlags": ALL | COLLOCATED}}, pairs=False),
]  # fmt: skip

CHECKPOINT_CALLS = [
    Call("saCkptCheckpointOpen", OPEN_GIVEN, _open, _OPEN_SYNC),
    Call("saCkptCheckpointOpenAsync", OPEN_GIVEN, _open_async, _OPEN_ASYNC),
    Call("saCkptCheckpointClose", {}, _on_checkpoint(S.saCkptCheckpointClose), [
        *BAD_CHECKPOINTS,
        Breach("opened with CREATE alone", "flags", OK, {"flags": CREATE}, pairs=False),
    ]),
    Call("saCkptCheckpointUnlink", {"name": "new"}, _unlink, [
        *_NAMES, *BAD_LIBRARIES,
        Breach("a name that does not exist", "exists", NOT_EXIST, {"exists": False}),
    ]),
    Call("saCkptCheckpointRetentionDurationSet", {"retention": MINUTE},
         _on_checkpoint(S.saCkptCheckpointRetentionDurationSet, "retention"), _RETENTIONS),
    Call("saCkptActiveReplicaSet", {"creation": WEAKLY},
         _on_checkpoint(S.saCkptActiveReplicaSet), _REPLICAS),
    Call("saCkptCheckpointStatusGet", {}, _on_checkpoint(S.saCkptCheckpointStatusGet), _STATUS),
]  # fmt: skip


# --- sections -------------------------------------------------------------------------------------


def _create(libraries: dict[str, Library], version: str, given: Given) -> int:
    handle = checkpoint_of(libraries, version, given)
    asked = given["asked"]
    if asked == "new":
        asked = S.SaCkptSectionCreationAttributesT(given["id"], given["expires"])
    return S.saCkptSectionCreate(handle, asked, given["data"])


_DEFAULT = {"maxSections": 1, "checkpointSize": 100}
_NOW_PAST = 1
_CREATES = [
    Breach("no attributes", "asked", INVALID, {"asked": None}),
    Breach("no section id", "id", INVALID, {"id": None}),
    Breach("an id that is none", "id", INVALID, {"id": 5}, pairs=False),
    Breach("data that is none", "data", INVALID, {"data": 5}, pairs=False),
    Breach("data above the write limit", "data", NO_RESOURCES, {"data": HUGE}),
    *BAD_CHECKPOINTS,
    NO_WRITE,
    CREATE_ONLY,
    Breach("an id above maxSectionIdSize", "id", INVALID, {"id": sid(b"i" * 21)}),
    Breach("an id of 50 bytes", "id", INVALID,
           {"id": sid(b"i" * 50), "creation": {"maxSectionIdSize": 60}}, "B.02", pairs=False),
    Breach("an id of 50 bytes, which B.01 takes", "id", OK,
           {"id": sid(b"i" * 50), "creation": {"maxSectionIdSize": 60}}, "B.01", pairs=False),
    Breach("an id of 49 bytes", "id", OK,
           {"id": sid(b"i" * 49), "creation": {"maxSectionIdSize": 60}}, pairs=False),
    Breach("a negative expiration", "expires", INVALID, {"expires": -1}),
    Breach("an expiration that is no number", "expires", INVALID, {"expires": None}, pairs=False),
    Breach("no active replica", "active", NOT_EXIST,
           {"active": False, "creation": WEAKLY}),
    Breach("more data than maxSectionSize", "data", INVALID, {"data": b"d" * 101}),
    Breach("only the default section is possible", "full", EXIST, {"creation": _DEFAULT},
           pairs=False),
    Breach("a section that exists", "id", EXIST, {"id": sid(b"s")}),
    Breach("as many sections as possible", "full", NO_SPACE,
           {"creation": {"maxSections": 2, "checkpointSize": 0}, "sections": [b"s", b"t"]}),
    Breach("no data", "data", OK, {"data": None}, pairs=False),
    Breach("data of no bytes", "data", OK, {"data": b""}, pairs=False),
    Breach("a bytearray", "data", OK, {"data": bytearray(b"abc")}, pairs=False),
    Breach("a section id of zeros", "id", OK, {"id": sid(b"\0")}, pairs=False),
    Breach("an expiration in the past is taken", "expires", OK, {"expires": _NOW_PAST},
           pairs=False),
    Breach("SA_CKPT_GENERATED_SECTION_ID", "id", OK,
           {"id": S.SA_CKPT_GENERATED_SECTION_ID}, pairs=False),
]  # fmt: skip
_DELETES = [
    Breach("no section id", "id", INVALID, {"id": None}),
    Breach("the default section's id", "id", INVALID, {"id": sid(None)}),
    Breach("an id that is none", "id", INVALID, {"id": b"s"}, pairs=False),
    *BAD_CHECKPOINTS,
    NO_WRITE,
    Breach("an id that no section can have", "id", INVALID, {"id": sid(bytes(1025))}),
    NO_ACTIVE,
    Breach("of a checkpoint with the default section", "default", INVALID,
           {"creation": _DEFAULT}),
    Breach("a section that does not exist", "id", NOT_EXIST, {"id": sid(b"none")}),
]  # fmt: skip
_EXPIRATIONS = [
    Breach("no section id", "id", INVALID, {"id": None}),
    Breach("a negative time", "expires", INVALID, {"expires": -1}),
    Breach("a time that is no number", "expires", INVALID, {"expires": "now"}, pairs=False),
    *BAD_CHECKPOINTS,
    NO_WRITE,
    Breach("an id that no section can have", "id", INVALID, {"id": sid(bytes(1025))}),
    Breach("a time in the past", "expires", INVALID, {"expires": _NOW_PAST}),
    NO_ACTIVE,
    Breach("the default section", "default", INVALID, {"creation": _DEFAULT, "id": sid(None)},
           pairs=False),
    Breach("a section that does not exist", "id", NOT_EXIST, {"id": sid(b"none")}),
]  # fmt: skip
_ITERATIONS = [
    *(
        Breach(f"sectionsChosen {chosen!r}", "chosen", INVALID, {"chosen": chosen},
               pairs=chosen == 0)
        for chosen in (0, 6, -1, "any", [])
    ),
    Breach("a negative time", "expires", INVALID, {"expires": -1}),
    *BAD_CHECKPOINTS,
    NO_READ._replace(version="B.02"),
    Breach("not opened for reading, which B.01 does not ask for", "flags", OK, {"flags": WRITE},
           "B.01", pairs=False),
    NO_ACTIVE,
    *(
        Breach(f"sectionsChosen {chosen}", "chosen", OK, {"chosen": chosen}, pairs=False)
        for chosen in (1, 2, 3, 4, 5)
    ),
]  # fmt: skip


def _next(libraries: dict[str, Library], version: str, given: Given) -> int:
    handle = checkpoint_of(libraries, version, given)
    rc, iteration = S.saCkptSectionIterationInitialize(handle, S.SA_CKPT_SECTIONS_ANY, 0)
    assert rc == OK
    match given["iteration"]:
        case "finalized":
            assert S.saCkptSectionIterationFinalize(iteration) == OK
        case "closed":
            assert S.saCkptCheckpointClose(handle) == OK
        case "good":
            pass
        case other:
            iteration = other
    rc, found = given["function"](iteration)
    assert (found is not None) == (rc == OK)
    return rc


def _finish(iteration: Any) -> tuple[int, Any]:
    rc = S.saCkptSectionIterationFinalize(iteration)
    return rc, "ended" if rc == OK else None


_NEXTS = [
    Breach("a finalized iteration", "iteration", BAD_HANDLE, {"iteration": "finalized"}),
    Breach("its checkpoint was closed", "iteration", BAD_HANDLE, {"iteration": "closed"}),
    Breach("a handle never given out", "iteration", BAD_HANDLE, {"iteration": UNHEARD}),
    Breach("a handle that is no number", "iteration", BAD_HANDLE, {"iteration": []}),
]
SECTION_CALLS = [
    Call("saCkptSectionCreate",
         {"asked": "new", "id": sid(b"new"), "expires": S.SA_TIME_END, "data": b"data"}, _create,
         _CREATES),
    Call("saCkptSectionDelete", {"id": sid(b"s")}, _on_checkpoint(S.saCkptSectionDelete, "id"),
         _DELETES),
    Call("clCkptSectionCheck", {"id": sid(b"s")}, _on_checkpoint(S.clCkptSectionCheck, "id"), [
        Breach("no id", "id", INVALID, {"id": None}),
        *BAD_CHECKPOINTS,
        NO_READ._replace(version="B.02"),
        Breach("not opened for reading, which B.01 does not ask for", "flags", OK,
               {"flags": WRITE}, "B.01", pairs=False),
        Breach("an id of 1025 bytes", "id", INVALID, {"id": sid(bytes(1025))}, pairs=False),
        NO_ACTIVE,
        Breach("no such section", "id", NOT_EXIST, {"id": sid(b"t")}, pairs=False),
        Breach("no default section", "id", NOT_EXIST, {"id": sid(b"")}, pairs=False),
        Breach("the default section", "id", OK, {"id": sid(b""), "creation": {
            "maxSections": 1, "checkpointSize": 0}}, pairs=False),
    ]),
    Call("saCkptSectionIdFree", {"id": b"s"}, _on_checkpoint(S.saCkptSectionIdFree, "id"),
         [*BAD_CHECKPOINTS, Breach("no id", "id", INVALID, {"id": None})]),
    Call("saCkptSectionExpirationTimeSet", {"id": sid(b"s"), "expires": S.SA_TIME_END},
         _on_checkpoint(S.saCkptSectionExpirationTimeSet, "id", "expires"), _EXPIRATIONS),
    Call("saCkptSectionIterationInitialize", {"chosen": 5, "expires": 0},
         _on_checkpoint(S.saCkptSectionIterationInitialize, "chosen", "expires"), _ITERATIONS),
    Call("saCkptSectionIterationNext",
         {"iteration": "good", "function": S.saCkptSectionIterationNext}, _next,
         [*_NEXTS, Breach("no section is left", "left", NO_SECTIONS, {"sections": []})]),
    Call("saCkptSectionIterationFinalize", {"iteration": "good", "function": _finish}, _next,
         _NEXTS),
]  # fmt: skip


# --- data -----------------------------------------------------------------------------------------


def _vector(libraries: dict[str, Library], version: str, given: Given) -> int:
    """Write or read; ``index`` in ``given`` is the element a refusal must name, if any."""
    handle = checkpoint_of(libraries, version, given)
    vector = given["vector"]
    if vector == "good":
        data = given["data"]
        vector = [
            S.SaCkptIOVectorElementT(sid(b"s"), bytearray(4)),
            S.SaCkptIOVectorElementT(given["id"], data, given["size"], given["offset"]),
        ]
    rc, index = given["function"](handle, vector)
    if rc == OK:
        assert index is None
    elif given["index"]:
        assert index == given["index"]
    return rc


def _element(rule: str, on: str, code: int, *, pairs: bool = False, **changes: Any) -> Breach:
    return Breach(rule, on, code, {"index": 1, **changes}, pairs=pairs)


_NO_VECTOR = [
    Breach("no vector", "vector", INVALID, {"vector": None}),
    Breach("an empty vector", "vector", INVALID, {"vector": []}, pairs=False),
    Breach("a vector that is none", "vector", INVALID, {"vector": 7}, pairs=False),
    Breach("elements that are none", "vector", INVALID, {"vector": [None]}, pairs=False),
]
_WRITES = [
    *_NO_VECTOR,
    *BAD_CHECKPOINTS,
    _element("more data than maxSectionSize", "size", INVALID, size=101, data=bytes(101),
             pairs=True),
    _element("no data but a size", "size", INVALID, size=4, data=None),
    _element("a size above the data's", "size", INVALID, size=5, data=b"data"),
    _element("a negative size", "size", INVALID, size=-1, data=b"data"),
    _element("a negative offset", "offset", INVALID, offset=-1),
    _element("no section id", "id", INVALID, id=None),
    _element("an id that no section can have", "id", INVALID, id=sid(bytes(1025))),
    NO_WRITE,
    CREATE_ONLY,
    Breach("more data than one write may have in all", "vector", NO_RESOURCES,
           {"vector": [S.SaCkptIOVectorElementT(sid(b"s"), HUGE, WRITE_BYTES_MAX)] * 3,
            "creation": {"maxSectionSize": 1 << 40}}, pairs=False),
    NO_ACTIVE,
    _element("a section that does not exist", "id", NOT_EXIST, id=sid(b"none"), pairs=True),
    _element("offset + size above maxSectionSize", "offset", NO_RESOURCES, offset=97, pairs=True),
    _element("an offset above 63 bits", "offset", NO_RESOURCES, offset=(1 << 64) - 1),
    _element("offset + size is maxSectionSize", "offset", OK, offset=96),
    _element("no data at all", "size", OK, size=0, data=None),
    _element("less than there is", "size", OK, size=2, data=b"data"),
]  # fmt: skip
_OVERWRITES = [
    Breach("no section id", "id", INVALID, {"id": None}),
    Breach("no data", "data", INVALID, {"data": None}),
    *BAD_CHECKPOINTS,
    NO_WRITE,
    CREATE_ONLY,
    Breach("an id that no section can have", "id", INVALID, {"id": sid(bytes(1025))}),
    Breach("data that is none", "data", INVALID, {"data": 5}, pairs=False),
    Breach("more data than maxSectionSize", "data", INVALID, {"data": bytes(101)}),
    Breach("data above the write limit", "data", NO_RESOURCES,
           {"data": HUGE, "creation": {"maxSectionSize": 1 << 40}}, pairs=False),
    NO_ACTIVE,
    Breach("a section that does not exist", "id", NOT_EXIST, {"id": sid(b"none")}),
    Breach("the default section where there is none", "id", NOT_EXIST, {"id": sid(None)},
           pairs=False),
    Breach("the default section", "id", OK,
           {"id": S.SA_CKPT_DEFAULT_SECTION_ID, "creation": _DEFAULT}, pairs=False),
    Breach("data of no bytes", "data", OK, {"data": b""}, pairs=False),
]  # fmt: skip
_READS = [
    *_NO_VECTOR,
    _element("a buffer of size 0", "size", INVALID, data=bytearray(4), size=0, pairs=True),
    _element("a size above the buffer's", "size", INVALID, size=5),
    _element("a buffer that cannot be written", "size", INVALID, data=b"data"),
    _element("a negative offset", "offset", INVALID, offset=-1),
    _element("an id that no section can have", "id", INVALID, id=sid(bytes(1025))),
    *BAD_CHECKPOINTS,
    NO_READ,
    CREATE_ONLY,
    NO_ACTIVE,
    _element("size above maxSectionSize", "size", INVALID, data=bytearray(101), size=101,
             pairs=True),
    _element("offset + size above maxSectionSize", "offset", INVALID, offset=97, pairs=True),
    _element("a section that does not exist", "id", NOT_EXIST, id=sid(b"none"), pairs=True),
    _element("an offset beyond the section's end", "offset", INVALID, offset=5),
    _element("an offset at the section's end", "offset", OK, offset=4),
    _element("a buffer that the library allocates", "size", OK, data=None),
    _element("a memoryview", "size", OK, data=memoryview(bytearray(9)), size=9),
]  # fmt: skip


def _data_free(libraries: dict[str, Library], version: str, given: Given) -> int:
    handle = checkpoint_of(libraries, version, given)
    return S.saCkptIOVectorElementDataFree(handle, given["data"])


_SYNCHRONOUS = Breach(
    "a synchronous checkpoint", "creation", BAD_OPERATION, {"creation": {"creationFlags": ALL}}
)
_SYNCHRONIZATIONS = [
    *BAD_CHECKPOINTS,
    NO_WRITE,
    CREATE_ONLY,
    _SYNCHRONOUS,
    Breach("no active replica", "creation", NOT_EXIST, {"active": False, "creation": WEAKLY}),
    Breach("nothing was written", "sections", OK, {"sections": []}, pairs=False),
    Breach("collocated, with an active replica", "creation", OK, {"creation": WEAKLY},
           pairs=False),
]  # fmt: skip


def _synchronize_async(libraries: dict[str, Library], version: str, given: Given) -> int:
    handle = checkpoint_of(libraries, version, given)
    rc = S.saCkptCheckpointSynchronizeAsync(handle, 78)
    if rc != OK:
        return rc
    kind, _, error = libraries[version].wait(78)
    assert kind == "synchronize"
    return error


_WEAK = {"creation": {"creationFlags": WEAK}}
_ONE = {"vector": "good", "index": None, "id": sid(b"s"), "offset": 0}
DATA_CALLS = [
    Call("saCkptCheckpointWrite",
         {**_ONE, "data": b"data", "size": 4, "function": S.saCkptCheckpointWrite}, _vector,
         _WRITES),
    Call("saCkptSectionOverwrite", {"id": sid(b"s"), "data": b"data"},
         _on_checkpoint(S.saCkptSectionOverwrite, "id", "data"), _OVERWRITES),
    Call("saCkptCheckpointRead",
         {**_ONE, "data": bytearray(4), "size": 4, "function": S.saCkptCheckpointRead}, _vector,
         _READS),
    Call("saCkptIOVectorElementDataFree", {"data": bytearray(1)}, _data_free,
         [Breach("no buffer", "data", INVALID, {"data": None}), *BAD_CHECKPOINTS]),
    Call("saCkptCheckpointSynchronize", {**_WEAK, "timeout": MINUTE},
         _on_checkpoint(S.saCkptCheckpointSynchronize, "timeout"), [
             Breach("a negative timeout", "timeout", INVALID, {"timeout": -1}),
             *_SYNCHRONIZATIONS,
         ]),
    Call("saCkptCheckpointSynchronizeAsync", _WEAK, _synchronize_async, _SYNCHRONIZATIONS),
]  # fmt: skip


# --- life cycle -----------------------------------------------------------------------------------


def _initialize(libraries: dict[str, Library], version: str, given: Given) -> int:
    asked = given["version"]
    asked = S.SaVersionT(*asked) if isinstance(asked, tuple) else asked
    rc, handle, answered = given["function"](given["callbacks"], asked)
    assert bool(handle) == (rc == OK)
    if asked is not None and rc != INVALID:
        assert answered is asked
        assert (asked.releaseCode, asked.majorVersion, asked.minorVersion) == ("B", 2, 3)
    if rc == OK:
        assert S.saCkptFinalize(handle) == OK
    return rc


def _on_library(function: Callable[..., Any], *names: str) -> Callable[..., int]:
    def make(libraries: dict[str, Library], version: str, given: Given) -> int:
        handle = library_of(libraries, version, given)
        result = function(handle, *(given[name] for name in names))
        return result[0] if isinstance(result, tuple) else result

    return make


VERSION = S.SA_AIS_ERR_VERSION
LIFE_CALLS = [
    Call("saCkptInitialize",
         {"version": ("B", 2, 2), "callbacks": S.SaCkptCallbacksT(print, print),
          "function": S.saCkptInitialize}, _initialize, [
        Breach("no version", "version", INVALID, {"version": None}),
        Breach("callbacks that are none", "callbacks", INVALID, {"callbacks": 5}),
        *(
            Breach(f"version {release}.{major}.{minor}", "version", VERSION,
                   {"version": (release, major, minor)}, pairs=False)
            for release, major, minor in (
                ("A", 1, 1), ("C", 1, 1), ("B", 3, 0), ("B", 255, 1), ("", 1, 1), ("BB", 1, 1),
                ("B", 2, None),
            )
        ),
        *(
            Breach(f"version B.{major}.{minor} is supported", "version", OK,
                   {"version": ("B", major, minor)}, pairs=False)
            for major, minor in ((1, 1), (1, 255), (2, 0), (2, 2), (2, 3), (2, 9))
        ),
        Breach("no callbacks", "callbacks", OK, {"callbacks": None}, pairs=False),
        Breach("no member of the callbacks", "callbacks", OK,
               {"callbacks": S.SaCkptCallbacksT()}, pairs=False),
        Breach("the callbacks of B.02.03", "callbacks", OK,
               {"callbacks": S.SaCkptCallbacksT_2(print, print, print)}, pairs=False),
    ]),
    Call("saCkptInitialize_2",
         {"version": ("B", 2, 3), "callbacks": S.SaCkptCallbacksT_2(print, print, print),
          "function": S.saCkptInitialize_2}, _initialize, [
        Breach("no version", "version", INVALID, {"version": None}),
        Breach("callbacks that are none", "callbacks", INVALID, {"callbacks": 5}),
        Breach("the callbacks of B.02.02", "callbacks", INVALID,
               {"callbacks": S.SaCkptCallbacksT()}, pairs=False),
        *(
            Breach(f"version {release}.{major}.{minor}", "version", VERSION,
                   {"version": (release, major, minor)}, pairs=False)
            for release, major, minor in (
                ("A", 2, 3), ("C", 2, 3), ("B", 1, 1), ("B", 1, 3), ("B", 2, 0), ("B", 2, 2),
                ("B", 3, 3), ("B", 2, None),
            )
        ),
        Breach("version B.2.9 is supported", "version", OK, {"version": ("B", 2, 9)}, pairs=False),
        Breach("no callbacks", "callbacks", OK, {"callbacks": None}, pairs=False),
        Breach("no member of the callbacks", "callbacks", OK,
               {"callbacks": S.SaCkptCallbacksT_2()}, pairs=False),
    ]),
    Call("saCkptSelectionObjectGet", {}, _on_library(S.saCkptSelectionObjectGet), [
        *BAD_LIBRARIES,
        Breach("without callbacks", "library", OK, {"library": "silent"}, pairs=False),
    ]),
    Call("saCkptDispatch", {"flags": S.SA_DISPATCH_ALL}, _on_library(S.saCkptDispatch, "flags"), [
        *BAD_LIBRARIES,
        *(
            Breach(f"dispatch flags {flags!r}", "flags", INVALID, {"flags": flags},
                   pairs=flags == 0)
            for flags in (0, 4, -1, None, "all")
        ),
        Breach("ONE with nothing pending", "flags", OK, {"flags": S.SA_DISPATCH_ONE}, pairs=False),
        Breach("ALL with nothing pending", "flags", OK, {"flags": S.SA_DISPATCH_ALL}, pairs=False),
    ]),
]  # fmt: skip


# --- track callbacks ------------------------------------------------------------------------------


def _track(libraries: dict[str, Library], version: str, given: Given) -> int:
    rc = S.saCkptTrack(library_of(libraries, version, given))
    if rc == OK:
        assert S.saCkptTrackStop(libraries["tracker"].handle) == OK
    return rc


def _track_stop(libraries: dict[str, Library], version: str, given: Given) -> int:
    if given["tracking"]:
        assert S.saCkptTrack(libraries["tracker"].handle) == OK
    rc = S.saCkptTrackStop(library_of(libraries, version, given))
    if given["tracking"] and rc != OK:
        assert S.saCkptTrackStop(libraries["tracker"].handle) == OK
    return rc


_TRACKERS = [
    *BAD_LIBRARIES,
    Breach("initialized for B.01.01", "library", VERSION, {"library": "B.01"}, "B.01"),
    Breach("initialized for B.02.02", "library", VERSION, {"library": "B.02"}, "B.02"),
    Breach("no track callback", "library", INIT, {"library": "silent tracker"}),
]
TRACK_CALLS = [
    Call("saCkptTrack", {"library": "tracker"}, _track, _TRACKERS),
    Call("saCkptTrackStop", {"library": "tracker", "tracking": True}, _track_stop, [
        *_TRACKERS,
        Breach("without saCkptTrack", "tracking", NOT_EXIST, {"tracking": False}),
    ]),
]  # fmt: skip

CALLS = [*LIFE_CALLS, *CHECKPOINT_CALLS, *SECTION_CALLS, *DATA_CALLS, *TRACK_CALLS]
