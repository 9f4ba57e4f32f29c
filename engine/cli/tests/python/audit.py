"""Audits a store of Placet's against what its clients wrote down, without any code of Placet's.

usage: audit.py STORE RECORDS [--format human|json]

STORE is the SQLite file; a copy of it is read, so that even the write-ahead log of a killed server stays as it was.
RECORDS is a directory of JSONL files: `runner.jsonl` of whoever started and killed the server, one file for each
client. Everything is derived again from the leaves and the records: the tree, who held what and when, refunds,
expiries, and the arithmetic of denials. Exit 0 if nothing was found, 1 if something was, 2 if it could not be read.

A finding is `CODE position-or-request: what is wrong`. The codes:

  FILE       SQLite itself calls the file damaged
  GAP        a leaf is missing
  LEAF       a leaf is not canonical JSON of a known kind
  TREE       a stored hash is not that of the leaves
  TIME       time goes back
  SIGNATURE  a token does not verify with the keys that the server published
  CLAIMS     a token contradicts itself, its leaf or the request that it answers
  EVIDENCE   input or evaluation are not those of the digests in the token
  TABLE      the table of requests is not that of the leaves
  DOUBLED    a request was decided twice, or a reservation given twice
  SETTLED    a reservation was confirmed, released or expired that was not there or not in that state
  DEADLINE   a reservation was confirmed after its deadline
  EXPIRY     what was due did not expire, or expired at another time or for another cause
  REFUND     a refund is not what the rule gives
  LIMIT      an account held more than its limit
  DENIAL     a denial says that less was free than there was, or more
  LOST       a client's answer is not in the log
  CHANGED    a client was given two answers, or another than the log has
  UNASKED    the log has a decision that no client asked for
  REFUSED    a client was refused for a reason that the log contradicts
  OPEN       a request was never answered
"""

import argparse
import base64
import collections
import hashlib
import json
import pathlib
import re
import shutil
import sqlite3
import sys
import tempfile

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    Ed25519PublicKey = None

# `account X: asked A, free F of L`, as the ledger words a denial.
ROOM = re.compile(r"^account `([^`]+)`: asked (\d+), free (\d+) of (\d+)")
# Findings that are printed in full; a broken store has one for nearly every leaf.
SHOWN = 50


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Audit:
    """What was found, and what the log adds up to."""

    def __init__(self):
        self.findings = []
        self.counts = collections.Counter()
        self.codes = collections.Counter()
        self.peaks = {}
        self.limits, self.patterns, self.keys = {}, [], {}
        # By request id: claims and position; by reservation id: what is known of it.
        self.decisions, self.reservations = {}, {}
        # Live reservations alone, and budget use by account: the rest of the log need not be looked at again.
        self.live, self.spent, self.budgets = {}, collections.Counter(), set()
        # What clients asked, by request id, and the callers that the log names.
        self.asked, self.callers = {}, set()
        self.verified, self.root = 0, None

    def find(self, code, where, what):
        self.findings.append(f"{code} {where}: {what}")

    def hard_limit(self, account):
        if account not in self.limits:
            found = [limit for pattern, limit in self.patterns if pattern.fullmatch(account)]
            self.limits[account] = min(found) if found else None
        return self.limits[account]


# --- The records ------------------------------------------------------------------------------------------------


def read_records(audit, folder):
    """The lines of every client, and what the runner wrote down."""
    clients = []
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.name != "runner.jsonl":
            clients.append(lines)
            read_asks(audit, lines)
            continue
        for line in lines:
            read_runner(audit, line)
    return clients


def read_asks(audit, lines):
    for line in lines:
        if "ask" not in line:
            continue
        request = line["request_id"]
        audit.counts["asks"] += 1
        audit.counts["asks repeated"] += request in audit.asked
        audit.counts[f"asks by {line['via']}"] += 1
        if audit.asked.setdefault(request, line)["what"] != line["what"]:
            audit.find("CHANGED", request, "a client asked two things under one name")


def read_runner(audit, line):
    if line["event"] == "limits":
        for account, limit in line["limits"].items():
            pattern = re.escape(account).replace(re.escape("{month}"), r"\d{4}-\d{2}")
            audit.patterns.append((re.compile(pattern), limit))
    elif line["event"] == "ready":
        audit.counts["starts"] += 1
        for key in line["jwks"]["keys"]:
            known = audit.keys.setdefault(key["kid"], key["x"])
            if known != key["x"]:
                audit.find("SIGNATURE", key["kid"], "the server published another key under the same name")
    elif line["event"] == "kill":
        audit.counts["kills"] += 1
        audit.counts[f"kills: {line['phase']}"] += 1


