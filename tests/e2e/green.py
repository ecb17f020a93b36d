"""A program of green threads: ``python -m tests.e2e.green LIBRARY WHEN WHAT ENDPOINTS``.

WHEN it is patched: ``first`` or ``imported`` (raftckpt was). WHAT it uses: ``blocking``, ``aio`` or
``saf``; ``late`` patches after connect(), and says what comes of it. The last line is "done".
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress


def patch(library: str) -> None:
    if library == "gevent":
        import gevent.monkey

        gevent.monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()


def blocking(library: str, when: str, endpoints: str) -> None:
    import threading

    import raftckpt
    from raftckpt import ha

    with ha.connect(endpoints, timeout=20.0) as service:
        ckpt = service.open("green", create=raftckpt.Attributes())
        ckpt.put("a", b"1")
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            while ticks >= 0:
                time.sleep(0.01)
                ticks += 1

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        threads = [
            threading.Thread(target=ckpt.put, args=(str(number), b"x")) for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ckpt) == sorted([b"a", *(str(number).encode() for number in range(20))])
        with ckpt.track(image=False) as tracker:
            ckpt.put("a", b"2")
            assert tracker.next(20.0).data == b"2"
            before = ticks
            with suppress(raftckpt.Timeout):
                tracker.next(0.5)
            assert ticks > before + 5, "nobody else ran while this one waited"
        assert len(service.cluster().replicas) == 3
        assert service.check().consistent
        active: list[ha.Assignment] = []
        with ha.Component(
            service, f"green {library} {when}", "c", on_active=active.append, on_standby=print
        ) as component:
            while not active:
                component.dispatch(20.0)
            component.dispatch(0.0)  # nothing is due: it does not wait for what is not there
            before = ticks
            component.dispatch(0.5)
            assert ticks > before + 5
        with ha.lease(service, f"green {library} {when}", wait=20.0) as lease:
            assert lease.token > 0


def late(library: str, when: str, endpoints: str) -> None:
    import raftckpt

    service = raftckpt.connect(endpoints, timeout=20.0)
    ckpt = service.open("green", create=raftckpt.Attributes())
    patch(library)
    for call in (lambda: ckpt.put("a", b"2"), service.close):
        began = time.monotonic()
        try:
            call()
        except raftckpt.BadOperation as error:
            print(error.reason, error.definite, time.monotonic() - began < 3.0, flush=True)
    print("closed" if service._driver.closed else "open")


def aio(library: str, when: str, endpoints: str) -> None:
    import asyncio

    import raftckpt
    from raftckpt.ha import aio as ha

    async def main() -> None:
        async with ha.connect(endpoints, timeout=20.0) as service:
            ckpt = await service.open("green", create=raftckpt.Attributes())
            await asyncio.gather(*[ckpt.put(str(number), b"x") for number in range(20)])
            async with await ckpt.track(image=False) as tracker:
                await ckpt.put("a", b"3")
                assert (await tracker.next(20.0)).data == b"3"
            assert len((await service.cluster()).replicas) == 3
            async with ha.lease(service, f"green aio {library} {when}", wait=20.0) as lease:
                assert lease.token > 0

    asyncio.run(main())


def saf(library: str, when: str, endpoints: str) -> None:
    from raftckpt import saf as s

    s.configure(endpoints)
    rc, handle, _ = s.saCkptInitialize(None, s.SaVersionT("B", 2, 2))
    assert rc == s.SA_AIS_OK
    rc, ckpt = s.saCkptCheckpointOpen(handle, "green", None, s.SA_CKPT_CHECKPOINT_WRITE, 20 * 10**9)
    assert rc == s.SA_AIS_OK, rc
    assert s.saCkptSectionOverwrite(ckpt, s.SaCkptSectionIdT(b"a"), b"4") == s.SA_AIS_OK
    assert s.saCkptFinalize(handle) == s.SA_AIS_OK


def main() -> None:
    library, when, what, endpoints = sys.argv[1:]
    if when == "first":
        patch(library)
    import raftckpt  # noqa: F401 - when it is imported is what matters

    if when == "imported":
        patch(library)
    {"blocking": blocking, "aio": aio, "saf": saf, "late": late}[what](library, when, endpoints)
    print("done", flush=True)


if __name__ == "__main__":
    main()
