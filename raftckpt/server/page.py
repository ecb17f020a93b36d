"""The page on the admin port: what this replica sees of the cluster now, for people. No scripts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from raftckpt.server.metrics import Seen, Sources
from raftckpt.version import VERSION

__all__ = ["KIND", "page"]

KIND: Final = "text/html; charset=utf-8"
_REFRESH_S: Final = 2
_HEAD: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="refresh" content="{_REFRESH_S}">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<title>{title}</title><style>:root{{color-scheme:light dark;font:16px/1.5 system-ui}}"
    "body{{max-width:56rem;margin:1rem auto;padding:0 1rem}}table{{border-collapse:collapse;"
    "width:100%;margin:0 0 1.5rem}}th,td{{text-align:left;padding:.2rem .6rem .2rem 0;"
    "border-bottom:1px solid #8884}}.wrong{{color:#d33;font-weight:600}}</style></head><body>"
)


def page(sources: Sources, alarms: Iterable[str]) -> bytes:
    """Return the page; it loads nothing and asks for itself again every two seconds."""
    seen = Seen(sources)
    raft, info, word = seen.raft, sources.info, sources.word()
    parts = [_HEAD.format(title=escape(f"{info.node} of {info.cluster}"))]
    parts.append(f"<h1>{escape(info.node)} <small>of {escape(info.cluster)}</small></h1>")
    told = [*alarms, *([raft.waiting] if raft.waiting else [])]
    if word != "ok":
        told.insert(0, f"not ready: {word}")
    parts += [f'<p class="wrong">{escape(text)}</p>' for text in told]
    parts.append(
        _table(
            ("", ""),
            (
                ("leader", raft.leader or "none known"),
                ("role", raft.role.value),
                ("term", raft.term),
                ("applied, committed", f"{raft.applied_index}, {raft.commit_index}"),
                ("revision", seen.replica.machine.revision),
                ("checkpoints", len(seen.replica.machine.checkpoints)),
                ("sessions", len(seen.replica.machine.sessions)),
                ("disk free", f"{seen.free >> 20} of {seen.size >> 20} MiB"),
                ("version", VERSION),
            ),
        )
    )
    links = {peer.directory: peer for peer in raft.peers}
    rows = []
    for member in raft.configuration.members:
        peer = links.get(member.directory)
        link = "this one" if peer is None else "up" if peer.connected else "down"
        known = peer is not None and raft.role.value == "leader"
        behind = max(0, raft.last_index - peer.match_index) if known and peer else "-"
        rows.append((member.node, "voter" if member.voter else "learner", link, behind))
    parts.append(_table(("member", "", "link", "entries behind"), rows))
    used, limits = seen.used(), seen.limits()
    parts.append(
        _table(
            ("limit", "taken"),
            [(name, f"{100 * used[name] / limit:.1f} %") for name, limit in limits.items()],
        )
    )
    parts.append("</body></html>\n")
    return "".join(parts).encode("utf-8")


def _table(headings: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{escape(str(heading))}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