# --- The log ----------------------------------------------------------------------------------------------------


def check_tree(audit, leaves, hashes):
    """RFC 6962 section 2.1: every complete subtree of the leaves, in the order of completion, is a stored hash."""
    row, peaks = [], []
    for leaf in leaves:
        peaks.append((1, hashlib.sha256(b"\0" + leaf).digest()))
        row.append(peaks[-1][1])
        while len(peaks) > 1 and peaks[-1][0] == peaks[-2][0]:
            (size, right), (_, left) = peaks.pop(), peaks.pop()
            peaks.append((2 * size, hashlib.sha256(b"\1" + left + right).digest()))
            row.append(peaks[-1][1])
    if row != hashes:
        different = [number for number, (ours, stored) in enumerate(zip(row, hashes)) if ours != stored]
        first = different[0] if different else min(len(row), len(hashes))
        audit.find("TREE", f"hash {first}", f"{len(row)} hashes follow from the leaves, {len(hashes)} are stored")
    root = peaks.pop()[1] if peaks else hashlib.sha256(b"").digest()
    while peaks:
        root = hashlib.sha256(b"\1" + peaks.pop()[1] + root).digest()
    return root.hex()


def parse(audit, position, raw):
    try:
        leaf = json.loads(raw)
        if canonical(leaf) != raw or leaf["v"] != 1 or set(leaf) != {"event", "time", "v"}:
            raise ValueError("it is not a canonical leaf of version 1")
        return leaf["time"], leaf["event"]
    except (ValueError, KeyError, TypeError) as error:
        audit.find("LEAF", position, error)
        return None


def claims_of(audit, position, token):
    """The claims of a token, verified if there is a library for it."""
    try:
        header, payload, signature = token.split(".")
        head = json.loads(unpadded(header))
        claims = json.loads(unpadded(payload))
    except ValueError as error:
        audit.find("CLAIMS", position, f"no token: {error}")
        return None
    if Ed25519PublicKey is not None:
        try:
            key = Ed25519PublicKey.from_public_bytes(unpadded(audit.keys[head["kid"]]))
            key.verify(unpadded(signature), f"{header}.{payload}".encode())
            audit.verified += 1
        except (InvalidSignature, KeyError, ValueError) as error:
            audit.find("SIGNATURE", position, f"{type(error).__name__} {error}")
    return claims


def fold(audit, leaves, high_water):
    """Goes through the log with a model of its own: lists of intervals."""
    now = 0
    for position, raw in enumerate(leaves):
        parsed = parse(audit, position, raw)
        if parsed is None:
            continue
        time, event = parsed
        if time < now:
            audit.find("TIME", position, f"{time} comes after {now}")
        now = max(now, time)
        kind = event.get("kind")
        audit.counts[f"leaves: {kind}"] += 1
        if kind == "expiry":
            expire(audit, position, time, event)
            continue
        overdue(audit, position, now)
        if kind == "decision":
            decide(audit, position, time, event)
        elif kind == "confirmation":
            confirm(audit, position, time, event)
        elif kind == "release":
            release(audit, position, time, event)
        elif (kind == "genesis") != (position == 0):
            audit.find("LEAF", position, "the log does not begin with its genesis, and only begin")
        elif kind not in ("genesis", "bundle_activation", "facts_activation"):
            audit.find("LEAF", position, f"this auditor does not know a `{kind}`")
    if high_water < now:
        audit.find("TIME", "the store", f"its time {high_water} is before that of the last leaf, {now}")
    overdue(audit, "the store", high_water)


def due(held):
    return held["confirm_by"] if held["confirmed"] is None else held["end"]


def overdue(audit, position, now):
    for name, held in list(audit.live.items()):
        if due(held) <= now:
            audit.find("EXPIRY", position, f"`{name}` was due at {due(held)} and is still held at {now}")
            end(audit, name, due(held), {})


