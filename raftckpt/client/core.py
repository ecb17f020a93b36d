"""The client without IO: sessions, retries, deadlines, replay. Drive it from any loop.

Inputs are method calls that carry the time; outputs are read off afterwards: the connections it
wants, bytes to send (:class:`~raftckpt.client.peer.AnyPeer`) and calls that are done
(:meth:`~ClientCore.take_completed`). Owns no socket, clock, thread or randomness.

It moves the link and decides what may be sent when; its parts know the rest: the connections that
are being made (:mod:`~raftckpt.client.search`), what is open on the present one
(:mod:`~raftckpt.client.requests`), the session's commands (:mod:`~raftckpt.client.session`), and
who waits for what (:mod:`~raftckpt.client.waiting`).

Invariant: on a connection commands are sent in the order of their numbers; after a reconnect
everything unanswered is sent again first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any, Final

from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Internal, Needs
from raftckpt.client.config import CoreConfig, Link
from raftckpt.client.greeting import GreetingRefused, Welcome
from raftckpt.client.link import Contact
from raftckpt.client.requests import OpenRequests
from raftckpt.client.roles import RoleInbox
from raftckpt.client.search import Search
from raftckpt.client.session import CommandLog, copy_of
from raftckpt.client.waiting import WaitingCalls
from raftckpt.errors import BadHandle, CheckpointError, InvalidParam, SaAisError
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError
from raftckpt.protocol.operations import Query
from raftckpt.protocol.replies import ReplyKind

__all__ = ["ClientCore", "CoreConfig", "Link"]

_COMMAND: Final = Needs.COMMAND
_ATTACHED: Final = Needs.ATTACHED
_OK: Final = int(SaAisError.OK)
_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_BAD_HANDLE: Final = int(SaAisError.ERR_BAD_HANDLE)
_REPLY: Final = int(ReplyKind.REPLY)
_ACCEPTED: Final = int(ReplyKind.ACCEPTED)
_NOTICE: Final = int(ReplyKind.NOTICE)
_LEAVE_SECONDS: Final = 0.1
"""Twice a heartbeat: what a deposed leader still has to answer is on its way by then."""
_LINGERING_MAX: Final = 4
"""Connections that are left and may still count; one per replica that is tried is common. A
guess."""
_MOVE_REASONS: Final = frozenset({"not_leader", "leadership_lost", "stopping"})
"""Reasons of TRY_AGAIN that send the client to another replica."""


class ClientCore:
    """State machine of one client: one session, one connection at a time.

    Arguments:
        config: see :class:`CoreConfig`.
        endpoints: "host:port" each, at least one.
        secret: 16 random bytes that make the session this client's own.
        jitter: returns a number in [0, 1); spreads retries.
    """

    def __init__(
        self,
        config: CoreConfig,
        endpoints: Iterable[str],
        *,
        secret: bytes,
        jitter: Callable[[], float],
    ) -> None:
        self.config = config
        self.search = Search(config, endpoints, jitter, self)
        self.router = self.search.router
        self.roles = RoleInbox()
        self.node = config.node
        """Node id this client counts as."""
        self._jitter = jitter
        self._now = 0.0
        self._closed = False
        self._waiting = WaitingCalls()
        self.take_completed = self._waiting.take
        """Returns the calls that got done since the last time."""
        self._log = CommandLog(secret, self._waiting)
        self._requests = OpenRequests(self._log, self._waiting)
        self._greeting_errors: dict[str, CheckpointError] = {}
        self._wants_leader = False
        # the present connection
        self._link = Link.NONE
        self._link_deadline = self._leave_at = self._keepalive_at = self._resend_at = inf
        self._attached = False
        self._attaching_since = 0.0
        self._lingering: dict[int, tuple[str, float]] = {}
        """Number -> endpoint, and since when it owed an answer (inf: it did not)."""
        self._suspect_since = inf
        """Since when the present one did not answer before it was probed; inf: it is not probed."""
        self._replica = ""
        self._reached_at = -inf
        self._tired = False
        self._retries = 0
        # signs of life
        self._proven_at = inf
        """When the last sign of life that a leader answered was sent."""
        self._broke_at = inf
        """When the connection broke, at the earliest, that the session is or may be attached to."""

    # --- outputs -----------------------------------------------------------------------------

    def target(self) -> tuple[int, str] | None:
        """Return (number, endpoint) of the present or newest connection, None for none now."""
        contact = self.in_use() or self.search.newest()
        return None if contact is None else (contact.number, contact.endpoint)

    def wanted(self) -> Mapping[int, str]:
        """Return the connections that should exist: the present one and those that linger.

        Closing one of these could end the session's grace before it is attached elsewhere.
        """
        attempts = self.search.attempts
        if self._link is not Link.NONE and not attempts and not self._lingering:
            return self._requests.contact.alone
        used = self.in_use()
        wanted = {number: endpoint for number, (endpoint, _) in self._lingering.items()}
        for attempt in attempts.values():
            wanted[attempt.number] = attempt.endpoint
        if used is not None:
            wanted[used.number] = used.endpoint
        return wanted

    def hears(self, number: int) -> bool:
        """Whether it is the present connection, or one that is being made."""
        return number == self._requests.contact.number or number in self.search.attempts

    def data_to_send(self, number: int | None = None) -> bytes:
        """Return the bytes to send on a connection, b"" if there are none.

        Arguments:
            number: which; None: that of :meth:`target`.
        """
        attempts = self.search.attempts
        if number is None and self._link is Link.NONE and attempts:
            number = max(attempts)
        if number in attempts:
            return attempts[number].data_to_send()
        contact = self._requests.contact
        return contact.data_to_send() if number in (None, contact.number) else b""

    def next_deadline(self) -> float:
        """Return the time at which :meth:`tick` must be called at the latest."""
        if self._link is Link.READY:
            deadline = min(
                self._waiting.deadline, self._resend_at, self._keepalive_at, self._leave_at
            )
            if self._requests.open:
                silent_at = self._requests.quiet_since + self.config.probe_after
                if silent_at < deadline:
                    deadline = silent_at
        else:
            deadline = min(self._waiting.deadline, self._resend_at)
            deadline = min(deadline, self._link_deadline, self.search.next_deadline())
        if self.roles.margin is not None and not self.roles.isolated:
            deadline = min(deadline, self.safe_until())
        return deadline

    def safe_until(self) -> float:
        """Return how long nobody else can be active, by our own clock (inf: there is no session).

        Until shortly before the time that the session has without a sign of life, or after its
        connection broke: a replica that lives may take that for our death. (With no grace at all
        it may do so at once, and only the fence is left.) One that did not answer before we heard
        that it broke may have been broken, on its other side, since it fell silent.
        """
        if not self.session or self.lost is not None or self._proven_at == inf:
            return inf
        margin = self.roles.margin or 0.0
        until = self._proven_at + self.config.session_timeout_ns / 1e9 - margin
        grace = self.config.disconnect_grace_ns / 1e9
        if grace:
            until = min(until, self._broke_at + max(0.0, grace - margin))
        return until

    @property
    def link(self) -> Link:
        """State of the connection."""
        attempts = self.search.attempts.values()
        if self._link is not Link.NONE or not attempts:
            return self._link
        return Link.GREETING if any(attempt.up for attempt in attempts) else Link.CONNECTING

    @property
    def state(self) -> str:
        """In a word: "connected", "searching", "isolated" (components are suspended), "closed"."""
        if self._closed:
            return "closed"
        if self.roles.isolated:
            return "isolated"
        return "connected" if self._link >= Link.GREETED else "searching"

    @property
    def session(self) -> int:
        """Number of the session; 0: none is open yet."""
        return self._log.id

    @property
    def lost(self) -> str | None:
        """Why the session ended, if it did."""
        return self._log.lost

    @property
    def credentials(self) -> tuple[int, bytes]:
        """Number (0: none is open yet) and secret of the session."""
        return self._log.id, self._log.secret

    @property
    def revision(self) -> int:
        """Highest revision that a reply told."""
        return self._log.revision

    @property
    def unsettled(self) -> int:
        """Number of accepted commands whose outcome is not known yet."""
        return sum(1 for call in self._log.window.calls.values() if call.accepted)

    @property
    def commands_sent(self) -> int:
        """Number of the last command of the session that was sent."""
        return self._log.window.last

    @property
    def pending(self) -> int:
        """Number of commands that hold a number, for checks and displays."""
        return len(self._log.window.calls)

    @property
    def members(self) -> Mapping[str, str]:
        """Endpoints of the replicas by node id, as a replica or the cluster file told."""
        return self.search.members

    @property
    def endpoint(self) -> str:
        """Endpoint of the present or last connection."""
        return self._requests.contact.endpoint

    def where(self) -> str:
        """Describe the endpoints and what is known about them, for error messages."""
        return self.router.where()

    # --- inputs: calls -----------------------------------------------------------------------

    def start(self, call: Call, deadline: float, now: float) -> None:
        """Begin a call; it will be among the completed ones by ``deadline``, come what may."""
        self._now = now
        self._waiting.begin(call, deadline, now)
        needs = call.needs
        if self._closed:
            self._waiting.fail(call, BadHandle(f"{call.what}: the service is closed"))
            return
        if needs is _COMMAND:
            if self._log.lost is not None and self._log.refuses(call):
                return
            self._log.add(call)
        elif needs is Needs.BARRIER:
            self._log.add_barrier(call)
            return
        else:
            if needs is _ATTACHED:
                if self._log.lost is not None and self._log.refuses(call):
                    return
                self._log.wanted = True
            if needs is not Needs.ANY and not call.local:
                self._wants_leader = True
            self._requests.queries.append(call)
        if self._link >= Link.GREETED:
            self._pump()
        elif self.search.at == inf and not self.search.attempts:
            self.search.seek(now)

    def cancel(self, call: Call, now: float) -> None:
        """Give a call up: nobody waits for it. It may or may not happen."""
        self._now = now
        if not call.done:
            self._waiting.fail(call, outcomes.at_deadline(call, reached=True, where=self.where()))
            self._waiting.completed.pop()
        elif call.error is None:
            self._log.undo(call, call.value)
            self._pump()

    def close(self, failure: CheckpointError | None = None) -> None:
        """End everything: pending calls fail, no connection is wanted any more.

        Arguments:
            failure: why, if nobody asked for it; calls that begin later fail the same way.
        """
        self._closed = True
        why = "the service was closed" if failure is None else failure.message
        self.roles.end(why)
        for call in self._living():
            error = outcomes.lost(call, why)
            kind = BadHandle if failure is None else type(failure)
            self._waiting.fail(call, kind(error.message, definite=error.definite))
        self._log.clear()
        self._requests.sweep()
        self._forget_link()
        self._lingering.clear()
        self.search.stop()
        self.search.at = inf

    def learn(self, members: Mapping[str, str]) -> None:
        """Note where replicas are: "host:port" by node id."""
        self.search.learn(members)

    # --- inputs: network and time ------------------------------------------------------------

    def connected(self, number: int, now: float) -> None:
        """The connection ``number`` is up."""
        attempt = self.search.attempts.get(number)
        if attempt is not None and not attempt.up:
            self._now = now
            attempt.until = now + self.search.patience()
            attempt.greet(self.config.introduction)

    def connection_lost(self, number: int, why: str, now: float) -> None:
        """The connection ``number`` is gone, or could not be made."""
        self._now = now
        if number in self._lingering:
            self._let_go(number)
        if number in self.search.attempts:
            self.search.failed(self.search.attempts[number], why, now)
        elif self._is_present(number):
            self._detach_link(why, gone=True)
            self.search.seek(now)

    def data_received(self, number: int, data: bytes, now: float) -> None:
        """Bytes arrived on connection ``number``. Malformed ones end the connection."""
        requests, attempts = self._requests, self.search.attempts
        contact = requests.contact
        if number == contact.number and self._link is not Link.NONE:
            requests.quiet_since = now
            self._suspect_since = inf
        elif number in attempts:
            contact = attempts[number]
        else:
            return
        self._now = now
        try:
            waits = contact.welcome is None
            messages = contact.receive(data)
            if waits and contact.welcome is not None:
                self._welcomed(contact, contact.welcome)
            for message in messages:
                if requests.contact is not contact or self._link is Link.NONE:
                    return
                self._take(message)
        except GreetingRefused as refusal:
            self._greeting_refused(contact, refusal)
            return
        except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
            why = f"protocol error: {error}"
            if number in attempts:
                self.search.failed(contact, why, now)
            elif self._is_present(number):
                self._fail_link(why)
            return
        if requests.contact is not contact or self._link is Link.NONE:
            return
        if self._leave_at < inf and not requests.commands_in_flight():
            self._leave()
        elif self._log.queue or requests.queries:
            self._pump()

    def tick(self, now: float) -> None:
        """Do what is due at ``now``."""
        self._now = now
        if now >= self._waiting.deadline:
            self._expire()
        link, search = self._link, self.search
        if link is Link.READY:
            if now >= self._leave_at:
                self._leave()
                return
            if now >= self._resend_at:
                self._resend()
            if now >= self._keepalive_at:
                self._keepalive_at = now + self._keepalive_period
                self._send_keepalive()
            quiet_since = self._requests.quiet_since
            if self._requests.open and now >= quiet_since + self.config.probe_after:
                self._silence()
        elif link is Link.NONE:
            if now >= search.at:
                search.begin(now)
        else:
            if now >= self._resend_at:
                self._resend()
            if now >= self._link_deadline:
                if link is Link.GREETED:
                    self._detach_link("no leader is known to it")
                    search.seek(now)
                else:
                    self._fail_link("no answer in time")
        if self.roles.margin is not None and not self.roles.isolated and now >= self.safe_until():
            self.roles.isolate()
        if self._link is not Link.READY:
            search.tick(now)

    def _is_present(self, number: int) -> bool:
        return number == self._requests.contact.number and self._link is not Link.NONE

    # --- for the search ----------------------------------------------------------------------

    def needs_one(self) -> bool:
        """Whether a connection is needed at all."""
        log = self._log
        return not self._closed and bool(
            (log.id and log.lost is None)
            or log.queue
            or self._requests.queries
            or log.staging.waiting
        )

    def in_use(self) -> Contact | None:
        """Return the connection that was adopted and is in use."""
        return None if self._link is Link.NONE else self._requests.contact

    def refused(self, error: str) -> None:
        """Tell those who wait that the replicas are of two clusters, unless there is a session."""
        if not self.session:
            self._fail_unsent(InvalidParam(error, reason="founding"))

    def founded_anew(self) -> None:
        """Our cluster is no more."""
        if self.session:
            self._lose_session("the cluster was founded anew")

    def adopt(self, contact: Contact) -> None:
        """Go on with a connection that was greeted."""
        if self._link is not Link.NONE:
            self._detach_link("another replica leads")
        self._requests.contact = contact
        self._requests.quiet_since = self._now
        self._suspect_since = inf
        self._link = Link.GREETED
        if contact.welcome is not None:
            self._greeted(contact.welcome)

    # --- greeting ----------------------------------------------------------------------------

    def _welcomed(self, attempt: Contact, welcome: Welcome) -> None:
        """A replica answered the greeting: is it one of ours, and the one to go on with?"""
        if not self.search.is_ours(attempt, welcome, self._now):
            return
        if self._link is Link.NONE or (welcome.leads and self._link is Link.GREETED):
            self.search.take(attempt)
        elif welcome.leads:  # the other one may still answer; if not, this one is at hand
            attempt.until = inf
            until = self._attaching_since + self.config.connect_timeout
            self._link_deadline = min(self._link_deadline, max(self._now, until))
        else:
            del self.search.attempts[attempt.number]
            self._known_to(welcome)
            self.search.suggest(welcome.leader_at)

    def _greeting_refused(self, attempt: Contact, refusal: GreetingRefused) -> None:
        error = refusal.error(Call("connect", Needs.ANY, None))
        error.message = f"{error.message} ({attempt.endpoint})"
        if refusal.code != _TRY_AGAIN:
            self._greeting_errors[attempt.endpoint] = error
            if all(item in self._greeting_errors for item in self.router.endpoints):
                # every replica says so: it will not get better by asking again
                self._fail_unsent(error)
                if self.session and error.reason == "credentials":
                    self._lose_session(str(error.reason))
        self.search.failed(attempt, error.message, self._now)

    def _known_to(self, welcome: Welcome) -> None:
        """Learn what a greeting tells."""
        self._reached_at = self._now
        self._greeting_errors.clear()
        self.learn(welcome.endpoints)

    def _greeted(self, welcome: Welcome) -> None:
        problems, endpoint = self.router.problems, self.endpoint
        problems.pop(endpoint, None)
        self._known_to(welcome)
        self._tired = True
        self._replica = welcome.node
        if self.node is None:
            self.node = welcome.node
        if welcome.leads:
            self._reach_leader()
            return
        self._link_deadline = self._now + self.router.pause() if self._leader_needed() else inf
        where = welcome.leader_at
        if self.search.suggest(where):
            self._go_to_leader()
        elif where is not None and where != endpoint:
            problems[endpoint] = f"it follows {where}"
        else:
            problems[endpoint] = "it knows no leader"
        self._pump()

    def _go_to_leader(self) -> None:
        """Another one is said to lead: go there, if a leader is what we need."""
        if self._leader_needed():
            self._leave()
        else:
            self._link_deadline = inf

    def _leader_needed(self) -> bool:
        return self._wants_leader or self._log.wanted or bool(self.session)

    # --- attaching ---------------------------------------------------------------------------

    def _reach_leader(self) -> None:
        """The replica leads: attach the session, open one, or go without."""
        if self.session and self.lost is None:
            message = ops.Attach(0, *self.credentials)
            self._attach("attach", message, self._attached_again, self._attach_refused)
        elif self._log.wanted and self.lost is None:
            self._open_session()
        else:
            self._become_ready()

    def _attach(
        self,
        name: str,
        message: Any,
        on_reply: Callable[[Any], None],
        on_refused: Callable[[int, str, Any], None],
    ) -> None:
        self._link = Link.ATTACHING
        self._attaching_since = self._now
        self._link_deadline = self._now + self.search.patience()
        self.search.soon(self._now, len(self.search.busy()))
        self._transmit(Internal(name, message, on_reply, on_refused))

    def _open_session(self) -> None:
        config = self.config
        message = ops.SessionOpen(
            0,
            0,
            0,
            self._log.secret,
            config.client_name,
            self.node or "",
            config.session_timeout_ns,
            config.disconnect_grace_ns,
        )
        self._attach("open a session", message, self._session_opened, self._session_refused)

    def _session_opened(self, value: Any) -> None:
        session = value[0]
        if type(session) is not int or session <= 0:
            raise FrameError("malformed session id")
        self._log.id = session
        self._attached_again(value)

    def _attached_again(self, value: Any) -> None:
        if type(value[0]) is not int:
            raise FrameError("malformed reply to ATTACH")
        self._attached = True
        self._proven(self._attaching_since)
        self._become_ready()

    def _attach_refused(self, code: int, reason: str, detail: Any) -> None:
        if code == _TRY_AGAIN:
            self._note_leader(reason, detail)
        else:
            self._lose_session(reason)
            self._become_ready()

    def _session_refused(self, code: int, reason: str, detail: Any) -> None:
        if code == _TRY_AGAIN:
            self._note_leader(reason, detail)
            return
        call = Call("open a session", _COMMAND, None)
        self._log.wanted = False
        self._fail_unsent(
            outcomes.refused(call, code, reason, detail, None, True), sessions_only=True
        )
        self._become_ready()

    def _become_ready(self) -> None:
        self._link = Link.READY
        self._link_deadline = inf
        self._requests.quiet_since = self._now
        self._lingering.clear()
        self.search.stop()
        if self._attached:
            self._keepalive_at = self._now + self._keepalive_period
            self._resend()
        self._pump()

    # --- leaving -----------------------------------------------------------------------------

    def _note_leader(self, reason: str, detail: Any) -> None:
        """A TRY_AGAIN says that this replica cannot serve now."""
        if type(detail) is str and ":" in detail and reason == "not_leader":
            self.router.suggest(detail)
        if self._link is Link.READY:
            # replies that are on their way make outcomes certain: give them a moment
            self._leave_at = min(self._leave_at, self._now + _LEAVE_SECONDS)
            self._resend_at = inf
        else:
            self._leave()

    def _leave(self) -> None:
        """This replica does not lead (any more): go where the leader is said to be."""
        self._fail_link("it does not lead")

    def _fail_link(self, why: str) -> None:
        self._detach_link(why)
        self.search.seek(self._now)

    def _detach_link(self, why: str, *, gone: bool = False) -> None:
        """Give the present connection up; what is open on it has to be sent again elsewhere.

        One that is not ``gone`` stays open if the session is, or may be, attached to it: an ATTACH
        that was not answered in time may have been carried out, and a close would then look like
        the client's death.
        """
        contact = self._requests.contact
        self.router.problems[contact.endpoint] = why
        if self._attached or (self._link is Link.ATTACHING and self.session):
            since = self._silent_since()
            if gone:
                self._broke_at = min(self._broke_at, since, self._now)
            else:
                self._linger(contact, since)
        self._forget_link()

    def _silent_since(self) -> float:
        """Return since when the present connection owes an answer and says nothing (inf: not)."""
        return min(self._suspect_since, self._requests.quiet_since) if self._requests.open else inf

    def _linger(self, contact: Contact, since: float) -> None:
        self._lingering[contact.number] = contact.endpoint, since
        # the first may be the one that counts
        for number in list(self._lingering)[1 : 1 - _LINGERING_MAX]:
            self._let_go(number)  # so may this one, and then our close of it begins the grace

    def _let_go(self, number: int) -> None:
        _, since = self._lingering.pop(number)
        self._broke_at = min(self._broke_at, since, self._now)

    def _forget_link(self) -> None:
        self._link = Link.NONE
        self._attached = False
        self._link_deadline = self._leave_at = self._keepalive_at = self._resend_at = inf
        self._suspect_since = inf
        self._log.holding = False
        self._requests.disconnected(self.where())

    # --- signs of life -----------------------------------------------------------------------

    @property
    def _keepalive_period(self) -> float:
        timeout = self.config.session_timeout_ns / 1e9
        if self.roles.margin is None:
            return timeout / 3
        return max(timeout - self.roles.margin, 0.1 * timeout) / 4

    def _silence(self) -> None:
        """Nothing was heard though something is open: probe, then suspect."""
        if self._suspect_since < inf:
            self._fail_link("it does not answer")
            return
        self._suspect_since = self._requests.quiet_since
        self._requests.quiet_since = self._now
        # any replica answers this at once, also a leader that waits for the others
        self._ask("status", ops.ReplicaStatusRequest(0), self._status_told)

    def _send_keepalive(self) -> None:
        self._ask("keepalive", ops.Keepalive(0), partial(self._kept_alive, self._now))

    def _ask(self, name: str, message: Any, on_reply: Callable[[Any], None]) -> None:
        self._transmit(Internal(name, message, on_reply, self._keepalive_refused))

    def _status_told(self, value: Any) -> None:
        self._made_progress()
        self._log.note_revision([value.get("revision")], 0)

    def _kept_alive(self, sent_at: float, value: Any) -> None:
        self._made_progress()
        isolated = self.roles.isolated
        self._proven(sent_at)
        if isolated and not self.roles.isolated:
            self.roles.all_hold()
        self._log.note_revision(value, 0)

    def _keepalive_refused(self, code: int, reason: str, detail: Any) -> None:
        if code == _BAD_HANDLE:
            self._lose_session(reason)
        elif reason in _MOVE_REASONS:
            self._note_leader(reason, detail)

    def _proven(self, sent_at: float) -> None:
        """A leader had a sign of life of ours, not before it was sent."""
        self._proven_at = sent_at
        self._broke_at = inf
        if self.roles.isolated and self._now < self.safe_until():
            self.roles.isolated = False

    def _made_progress(self) -> None:
        self._retries = 0
        if self._tired:
            self._tired = False
            self.router.progress()

    # --- sending -----------------------------------------------------------------------------

    def _transmit(self, call: Call) -> None:
        self._requests.transmit(call, self._now, attached=self._attached)

    def _pump(self) -> None:
        """Send what may be sent now."""
        link, log, requests = self._link, self._log, self._requests
        if link is Link.READY:
            if self._leave_at < inf:
                return
            if self._attached:
                if log.queue and not log.holding:
                    for call in log.numbered():
                        requests.transmit(call, self._now, attached=True)
            elif log.wanted and log.lost is None:
                self._open_session()
                return
        elif link is Link.GREETED and self._leader_needed() and self._link_deadline == inf:
            self._leave()  # it does not lead, and a leader is needed now
        if requests.queries and not log.holding and self._link >= Link.GREETED:
            requests.send_queries(
                self._now, attached=self._attached, ready=self._link is Link.READY
            )

    def _resend(self) -> None:
        """Send every numbered command that has no copy in flight, in order; then go on."""
        self._resend_at = inf
        if self._link is Link.READY and self._attached:
            for call in self._log.window.calls.values():
                if not call.wire_id:
                    self._transmit(call)
        self._log.holding = False
        self._requests.try_later()
        self._pump()

    # --- messages in -------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        kind = message[0]
        if kind == _REPLY:
            call = self._requests.answered(message[1])
            if call is None:
                return
            if message[2] != _OK:
                reason, detail, index = message[3]
                definite = message[4] is True
                self._refused(call, message[2], reason, detail, index, definite=definite)
            elif isinstance(call, Internal):
                call.on_reply(message[3])
            else:
                if self._retries or self._tired:
                    self._made_progress()
                self._succeeded(call, message[3])
        elif kind == _ACCEPTED:
            call = self._requests.open.get(message[1])
            if call is not None and call.needs is _COMMAND and not call.done:
                self._log.accepted(call)
        elif kind == _NOTICE:
            self._notice(message[1], message[2])
        else:
            raise FrameError(f"unknown kind of message {kind!r}")

    def _succeeded(self, call: Call, value: Any) -> None:
        if call.needs is _COMMAND:
            self.command_succeeded(call, value)
            return
        if isinstance(call.message, Query):
            self._log.note_revision(value, 0)
        if not call.done:
            self._waiting.finish(call, value)

    def command_succeeded(self, call: Call, value: Any) -> None:
        """Note that a command was applied; who keeps a history may look on."""
        self._log.succeeded(call, value)

    def command_refused(self, call: Call, error: CheckpointError) -> None:
        """Note that a command was refused for good; who keeps a history may look on."""
        if not self._log.refused(call, error):
            self._resend_at = min(self._resend_at, self._now)
        elif self._retries or self._tired:
            self._made_progress()

    def _refused(
        self, call: Call, code: int, reason: str, detail: Any, index: int | None, *, definite: bool
    ) -> None:
        if isinstance(call, Internal):
            call.on_refused(code, reason, detail)
        elif code == _TRY_AGAIN or (call.accepted and reason == "full"):
            # what a leader accepted, the next one puts in its place, if need be when there is room
            self._again(call, reason, detail, definite)
        elif code == _BAD_HANDLE and reason == "session":
            if call.needs is not _COMMAND and not call.done:
                self._requests.later.append(call)
            self._lose_session(reason)
        else:
            error = outcomes.refused(call, code, reason, detail, index, definite)
            if call.needs is _COMMAND:
                self.command_refused(call, error)
            else:
                self._waiting.fail(call, error)

    def _again(self, call: Call, reason: str, detail: Any, definite: bool) -> None:
        """A copy was refused for now: it is sent again later, here or elsewhere."""
        if not definite:
            call.uncertain = True
        if not call.done:
            call.refusal = (reason, detail)
        if call.needs is _COMMAND:
            self._log.holding = True
        elif call.needs is Needs.LEADER_ONCE and not definite:
            self._waiting.fail(call, outcomes.interrupted(call, self.where()))
        elif not call.done:
            self._requests.later.append(call)
        if reason in _MOVE_REASONS and call.needs is not Needs.ANY:
            self._note_leader(reason, detail)
        elif self._resend_at == inf and self._leave_at == inf:
            config = self.config
            pause = min(config.retry_max, config.retry_min * 2.0 ** min(self._retries, 16))
            self._retries += 1
            self._resend_at = self._now + pause * (0.5 + 0.5 * self._jitter())

    def _notice(self, kind: Any, value: Any) -> None:
        if kind == "leader":
            leader = value["leader"]
            endpoint = value["endpoint"]
            if leader == self._replica:
                if self._link is Link.GREETED:
                    self._reach_leader()
            elif leader is not None and type(endpoint) is str:
                if self._link is Link.READY:
                    self._note_leader("not_leader", endpoint)
                elif self._link is Link.GREETED and self.search.suggest(endpoint):
                    self._go_to_leader()
        elif kind == "role":
            self.roles.put(value)
        elif kind == "session_lost" and self._attached:
            self._lose_session(str(value))
        # "going_away" and notices of later versions need no action: the close will come

    # --- endings -----------------------------------------------------------------------------

    def _lose_session(self, why: str) -> None:
        """The cluster ended the session: everything that belongs to it ends, honestly."""
        if self.lost is not None:
            return
        why = why or "session"
        self.roles.end(why)
        self._attached = False
        self._keepalive_at = self._resend_at = inf
        for call in self._requests.waiting_calls():
            if call.needs is _ATTACHED:
                self._waiting.fail(call, outcomes.lost(call, why))
        self._log.end(why)
        self._requests.end_session()

    def _fail_unsent(self, error: CheckpointError, *, sessions_only: bool = False) -> None:
        log = self._log
        for call in (*log.queue, *log.staging.waiting, *self._requests.queries):
            if not call.uncertain and (not sessions_only or call.needs in (_COMMAND, _ATTACHED)):
                self._waiting.fail(call, copy_of(error, call))
        self._sweep()

    def _living(self) -> list[Call]:
        """Every call somebody waits for, each once."""
        calls = [*self._log.waiting_calls(), *self._requests.waiting_calls()]
        return [call for call in calls if not call.done]

    def _expire(self) -> None:
        """Fail the calls whose deadline has come."""

        def error(call: Call) -> CheckpointError:
            reached = self._link >= Link.GREETED or self._reached_at >= call.started
            return outcomes.at_deadline(call, reached=reached, where=self.where())

        self._waiting.expire(self._living(), self._now, error)
        self._sweep()

    def _sweep(self) -> None:
        self._log.sweep()
        self._requests.sweep()
