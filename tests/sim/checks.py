"""What must hold in every world, checked while it runs, from the outside and inside the disks.

Black box: one leader per term, committed entries never change, equal index means equal state, an
acknowledged write stays, a refused one never appears, each value has at most one effect, reads are
linearizable. White box, on a shadow of what each simulated disk really holds: an ack, a vote and a
vote request leave only after what they promise is durable; what is committed is durable on a
majority; the log a node restarts with is the one it had synced.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from raftckpt.raft import messages
from raftckpt.raft.configuration import Configuration
from raftckpt.raft.messages import PeerMessage

Entry = tuple[bytes, int, int]


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


@dataclass
class DurableLog:
    """What the disk of one node holds for certain: updated when a sync returned."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    snapshot: int = 0
    snapshot_term: int = 0
    term: int = 0
    vote: str | None = None

    @property
    def last(self) -> int:
        return self.entries[-1][1] if self.entries else self.snapshot

    def term_at(self, index: int) -> int | None:
        """Term of the entry at ``index``; None: not held (or only as part of the snapshot)."""
        if not self.entries:
            return None
        position = index - self.entries[0][1]
        if 0 <= position < len(self.entries):
            return self.entries[position][2]
        return None

    def holds(self, index: int, term: int) -> bool:
        held = self.term_at(index)
        return held == term if held is not None else index <= self.snapshot

    def update(self, journal: Sequence[Entry]) -> list[tuple[Entry, int]]:
        """Follow the journal; return the entries that are new, each with the term before it.

        Entries are immutable and change only from the end (or all at once), so that one object in
        common says that everything before it is common too.
        """
        if not journal:
            self.entries.clear()
            return []
        shadow = self.entries
        if shadow and journal[0][1] > shadow[0][1]:
            del shadow[: journal[0][1] - shadow[0][1]]
        if shadow and shadow[0][1] != journal[0][1]:
            shadow.clear()
        del shadow[len(journal) :]
        while shadow and shadow[-1] is not journal[len(shadow) - 1]:
            shadow.pop()
        known = len(shadow)
        shadow.extend(journal[known:])
        return [
            (entry, journal[i - 1][2] if i > 0 else -1)
            for i, entry in enumerate(shadow[known:], known)
        ]