def decide(audit, position, time, event):
    token = event["token"]
    claims = claims_of(audit, position, token)
    if claims is None:
        return
    request = (event["caller"], claims["request_id"])
    if request in audit.decisions:
        audit.find("DOUBLED", position, f"{request} was decided at {audit.decisions[request]['position']} too")
    audit.decisions[request] = {"position": position, "token": token, "claims": claims}
    grant = claims.get("reservation")
    audit.counts[claims["effect"]] += 1
    if claims["iat"] != time:
        audit.find("CLAIMS", position, f"decided at {claims['iat']}, logged at {time}")
    if (claims["effect"] == "PERMIT") != (grant is not None) or (grant is None) == (not claims["reasons"]):
        audit.find("CLAIMS", position, "effect, reasons and reservation contradict each other")
    if grant is None:
        audit.codes.update({reason["code"] for reason in claims["reasons"]})
        check_denial(audit, position, claims)
        return
    reserve(audit, position, claims, grant)


def check_denial(audit, position, claims):
    """Where a denial says how much was free, that much was: no reservation leaked when the server died."""
    what = audit.asked.get(claims["request_id"], {}).get("what")
    for reason in claims["reasons"]:
        room = ROOM.match(reason["message"])
        if room is None or what is None:
            continue
        account, (asked, free, limit) = room[1], map(int, room.groups()[1:])
        if account in audit.budgets:
            kind, use = "budget", audit.spent[account]
        else:
            kind, use = "level", peak(audit, account, claims["iat"], claims["iat"] + what["duration_seconds"])
        audit.counts[f"denials worked out again: {kind}"] += 1
        if free != max(0, limit - use) or asked <= free:
            audit.find("DENIAL", position, f"`{account}` with {use} of {limit} has not {free} free for {asked}")


def reserve(audit, position, claims, grant):
    name, start = grant["id"], grant["start"]
    if name in audit.reservations:
        audit.find("DOUBLED", position, f"reservation `{name}` was given at {audit.reservations[name]['position']} too")
        return
    if not claims["iat"] <= start < grant["end"] or not claims["iat"] < grant["confirm_by"] <= grant["end"]:
        audit.find("CLAIMS", position, "the reservation's times make no sense")
    held = dict(grant, position=position, tenant=claims["tenant_id"])
    held.update(confirmed=None, over=None, released=False, refunds={})
    audit.reservations[name] = audit.live[name] = held
    for charge in grant["charges"]:
        account = charge["account"]
        if charge["kind"] == "budget":
            audit.budgets.add(account)
            audit.spent[account] += charge["amount"]
            use = audit.spent[account]
        else:
            use = peak(audit, account, start, grant["end"])
        hard = audit.hard_limit(account)
        audit.peaks[account] = max(audit.peaks.get(account, 0), use)
        if hard is None:
            audit.find("LIMIT", position, f"nobody set a limit for `{account}`")
        elif use > min(charge["limit"], hard):
            audit.find("LIMIT", position, f"`{account}` has {use} of {min(charge['limit'], hard)}")


def peak(audit, account, start, stop):
    """The most that live reservations hold of a level account within an interval."""
    on = [
        (held["start"], held["end"], charge["amount"])
        for held in audit.live.values()
        for charge in held["charges"]
        if charge["account"] == account
    ]
    instants = {start} | {begin for begin, _, _ in on if start <= begin < stop}
    return max(sum(amount for begin, over, amount in on if begin <= at < over) for at in instants)


def settle(audit, position, time, event):
    """The live reservation that an event names."""
    held = audit.live.get(event["reservation"])
    if held is None:
        late = audit.reservations.get(event["reservation"])
        if event["kind"] == "confirmation" and late is not None and late["confirmed"] is None:
            audit.find("DEADLINE", position, f"`{late['id']}` is confirmed at {time}, not before {late['confirm_by']}")
            return None
        audit.find("SETTLED", position, f"`{event['reservation']}` is not held")
    elif event["epoch"] != held["epoch"]:
        audit.find("SETTLED", position, f"epoch {event['epoch']} is not {held['epoch']}")
    return held


def confirm(audit, position, time, event):
    held = settle(audit, position, time, event)
    if held is None:
        return
    if held["confirmed"] is not None:
        audit.find("SETTLED", position, f"`{held['id']}` was confirmed before")
    held["confirmed"] = time


def release(audit, position, time, event):
    held = settle(audit, position, time, event)
    if held is None:
        return
    refunds = {}
    for charge in held["charges"]:
        if charge["kind"] == "budget":
            left = held["end"] - max(time, held["start"])
            part = charge["amount"] * left // (held["end"] - held["start"])
            refunds[charge["account"]] = charge["amount"] if held["confirmed"] is None else part
    held["released"] = True
    give_back(audit, position, time, event, refunds)


