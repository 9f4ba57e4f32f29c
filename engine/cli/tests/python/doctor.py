"""Shows that the auditor finds what it is there to find: doctors copies of a good run, one lie in each.

usage: doctor.py RUN

RUN is a folder of the crash test: `placet.db`, `records/`, `keys/`. A lie goes as deep as its author could make it go:
leaves are written anew, the tree is built anew over them, and tokens are signed anew with the server's own key, so
that each lie is left to the one check that can tell. Prints a line for each; exit 1 if one was not found, if the run
as it is was not found good, or if one of the auditor's codes has no lie of its own.
"""

import base64
import collections
import contextlib
import copy
import hashlib
import json
import pathlib
import re
import shutil
import sqlite3
import sys
import tempfile

import audit
from cryptography.hazmat.primitives.serialization import load_der_private_key

LIES = []


def lie(*codes):
    """Registers a lie, with the codes of which the auditor must find all."""
    return lambda tell: LIES.append((tell.__name__.replace("_", " "), set(codes), tell))


class Run:
    """A copy of the run, open for doctoring."""

    def __init__(self, source, folder):
        self.folder = pathlib.Path(folder)
        shutil.copytree(source, self.folder, dirs_exist_ok=True)
        self.path = self.folder / "placet.db"
        self.store = sqlite3.connect(self.path)
        # A copy that is thrown away need not reach the disk.
        self.store.execute("PRAGMA synchronous = OFF")
        rows = self.store.execute("SELECT leaf FROM leaves ORDER BY position").fetchall()
        self.leaves = [json.loads(leaf) for (leaf,) in rows]
        self.written = copy.deepcopy(self.leaves)
        self.records = {
            path: [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted((self.folder / "records").glob("*.jsonl"))
        }
        self.key = load_der_private_key((self.folder / "keys/signing-key.pkcs8").read_bytes(), None)

    def events(self, kind):
        return [(position, leaf["event"]) for position, leaf in enumerate(self.leaves) if leaf["event"]["kind"] == kind]

    def claims(self, position):
        return json.loads(audit.unpadded(self.leaves[position]["event"]["token"].split(".")[1]))

    def decisions(self, effect):
        return [p for p, _ in self.events("decision") if self.claims(p)["effect"] == effect]

    def permits(self, confirmed):
        """Positions of permits, and the names of their reservations."""
        named = {event["reservation"] for _, event in self.events("confirmation")}
        grants = [(p, self.claims(p)["reservation"]) for p in self.decisions("PERMIT")]
        return [(p, grant["id"]) for p, grant in grants if (grant["id"] in named) == confirmed]

    def sign(self, position, change, tell_clients=True):
        """Changes a decision's claims and signs them anew; as if the clients had been answered with them."""
        event = self.leaves[position]["event"]
        old, claims = event["token"], self.claims(position)
        change(claims)
        payload = base64.urlsafe_b64encode(audit.canonical(claims)).decode().rstrip("=")
        signed = f"{old.split('.')[0]}.{payload}"
        signature = base64.urlsafe_b64encode(self.key.sign(signed.encode())).decode().rstrip("=")
        event["token"] = f"{signed}.{signature}"
        if tell_clients:
            for line in self.lines():
                if line.get("token") == old:
                    line["token"] = event["token"]

    def lines(self):
        return (line for lines in self.records.values() for line in lines)

    def answers(self, kind):
        return [line for line in self.lines() if line.get("answer") == kind]

    def forget(self, position):
        """Puts a leaf of no consequence in the place of another, so that the others keep their positions."""
        digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
        self.leaves[position]["event"] = {"kind": "facts_activation", "digest": digest, "revision": ""}
        for table in ("requests", "evidence", "personal"):
            self.store.execute(f"DELETE FROM {table} WHERE position = ?", (position,))

    def append(self, event):
        (time,) = self.store.execute("SELECT high_water FROM meta").fetchone()
        self.leaves.append({"event": event, "time": time, "v": 1})
        return len(self.leaves) - 1

    def save(self):
        """Writes everything back, and the tree anew if the leaves are others."""
        if self.leaves != self.written:
            self.store.execute("DELETE FROM leaves")
            self.store.execute("DELETE FROM tree")
            leaves = list(map(audit.canonical, self.leaves))
            self.store.executemany("INSERT INTO leaves VALUES (?, ?)", enumerate(leaves))
            self.store.executemany("INSERT INTO tree VALUES (?, ?)", enumerate(row(leaves)))
        self.store.commit()
        self.store.close()
        for path, lines in self.records.items():
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def row(leaves):
    """The stored hashes: the subtree that ends with leaf `n` and has 2^k leaves, wherever 2^k divides `n + 1`."""
    levels = collections.defaultdict(list)
    for number, leaf in enumerate(leaves, 1):
        level, node = 0, hashlib.sha256(b"\0" + leaf).digest()
        yield node
        levels[0].append(node)
        while number % (2 << level) == 0:
            left, right = levels[level][-2:]
            node = hashlib.sha256(b"\1" + left + right).digest()
            level += 1
            levels[level].append(node)
            yield node


# --- Lies of the store ------------------------------------------------------------------------------------------


@lie("GAP", "TREE")
def a_leaf_is_removed(run):
    run.store.execute("DELETE FROM leaves WHERE position = ?", (len(run.leaves) // 2,))


@lie("LOST")
def the_log_is_cut_off(run):
    last = max(line["position"] for line in run.answers("decision"))
    del run.leaves[last:]
    for table in ("requests", "evidence", "personal"):
        run.store.execute(f"DELETE FROM {table} WHERE position >= ?", (last,))


@lie("TREE")
def a_stored_hash_is_another(run):
    run.store.execute("UPDATE tree SET hash = zeroblob(32) WHERE number = 5")


@lie("FILE")
def a_row_breaks_the_rule_of_its_table(run):
    run.store.execute("PRAGMA ignore_check_constraints = ON")
    run.store.execute("UPDATE leaves SET leaf = zeroblob(70000) WHERE position = 3")


@lie("LEAF")
def an_event_is_of_an_unknown_kind(run):
    run.append({"kind": "grace"})


@lie("TIME")
def a_leaf_is_older_than_the_one_before(run):
    run.leaves[-1]["time"] = run.leaves[0]["time"] - 1


@lie("TABLE")
def a_request_is_missing_in_its_table(run):
    run.store.execute("DELETE FROM requests WHERE position = ?", (run.decisions("PERMIT")[0],))


@lie("EVIDENCE")
def an_input_is_changed(run):
    run.store.execute("UPDATE evidence SET input = x'7b7d' WHERE position = ?", (run.decisions("PERMIT")[0],))


# --- Lies of the decisions --------------------------------------------------------------------------------------


@lie("SIGNATURE", "CHANGED")
def a_token_differs_in_one_byte(run):
    event = run.leaves[run.decisions("PERMIT")[3]]["event"]
    middle = len(event["token"]) - 40
    other = "A" if event["token"][middle] != "A" else "B"
    event["token"] = event["token"][:middle] + other + event["token"][middle + 1 :]


@lie("CHANGED")
def a_decision_is_another_than_the_client_got(run):
    run.sign(run.decisions("DENY")[3], lambda claims: claims["reasons"][0].update(hint="wait"), tell_clients=False)


@lie("DOUBLED")
def a_request_is_decided_twice(run):
    first = run.decisions("DENY")[0]
    again = run.append(copy.deepcopy(run.leaves[first]["event"]))
    run.sign(again, lambda claims: claims.update(iat=run.leaves[again]["time"]), tell_clients=False)


@lie("DOUBLED")
def a_reservation_is_given_to_two_requests(run):
    (first, name), (second, _) = run.permits(confirmed=True)[:2]
    run.sign(second, lambda claims: claims["reservation"].update(id=name))


@lie("UNASKED")
def a_decision_is_on_a_request_that_nobody_sent(run):
    again = run.append(copy.deepcopy(run.leaves[run.decisions("DENY")[0]]["event"]))
    change = {"iat": run.leaves[again]["time"], "request_id": "nobody-1"}
    run.sign(again, lambda claims: claims.update(change), tell_clients=False)


@lie("LOST")
def a_decision_is_forgotten(run):
    run.forget(run.decisions("DENY")[5])


@lie("CLAIMS")
def a_permit_is_larger_than_what_was_asked(run):
    run.sign(run.decisions("PERMIT")[4], lambda claims: claims["workload"].update(gpu_count=9))


@lie("CLAIMS")
def a_permit_charges_less_than_it_gives(run):
    def change(claims):
        claims["reservation"]["charges"][0]["amount"] -= 1

    run.sign(run.decisions("PERMIT")[4], change)


@lie("DENIAL")
def a_denial_says_that_more_was_free(run):
    def change(claims):
        for reason in claims["reasons"]:
            reason["message"] = re.sub(r"free \d+", "free 123456", reason["message"])

    full = [p for p in run.decisions("DENY") if any(audit.ROOM.match(r["message"]) for r in run.claims(p)["reasons"])]
    run.sign(full[2], change)


@lie("LIMIT")
def more_is_admitted_than_the_decision_says_there_is(run):
    def change(claims):
        for charge in claims["reservation"]["charges"]:
            charge["limit"] = charge["amount"] - 1

    run.sign(run.decisions("PERMIT")[6], change)


@lie("LIMIT")
def more_is_admitted_under_a_forged_limit(run):
    def change(claims):
        for charge in claims["reservation"]["charges"]:
            charge["amount"] += 10**9
            charge["limit"] += 10**9

    run.sign(run.decisions("PERMIT")[6], change)


@lie("LIMIT")
def the_true_limit_was_lower(run):
    (limits,) = [line["limits"] for line in run.lines() if line.get("event") == "limits"]
    charge = run.claims(run.decisions("PERMIT")[0])["reservation"]["charges"][0]
    limits[charge["account"]] = charge["amount"] - 1


# --- Lies of what became of reservations ------------------------------------------------------------------------


@lie("REFUND", "CHANGED")
def a_refund_is_one_more(run):
    position = next(p for p, event in run.events("release") if event["refunds"])
    run.leaves[position]["event"]["refunds"][0]["amount"] += 1


@lie("REFUND")
def an_expiry_refunds_nothing(run):
    position = next(p for p, event in run.events("expiry") if event["refunds"])
    run.leaves[position]["event"]["refunds"] = []


@lie("EXPIRY")
def an_expiry_is_forgotten(run):
    run.forget(run.events("expiry")[0][0])


@lie("EXPIRY")
def an_expiry_is_of_another_cause(run):
    event = run.events("expiry")[0][1]
    event["cause"] = "ended" if event["cause"] == "unconfirmed" else "unconfirmed"


@lie("DEADLINE")
def a_confirmation_comes_after_the_deadline(run):
    name = next(event["reservation"] for _, event in run.events("expiry") if event["cause"] == "unconfirmed")
    run.append({"kind": "confirmation", "caller": "loopback", "epoch": 1, "reservation": name})


@lie("LOST")
def a_confirmation_is_forgotten(run):
    told = {line["reservation_id"] for line in run.answers("settlement") if line["state"] == "ACTIVE"}
    run.forget(next(p for p, event in run.events("confirmation") if event["reservation"] in told))


@lie("LOST")
def a_release_is_forgotten(run):
    told = {line["reservation_id"] for line in run.answers("settlement") if line["state"] == "RELEASED"}
    run.forget(next(p for p, event in run.events("release") if event["reservation"] in told))


@lie("SETTLED")
def a_reservation_is_released_twice(run):
    run.append(copy.deepcopy(run.events("release")[0][1]))


@lie("SETTLED")
def a_reservation_is_confirmed_in_another_epoch(run):
    run.events("confirmation")[0][1]["epoch"] = 2


# --- Lies of the records: what a broken server would have told its clients --------------------------------------


@lie("CHANGED")
def a_retry_got_another_token(run):
    again = dict(run.answers("decision")[7])
    again["token"] = again["token"][:-1] + ("A" if again["token"][-1] != "A" else "Q")
    lines = next(lines for lines in run.records.values() if any(line.get("answer") == "decision" for line in lines))
    lines.append(dict(again, cycle=99))


@lie("LOST")
def an_answer_is_not_in_the_log(run):
    answer = run.answers("decision")[7]
    ask = next(line for line in run.lines() if "ask" in line and line["request_id"] == answer["request_id"])
    lines = next(iter(run.records.values()))
    lines += [dict(ask, request_id="gone-1"), dict(answer, request_id="gone-1")]


@lie("CHANGED")
def a_client_was_told_of_another_refund(run):
    line = next(line for line in run.answers("settlement") if line["refunded_gpu_seconds"] > 0)
    line["refunded_gpu_seconds"] += 1


@lie("CHANGED")
def a_client_was_told_of_a_denial_that_was_none(run):
    line = next(line for line in run.answers("settlement") if line["state"] == "NOT_RESERVED")
    line["time"] += 1


@lie("REFUSED")
def a_client_was_refused_without_reason(run):
    line = next(line for line in run.answers("settlement") if line["state"] == "ACTIVE")
    line.update(answer="error", status=9, code="STALE_EPOCH")


@lie("OPEN")
def a_client_was_never_answered(run):
    gone = run.answers("decision")[7]["request_id"]
    for lines in run.records.values():
        lines[:] = [line for line in lines if line.get("request_id") != gone or "ask" in line]


@lie("UNASKED")
def a_client_was_answered_what_it_never_asked(run):
    gone = run.answers("settlement")[7]["request_id"]
    for lines in run.records.values():
        lines[:] = [line for line in lines if line.get("request_id") != gone or "answer" in line]


def codes_of(path, records):
    return collections.Counter(finding.split(" ")[0] for finding in audit.audit_store(path, records).findings)


def main():
    (source,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        # The store as one file: what a killed server left in the write-ahead log is taken into it.
        clean = pathlib.Path(folder) / "clean"
        run = Run(source, clean)
        run.save()
        good = codes_of(run.path, clean / "records")
        print(f"{'as it is':55} {'good' if not good else dict(good)}")
        missed = bool(good)
        for number, (name, codes, tell) in enumerate(LIES):
            run = Run(clean, pathlib.Path(folder) / str(number))
            with contextlib.closing(run.store):
                tell(run)
                run.save()
            found = codes_of(run.path, run.folder / "records")
            caught = codes <= set(found)
            missed |= not caught
            print(f"{name:55} {'found' if caught else 'MISSED'}: {dict(found)}")
            shutil.rmtree(run.folder)
    known = set(re.findall(r"^  ([A-Z]+)  ", audit.__doc__, re.MULTILINE))
    without = known - set().union(*(codes for _, codes, _ in LIES))
    if without or not known:
        print(f"codes without a lie: {sorted(without)}")
    print(f"{len(LIES)} lies")
    return 1 if missed or without or not known else 0


if __name__ == "__main__":
    sys.exit(main())
