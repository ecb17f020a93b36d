"""The client without IO: sessions, retries, deadlines, replay. Drive it from any loop.

Inputs are method calls that carry the time; outputs are read off afterwards: the connection it
wants (:meth:`ClientCore.target`), bytes to send (:meth:`~ClientCore.data_to_send`), calls that are
done (:meth:`~ClientCore.take_completed`) and when to call :meth:`~ClientCore.tick` at the latest
(:meth:`~ClientCore.next_deadline`). Owns no socket, clock, thread or randomness.

Invariants:

* A command gets its number when it is first sent; numbers have no gaps. A command whose caller gave
  up is replaced on its next copy by a plug, a command that is refused but consumes the number: what
  was reported as not done is never done later, and what was reported as unknown is settled.
* On a connection commands are sent in the order of their numbers; after a reconnect everything
  unanswered is sent again first.
* While a number waits to be sent again, no new number is given out: it would only be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any, Final

from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Internal, Needs
from raftckpt.client.config import CoreConfig, Link
from raftckpt.client.endpoints import is_endpoint
from raftckpt.client.greeting import GreetingRefused, OurFounding, Welcome
from raftckpt.client.link import Contact
from raftckpt.client.peer import SOON_SECONDS
from raftckpt.client.pipeline import MOVE_REASONS, Pipeline
from raftckpt.client.roles import RoleInbox
from raftckpt.client.routing import Router
from raftckpt.client.window import Window
from raftckpt.errors import BadHandle, CheckpointError, InvalidParam, SaAisError
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError
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
_LINGERING_MAX: Final = 4


class ClientCore(Pipeline):
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
        super().__init__(config, jitter)
        self.router = Router(endpoints, jitter)
        self.session = 0
        self.ours = OurFounding()
        self.roles = RoleInbox()
        self.node = config.node
        """Node id this client counts as."""
        self.members: dict[str, str] = {}
        """Endpoints of the replicas by node id, as a replica or the cluster file told."""
        self._secret = secret
        self._numbers = 0
        self._number = 0
        self._endpoint = ""
        self._attempts: dict[int, Contact] = {}
        """Replicas are tried one beside the other, each soon after the one before. One that was
        welcomed leads; another one that said so has not answered yet.
        """
        self._beside_at = inf
        self._attaching_since = 0.0
        self._proven_at = inf
        """When the last sign of life that a leader answered was sent."""
        self._broke_at = inf
        """When the connection broke that the session was attached to."""
        self._replica = ""
        self._contact = Contact()
        self._connect_at = inf
        self._chosen = ""
        self._lingering: list[int] = []
        self._probing = False
        self._keepalive_at = inf
        self._greeting_errors: dict[str, CheckpointError] = {}
        self._wants_leader = False

    # --- outputs -----------------------------------------------------------------------------

    def target(self) -> tuple[int, str] | None:
        """Return (number, endpoint) of the connection that should exist, None for none now.

        A number that differs from the present connection's asks for a new one; the old one stays
        open, unread, as long as it is among those :meth:`wanted`.
        """
        if self._link is not Link.NONE:
            return self._number, self._endpoint
        if self._attempts:
            newest = self._attempts[max(self._attempts)]
            return newest.number, newest.endpoint
        return None

    def wanted(self) -> Mapping[int, str]:
        """Return the connections that should exist: the present one and those that linger.

        Closing one of these could end the session's grace before it is attached elsewhere.
        """
        wanted = dict.fromkeys(self._lingering, self._endpoint)
        for attempt in self._attempts.values():
            wanted[attempt.number] = attempt.endpoint
        if self._link is not Link.NONE:
            wanted[self._number] = self._endpoint
        return wanted

    def hears(self, number: int) -> bool:
        """Whether it is the present connection, or one that is being made."""
        return number == self._number or number in self._attempts

    def data_to_send(self, number: int | None = None) -> bytes:
        """Return the bytes to send on a connection, b"" if there are none.

        Arguments:
            number: which; None: the present one.
        """
        if self._link is Link.NONE and number is None and self._attempts:
            number = max(self._attempts)
        if number in self._attempts:
            return self._attempts[number].data_to_send()
        return self._take_outgoing() if number in (None, self._number) else b""

    def next_deadline(self) -> float:
        """Return the time at which :meth:`tick` must be called at the latest."""
        link = self._link
        deadline = self._deadline_hint
        if link is Link.READY:
            deadline = min(deadline, self._keepalive_at, self._resend_at, self._leave_at)
            if self._open:
                deadline = min(deadline, self._quiet_since + self.config.probe_after)
        elif link is Link.NONE:
            deadline = min(deadline, self._connect_at)
        else:
            deadline = min(deadline, self._link_deadline, self._resend_at)
        if link is not Link.READY:
            deadline = min(deadline, self._beside_at)
            for attempt in self._attempts.values():
                deadline = min(deadline, attempt.until)
        if self.roles.margin is not None and not self.roles.isolated:
            deadline = min(deadline, self.safe_until())
        return deadline

    def safe_until(self) -> float:
        """Return how long nobody else can be active, by our own clock (inf: there is no session).

        Until shortly before the time that the session has without a sign of life, or after its
        connection broke: a replica that lives may take that for our death. (With no grace at all
        it may do so at once, and only the fence is left.)
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
        if self._link is not Link.NONE or not self._attempts:
            return self._link
        return max(
            Link.GREETING if attempt.up else Link.CONNECTING for attempt in self._attempts.values()
        )

    @property
    def state(self) -> str:
        """In a word: "connected", "searching", "isolated" (components are suspended), "closed"."""
        if self._closed:
            return "closed"
        if self.roles.isolated:
            return "isolated"
        return "connected" if self._link >= Link.GREETED else "searching"

    @property
    def credentials(self) -> tuple[int, bytes]:
        """Number (0: none is open yet) and secret of the session."""
        return self.session, self._secret

    @property
    def endpoint(self) -> str:
        """Endpoint of the present or last connection."""
        return self._endpoint

    def where(self) -> str:
        """Describe the endpoints and what is known about them, for error messages."""
        problems = self.router.problems
        return "endpoints " + ", ".join(
            f"{endpoint}: {problems[endpoint]}" if endpoint in problems else endpoint
            for endpoint in self.router.endpoints
        )

    # --- inputs: calls -----------------------------------------------------------------------

    def start(self, call: Call, deadline: float, now: float) -> None:
        """Begin a call; it will be among the completed ones by ``deadline``, come what may."""
        self._now = now
        call.deadline = deadline
        call.started = now
        if deadline < self._deadline_hint:
            self._deadline_hint = deadline
        needs = call.needs
        if needs is _COMMAND:
            if self._refuse_at_once(call):
                return
            self._wants_session = True
            if call.stages is not None and not self._stage_fits(call):
                return
            self._commands.append(call)
        elif needs is Needs.BARRIER:
            self._start_barrier(call)
            return
        else:
            if needs is _ATTACHED:
                if self._refuse_at_once(call):
                    return
                self._wants_session = True
            elif self._closed:
                self._fail(call, BadHandle(f"{call.what}: the service is closed"))
                return
            if needs is not Needs.ANY and not call.local:
                self._wants_leader = True
            self._queries.append(call)
        if self._link >= Link.GREETED:
            self._pump()
        elif self._link is Link.NONE and self._connect_at == inf and not self._attempts:
            self._seek()

    def cancel(self, call: Call, now: float) -> None:
        """Give a call up: nobody waits for it. It may or may not happen."""
        self._now = now
        if not call.done:
            self._fail(call, outcomes.at_deadline(call, reached=True, where=self.where()))
            self._completed.pop()
        elif call.error is None:
            self._undo(call, call.value)
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
            self._fail(call, kind(error.message, definite=error.definite))
        self._commands.clear()
        self._queries.clear()
        self._later.clear()
        self._stage_waiting.clear()
        self._barriers.clear()
        self._forget_link()
        self._lingering.clear()
        self._drop_attempts()
        self._connect_at = inf

    def learn(self, members: Mapping[str, str]) -> None:
        """Note where replicas are: "host:port" by node id."""
        self.members = dict(sorted({**self.members, **members}.items()))
        self.router.learn(filter(is_endpoint, members.values()))

    # --- inputs: network and time ------------------------------------------------------------

    def connected(self, number: int, now: float) -> None:
        """The connection ``number`` is up."""
        attempt = self._attempts.get(number)
        if attempt is None or attempt.up:
            return
        self._now = now
        attempt.until = now + self._patience()
        attempt.greet(self.config.introduction)

    def connection_lost(self, number: int, why: str, now: float) -> None:
        """The connection ``number`` is gone, or could not be made."""
        self._now = now
        if number in self._lingering:
            self._lingering.remove(number)
            self._broke_at = min(self._broke_at, now)
        if number in self._attempts:
            self._attempt_failed(self._attempts[number], why)
        elif number == self._number and self._link is not Link.NONE:
            self._detach_link(why, gone=True)
            self._seek()

    def data_received(self, number: int, data: bytes, now: float) -> None:
        """Bytes arrived on connection ``number``. Malformed ones end the connection."""
        attempt = self._attempts.get(number)
        present = number == self._number and self._link is not Link.NONE
        if not present and attempt is None:
            return
        self._now = now
        contact = self._contact if attempt is None else attempt
        if present:
            self._quiet_since = now
            self._probing = False
        try:
            waits = contact.welcome is None
            messages = contact.receive(data)
            if waits and contact.welcome is not None:
                self._welcomed(contact, contact.welcome)
            for message in messages:
                if number != self._number or self._link is Link.NONE:
                    return
                self._take(message)
        except GreetingRefused as refusal:
            self._greeting_refused(contact, refusal)
            return
        except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
            why = f"protocol error: {error}"
            if number in self._attempts:
                self._attempt_failed(contact, why)
            elif number == self._number and self._link is not Link.NONE:
                self._fail_link(why)
            return
        if number != self._number or self._link is Link.NONE:
            return
        if self._leave_at < inf and not self._commands_in_flight():
            self._leave()
        elif self._commands or self._queries:
            self._pump()

    def tick(self, now: float) -> None:
        """Do what is due at ``now``."""
        self._now = now
        if now >= self._deadline_hint:
            self._expire()
        link = self._link
        if link is Link.READY:
            if now >= self._leave_at:
                self._leave()
                return
            if now >= self._resend_at:
                self._resend()
            if now >= self._keepalive_at:
                self._keepalive_at = now + self._keepalive_period
                self._send_keepalive()
            if self._open and now >= self._quiet_since + self.config.probe_after:
                self._silence()
        elif link is Link.NONE:
            if now >= self._connect_at:
                self._connect()
        else:
            if now >= self._resend_at:
                self._resend()
            if now >= self._link_deadline:
                if link is Link.GREETED:
                    self._detach_link("no leader is known to it")
                    self._seek()
                else:
                    self._fail_link("no answer in time")
        if self.roles.margin is not None and not self.roles.isolated and now >= self.safe_until():
            self.roles.isolate()
        if self._link is not Link.READY:
            for attempt in [item for item in self._attempts.values() if now >= item.until]:
                self._attempt_failed(attempt, "no answer in time")
            if now >= self._beside_at:
                self._beside_at = inf
                if self._busy():  # else there is a pause
                    self._try_next(beside=True)

    # --- connection --------------------------------------------------------------------------

    @property
    def _keepalive_period(self) -> float:
        timeout = self.config.session_timeout_ns / 1e9
        if self.roles.margin is None:
            return timeout / 3
        return max(timeout - self.roles.margin, 0.1 * timeout) / 4

    def _patience(self) -> float:
        return self.config.connect_timeout * 2.0 ** min(self.router.rounds, 3)

    def _needed(self) -> bool:
        return not self._closed and bool(
            (self.session and self.lost is None)
            or self._commands
            or self._queries
            or self._stage_waiting
        )

    def _seek(self) -> None:
        """Choose the next endpoint and connect to it, now or after a pause."""
        if not self._needed():
            self._connect_at = inf
            return
        held = next((item for item in self._attempts.values() if item.welcome is not None), None)
        if held is not None:
            self._adopt(held)
        elif self._connect_at == inf:
            self._try_next()

    def _try_next(self, *, beside: bool = False) -> None:
        """Try the next endpoint that is not being tried; between rounds there is a pause."""
        busy = self._busy()
        pause = 0.0
        for _ in self.router.endpoints:
            endpoint, wait = self.router.next()
            pause = max(pause, wait)
            if endpoint not in busy:
                if pause and not beside:
                    self._connect_at = self._now + pause
                    self._chosen = endpoint
                else:
                    self._attempt(endpoint)
                return

    def _busy(self) -> set[str]:
        """Endpoints that have been asked and have not answered yet."""
        busy = {attempt.endpoint for attempt in self._attempts.values()}
        if self._link is not Link.NONE:
            busy.add(self._endpoint)
        return busy

    def _connect(self) -> None:
        self._connect_at = inf
        if self._needed():
            self._attempt(self._chosen)

    def _attempt(self, endpoint: str) -> None:
        self._numbers += 1
        self._attempts[self._numbers] = Contact(
            self._numbers, endpoint, self._now + self._patience()
        )
        if len(self._attempts) < len(self.router.endpoints):
            self._beside_at = self._now + SOON_SECONDS

    def _attempt_failed(self, attempt: Contact, why: str) -> None:
        del self._attempts[attempt.number]
        self.router.problems[attempt.endpoint] = why
        self.ours.failed(attempt.endpoint)
        self._judge_ours()
        if self._link is Link.NONE:
            self._seek()

    def _drop_attempts(self) -> None:
        self._attempts.clear()
        self._beside_at = inf

    def _welcomed(self, attempt: Contact, welcome: Welcome) -> None:
        """A replica answered the greeting: is it one of ours, and the one to go on with?"""
        stranger = self.ours.stranger(attempt.endpoint, welcome)
        if stranger is not None:
            if not self.session:
                text = f"connect: {attempt.endpoint}: {stranger}"
                self._fail_unsent(InvalidParam(text, reason="founding"))
            self._attempt_failed(attempt, stranger)
        elif self._link is Link.NONE or (welcome.leads and self._link is Link.GREETED):
            self._adopt(attempt)
        elif welcome.leads:  # the other one may still answer; if not, this one is at hand
            attempt.until = inf
            until = self._attaching_since + self.config.connect_timeout
            self._link_deadline = min(self._link_deadline, max(self._now, until))
        else:
            del self._attempts[attempt.number]
            self._known_to(welcome)
            where = welcome.leader_at
            if where is not None and where not in self._busy():
                self.router.suggest(where)

    def _judge_ours(self) -> None:
        """Without a session neither of two clusters is used, until the one is no more."""
        if self.ours.gone(self.router.endpoints):
            self.ours = OurFounding()
            if self.session:
                self._lose_session("the cluster was founded anew")

    def _adopt(self, attempt: Contact) -> None:
        """Go on with this connection: it has been greeted."""
        if self._link is not Link.NONE:
            self._detach_link("another replica leads")
        del self._attempts[attempt.number]
        self._connect_at = inf
        self._number, self._endpoint = attempt.number, attempt.endpoint
        self._contact = attempt
        self._quiet_since = self._now
        self._probing = False
        self._link = Link.GREETED
        if attempt.welcome is not None:
            self._greeted(attempt.welcome)

    def _fail_link(self, why: str) -> None:
        self._detach_link(why)
        self._seek()

    def _detach_link(self, why: str, *, gone: bool = False) -> None:
        """Give the present connection up; what is open on it has to be sent again elsewhere.

        One that is not ``gone`` stays open if the session is, or may be, attached to it: an ATTACH
        that was not answered in time may have been carried out, and a close would then look like
        the client's death.
        """
        self.router.problems[self._endpoint] = why
        attaching = self._link is Link.ATTACHING and self.session
        if gone and self._attached:
            self._broke_at = min(self._broke_at, self._now)
        if (self._attached or attaching) and not gone:
            self._lingering.append(self._number)
            del self._lingering[1 : 1 - _LINGERING_MAX]  # the first may be the one that counts
        self._forget_link()

    def _forget_link(self) -> None:
        self._link = Link.NONE
        self._attached = False
        self._link_deadline = self._leave_at = self._keepalive_at = self._resend_at = inf
        self._probing = self._holding = False
        again: list[Call] = []
        for call in self._open.values():
            call.wire_id = 0
            if call.needs is _COMMAND:
                call.uncertain = True
            elif call.needs is Needs.INTERNAL or call.done:
                continue
            elif call.needs is Needs.LEADER_ONCE:
                self._fail(call, outcomes.interrupted(call, self.where()))
            else:
                call.uncertain = True
                again.append(call)
        self._queries.extendleft(reversed(again + self._later))
        self._later.clear()
        self._open.clear()
        self._open_queries = 0
        self._outgoing.clear()
        self._outgoing_bytes = 0

    def _leave(self) -> None:
        """This replica does not lead (any more): go where the leader is said to be."""
        self._detach_link("it does not lead")
        self._seek()

    def _leave_follower(self) -> None:
        if self._leader_needed() and self._link_deadline == inf:
            self._leave()

    def _silence(self) -> None:
        """Nothing was heard though something is open: probe, then suspect."""
        if self._probing:
            self._fail_link("it does not answer")
            return
        self._probing = True
        self._quiet_since = self._now
        self._send_keepalive()

    def _send_keepalive(self) -> None:
        message = ops.Keepalive(0) if self._attached else ops.ReplicaStatusRequest(0)
        kept_alive = partial(self._kept_alive, self._now)
        self._transmit(Internal("keepalive", message, kept_alive, self._keepalive_refused))

    def _kept_alive(self, sent_at: float, value: Any) -> None:
        self._made_progress()
        if self._attached:
            isolated = self.roles.isolated
            self._proven(sent_at)
            if isolated and not self.roles.isolated:
                self.roles.all_hold()
        if type(value) is dict:  # a replica's status
            value = [value.get("revision")]
        self._note_revision(value, 0)

    def _keepalive_refused(self, code: int, reason: str, detail: Any) -> None:
        if code == _BAD_HANDLE:
            self._lose_session(reason)
        elif reason in MOVE_REASONS:
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

    # --- handshake ---------------------------------------------------------------------------

    def _known_to(self, welcome: Welcome) -> None:
        """Learn what a greeting tells."""
        self._reached_at = self._now
        self._greeting_errors.clear()
        self.learn(welcome.endpoints)

    def _greeted(self, welcome: Welcome) -> None:
        self.router.problems.pop(self._endpoint, None)
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
        if where is not None and where not in self._busy():
            self._hint(where)
        elif where is not None and where != self._endpoint:
            self.router.problems[self._endpoint] = f"it follows {where}"
        else:
            self.router.problems[self._endpoint] = "it knows no leader"
        self._pump()

    def _hint(self, endpoint: str) -> None:
        """The leader is said to be at ``endpoint``: go there, if a leader is what we need."""
        self.router.suggest(endpoint)
        if self._leader_needed():
            self._leave()
        else:
            self._link_deadline = inf

    def _leader_needed(self) -> bool:
        return self._wants_leader or self._wants_session or bool(self.session)

    def _greeting_refused(self, attempt: Contact, refusal: GreetingRefused) -> None:
        error = refusal.error(Call("connect", Needs.ANY, None))
        error.message = f"{error.message} ({attempt.endpoint})"
        if refusal.code != _TRY_AGAIN:
            self._greeting_errors[attempt.endpoint] = error
            if all(item in self._greeting_errors for item in self.router.endpoints):
                # every replica says so: it will not get better by asking again
                self._fail_unsent(error)
        self._attempt_failed(attempt, error.message)

    def _reach_leader(self) -> None:
        """The replica leads: attach the session, open one, or go without."""
        if self.session and self.lost is None:
            self._begin_attaching()
            self._transmit(
                Internal(
                    "attach",
                    ops.Attach(0, self.session, self._secret),
                    self._attached_again,
                    self._attach_refused,
                )
            )
        elif self._wants_session and self.lost is None:
            self._open_session()
        else:
            self._become_ready()

    def _begin_attaching(self) -> None:
        self._link = Link.ATTACHING
        self._attaching_since = self._now
        self._link_deadline = self._now + self._patience()
        if len(self._busy()) < len(self.router.endpoints):
            self._beside_at = self._now + SOON_SECONDS

    def _open_session(self) -> None:
        self._begin_attaching()
        config = self.config
        message = ops.SessionOpen(
            0,
            0,
            0,
            self._secret,
            config.client_name,
            self.node or "",
            config.session_timeout_ns,
            config.disconnect_grace_ns,
        )
        self._transmit(
            Internal(
                "open a session",
                message,
                self._session_opened,
                self._session_refused,
            )
        )

    def _session_opened(self, value: Any) -> None:
        session = value[0]
        if type(session) is not int or session <= 0:
            raise FrameError("malformed session id")
        self.session = session
        self._attached = True
        self._proven(self._attaching_since)
        self._become_ready()

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
        self._wants_session = False
        self._fail_unsent(
            outcomes.refused(call, code, reason, detail, None, True), sessions_only=True
        )
        self._become_ready()

    def _become_ready(self) -> None:
        self._link = Link.READY
        self._link_deadline = inf
        self._quiet_since = self._now
        self._lingering.clear()
        self._drop_attempts()
        if self._attached:
            self._keepalive_at = self._now + self._keepalive_period
            self._resend()
        self._pump()

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

    # --- messages in -------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        kind = message[0]
        if kind in (_REPLY, _ACCEPTED):
            self._take_reply(kind, message)
        elif kind == _NOTICE:
            self._notice(message[1], message[2])
        else:
            raise FrameError(f"unknown kind of message {kind!r}")

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
                elif self._link is Link.GREETED and endpoint not in self._busy():
                    self._hint(endpoint)
        elif kind == "role":
            self.roles.put(value)
        elif kind == "session_lost" and self._attached:
            self._lose_session(str(value))
        # "going_away" and notices of later versions need no action: the close will come

    # --- session -----------------------------------------------------------------------------

    def _lose_session(self, why: str) -> None:
        """The cluster ended the session: everything that belongs to it ends, honestly."""
        if self.lost is not None:
            return
        self.lost = why or "session"
        self.roles.end(self.lost)
        self._attached = False
        self._wants_session = False
        self._holding = False
        self._keepalive_at = self._resend_at = inf
        for call in list(self._window.calls.values()):
            if call.accepted:
                error: CheckpointError = outcomes.lost(call, self.lost)
                self._refusals.setdefault(call.handle, error)
        for call in self._living():
            if call.needs in (_COMMAND, _ATTACHED, Needs.BARRIER):
                self._fail(call, outcomes.lost(call, self.lost))
        for wire_id, call in list(self._open.items()):
            if call.needs is _COMMAND:
                del self._open[wire_id]
        self._window = Window()
        self._barriers.clear()
        self._stage_waiting.clear()
        self._staged_bytes = 0
        self._sweep()
