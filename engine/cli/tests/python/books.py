"""The auditor's own model of what is held: a number for every second of every account, and trees of quotas.

It shares neither code nor method with the engine, which keeps the changes of a level in a radix tree. Counting every
second by itself is only for leases of seconds, as the crash test asks for them.
"""

import collections

# Longest interval in seconds that is followed second by second.
LONGEST = 3_600
# What "no bound" is where an amount is written (2^53 - 1).
UNBOUNDED = 2**53 - 1


class Node:
    """An account in a tree of quotas."""

    def __init__(self, own):
        self.own = own
        self.cohort = own.get("cohort")
        self.members = []
        self.quota = self.kept = self.limit = 0


def forest(owns):
    """The trees of such nodes: by account, with what each may hold and what it keeps for itself.

    The quota of an account is its own and what its members lend; a member lends its quota, at most its lending limit.
    It may hold its quota and its borrowing limit, without one as much as there is; a root holds its quota.
    """
    nodes = {own["account"]: Node(own) for own in owns}
    for node in nodes.values():
        if node.cohort is not None:
            nodes[node.cohort].members.append(node)

    def work_out(node):
        node.quota = node.own["nominal"]
        for member in node.members:
            work_out(member)
            node.quota += member.quota - member.kept
        lending, borrowing = node.own.get("lending_limit"), node.own.get("borrowing_limit")
        node.kept = 0 if lending is None else max(0, node.quota - lending)
        node.limit = node.quota if node.cohort is None else UNBOUNDED if borrowing is None else node.quota + borrowing

    for node in nodes.values():
        if node.cohort is None:
            work_out(node)
    return nodes