def expire(audit, position, time, event):
    held = settle(audit, position, time, event)
    if held is None:
        return
    unconfirmed = held["confirmed"] is None
    cause = "unconfirmed" if unconfirmed else "ended"
    audit.counts[f"expiries: {cause}"] += 1
    if (event["cause"], time) != (cause, due(held)):
        audit.find("EXPIRY", position, f"`{held['id']}` is {cause} at {due(held)}, not {event['cause']} at {time}")
    budgets = (charge for charge in held["charges"] if charge["kind"] == "budget")
    give_back(audit, position, time, event, {c["account"]: c["amount"] for c in budgets} if unconfirmed else {})


def give_back(audit, position, time, event, expected):
    logged = {refund["account"]: refund["amount"] for refund in event["refunds"]}
    expected = {account: amount for account, amount in expected.items() if amount > 0}
    if logged != expected or len(logged) != len(event["refunds"]):
        audit.find("REFUND", position, f"{event['refunds']} instead of {expected}")
    end(audit, event["reservation"], time, logged)


def end(audit, name, time, refunds):
    held = audit.live.pop(name)
    held["over"], held["refunds"] = time, refunds
    for account, amount in refunds.items():
        audit.spent[account] -= amount


def sweep(audit):
    """Once more, and without the order of the log: at every second, what was really held is within the limits."""
    changes = collections.defaultdict(list)
    for held in audit.reservations.values():
        over = held["end"] if held["over"] is None else held["over"]
        for charge in held["charges"]:
            if charge["kind"] == "level" and held["start"] < over:
                # What ends in a second leaves before what begins in it.
                changes[charge["account"]] += [(held["start"], 1, charge["amount"]), (over, 0, -charge["amount"])]
    for account, steps in changes.items():
        use, hard = 0, audit.hard_limit(account)
        for time, _, amount in sorted(steps):
            use += amount
            if hard is None or use > hard:
                audit.find("LIMIT", f"second {time}", f"`{account}` has {use} of {hard}")


# --- What is stored beside the log ------------------------------------------------------------------------------


def check_tables(audit, store):
    """The table of requests and the evidence say what the tokens say."""
    rows = store.execute("SELECT caller, request_id, request_digest, position FROM requests").fetchall()
    stored = {(caller, request): (digest.hex(), position) for caller, request, digest, position in rows}
    ours = {
        request: (decision["claims"]["request_digest"].removeprefix("sha256:"), decision["position"])
        for request, decision in audit.decisions.items()
    }
    for request in sorted(stored.keys() | ours.keys()):
        if stored.get(request) != ours.get(request):
            audit.find("TABLE", request, f"{stored.get(request)} is stored, {ours.get(request)} is in the log")
    evidence = {row[0]: row[1:] for row in store.execute("SELECT position, input, evaluation FROM evidence")}
    for decision in audit.decisions.values():
        position, claims = decision["position"], decision["claims"]
        digests = [digest(part) for part in evidence.pop(position, (None, None))]
        if digests != [claims.get("input_digest"), claims["evaluation_digest"]]:
            audit.find("EVIDENCE", position, "input or evaluation are not those of the token")
    for position in evidence:
        audit.find("EVIDENCE", position, "belongs to no decision")


def digest(part):
    return None if part is None else f"sha256:{hashlib.sha256(part).hexdigest()}"


# --- The clients ------------------------------------------------------------------------------------------------


def check_clients(audit, clients):
    answered = collections.defaultdict(list)
    for lines in clients:
        for line in lines:
            if "answer" in line:
                answered[line["request_id"]].append(line)
    audit.counts["answers"] = sum(map(len, answered.values()))
    for request, ask in audit.asked.items():
        answers = answered.pop(request, [])
        if not answers:
            audit.find("OPEN", request, "it was never answered")
        for answer in answers:
            check_answer(audit, request, ask, answer)
    for request in answered:
        audit.find("UNASKED", request, "the client was answered what nobody had asked")
    for (_, request), decision in audit.decisions.items():
        if request not in audit.asked:
            audit.find("UNASKED", decision["position"], f"nobody asked `{request}`")
    count_stored(audit, clients)
    for lines in clients:
        asks = {(line["cycle"], line["request_id"]) for line in lines if "ask" in line}
        told = {(line["cycle"], line["request_id"]) for line in lines if "answer" in line}
        audit.counts["unanswered at a kill"] += len(asks - told)


