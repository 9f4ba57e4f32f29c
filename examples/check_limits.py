"""Checks a run of `placet admit --format json` against the facts, without any code of Placet's.

usage: check_limits.py FACTS_YAML [OUTPUT_JSONL]   (standard input by default)

Reads the answers in order and keeps its own list of what each signed permit charges, and when: from
its start, which may lie ahead, to its end, a release, the confirm deadline if it was never
confirmed, or the second by which it is evicted. Each permit is held against the hard limit of every
account, against the limit that the decision itself names, and against the quotas of cohorts, over
its whole interval; evictions against the rule in the decision that orders them. At the end the
whole run is gone through once more, second by second, by what was really held. Exit 1 at the first
breach.
"""

import base64
import heapq
import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import yaml

ENDLESS = float("inf")


@dataclass
class Node:
    """An account in a tree: its quota, what it may borrow, what it lends, and to whom."""

    nominal: int
    borrowing: float
    lending: float
    cohort: str | None
    members: list = field(default_factory=list)


class Facts:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            facts = yaml.safe_load(file)
        self.limits, self.patterns, self.tree = {}, [], {}
        for cluster in facts.get("clusters") or []:
            for pool in cluster["gpus"]:
                self.limits[f"cluster/{cluster['id']}/gpu/{pool['model']}"] = pool["count"] * 1000
            self.limits[f"cluster/{cluster['id']}/fabric-gbps"] = cluster["fabric_gbps"]
        quotas = facts.get("quotas") or []
        cohorts = {quota["cohort"] for quota in quotas if "cohort" in quota}
        for quota in quotas:
            account, limit = quota["account"], quota["limit"]
            if "cohort" in quota or account in cohorts:
                borrowing = quota.get("borrowing_limit", ENDLESS)
                lending = quota.get("lending_limit", ENDLESS)
                self.tree[account] = Node(limit, borrowing, lending, quota.get("cohort"))
            else:
                path = re.escape(account).replace(re.escape("{month}"), r"\d{4}-\d{2}")
                self.patterns.append((re.compile(path), limit))
        for account, node in self.tree.items():
            if node.cohort:
                self.tree[node.cohort].members.append(account)

    def hard_limit(self, account):
        """Of an account outside of trees: milli-GPUs, Gbit/s or GPU-seconds."""
        if account not in self.limits:
            found = [limit for pattern, limit in self.patterns if pattern.fullmatch(account)]
            assert found, f"no fact limits account {account}"
            self.limits[account] = min(found)
        return self.limits[account]

    def lends(self, account):
        return min(self.quota(account), self.tree[account].lending)

    def quota(self, account):
        """Its nominal quota, and what its members lend."""
        node = self.tree[account]
        return node.nominal + sum(self.lends(member) for member in node.members)

    def family(self, account):
        """All accounts of its tree, members before their cohort."""
        while self.tree[account].cohort:
            account = self.tree[account].cohort
        order = [account]
        for one in order:
            order += self.tree[one].members
        return order[::-1]

    def check_tree(self, family, use):
        """Kueue's rule at one second: `use` is what is charged to each account itself."""
        total = dict.fromkeys(family, 0)
        for account in family:
            total[account] += use.get(account, 0)
            node, quota = self.tree[account], self.quota(account)
            most = quota + node.borrowing if node.cohort else quota
            assert total[account] <= most, f"{account}: {total[account]} is above {most}"
            if node.cohort:
                total[node.cohort] += max(0, total[account] - (quota - self.lends(account)))
        return total


@dataclass
class Held:
    """A reservation. `over` is when it ended, `why` how, `evicted` by whom."""

    id: str
    decision: dict
    start: int
    end: int
    levels: dict
    confirmed: bool = False
    over: int | None = None
    why: str | None = None
    evicted: str | None = None
    preemptor: str | None = None


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def steps(changes):
    """From (time, change) to (time, sum) for each time at which it changes."""
    by_time, total = Counter(), 0
    for time, change in changes:
        by_time[time] += change
    for time in sorted(by_time):
        total += by_time[time]
        yield time, total