class Books:
    """Who holds what, at every second from now on."""

    def __init__(self):
        self.live = {}
        self.use = collections.defaultdict(collections.Counter)
        self.spent, self.budgets = collections.Counter(), set()
        self.trees = {}

    # --- What is held ---

    def victims(self, held):
        """Those that a reservation waits for: told to go, and not yet gone or cut."""
        return [self.live[name] for name in held["waits_for"]]

    def hold(self, held):
        """Enters a reservation. Until it is confirmed, one that waits for others shares the larger of both claims
        with them: what it needs beyond the rest of their intervals."""
        held["rows"] = []
        waits_for = self.victims(held)
        for term in held["terms"]:
            for charge in levels(term["charges"]):
                for second in range(term["start"], min(term["end"], held["until"])):
                    amount = max(0, charge["amount"] - rest(waits_for, charge["account"], second))
                    self.use[charge["account"]][second] += amount
                    held["rows"].append((charge["account"], second, amount))

    def go_on(self, held, term):
        """A reservation has one more stretch of time, with charges of its own."""
        self.let_go(held)
        held["terms"].append(term)
        held["end"] = held["until"] = term["end"]
        self.hold(held)
        self.spend(term["charges"])

    def let_go(self, held):
        for account, second, amount in held.pop("rows"):
            self.use[account][second] -= amount

    def end(self, held):
        """Takes a reservation off the books. Whoever waits for it takes over its room; whoever it told to go stays.
        What runs inside it is over too, in the same second."""
        self.let_go(held)
        del self.live[held["id"]]
        for job in self.live.values():
            if job["lease_id"] == held["id"]:
                job["lease_over"] = held["over"]
        for victim in held["waits_for"]:
            self.live[victim]["told_by"] = None
        waiting = self.live.get(held["told_by"])
        if waiting is not None and held["id"] in waiting["waits_for"]:
            waiting["waits_for"].remove(held["id"])
            self.let_go(waiting)
            self.hold(waiting)

    def cut(self, held):
        """A reservation is confirmed: those that it waited for end when it begins, and are in their next epoch."""
        self.let_go(held)
        for victim in self.victims(held):
            self.let_go(victim)
            victim["until"], victim["cut"], victim["epoch"] = held["start"], True, victim["epoch"] + 1
            self.hold(victim)
        held["waits_for"] = []
        self.hold(held)

    # --- How much fits ---

    def total(self, account, second):
        """What is charged to an account, and what flows up to it: use above what its members keep."""
        node = self.trees.get(account)
        total = self.use[account][second]
        for member in node.members if node is not None else ():
            total += max(0, self.total(member.own["account"], second) - member.kept)
        return total

    def above(self, account):
        """The accounts above one in its tree."""
        node = self.trees.get(account)
        while node is not None and node.cohort is not None:
            node = self.trees[node.cohort]
            yield node

    def obstacle(self, charge, second, needed, left):
        """Where so much more does not fit at a second: the account, what it would hold, and what it may."""
        account, limit = charge["account"], charge["limit"]
        total = self.total(account, second)
        if total + needed - left > limit:
            return account, total + needed - left, limit
        node, flow = self.trees.get(account), needed
        for cohort in self.above(account):
            flow = max(0, total + flow - node.kept) - max(0, total - node.kept)
            node, total = cohort, self.total(cohort.own["account"], second)
            if flow > 0 and total + flow > node.limit:
                return node.own["account"], total + flow, node.limit
        return None

    def room(self, account, second):
        """How much more of an account fits at a second as far as its tree goes; its own limit is left out."""
        node = self.trees.get(account)
        if node is None or node.cohort is None:
            return UNBOUNDED
        kept = max(0, node.kept - self.total(account, second))
        cohort = self.trees[node.cohort]
        free = cohort.limit - self.total(node.cohort, second)
        return kept + max(0, min(free, self.room(node.cohort, second)))

    def peak(self, account, start, stop):
        return max(self.total(account, second) for second in range(start, stop))

    def fits(self, charges, start, stop, victims=()):
        """Whether all charges fit over an interval from which victims are gone."""
        return not self.misfits(charges, start, stop, victims, one_is_enough=True)

    def misfits(self, charges, start, stop, victims=(), one_is_enough=False):
        """The charges that do not fit over an interval from which victims are gone, each with an obstacle: the account
        itself if it is one at any second, otherwise the first above it."""
        found, added = [], []
        for charge in charges:
            if found and one_is_enough:
                break
            if charge["kind"] == "budget":
                spent = self.spent[charge["account"]]
                if spent + charge["amount"] > charge["limit"]:
                    found.append((charge, (charge["account"], spent + charge["amount"], charge["limit"])))
                continue
            rows, obstacles = [], []
            for second in range(start, stop):
                leaves = rest(victims, charge["account"], second)
                needed, left = max(0, charge["amount"] - leaves), max(0, leaves - charge["amount"])
                rows.append((second, needed))
                obstacle = self.obstacle(charge, second, needed, left)
                if obstacle is not None:
                    obstacles.append(obstacle)
                    # Nothing is nearer than the account itself.
                    if one_is_enough or obstacle[0] == charge["account"]:
                        break
            own = (obstacle for obstacle in obstacles if obstacle[0] == charge["account"])
            if obstacles:
                found.append((charge, next(own, obstacles[0])))
            else:
                # Those after it may share a tree with it.
                self.use[charge["account"]].update(dict(rows))
                added.append((charge["account"], rows))
        for account, rows in added:
            self.use[account].subtract(dict(rows))
        return found

    def spend(self, charges, sign=1):
        for charge in charges:
            if charge["kind"] == "budget":
                self.budgets.add(charge["account"])
                self.spent[charge["account"]] += sign * charge["amount"]


def levels(charges):
    return [charge for charge in charges if charge["kind"] == "level"]


def rest(held, account, second):
    """What some reservations hold of an account at a second if nobody cuts them."""
    return sum(
        charge["amount"]
        for one in held
        for term in one["terms"]
        if term["start"] <= second < term["end"]
        for charge in term["charges"]
        if charge["account"] == account
    )