def count_stored(audit, clients):
    """How many repeated requests were answered with what an earlier process had stored and told nobody.

    The runner asks something new, `mark-N`, before anybody else asks a process: what lies before its decision was
    stored by another one.
    """
    first_new = {}
    for line in (line for lines in clients for line in lines):
        if "answer" in line and line["request_id"].startswith("mark-"):
            first_new.setdefault(line["cycle"], line["position"])
    for lines in clients:
        told, since = set(), {}
        for line in lines:
            request = line["request_id"]
            if "ask" in line:
                since.setdefault(request, line["cycle"])
                continue
            again = request not in told and line["answer"] == "decision" and since[request] < line["cycle"]
            told.add(request)
            if again and line["cycle"] in first_new:
                stored = line["position"] < first_new[line["cycle"]]
                audit.counts["lost answers given later: " + ("stored" if stored else "decided anew")] += 1


def check_answer(audit, request, ask, answer):
    if answer["answer"] == "decision":
        if ask["ask"] != "admit":
            audit.find("CHANGED", request, "a decision answers what is no admission")
        else:
            check_decision(audit, request, ask["what"], answer)
    elif answer["answer"] == "settlement":
        audit.counts[f"settled: {answer['state']}"] += 1
        check_settlement(audit, request, ask, answer)
    else:
        audit.counts[f"refused: {answer['code']}"] += 1
        check_refusal(audit, request, ask, answer)


