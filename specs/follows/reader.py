"""Plays the reader and its claims: reader.pml, handover.pml, and the worker of gap.pml."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator

from specs.follows.delivered import FIRST, Claim, Consumer, Key, Transaction, closed, normal
from specs.follows.record import Log, Refused, Step, snapshot
from specs.follows.report import Report
from specs.follows.writers import Writers

_WINDOW = ("seen", "floor_id", "floor_xid", "target", "ceiling_id", "last_id")


class Reader:
    """Plays reader.pml and handover.pml, and Worker of gap.pml."""

    def __init__(self, log: Log, writers: Writers, report: Report, not_once: set[str]) -> None:
        self.log, self.writers, self.report = log, writers, report
        self._not_once = not_once
        self.consumers: dict[str, Consumer] = {}
        self.stored: dict[Key, Step] = {}
        """``position[]`` of the models: committed."""
        self.replaced: dict[Key, list[tuple[int, Step]]] = defaultdict(list)
        """Positions that were stored before, each with the time at which its successor was known to be committed."""
        self.doubt: dict[Key, list[Transaction]] = defaultdict(list)
        """Transactions whose COMMIT was sent, without an outcome yet, by the shards whose positions they store."""
        self.last: dict[Key, Transaction] = {}
        """The transaction that claimed the shard last."""
        self.committed: dict[Key, Transaction] = {}
        """The transaction that committed with this claim last."""
        self.open: dict[tuple[str, int], Transaction] = {}
        """Transactions, by process and number."""
        self._windows: dict[tuple[Key, int, str, str], list[int]] = {}

    def consumer(self, name: str) -> Consumer:
        """Return the consumer of this name."""
        if name not in self.consumers:
            self.consumers[name] = Consumer(self.log, self.writers, name not in self._not_once)
        return self.consumers[name]

    def claim(self, process: str, step: Step) -> None:
        """``claim[shard] = me``, and the position is copied."""
        key, position = (step["consumer"], step["shard"]), normal(step["position"])
        name = (process, step["tx"])
        transaction = self.open.setdefault(name, Transaction(process))
        transaction.is_outdated |= not self._is_stored(key, transaction, position, step)
        before = self.last.get(key)
        if before and before.process != process and before.outcome != "committed" and key in before.claims:
            self.report.seen["takeovers"] += before.claims[key].ids is not None
        if step["lost"] > position["lost"] and (span := self.writers.untold.around(step["t0"], step["t"])):
            raise Refused(
                "gap: no_silent_loss: hc_signals_lost",
                f"a loss is counted while {span.what}, which has lost a change, is open",
            )
        if not transaction.is_outdated:
            self.last[key] = transaction
        transaction.claims[key] = Claim(
            key=key,
            shards=step["shards"],
            at=step["t"],
            standing=position,
            is_new=step["position"] is None,
            layout=step["layout"],
            newest_id=step["newest_id"],
            lost=step["lost"],
            position=position,
        )

    def _is_stored(self, key: Key, own: Transaction | None, position: Step, step: Step) -> bool:
        """Return whether the position that was read under the claim is the stored one.

        A worker may be frozen while it reads. The server then ends its session, and another worker stores a position.
        So a position may also be one that was replaced since the read began; then the transaction must not commit.
        """
        if own and ((key in own.claims and own.claims[key].stored) or own.forgotten):
            return True  # its own position, uncommitted; or there is none any more
        began = step["t0"]
        for transaction in [each for each in self.doubt[key] if each is not own and not each.outcome]:
            stored = transaction.claims[key].stored if key in transaction.claims else None
            if stored == position or (stored is None and transaction.forgotten and step["position"] is None):
                self._commit(transaction, step["t"])
            elif transaction.sent_at is None or transaction.sent_at < began:
                self._undo(transaction)
        now = self.stored.get(key, FIRST)
        if now == position:
            return True
        if any(until >= began and each == position for until, each in self.replaced[key]):
            return False
        different = [name for name in FIRST if now[name] != position[name]]
        raise Refused(
            "handover: nothing_twice: copy_position",
            "the position that was read under the claim is not the stored one: "
            + ", ".join(f"{name} {position[name]} for {now[name]}" for name in different),
        )

    def _claimed(self, process: str, step: Step, what: str) -> tuple[Transaction, Claim]:
        transaction = self.open.get((process, step["tx"]))
        claim = transaction.claims.get((step["consumer"], step["shard"])) if transaction else None
        if transaction is None or claim is None or transaction.sent_at is not None:
            rule = "handover: layout_stays: append_position" if what == "stored" else "handover: nothing_twice: claim"
            raise Refused(rule, f"a position or page of shard {step['shard']} is {what} without the claim")
        return transaction, claim

    def window_opens(self, process: str, step: Step) -> None:
        """``take_snapshot()`` and ``open_window()`` of reader.pml."""
        transaction, claim = self._claimed(process, step, "read")
        position, standing = normal(step["position"]), claim.standing
        if standing["target"] is not None:
            raise Refused("reader: nothing_twice: open_window", "a window is opened while one is open")
        seen, target = snapshot(standing["seen"]), snapshot(position["target"])
        if position["seen"] != standing["seen"]:
            raise Refused("reader: nothing_lost: open_window", "the window does not begin at the stored `seen`")
        if target.xmax < seen.xmax or any(xid < seen.xmax and xid not in seen.xip for xid in target.xip):
            raise Refused("reader: nothing_twice: take_snapshot", f"target {position['target']} is older than `seen`")
        if (xid := self.writers.missing_in(target, step["t0"])) is not None:
            raise Refused("reader: others_never_delay: take_snapshot", f"the target lacks transaction {xid}, committed")
        ids = self.log.between(seen, target)
        if ids and ids[-1] > position["ceiling_id"]:
            raise Refused("reader: nothing_lost: ceiling_id", f"change {ids[-1]} is above {position['ceiling_id']}")
        lowest = self.log.lowest_from(position["next_floor_xid"])
        if position["next_floor_xid"] < target.xmax or (lowest is not None and lowest <= position["next_floor_id"]):
            raise Refused(
                "reader: nothing_lost: next_floor_xid",
                f"change {lowest} is not above the floor {position['next_floor_id']}, though its transaction is not "
                f"below {position['next_floor_xid']}",
            )
        late = [xid for xid in self.log.open_at(seen, standing["floor_xid"]) if target.shows(xid)]
        first = min([standing["floor_id"], *(self.log.of_xid[xid][0] - 1 for xid in late)])
        if position["last_id"] != first:
            raise Refused(
                "reader: nothing_lost: find_first_id",
                f"the first page begins behind {position['last_id']}, and the window begins behind {first}",
            )
        claim.position, claim.is_opened = position, True
        transaction.target = transaction.target or position

    def page(self, process: str, step: Step) -> None:
        """``find_next_row()`` of reader.pml, ``read_page()`` of handover.pml."""
        _, claim = self._claimed(process, step, "read")
        position = normal(step["position"])
        if claim.layout not in (None, step["shards"]):
            raise Refused(
                "handover: nothing_twice: refused",
                f"a page of {step['shards']} shards is read, and the consumer has {claim.layout}",
            )
        if wrong := [name for name in _WINDOW if position[name] != claim.position[name]]:
            raise Refused(
                "reader: nothing_lost: is_next",
                f"the page is read with another {wrong[0]} than that of the open window: {position[wrong[0]]} for "
                f"{claim.position[wrong[0]]}",
            )
        ids, window = step["ids"], self._window(claim)
        first = bisect_right(window, position["last_id"])
        expected = window[first : first + len(ids)]
        if ids != expected:
            self._explain(ids, expected, position)
        if not step["more"] and first + len(ids) < len(window):
            raise Refused("reader: nothing_lost: find_next_row", f"change {window[first + len(ids)]} is missing")
        claim.ids, claim.has_more = ids, step["more"]

    def _window(self, claim: Claim) -> list[int]:
        position = claim.position
        name = (claim.key, claim.shards, position["seen"], position["target"])
        if name not in self._windows:
            for other in [other for other in self._windows if other[0] == claim.key]:
                del self._windows[other]
            ids = self.log.between(snapshot(position["seen"]), snapshot(position["target"]))
            self._windows[name] = [number for number in ids if self.log.shard(number, claim.shards) == claim.key[1]]
        return self._windows[name]

    def _explain(self, ids: list[int], expected: list[int], position: Step) -> None:
        if missing := sorted({*expected} - {*ids}):
            raise Refused(
                "reader: nothing_lost: find_next_row",
                f"change {missing[0]} is missing: it is visible in the target and not in `seen`",
            )
        if extra := sorted({*ids} - {*expected}):
            raise Refused(
                "reader: nothing_twice: find_next_row",
                f"change {extra[0]} is in the page, and not in the window {position['seen']} to {position['target']}",
            )
        raise Refused("reader: order_per_record: find_next_row", f"the page has the order {ids}")

    def gap(self, process: str, step: Step) -> None:
        """``send_gap()`` of gap.pml."""
        _, claim = self._claimed(process, step, "read")
        claim.gaps += 1
        self.report.seen["gaps"] += 1

    def store(self, process: str, step: Step) -> None:
        """``append_position()`` of handover.pml."""
        transaction, claim = self._claimed(process, step, "stored")
        position = normal(step["position"])
        is_first = claim.key[1] == 0 and claim.layout and not transaction.left
        if is_first and position["lost"] > claim.standing["lost"] and not claim.gaps:
            raise Refused("gap: no_silent_loss: send_gap", "losses are stored as reported, and no gap was sent")
        reported = transaction.left["lost"] if transaction.left else claim.standing["lost"]
        if position["lost"] not in (reported, reported if transaction.left else claim.lost):
            raise Refused("gap: no_silent_loss: hc_signals_lost", f"{position['lost']} losses are stored")
        if not self._may_store(transaction, claim, {**position, "lost": 0}):
            is_closed = claim.ids is not None and not claim.has_more and position["target"] is None
            raise Refused(
                "reader: nothing_lost: close_window" if is_closed else "handover: nothing_lost: append_position",
                f"the stored position is not the one behind the delivered changes: {step['position']}",
            )
        claim.stored = position

    def _may_store(self, transaction: Transaction, claim: Claim, new: Step) -> bool:
        now = {**claim.position, "lost": 0}
        if transaction.left is not None:  # step_of_reshard(): the common position
            return new == {**transaction.left, "lost": 0}
        if claim.is_new and claim.layout is None:  # start()
            return new == {**FIRST, "lost": 0} or (claim.is_opened and new == {**closed(now), "lost": 0})
        if claim.ids is None:  # before the page: the same, or _open_common_window()
            common = {name: (transaction.target or now)[name] for name in now if name.startswith(("target", "next_"))}
            common["ceiling_id"] = (transaction.target or now)["ceiling_id"]
            return new == now or (claim.is_opened and new == {**now, **common})
        if not claim.has_more and new == {**closed(now), "lost": 0}:
            return True
        return new["last_id"] in (now["last_id"], *claim.ids) and new == {**now, "last_id": new["last_id"]}

    def forget(self, process: str, step: Step) -> None:
        """``layout = TO`` of handover.pml: all shards are at one snapshot, and their claims are held."""
        transaction = self.open.get((process, step["tx"]))
        claims = transaction.claims if transaction else {}
        old = [claims.get((step["consumer"], shard)) for shard in range(step["shards"])]
        if transaction is None or None in old:
            raise Refused("handover: nothing_twice: step_of_reshard", "the layout is left without every claim")
        standings = [claim.standing for claim in old if claim]
        if any(each["target"] for each in standings) or len({each["seen"] for each in standings}) > 1:
            raise Refused("handover: nothing_lost: step_of_reshard", "the shards are not at one snapshot")
        transaction.forgotten, transaction.left = step["shards"], standings[0]
        self.report.seen["changes of the layout"] += 1

    def commit_sent(self, process: str, step: Step) -> None:
        """A worker has sent COMMIT: what it wrote and its position count together, or not at all."""
        transaction = self.open[process, step["tx"]]
        for claim in transaction.claims.values():
            if claim.ids and claim.stored is None:
                raise Refused(
                    "handover: nothing_twice: commit_effects", f"changes of shard {claim.key[1]} without a position"
                )
        transaction.sent_at = step["t"]
        for key, claim in transaction.claims.items():
            if claim.stored or transaction.forgotten:
                self.doubt[key].append(transaction)
                self.consumer(key[0]).sent.update(self._done(claim))

    def ended(self, process: str, step: Step) -> None:
        """The outcome of a transaction is known to its worker, or stays unknown."""
        transaction = self.open.pop((process, step["tx"]), None)
        if transaction is None or (step["how"] == "unknown" and transaction.sent_at is not None):
            return
        how = "committed" if step["how"] == "committed" else "undone"
        if transaction.outcome and transaction.outcome != how:
            raise Refused(
                "handover: nothing_twice: claim",
                f"the transaction is {how}, and the next owner of the claim found it {transaction.outcome}",
            )
        if how == "undone":
            self._undo(transaction)
            return
        for key, claim in transaction.claims.items():
            before = self.committed.get(key)
            if before and (before.sent_at or 0) > claim.at and (transaction.sent_at or 0) > before.claims[key].at:
                raise Refused(
                    "handover: nothing_twice: claim",
                    f"{process} and {before.process} have committed with claims of shard {key[1]} at one time",
                )
            self.committed[key] = transaction
        if not transaction.outcome:
            self._commit(transaction, step["t"])

    def _done(self, claim: Claim) -> list[int]:
        if claim.ids is None or claim.stored is None:
            return []
        last = claim.stored["last_id"] if claim.stored["target"] else None
        return claim.ids if last is None else claim.ids[: bisect_right(claim.ids, last)]

    def _leave_doubt(self, transaction: Transaction, outcome: str) -> None:
        transaction.outcome = outcome
        for key, claim in transaction.claims.items():
            if transaction in self.doubt[key]:
                self.doubt[key] = [each for each in self.doubt[key] if each is not transaction]
                self.consumer(key[0]).sent.subtract(self._done(claim))

    def _undo(self, transaction: Transaction) -> None:
        self._leave_doubt(transaction, "undone")

    def _commit(self, transaction: Transaction, at: int) -> None:
        """Everything that the transaction did counts. That it is committed is known since ``at``."""
        if transaction.is_outdated and any(claim.stored for claim in transaction.claims.values()):
            raise Refused(
                "handover: nothing_twice: copy_position",
                f"{transaction.process} commits what it did after a position that was not the stored one any more",
            )
        self._leave_doubt(transaction, "committed")
        if transaction.forgotten:
            names = {name for name, _ in transaction.claims}
            for key in [key for key in self.stored if key[0] in names]:
                self.replaced[key].append((at, self.stored.pop(key)))
        for key, claim in transaction.claims.items():
            if claim.stored:
                self.replaced[key] = [*self.replaced[key][-99:], (at, self.stored.get(key, FIRST))]
                self.stored[key] = claim.stored
            consumer, done = self.consumer(key[0]), self._done(claim)
            if done:
                self.report.seen["late commits"] += sum(number <= claim.standing["floor_id"] for number in done)
                self.report.changes += len(done)
                consumer.deliver(done)

    def end(self, steps: Iterable[Step]) -> Iterator[tuple[str, Refused]]:
        """Compare with the positions at the end, and yield the consumers that have not got every change."""
        for step in steps:
            if step["step"] == "position":
                try:
                    key = step["consumer"], step["shard"]
                    self._is_stored(key, None, normal(step["position"]), {**step, "t0": step["t"]})
                except Refused as refused:
                    yield step["consumer"], refused
        for name, consumer in self.consumers.items():
            if missing := self.log.record.keys() - consumer.delivered.keys():
                yield name, Refused("reader: nothing_lost: end", f"change {min(missing)} was never delivered")
