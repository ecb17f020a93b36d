"""``raftckpt cluster``: what replicas say, who is a member, leadership, comparison of states."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from raftckpt.plain import plain
from raftckpt_cli.diagnosis import Weight, diagnose, leader_of
from raftckpt_cli.limits import limits
from raftckpt_cli.options import ClusterTarget, cluster_options, token_option
from raftckpt_cli.output import ExitCode, Failure, print_json, print_table, show_age

if TYPE_CHECKING:
    from raftckpt import Client, ClusterStatus, ReplicaStatus

__all__ = ["cluster"]

_COLUMNS = ("node", "endpoint", "reachable", "role", "applied", "commit", "term", "pid", "version")
_MORE = (
    "first",
    "last",
    "snapshot",
    "sessions",
    "connections",
    "checkpoints",
    "data_bytes",
    "data_bytes_max",
    "memory_limit",
    "memory_full",
    "uptime_s",
    "rss_bytes",
    "journal_bytes",
    "longest_step_ms",
    "turn_cpu_ms",
    "long_turns",
    "trackers",
    "history_bytes",
    "history_from",
    "founding",
    "level",
    "config_index",
    "alarms",
    "waiting",
    "clock_ms",
    "disk_free_bytes",
    "disk_bytes",
    "certificates",
)
_OF_THE_TABLE: Final = frozenset({"reachable", "leader"})
"""Checks of which the table and the exit code tell, unless they contradict."""
_TOLD: Final = frozenset(
    {"reachable", "disks", "memory", "certificates", "clocks", "votes", "drained"}
)
"""Checks whose warnings `cluster status` tells, too; `doctor` tells all."""
_SECOND_LOOK_S: Final = 1.2
"""Two election time-outs: what a change under way looks like is over by then."""
_LOOK_EVERY_S: Final = 0.2
"""Between two looks at what goes on by itself while somebody watches: its steps take a second and
more."""
_LOOK: Final = "raftckpt doctor says what to do; raftckpt cluster members shows who is a member"
_PEER: Final = click.option("--peer", required=True, help="host:port for the other replicas.")
_CLIENT: Final = click.option("--client", required=True, help="host:port for clients.")
_TOKEN: Final = token_option("it")
_WAIT: Final = click.option("--wait", is_flag=True, help="Show its progress until it is there.")


@click.group()
def cluster() -> None:
    """Status, members, level, limits, leadership transfer, comparison of replicas."""


cluster.add_command(limits)


@cluster.command("status")
@cluster_options
def status(target: ClusterTarget) -> int:
    """Ask every replica what it knows; exit code 4 if none leads, 1 if what they say is wrong.

    \b
    Examples:
      raftckpt cluster status
      raftckpt cluster status -o json | jq -r .leader
    """  # noqa: D301
    begun = time.monotonic()
    with target.connect(session=False) as service:
        found = service.cluster(timeout=target.patience)
        said = diagnose(found)
        if any(each.weight is Weight.PASSING for each in said):
            time.sleep(max(0.0, begun + _SECOND_LOOK_S - time.monotonic()))
            found = service.cluster(timeout=target.patience)
            said = diagnose(found)
    leader = leader_of(found)
    lead = None if leader is None else leader.node
    wrong, warnings = [], []
    for each in said:
        if each.weight is Weight.PASSING or (
            each.weight is Weight.WRONG and each.check not in _OF_THE_TABLE
        ):
            wrong.append(each.what)
        elif each.check in _TOLD:
            warnings.append(each.what)
    if target.json:
        replicas = [_json_of(each) for each in found.replicas]
        copied = _newest_copy(found)
        print_json(
            {
                "leader": lead,
                "term": found.term,
                "replicas": replicas,
                "findings": wrong,
                "warnings": warnings,
                "copied_s": None if copied is None else copied[0],
                "copied_revision": None if copied is None else copied[1],
            }
        )
    else:
        rows = [
            [
                each.node,
                each.endpoint,
                "yes" if each.reachable else each.cause or "no",
                each.role,
                each.applied,
                each.commit,
                each.term,
                each.pid,
                each.version,
                each.detail.get("sessions"),
                each.durability,
            ]
            for each in found.replicas
        ]
        print_table(
            [*_COLUMNS, "sessions", "durability"],
            [["-" if cell is None else cell for cell in row] for row in rows],
        )
        copied = _newest_copy(found)
        if copied is not None:
            click.echo(f"last snapshot saved: {show_age(copied[0])} ago, revision {copied[1]}")
        for warning in warnings:
            click.echo(f"warning: {plain(warning)}", err=True)
    if leader is None:
        answered = [each.node for each in found.replicas if each.reachable]
        raise Failure(
            "no replica leads",
            f"answering: {', '.join(answered) or 'none'} of {len(found.replicas)}; "
            "a majority is needed" + "".join(f"; {each}" for each in wrong),
            "start the missing replicas; raftckpt doctor says what to do for each",
            ExitCode.UNAVAILABLE,
        )
    if wrong:
        raise Failure("the cluster is not as it should be", "; ".join(wrong), _LOOK)
    return ExitCode.OK


def _newest_copy(found: ClusterStatus) -> tuple[int, int] | None:
    """(age in seconds, revision) of the last state that somebody saved; None: nobody knows of one.

    Replicas forget it when they are restarted.
    """
    told = [each.detail for each in found.replicas if each.detail.get("copied_s") is not None]
    return min(((each["copied_s"], each["copied_revision"]) for each in told), default=None)


@cluster.command("transfer")
@click.argument("node", required=False)
@cluster_options
def transfer(target: ClusterTarget, node: str | None) -> None:
    """Hand leadership to NODE (default: the follower that holds most of the log).

    \b
    Examples:
      raftckpt cluster transfer n2
    """  # noqa: D301
    with target.connect(session=False) as service:
        before = service.cluster()
        service.transfer_leadership(node)
        after = service.cluster()
    if target.json:
        print_json({"from": before.leader, "leader": after.leader, "term": after.term})
    else:
        click.echo(f"leadership handed over from {before.leader} to {after.leader}")


@cluster.command("members")
@cluster_options
def members(target: ClusterTarget) -> int:
    """Who is a member, since which entry of the log, and what holds a change up.

    \b
    Examples:
      raftckpt cluster members
    """  # noqa: D301
    with target.connect(session=False) as service:
        told = _leaders_word(service.cluster())
    rows = _member_rows(told)
    if target.json:
        print_json(
            {
                "since": told["config_index"],
                "version": told["config_index"],
                "founding": told["founding"],
                "level": told["level"],
                "waiting": told["waiting"],
                "members": [
                    {**each, "role": "voter" if each["voter"] else "learner"}
                    for each in told["members"]
                ],
            }
        )
        return ExitCode.OK
    print_table(["node", "kind", "peer", "client", "directory", "link", "behind", "levels"], rows)
    click.echo(f"in force since entry {told['config_index']}; level {told['level']}")
    if told["waiting"]:
        click.echo(f"waiting: {told['waiting']}")
    return ExitCode.OK


@cluster.command("add")
@click.argument("node")
@_PEER
@_CLIENT
@click.option("--learner", is_flag=True, help="It never becomes a voter.")
@_TOKEN
@_WAIT
@cluster_options
def add(
    target: ClusterTarget, node: str, peer: str, client: str, learner: bool, token: str, wait: bool
) -> int:
    """Add NODE: it is sent the state, and votes by itself once it has kept up.

    Prints the token and the lines that the new host needs. Asking again with the same --token is
    harmless.

    \b
    Examples:
      raftckpt cluster add n4 --peer 10.0.0.4:7501 --client 10.0.0.4:7401
    """  # noqa: D301
    return _let_in(target, node, peer, client, token, wait, learner=learner, replaces=None)


@cluster.command("replace")
@click.argument("node")
@click.option("--by", "successor", required=True, help="Node id of the one that comes.")
@_PEER
@_CLIENT
@_TOKEN
@_WAIT
@cluster_options
def replace(
    target: ClusterTarget, node: str, successor: str, peer: str, client: str, token: str, wait: bool
) -> int:
    """Replace NODE by another host: it leaves when its successor has come.

    A dead one leaves before its successor votes, a living one after. Interrupted, it goes on by
    itself; asking again with the same --token is harmless.

    \b
    Examples:
      raftckpt cluster replace n2 --by n4 --peer 10.0.0.4:7501 --client 10.0.0.4:7401
    """  # noqa: D301
    return _let_in(target, successor, peer, client, token, wait, learner=False, replaces=node)


@cluster.command("remove")
@click.argument("node")
@cluster_options
def remove(target: ClusterTarget, node: str) -> None:
    """Take NODE out: its replica is told and ends; its data directory never counts again.

    \b
    Examples:
      raftckpt cluster remove n2
    """  # noqa: D301
    with target.connect(session=False) as service:
        service.remove_member(node)
        told = _leaders_word(service.cluster())
    left = [each["node"] for each in told["members"]]
    if target.json:
        print_json({"removed": node, "members": left, "since": told["config_index"]})
        return
    click.echo(f"{node} is removed; members are {', '.join(left)}")
    _warn_even(told)


@cluster.command("drain")
@click.argument("node")
@click.option("--off", is_flag=True, help="It may lead again.")
@cluster_options
def drain(target: ClusterTarget, node: str, off: bool) -> None:
    """Have NODE lead no more, whatever is restarted, until `drain NODE --off`.

    For work on its host: it goes on voting and holding the data. If it leads, leadership goes to
    another voter at once. It is refused if no other voter could lead. Should all the others fail
    later, it leads all the same, until one of them can.

    \b
    Examples:
      raftckpt cluster drain n1
      raftckpt cluster drain n1 --off
    """  # noqa: D301
    until = time.monotonic() + target.timeout
    with target.connect(session=False) as service:
        service.drain_member(node, not off)
        found = service.cluster()
        while not off and found.leader in (node, None) and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
            found = service.cluster()
    drained = [m["node"] for m in _leaders_word(found)["members"] if m.get("drained")]
    if target.json:
        print_json({"drained": drained, "leader": found.leader})
    elif off:
        click.echo(f"{node} may lead again; {found.leader} leads")
    else:
        click.echo(f"{node} is drained; {found.leader} leads")
    if not off and found.leader == node:
        raise Failure(
            f"{node} leads still",
            f"no other voter held everything within {target.timeout:g} s",
            "it hands over as soon as one does; raftckpt cluster members shows how far they are",
            ExitCode.UNAVAILABLE,
        )


@cluster.command("level")
@click.option("--pin/--unpin", "pin", default=None, help="Hold it where it is, or let it rise.")
@cluster_options
def level(target: ClusterTarget, pin: bool | None) -> int:
    """Show the level, what each member can, and who keeps it from rising.

    The level says what the log may hold. It rises by itself when every member can the next one,
    and never falls: pin it before an upgrade if you want to be able to go back.

    \b
    Examples:
      raftckpt cluster level
      raftckpt cluster level --pin
    """  # noqa: D301
    with target.connect(session=False) as service:
        if pin is not None:
            service.pin_level(pin)
        found = service.cluster()
    told = _leaders_word(found)
    can = {peer["node"]: peer["levels"] for peer in told["peers"]}
    can[told["node"]] = told["levels"]
    following = told["level"] + 1
    blocks = sorted(n for n, levels in can.items() if levels is None or levels[1] < following)
    if not any(levels is not None and levels[1] >= following for levels in can.values()):
        blocks = []  # nobody can: it is the newest
    if target.json:
        print_json({"level": told["level"], "pinned": told["pinned"], "can": can, "blocks": blocks})
        return ExitCode.OK
    print_table(
        ["node", "can"],
        [
            [n, "no link" if each is None else f"{each[0]}..{each[1]}"]
            for n, each in sorted(can.items())
        ],
    )
    click.echo(f"level {told['level']}{', pinned' if told['pinned'] else ''}")
    if blocks:
        click.echo(f"level {following} waits for {', '.join(blocks)}")
    return ExitCode.OK


@cluster.command("clear")
@click.argument("node")
@cluster_options
def clear(target: ClusterTarget, node: str) -> None:
    """Clear the alarm that the state of NODE once differed from the leader's.

    \b
    Examples:
      raftckpt cluster clear n2
    """  # noqa: D301
    with target.connect(session=False) as service:
        found = {each.node: each.endpoint for each in service.cluster().replicas}
    if node not in found:
        raise Failure(
            f"no replica {node}",
            f"there are {', '.join(sorted(found))}",
            "name one of them",
            ExitCode.USAGE,
        )
    with target.connect(found[node], session=False) as service:
        service.clear_alarms()
    if target.json:
        print_json({"cleared": node})
    else:
        click.echo(f"the alarm of {node} is cleared")


@cluster.command("check")
@cluster_options
def check(target: ClusterTarget) -> int:
    """Compare the states of all replicas after one and the same log entry.

    Exit code 0: all equal; 1: they differ, which must never happen; 4: not all could be asked.

    \b
    Examples:
      raftckpt cluster check
    """  # noqa: D301
    with target.connect(session=False) as service:
        report = service.check()
    index = report.index
    digests = dict(sorted(report.digests.items()))
    known = {digest for digest in digests.values() if digest is not None}
    missing = [node for node, digest in digests.items() if digest is None]
    if target.json:
        equal = len(known) == 1 and not missing
        print_json(
            {
                "index": index,
                "equal": equal,
                "digests": digests,
                "unreachable": missing,
                "problems": dict(report.problems),
            }
        )
    else:
        print_table(["node", "digest"], [[n, d or "no answer"] for n, d in digests.items()])
    if len(known) > 1:
        raise Failure(
            f"the replicas differ at log index {index}",
            ", ".join(f"{node}: {digest}" for node, digest in digests.items()),
            "stop writing, keep all data directories, and report it: this must never happen",
        )
    if missing:
        raise Failure(
            f"{', '.join(missing)} could not be compared",
            "; ".join(f"{node}: {report.problems.get(node, 'no answer')}" for node in missing)
            + f"; no digest for log index {index}",
            "raftckpt doctor says what to do; allow more with --timeout",
            ExitCode.UNAVAILABLE,
        )
    if not target.json:
        click.echo(f"all {len(digests)} replicas hold the same state at log index {index}")
    return ExitCode.OK


def _leaders_word(found: ClusterStatus) -> dict[str, Any]:
    """What the leader says of the members."""
    leader = leader_of(found)
    if leader is not None:
        return dict(leader.detail)
    raise Failure(
        "no replica leads",
        "who is a member is said by the leader",
        "raftckpt cluster status shows who answers",
        ExitCode.UNAVAILABLE,
    )


def _member_rows(told: dict[str, Any]) -> list[list[Any]]:
    peers = {peer["node"]: peer for peer in told["peers"]}
    rows = []
    for member in told["members"]:
        peer = peers.get(member["node"])
        kind = "voter" if member["voter"] else "learner" if member["directory"] else "place"
        if kind == "learner" and member["promote"]:
            kind = "learner, to vote"
        if member.get("drained"):
            kind += ", drained"
        own = member["node"] == told["node"]
        link = "leads" if own else "up" if peer is not None and peer["connected"] else "down"
        behind = "-" if peer is None else max(0, told["last"] - peer["match"])
        levels = told["levels"] if own else peer["levels"] if peer is not None else None
        rows.append(
            [
                member["node"],
                kind,
                member["peer"],
                member["client"],
                member["directory"][:8] or "-",
                link,
                behind,
                "-" if levels is None else f"{levels[0]}..{levels[1]}",
            ]
        )
    return rows


def _replica_lines(told: dict[str, Any], leaves: str | None) -> list[str]:
    """The section of cluster.yaml once the one that ``leaves`` has left, unless it is alone."""
    stay = [member for member in told["members"] if member["node"] != leaves]
    if not any(member["directory"] for member in stay):
        stay = told["members"]  # somebody must be asked
    return ["replicas:"] + [
        f'  {each["node"]}: {{ client: "{each["client"]}", peer: "{each["peer"]}" }}'
        for each in stay
    ]


def _warn_even(told: dict[str, Any]) -> None:
    leave = {member["replaces"] for member in told["members"]}
    voters = sum(
        (member["voter"] or member["promote"]) and member["directory"] not in leave - {""}
        for member in told["members"]
    )
    if voters % 2 == 0:
        click.echo(
            f"{voters} voters survive the loss of no more than {voters - 1} do: add or remove one",
            err=True,
        )


def _let_in(
    target: ClusterTarget,
    node: str,
    peer: str,
    client: str,
    token: str,
    wait: bool,
    *,
    learner: bool,
    replaces: str | None,
) -> int:
    with target.connect(session=False) as service:
        service.add_member(
            node, peer=peer, client=client, token=token, learner=learner, replaces=replaces
        )
        told = _leaders_word(service.cluster())
        if not target.json:
            listed = "\n".join(_replica_lines(told, replaces))
            click.echo(
                f"a place is kept for {node}. On its host, with a cluster.yaml that lists\n\n"
                f"{listed}\n\nonce:\n\n"
                f"  raftckpt serve --config cluster.yaml --node {node} --join {token}\n"
            )
            _warn_even(told)
        arrived = not wait or _arrived(service, target, node, replaces, learner=learner)
    if target.json:
        print_json({"node": node, "token": token, "arrived": wait and arrived})
    if not arrived:
        raise Failure(
            f"{node} is not there yet",
            f"it did not get so far within {target.timeout:g} s",
            "it goes on by itself; raftckpt cluster members shows how far it is",
            ExitCode.UNAVAILABLE,
        )
    return ExitCode.OK


def _arrived(
    service: Client, target: ClusterTarget, node: str, replaces: str | None, *, learner: bool
) -> bool:
    """Show how far a new member has come until it is there."""
    until, shown = time.monotonic() + target.timeout, ""
    while True:
        told = _leaders_word(service.cluster())
        row = next((row for row in _member_rows(told) if row[0] == node), None)
        gone = replaces is None or all(m["node"] != replaces for m in told["members"])
        state = f"{node}: {row[1]}, {row[6]} entries behind" if row is not None else f"{node}: -"
        if told["waiting"]:
            state += f" ({told['waiting']})"
        if state != shown and not target.json:
            click.echo(state)
        shown = state
        if row is not None and row[1] == ("learner" if learner else "voter") and gone:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_EVERY_S)


def _json_of(replica: ReplicaStatus) -> dict[str, Any]:
    return {
        "node": replica.node,
        "role": replica.role,
        "reachable": replica.reachable,
        "applied": replica.applied,
        "commit": replica.commit,
        "term": replica.term,
        "pid": replica.pid,
        "version": replica.version,
        "endpoint": replica.endpoint,
        "leader": replica.leader,
        "durability": replica.durability,
        "revision": replica.revision,
        "problem": replica.problem,
        "cause": replica.cause,
        **{name: replica.detail.get(name) for name in _MORE},
    }