class Run:
    def __init__(self, facts):
        self.facts = facts
        self.budgets, self.peak, self.counts, self.codes = (
            Counter(),
            Counter(),
            Counter(),
            Counter(),
        )
        self.held, self.live, self.due = {}, defaultdict(dict), []
        self.denials, self.seen, self.evictions = [], set(), []

    def read(self, lines):
        number = 0
        for number, line in enumerate(lines, 1):
            try:
                self.answer(json.loads(line))
            except (AssertionError, KeyError) as error:
                raise AssertionError(f"line {number}: {error!r}") from error
        self.pass_time(ENDLESS)
        self.second_by_second()
        return number

    def answer(self, answer):
        if "error" in answer:
            self.counts["ERROR"] += 1
            self.counts[answer["error"]["code"]] += 1
            return
        if answer["request_id"] in self.seen:  # a retry gets its first answer again
            return
        self.seen.add(answer["request_id"])
        self.pass_time(answer["time"])
        if "token" in answer:
            self.counts[answer["effect"]] += 1
            self.admit(answer)
        else:
            self.settle(answer)

    def admit(self, answer):
        decision = claims_of(answer["token"])
        assert decision["effect"] == answer["effect"], "the answer and its token disagree"
        codes = {reason["code"] for reason in decision["reasons"]}
        self.codes.update(codes)
        if decision["effect"] != "PERMIT":
            self.denials.append((decision, codes))
            return
        grant, victims = decision["reservation"], decision.get("evictions", [])
        assert grant["id"] not in self.held, f"reservation {grant['id']} was given twice"
        assert grant["start"] >= decision["iat"], "it begins before it was decided"
        levels = {c["account"]: c["amount"] for c in grant["charges"] if c["kind"] == "level"}
        held = Held(grant["id"], decision, grant["start"], grant["end"], levels)
        for victim in victims:
            self.check_eviction(decision, grant, victim)
            self.held[victim["reservation"]].preemptor = held.id
        self.held[held.id] = held
        for account in levels:
            self.live[account][held.id] = held
        heapq.heappush(self.due, (held.end, held.id, "ended"))
        heapq.heappush(self.due, (grant["confirm_by"], held.id, "unconfirmed"))
        for charge in grant["charges"]:
            self.check_charge(charge, held)

    def check_eviction(self, decision, grant, victim):
        rule, by = decision["preemption"], victim["evict_by"]
        loser = self.held[victim["reservation"]]
        assert loser.over is None and loser.confirmed, f"victim {loser.id} is not active"
        assert loser.preemptor is None, f"victim {loser.id} was told to go already"
        assert (
            by == grant["start"] == decision["iat"] + rule["grace_seconds"]
        ), "not after its grace"
        assert loser.start + rule["min_runtime_seconds"] <= by, f"victim {loser.id} is too young"
        assert loser.decision["priority_class"] in rule["victim_classes"], "a protected class"
        assert len(decision["evictions"]) <= rule["max_victims"], "too many victims"

    def check_charge(self, charge, held):
        account = charge["account"]
        if charge["kind"] == "budget":
            self.budgets[account] += charge["amount"]
            use = self.budgets[account]
        elif account in self.facts.tree:
            family = self.facts.family(account)
            use = self.check_family(account, family, {one: self.use(one, held) for one in family})
        else:
            use = max(use for _, use in self.use(account, held))
        self.peak[account] = max(self.peak[account], use)
        limits = [charge["limit"]]
        if account not in self.facts.tree:
            limits.append(self.facts.hard_limit(account))
        for limit in limits:
            assert use <= limit, f"{account}: {use} is above {limit}"

    def check_family(self, wanted, family, uses):
        """Holds a tree to its quotas at each of its changes; the highest use of one account."""
        now, most = {}, 0
        changes = sorted((time, one, use) for one in family for time, use in uses[one])
        for at, (time, one, use) in enumerate(changes):
            now[one] = use
            if at + 1 == len(changes) or changes[at + 1][0] > time:
                total = self.facts.check_tree(family, now)
                most = max(most, total[wanted]) if wanted else 0
        return most

    def use(self, account, during):
        """Its steps within the interval of a reservation, as things stand."""
        plain, shared = [(during.start, 0)], defaultdict(list)
        for one in self.live[account].values():
            start, end = max(one.start, during.start), min(one.end, during.end)
            if start >= end:
                continue
            # Until a preemptor is confirmed, it and its victims hold the room of the larger side.
            group = one.preemptor or (one.id if one.decision.get("evictions") else None)
            if group and not self.held[group].confirmed:
                shared[group].append((start, end, one.levels[account], one.preemptor is None))
            else:
                plain += [(start, one.levels[account]), (end, -one.levels[account])]
        for parts in shared.values():
            times = sorted({time for start, end, _, _ in parts for time in (start, end)})
            before = 0
            for time in times:
                sides = [0, 0]
                for start, end, amount, preempts in parts:
                    sides[preempts] += amount if start <= time < end else 0
                plain.append((time, max(sides) - before))
                before = max(sides)
        return [step for step in steps(plain) if step[0] < during.end]

    def settle(self, answer):
        state = answer["state"]
        self.counts[state] += 1
        held = self.held.get(answer["reservation_id"])
        if state == "ACTIVE":
            assert held.over is None, f"reservation {held.id} was confirmed after it ended"
            held.confirmed = True
            for victim in held.decision.get("evictions", []):
                loser = self.held[victim["reservation"]]
                if loser.over is None:
                    loser.evicted, loser.end = held.id, min(loser.end, victim["evict_by"])
                    heapq.heappush(self.due, (loser.end, loser.id, "evicted"))
        elif state == "RELEASED" and held.over is None:
            stale = held.evicted and answer["epoch"] == held.decision["reservation"]["epoch"]
            assert not stale, f"reservation {held.id} was released under an epoch that is over"
            self.end(held, answer["time"], "released")

    def pass_time(self, now):
        while self.due and self.due[0][0] <= now:
            time, name, why = heapq.heappop(self.due)
            held = self.held[name]
            if held.over is None and not (why == "unconfirmed" and held.confirmed):
                self.end(held, time, "evicted" if held.evicted and time == held.end else why)

    def end(self, held, time, why):
        held.over, held.why = time, why
        grant = held.decision["reservation"]
        for charge in grant["charges"]:
            if charge["kind"] == "level":
                del self.live[charge["account"]][held.id]
                continue
            back = charge["amount"]
            if held.confirmed:
                # What was used stays used; the rest, rounded down, is refunded.
                left = max(0, grant["end"] - max(time, grant["start"]))
                back = back * left // (grant["end"] - grant["start"])
            self.budgets[charge["account"]] -= back
        if not held.confirmed:
            for victim in held.decision.get("evictions", []):
                self.held[victim["reservation"]].preemptor = None
        if why == "evicted":
            self.evictions.append(held)

    def history(self, account, only=lambda held: True):
        """What was really held of a level account: (time, use) at each change."""
        changes = []
        for one in self.held.values():
            if account in one.levels and one.over > one.start and only(one):
                changes += [(one.start, one.levels[account]), (one.over, -one.levels[account])]
        return list(steps(changes))

    def second_by_second(self):
        accounts = sorted({account for one in self.held.values() for account in one.levels})
        for account in accounts:
            for time, use in [] if account in self.facts.tree else self.history(account):
                limit = self.facts.hard_limit(account)
                assert use <= limit, f"at {time} {account}: {use} is above {limit}"
        for root in [one for one, node in self.facts.tree.items() if not node.cohort]:
            family = self.facts.family(root)
            self.check_family(None, family, {one: self.history(one) for one in family})


def main():
    facts, *source = sys.argv[1:]
    run = Run(Facts(facts))
    try:
        with open(source[0], encoding="utf-8") if source else sys.stdin as lines:
            number = run.read(lines)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    for account, most in sorted(run.peak.items()):
        in_tree = account in run.facts.tree
        limit = run.facts.quota(account) if in_tree else run.facts.hard_limit(account)
        word = "  of its own quota" if in_tree else ""
        share = f"{most / limit:6.1%}" if limit else ""
        print(f"{account:50} {most:>16} of {limit:>16}  {share}{word}")
    ahead = sum(one.start > one.decision["iat"] for one in run.held.values())
    orders = sum(len(one.decision.get("evictions", [])) for one in run.held.values())
    if ahead or orders:
        print(
            f"{ahead} begin after their decision; {orders} eviction orders, {len(run.evictions)} evicted"
        )
    counts, codes = dict(run.counts), dict(run.codes)
    print(f"{number} answers: {counts}; denials by code: {codes}; no limit exceeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