def check_decision(audit, request, what, answer):
    decision = next((d for (_, name), d in by_name(audit, request)), None)
    if decision is None:
        audit.find("LOST", request, f"the answer of position {answer['position']} is not in the log")
        return
    if (answer["token"], answer["position"]) != (decision["token"], decision["position"]):
        audit.find("CHANGED", request, f"the client has another answer than the log at {decision['position']}")
        return
    claims, grant = decision["claims"], decision["claims"].get("reservation")
    got = claims["workload"]
    length = what["duration_seconds"] if grant is None else grant["end"] - grant["start"]
    if (claims["effect"], claims["tenant_id"], got["cluster_id"], got["gpu_count"], length) != (
        answer["effect"],
        what["tenant_id"],
        what["cluster_id"],
        what["gpu_count"],
        what["duration_seconds"],
    ):
        audit.find("CLAIMS", decision["position"], f"it does not answer {what}")
    for charge in (grant or {"charges": []})["charges"]:
        milli = what["gpu_count"] * what["gpu_milli"]
        # GPU-seconds are rounded up.
        due = {"milli-gpu": milli, "gpu-second": -(-milli * length // 1000), "gbps": what["fabric_gbps"]}
        if charge["amount"] != due[charge["unit"]]:
            audit.find("CLAIMS", decision["position"], f"{charge} instead of {due[charge['unit']]}")


def by_name(audit, request):
    """Decisions on a request: of the one caller that there is, or of none."""
    return [(key, audit.decisions[key]) for key in ((caller, request) for caller in audit.callers) if key in audit.decisions]


def named(audit, what):
    """The reservation that a confirm or release names, and the decision, if it names one by its request."""
    if "reservation_id" in what:
        return audit.reservations.get(what["reservation_id"]), None
    decision = next((d for _, d in by_name(audit, what["admit_request_id"])), None)
    grant = decision and decision["claims"].get("reservation")
    return (grant and audit.reservations.get(grant["id"])), decision


def check_settlement(audit, request, ask, answer):
    what = ask["what"]
    held, decision = named(audit, what)
    state = answer["state"]
    if state == "NOT_RESERVED":
        if decision is None or decision["claims"]["effect"] != "DENY" or decision["claims"]["iat"] != answer["time"]:
            audit.find("CHANGED", request, "the client was told of a denial that the log does not have")
        return
    if held is None:
        audit.find("LOST", request, f"the client was told {state} of what the log never reserved")
        return
    if what["epoch"] != held["epoch"] or what["tenant_id"] != held["tenant"]:
        audit.find("CHANGED", request, "settled with a stale epoch or by another tenant")
    given = {
        "confirm": ("ACTIVE", held["confirmed"], 0),
        "release": ("RELEASED", held["over"], gpu_seconds(held)),
    }[ask["ask"]]
    ended = ask["ask"] == "release" and not held["released"]
    if ended or (held["id"], *given) != (answer["reservation_id"], state, answer["time"], answer["refunded_gpu_seconds"]):
        code = "LOST" if given[1] is None or ended else "CHANGED"
        audit.find(code, request, f"the client was told {state} at {answer['time']}, the log has {given}")


def gpu_seconds(held):
    units = {charge["account"]: charge["unit"] for charge in held["charges"]}
    refunds = held["refunds"].items()
    return max((amount for account, amount in refunds if units.get(account) == "gpu-second"), default=0)


def check_refusal(audit, request, ask, answer):
    """Refusals change nothing, so that the log cannot have them; but it must not contradict them."""
    what, code = ask["what"], answer["code"]
    if ask["ask"] == "admit":
        audit.find("REFUSED", request, f"an admission was refused with {code}")
        return
    held, _ = named(audit, what)
    true = {
        "CONFIRM_DEADLINE_PASSED": held and held["confirmed"] is None and held["over"] is not None,
        "RESERVATION_ENDED": held and held["over"] is not None,
        "STALE_EPOCH": held and what["epoch"] != held["epoch"],
        "NOT_YOURS": held and what["tenant_id"] != held["tenant"],
        "RESERVATION_NOT_FOUND": held is None,
    }
    if not true.get(code):
        audit.find("REFUSED", request, f"{code}, but the log has {held}")


# --- The whole --------------------------------------------------------------------------------------------------


def audit_store(path, records):
    audit = Audit()
    clients = read_records(audit, records)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "store"
        for suffix in ("", "-wal"):
            if pathlib.Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        store = sqlite3.connect(copy)
        try:
            audit_copy(audit, store, clients)
        finally:
            store.close()
    return audit


def audit_copy(audit, store, clients):
    health = store.execute("PRAGMA integrity_check").fetchall()
    if health != [("ok",)]:
        audit.find("FILE", "the store", health)
    rows = store.execute("SELECT position, leaf FROM leaves ORDER BY position").fetchall()
    if [position for position, _ in rows] != list(range(len(rows))):
        missing = sorted(set(range(rows[-1][0])) - {position for position, _ in rows})
        audit.find("GAP", missing[:10], "there is no such leaf")
    leaves = [leaf for _, leaf in rows]
    numbers = store.execute("SELECT number, hash FROM tree ORDER BY number").fetchall()
    if [number for number, _ in numbers] != list(range(len(numbers))):
        audit.find("TREE", "the row", "it has a gap")
    audit.root = check_tree(audit, leaves, [stored for _, stored in numbers])
    audit.counts["leaves"] = len(leaves)
    (high_water,) = store.execute("SELECT high_water FROM meta").fetchone()
    fold(audit, leaves, high_water)
    audit.callers = {caller for caller, _ in audit.decisions}
    sweep(audit)
    check_tables(audit, store)
    check_clients(audit, clients)


def main():
    parser = argparse.ArgumentParser(description="audits a store against its clients' records")
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument("records", type=pathlib.Path)
    parser.add_argument("--format", choices=["human", "json"], default="human")
    given = parser.parse_args()
    try:
        audit = audit_store(given.store, given.records)
    except (OSError, sqlite3.Error, json.JSONDecodeError) as error:
        print(f"error: cannot be audited: {error}", file=sys.stderr)
        return 2
    if given.format == "json":
        report(audit)
    else:
        tell(audit)
    return 1 if audit.findings else 0


def report(audit):
    print(
        json.dumps(
            {
                "root": audit.root,
                "verified": audit.verified if Ed25519PublicKey is not None else None,
                "counts": dict(sorted(audit.counts.items())),
                "denials": dict(sorted(audit.codes.items())),
                "peaks": {a: [most, audit.hard_limit(a)] for a, most in sorted(audit.peaks.items())},
                "findings": audit.findings,
            }
        )
    )


def tell(audit):
    for name, count in sorted(audit.counts.items()):
        print(f"{name:45} {count:>10}")
    for code, count in sorted(audit.codes.items()):
        print(f"{'denials: ' + code:45} {count:>10}")
    for account, most in sorted(audit.peaks.items()):
        print(f"{'peak of ' + account:45} {most:>10} of {audit.hard_limit(account)}")
    if Ed25519PublicKey is None:
        print("signatures were not verified: the Python library `cryptography` is missing")
    for finding in audit.findings[:SHOWN]:
        print(finding)
    print(f"root {audit.root}: {len(audit.findings)} findings")


if __name__ == "__main__":
    sys.exit(main())
