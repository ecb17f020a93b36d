"""FastAPI with sessions that outlive the process: any worker serves any visitor.

usage: RAFTCKPT_ENDPOINTS=... uvicorn web_sessions:app --port 8001      (and 8002, 8003, ...)

A visitor's session is a section of the checkpoint ``web-sessions``, by the id in the cookie. It is
changed on the condition that nobody else changed it meanwhile, and expires when it is not used.
"""

import asyncio
import json
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

import raftckpt

IDLE_S = 1800.0


async def keep_open(app: FastAPI, opened: asyncio.Event) -> None:
    """Open the checkpoint, and again after our own session with the cluster was lost."""
    while True:
        app.state.lost = asyncio.Event()
        try:
            async with raftckpt.aio.connect(os.environ["RAFTCKPT_ENDPOINTS"]) as service:
                create = raftckpt.Attributes()
                app.state.sessions = await service.open("web-sessions", create=create)
                opened.set()
                await app.state.lost.wait()
        except raftckpt.CheckpointError as error:
            logging.getLogger("uvicorn.error").warning("web-sessions: %s", error)
            await asyncio.sleep(0.5)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    opened = asyncio.Event()
    keeper = asyncio.create_task(keep_open(app, opened))
    await opened.wait()
    yield
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)


app = FastAPI(lifespan=lifespan)


async def load(request: Request) -> tuple[str, dict[str, Any], int]:
    """Id, content and revision of the visitor's session; revision 0: a new one."""
    key = request.cookies.get("session", "")
    try:
        data, revision = await request.app.state.sessions.read_versioned(key or "-")
    except raftckpt.SectionNotExist:
        return secrets.token_urlsafe(16), {"basket": []}, 0
    return key, json.loads(data), revision


@app.post("/basket/{item}")
async def add(item: str, request: Request, response: Response) -> dict[str, Any]:
    sessions = request.app.state.sessions
    for _ in range(10):
        key, content, revision = await load(request)
        content["basket"].append(item)
        try:
            await sessions.put(key, json.dumps(content).encode(), if_revision=revision)
        except raftckpt.Conflict:
            continue  # a second tab was quicker: look again
        await sessions.set_expiration(key, ttl=IDLE_S)
        response.set_cookie("session", key, httponly=True, samesite="lax")
        return content
    raise HTTPException(503, "too many at once; try again")


@app.get("/basket")
async def show(request: Request) -> dict[str, Any]:
    _, content, _ = await load(request)
    return content


@app.exception_handler(raftckpt.CheckpointError)
async def unavailable(request: Request, error: raftckpt.CheckpointError) -> Response:
    """Say whether it happened: a visitor may press the button again only if it did not."""
    if isinstance(error, raftckpt.SessionLost):
        request.app.state.lost.set()
    words = {"error": str(error), "happened": "no" if error.definite else "perhaps"}
    return Response(json.dumps(words), 503, media_type="application/json")