class Checks:
    """The memory of one world."""

    def __init__(self) -> None:
        self.disks: dict[str, DurableLog] = {}
        """By directory id; a disk that was lost stays: what it held when it acknowledged counts."""
        self._former: dict[str, list[DurableLog]] = {}
        """What disks held that went back in time."""
        self._founded: dict[str, set[str]] = {}
        """By founding: directories that follow it."""
        self._founders: dict[str, frozenset[str]] = {}
        self.sometimes: Counter[str] = Counter()
        self.committed = 0
        """Highest index that any node ever considered committed."""
        self.committed_terms: dict[int, int] = {}
        self._committed_in: dict[int, int] = {}
        """Term whose leader committed -> highest index it did."""
        self._began_with: dict[int, int] = {}
        """Term -> last entry of former terms that its leader began with."""
        self.floor = 0
        """Every linearizable read that begins now must see at least this index."""
        self._entries: dict[tuple[int, int], tuple[int, int]] = {}
        self._applied: dict[int, tuple[int, int, int]] = {}
        self._value_at: dict[bytes, int] = {}
        self._leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], str] = {}
        self.refused: set[bytes] = set()
        self.acknowledged: dict[bytes, int] = {}
        self.unknown: set[bytes] = set()
        self.reads = 0
        self.violation: Violation | None = None
        """The first one; kept here as well, because the node under test may catch what we raise."""

    def expect(self, condition: bool, invariant: str, *detail: object) -> None:
        """Raise (and remember) a violation of ``invariant`` unless ``condition`` holds."""
        if not condition:
            self.fail(invariant, *detail)

    def fail(self, invariant: str, *detail: object) -> None:
        violation = Violation(invariant, " ".join(map(str, detail)))
        self.violation = self.violation or violation
        raise violation

    # --- logs and disks ---------------------------------------------------------------------
    def synced(
        self,
        name: str,
        journal: Sequence[Entry],
        term: int,
        vote: str | None,
        snapshot: tuple[int, int],
    ) -> None:
        """A sync of ``name`` returned: everything in its journal is durable."""
        disk = self.disks[name]
        if journal and snapshot[0] == disk.snapshot:
            self._truncated(name, journal)
        fresh = disk.update(journal)
        for (payload, index, entry_term), former in fresh:
            if former < 0:
                continue  # the first entry kept may stand for one that only a snapshot knows
            mark = (zlib.crc32(payload), former)
            known = self._entries.setdefault((index, entry_term), mark)
            self.expect(
                known == mark,
                "log matching",
                f"{name} holds another entry {index} of term {entry_term}: {known} {mark}",
            )
        self.expect(term >= disk.term, "terms grow", name, disk.term, "->", term)
        self.expect(
            term > disk.term or disk.vote in (None, vote),
            "one vote per term",
            f"{name} replaced its vote for {disk.vote} by {vote} in term {term}",
        )
        disk.term, disk.vote = term, vote
        disk.snapshot, disk.snapshot_term = snapshot

    def _truncated(self, name: str, journal: Sequence[Entry]) -> None:
        """Look at what the coming update cuts off."""
        disk = self.disks[name]
        last = journal[-1][1]
        cut = disk.term_at(last + 1)
        if cut is not None:
            self.sometimes["truncations of a tail"] += 1
            self.expect(
                cut != self.committed_terms.get(last + 1),
                "a committed entry stays on the disk",
                f"{name} cut its log back to {last}; {last + 1} of term {cut} is committed",
            )

    def restarted(
        self, name: str, journal: Sequence[Entry], term: int, vote: str | None, snapshot: int
    ) -> None:
        """``name`` opened its disk: everything that was synced is there."""
        disk = self.disks[name]
        self.expect(term >= disk.term, "durable term", name, "had", disk.term, "has", term)
        if term == disk.term and disk.vote is not None:
            self.expect(vote == disk.vote, "durable vote", name, "had", disk.vote, "has", vote)
        self.expect(snapshot >= disk.snapshot, "durable snapshot", name, disk.snapshot, snapshot)
        held = {index: entry_term for _, index, entry_term in journal}
        changed = max(snapshot, journal[0][1] if journal else 0)
        for _, index, entry_term in disk.entries:
            if index > changed and held.get(index) != entry_term:
                # a truncation that was under way may have reached the disk: then what it cut was
                # not committed, and the rest of the old tail is gone as well
                self.expect(
                    self.committed_terms.get(index) != entry_term,
                    "durable entries",
                    f"{name} lost the synced entry {index} of term {entry_term}",
                )

    def founded(self, configuration: Configuration, directory: str) -> None:
        """``directory`` follows a founding; what a majority follows, no majority leaves.

        One that is alone with its founding is harmless: a host that had its name twice.
        """
        followers = self._founded.setdefault(configuration.founding, set())
        followers.add(directory)
        if configuration.base == 0:
            self._founders.setdefault(configuration.founding, configuration.voters)
        able = [
            founding for founding, voters in self._founders.items()
            if len(voters & self._founded[founding]) > len(voters) // 2
        ]  # fmt: skip
        self.expect(len(able) <= 1, "one founding", directory, able)
        if len(self._founded) > 1:
            self.sometimes["a name was there twice at the founding"] += 1

    def cut_off(self, founding: str) -> bool:
        """Whether no majority follows a founding that another one has the majority of."""
        most = max(self._founded.values(), key=len, default=set())
        return len(self._founded.get(founding, ())) < len(most)

    def opened(self, directory: str) -> None:
        """A data directory was opened, perhaps for the first time."""
        self.disks.setdefault(directory, DurableLog(directory))

    def holds_all(self, directory: str) -> bool:
        """Whether the disk of ``directory`` reaches as far as anything was ever committed."""
        return directory in self.disks and self.disks[directory].last >= self.committed

    def outdated(self, term: int) -> bool:
        """Whether somebody leads a later term: what is appended in this one commits nowhere."""
        return any(later > term for later in self._leaders)

    def committed_on(self, index: int, term: int, voters: Iterable[str]) -> list[str]:
        """Those of the voters whose disks hold (or held, until they were lost) an entry."""
        return [n for n in sorted(voters) if any(d.holds(index, term) for d in self._disks_of(n))]

    def _disks_of(self, directory: str) -> list[DurableLog]:
        present = self.disks.get(directory)
        former = self._former.get(directory, [])
        return former if present is None else [*former, present]

    def set_back(self, directory: str) -> None:
        """The disk of ``directory`` went back in time: nothing is expected of it any more."""
        self._former.setdefault(directory, []).append(self.disks.pop(directory))

    def commit_moved(
        self, name: str, log: Sequence[Entry], commit: int, voters: frozenset[str]
    ) -> None:
        """``name`` considers everything up to ``commit`` committed; it counts ``voters``."""
        if not log:
            return
        for index in range(max(self.committed, log[0][1]) + 1, commit + 1):
            position = index - log[0][1]
            self.expect(position < len(log), "commit within the log", name, index, log[-1][1])
            term = log[position][2]
            holders = self.committed_on(index, term, voters)
            self.expect(
                len(holders) > len(voters) // 2,
                "committed => durable on a majority",
                f"{name} committed {index} of term {term}, on the disks of {holders} only",
            )
            self.committed_terms[index] = term
        first = log[0][1]
        for index in {commit, max(first, commit - 3)}:
            if first <= index <= log[-1][1] and index in self.committed_terms:
                self.expect(
                    log[index - first][2] == self.committed_terms[index],
                    "a committed entry never changes",
                    f"{name} has term {log[index - first][2]} at {index},",
                    f"committed was {self.committed_terms[index]}",
                )
        self.committed = max(self.committed, commit)

    def committed_by(self, name: str, term: int, commit: int) -> None:
        """``name`` leads ``term`` and committed everything up to ``commit``."""
        self._committed_in[term] = commit
        late = [t for t, last in self._began_with.items() if t > term and last < commit]
        self.expect(
            not late,
            "leader completeness",
            f"{name} committed {commit} in term {term}; the leaders of {late} began without it",
        )

    # --- messages ---------------------------------------------------------------------------
    def released(
        self, name: str, to: str, message: PeerMessage, leader_log: Sequence[Entry] | None
    ) -> None:
        """``message`` leaves ``name``; ``leader_log``: the log of ``to`` if it leads that term."""
        disk = self.disks[name]
        match message:
            case messages.VoteGrant(term=term):
                self.expect(
                    # a grant may leave after the next term began: then that is durable as well
                    disk.term > term or (disk.term == term and disk.vote == to),
                    "vote => durable before sent",
                    f"{name} votes for {to} in {term}; disk: {disk.vote} in {disk.term}",
                )
                self._vote(name, term, to)
            case messages.VoteRequest(term=term):
                self.expect(
                    disk.term > term or (disk.term == term and disk.vote == name),
                    "own vote => durable before asking",
                    f"{name} asks in {term}; disk: {disk.vote} in {disk.term}",
                )
                self._vote(name, term, name)
            case messages.Ack(success=True, next_index=next_index):
                index = next_index - 1
                if disk.term > message.term:
                    return  # a newer leader may have cut off again what was acknowledged
                self.expect(
                    disk.last >= index,
                    "acknowledged => on that disk",
                    f"{name} acknowledges {index} to {to}; its disk ends at {disk.last}",
                )
                self.expect(
                    disk.term >= message.term, "term => durable", name, message.term, disk.term
                )
                if leader_log and leader_log[0][1] <= index <= leader_log[-1][1]:
                    held = disk.term_at(index)
                    self.expect(
                        held is None or held == leader_log[index - leader_log[0][1]][2],
                        "acknowledged => matches the leader",
                        f"{name} acknowledges {index} of term {held} to {to}, which has",
                        leader_log[index - leader_log[0][1]][2],
                    )

    def _vote(self, name: str, term: int, candidate: str) -> None:
        known = self.votes.setdefault((name, term), candidate)
        self.expect(
            known == candidate,
            "one vote per term",
            f"{name} voted for {known} and for {candidate} in term {term}",
        )

    # --- roles ------------------------------------------------------------------------------
    def leads(self, name: str, incarnation: int, term: int, log: Sequence[Entry]) -> None:
        """``name`` leads ``term``."""
        who = f"{name}#{incarnation}"
        if term not in self._leaders:
            self.sometimes["elections"] += 1
            former = len(log)
            while former and log[former - 1][2] >= term:
                former -= 1
            self._began_with[term] = log[former - 1][1] if former else log[0][1]
            # votes of an old term may arrive late: such a leader owes nothing to later terms
            owed = max((i for t, i in self._committed_in.items() if t < term), default=0)
            if owed >= log[0][1]:
                position = owed - log[0][1]
                self.expect(
                    position < len(log)
                    and log[position][2] == self.committed_terms.get(owed, log[position][2]),
                    "leader completeness",
                    f"{name} leads {term} without the committed entry {owed}",
                )
        known = self._leaders.setdefault(term, who)
        self.expect(known == who, "one leader per term", f"{known} and {who} lead term {term}")

    # --- effects ----------------------------------------------------------------------------
    def applied(self, name: str, index: int, term: int, payload: bytes, chain: int) -> None:
        """``name`` applied an entry that is one unique value."""
        self.applied_entry(name, index, term, payload, chain)
        head = payload[:16]
        self.expect(head not in self.refused, "a refused write never appears", head)
        where = self._value_at.setdefault(head, index)
        self.expect(where == index, "at most one effect", head, "at", where, "and", index)

    def applied_entry(self, name: str, index: int, term: int, payload: bytes, chain: int) -> None:
        """``name`` applied an entry; ``chain`` sums up its whole history."""
        mark = (term, zlib.crc32(payload), chain)
        known = self._applied.setdefault(index, mark)
        self.expect(
            known == mark,
            "a committed entry never changes",
            f"{name} applied {mark} at {index}, another node {known}",
        )
        self.committed = max(self.committed, index)
        self.committed_terms.setdefault(index, term)

    def restored(self, name: str, index: int, chain: int) -> None:
        """``name`` replaced its state by an image as of ``index``."""
        known = self._applied.get(index)
        if known is None:  # a no-op: the state is that of the last entry that had an effect
            before = [i for i in self._applied if i <= index]
            known = self._applied[max(before)] if before else (0, 0, 0)
        self.expect(known[2] == chain, "equal index => equal state", name, index, known[2], chain)

    def acknowledge(
        self, name: str, head: bytes, index: int, term: int, voters: frozenset[str]
    ) -> None:
        """``name`` tells the client that its value is safe."""
        self.acknowledged_entry(name, index, term, voters)
        self.acknowledged[head] = index
        self.unknown.discard(head)

    def acknowledged_entry(self, name: str, index: int, term: int, voters: frozenset[str]) -> None:
        """``name`` answers for an entry."""
        holders = self.committed_on(index, term, voters)
        self.expect(
            len(holders) > len(voters) // 2,
            "acknowledged => durable on a majority",
            f"{name} acknowledges {index}, on the disks of {holders} only",
        )
        self.floor = max(self.floor, index)

    def read(self, name: str, began_floor: int, applied: int) -> None:
        """A confirmed read on ``name``, begun when the floor was ``began_floor``."""
        self.expect(
            applied >= began_floor,
            "linearizable reads",
            f"{name} answered as of {applied}, but {began_floor} was seen before it began",
        )
        self.reads += 1
        self.floor = max(self.floor, applied)

    def final(self, name: str, values: Sequence[bytes]) -> None:
        """After healing: nothing acknowledged is missing on ``name``."""
        present = set(values)
        self.expect(len(present) == len(values), "at most one effect", name, "holds duplicates")
        missing = [h for h in self.acknowledged if h not in present]
        self.expect(not missing, "acknowledged => present", name, "lacks", missing[:5])
        self.expect(not present & self.refused, "a refused write never appears", name)
