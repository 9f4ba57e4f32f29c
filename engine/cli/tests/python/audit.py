"""Audits a store of Placet's against what its clients wrote down, without any code of Placet's.

usage: audit.py STORE RECORDS [--format human|json]

STORE is the SQLite file; a copy of it is read, so that even the write-ahead log of a killed server stays as it was.
RECORDS is a directory of JSONL files: `runner.jsonl` of whoever started and killed the server, `log.jsonl` of whoever
read the log over HTTP and was its witness, one file for each client. Everything is derived again from the leaves and the records: the tree
and every checkpoint and tile of it that was served, who held what and when, refunds, expiries, evictions, and the
arithmetic of denials. Exit 0 if nothing was found, 1 if something was, 2 if it could not
be read.

A finding is `CODE position-or-request: what is wrong`. The codes:

  FILE       SQLite itself calls the file damaged
  GAP        a leaf is missing
  LEAF       a leaf is not canonical JSON of a known kind
  TREE       a stored hash is not that of the leaves
  NOTE       a checkpoint is no note of this log, its key did not sign it, or a cosignature is not of its witness
  FORK       a checkpoint is of other leaves than the log has
  BACK       a checkpoint has fewer leaves than one before it
  UNSTORED   the store does not have a checkpoint that was served, or a cosignature that was served or acknowledged, or
             does not have all that it made
  TILE       a tile that was published was not served, or not as it follows from the leaves
  UNREAD     nobody was served checkpoints, tiles of hashes or tiles of leaves, or nobody cosigned, so that none were
             checked
  TIME       time goes back
  SIGNATURE  a token does not verify with the keys that the server published
  CLAIMS     a token contradicts itself, its leaf or the request that it answers
  EVIDENCE   input or evaluation are not those of the digests in the token
  TABLE      the table of decisions is not that of the leaves
  DOUBLED    a request was decided twice, or a reservation given twice
  SETTLED    a reservation was confirmed, released or expired that was not there or not in that state
  DEADLINE   a reservation was confirmed after its deadline
  EXPIRY     what was due did not expire, or expired at another time or for another cause
  REFUND     a refund is not what the rule gives
  LIMIT      an account held more than its limit, or was charged under another
  BORROWED   an account in a tree held more than its quota and its borrowing limit
  LENT       a cohort held more than it has and its members lend
  FACTS      the log's trees of quotas, or a decision, are not those of the active facts
  START      a reservation begins at another second than it may, or a start that has passed was not denied
  DENIAL     a denial says that less was free than there was, or more
  VICTIM     somebody was told to go who may not be, or need not be
  PROMISE    somebody was told to go before it had the run time or the notice that its own decisions promised
  PROTECTED  somebody was told to go whom the rule spares: of a protected tenant, of one that lost work shortly
             before, or one more of a tenant than may go
  SPARED     nobody was told to go, or others, although it would have cost less
  ORDER      an order of eviction is missing, or not the one that the decision asks for
  EVICTED    a reservation was evicted that nobody displaced, or not when it had to go
  EPOCH      a reservation was settled or ended in another epoch than it is in
  EXTENDED   a reservation goes on that may not, or otherwise than asked for, or was kept from it without reason
  INSIDE     a job inside a lease is not charged to it, not within it, or not over when it is; or was kept out of it
  GANG       members of a gang were not decided together, all alike
  WAIVED     a waiver was used more often than it says, outside its time or scope, without having been logged, or for what
             it does not lift or nobody may
  FROZEN     work began that a freeze covers, was denied for one that does not, or a freeze is not as it was signed
  LOST       a client's answer is not in the log
  CHANGED    a client was given two answers, or another than the log has
  UNASKED    the log has a decision that no client asked for
  REFUSED    a client was refused for a reason that the log contradicts
  OPEN       a request was never answered
"""

import argparse
import base64
import collections
import datetime
import functools
import hashlib
import itertools
import json
import pathlib
import re
import shutil
import sqlite3
import sys
import tempfile

import books

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    Ed25519PublicKey = None

# `account X: asked A, free F of L`, as the ledger words a denial, or what is in use of one above it.
ROOM = re.compile(
    r"^account `([^`]+)`: asked (\d+), free (\d+)(?: of (\d+)|[^:]*: `([^`]+)` has (\d+) of (\d+) in use)"
)
# A tile's path (C2SP tlog-tiles), and the most bytes that an entry in it can have.
TILE_PATH = re.compile(r"tile/(entries|\d{1,2})/((?:x\d{3}/)*)(\d{3})(?:\.p/(\d{1,3}))?")
MOST_BYTES = 2**16 - 1
DECISION, ORDER = "placet-decision+jwt", "placet-eviction+jwt"
WAIVER, FREEZE, THAW = "placet-waiver+jwt", "placet-freeze+jwt", "placet-thaw+jwt"
# Seconds within which a freeze or a thaw is carried out.
FRESH = 300
# Candidates up to which every set of victims is tried.
TRIED = 8
# Longer notices that are tried.
LATER = 7
# One in how many denials is asked what would have been admitted instead: every answer takes dozens of tries.
SAMPLED = 4
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
        self.peaks, self.keys = {}, {}
        # Facts by revision, those that are active, and the digests of what is; a change of trees that goes on.
        self.facts, self.active, self.digests, self.changing = {}, None, {}, None
        self.terms = {}
        # By request id: claims and position; by reservation id: what is known of it.
        self.decisions, self.reservations = {}, {}
        # What is held now, and orders of eviction that have to follow.
        self.books, self.orders = books.Books(), collections.deque()
        # When each tenant last lost work by an eviction that took effect.
        self.lost = {}
        # What clients asked, by request id, and the callers that the log names.
        self.asked, self.callers = {}, set()
        # Up to when nothing is overdue.
        self.looked = None
        # Keys of approvers by name, if somebody wrote them down; waivers that were used, and those that the next decision
        # has to use; freezes that stand.
        self.approvers, self.waivers, self.unused, self.freezes = {}, {}, set(), {}
        # The gang whose members are being decided, and the names of all gangs.
        self.gang, self.gangs = None, set()
        self.verified, self.root = 0, None
        # What was served of the log, in order, and the keys of its checkpoints, as they were published.
        self.served, self.log_keys, self.witnesses = [], set(), set()

    def find(self, code, where, what):
        self.findings.append(f"{code} {where}: {what}")

    def hard_limit(self, account):
        """Most that an account may hold by the active facts, or as the lease that it is of; `None` if nobody says."""
        if account.startswith("lease/"):
            _, lease, *rest = account.split("/")
            held = self.reservations.get(lease)
            return held and (held["milli"] if not rest else held["work"]["fabric_gbps"])
        if account in self.books.trees:
            return self.books.trees[account].limit
        return self.active.limit(account) if self.active is not None else None

    def limit_for(self, account, priority_class):
        """The same for a class: claims may be tighter."""
        hard = self.hard_limit(account)
        tighter = self.terms.get("limits", {}).get(priority_class, {}).get(account)
        return min((limit for limit in (hard, tighter) if limit is not None), default=None)


class Facts:
    """Limits and trees of quotas, as the runner wrote them down."""

    def __init__(self, line):
        self.nodes = {node["account"]: node for node in line["trees"]}
        self.patterns = [
            (re.compile(re.escape(account).replace(re.escape("{month}"), r"\d{4}-\d{2}")), limit)
            for account, limit in line["limits"].items()
        ]
        self.known = {}

    def limit(self, account):
        if account not in self.known:
            found = [limit for pattern, limit in self.patterns if pattern.fullmatch(account)]
            self.known[account] = min(found) if found else None
        return self.known[account]


# --- The records ------------------------------------------------------------------------------------------------


def read_records(audit, folder):
    """The lines of every client, and what the runner wrote down."""
    clients = []
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.name == "log.jsonl":
            audit.served = lines
            continue
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
    if line["event"] == "facts":
        audit.facts[line["revision"]] = Facts(line)
    elif line["event"] == "terms":
        audit.terms = line
    elif line["event"] == "approvers":
        audit.approvers.update({key["kid"]: key["x"] for key in line["keys"]})
    elif line["event"] == "ready":
        audit.counts["starts"] += 1
        audit.log_keys.add(line["log_key"])
        audit.witnesses.add(line["witness"])
        for key in line["jwks"]["keys"]:
            known = audit.keys.setdefault(key["kid"], key["x"])
            if known != key["x"]:
                audit.find("SIGNATURE", key["kid"], "the server published another key under the same name")
    elif line["event"] == "kill":
        audit.counts["kills"] += 1
        audit.counts[f"kills: {line['phase']}"] += 1


# --- The log ----------------------------------------------------------------------------------------------------


class Tree:
    """RFC 6962 section 2.1: the complete subtrees of the leaves."""

    def __init__(self, leaves):
        self.leaves = leaves
        # By binary logarithm of their sizes; and all of them in the order of completion, as they are stored.
        self.levels, self.row = [[]], []
        for leaf in leaves:
            level, node = 0, hashlib.sha256(b"\0" + leaf).digest()
            self.levels[0].append(node)
            self.row.append(node)
            while len(self.levels[level]) % 2 == 0:
                left, right = self.levels[level][-2:]
                level, node = level + 1, hashlib.sha256(b"\1" + left + right).digest()
                if level == len(self.levels):
                    self.levels.append([])
                self.levels[level].append(node)
                self.row.append(node)

    def root(self, size):
        """Of the first so many leaves, of which there must be as many."""
        root = None
        for level, nodes in enumerate(self.levels):
            if size >> level & 1:
                node = nodes[(size >> level) - 1]
                root = node if root is None else hashlib.sha256(b"\1" + node + root).digest()
        return hashlib.sha256(b"").digest() if root is None else root

    def tile(self, path):
        """The bytes of a tile (C2SP tlog-tiles); `None` if there is none of that name."""
        match = TILE_PATH.fullmatch(path)
        if match is None:
            return None
        kind, above, last, width = match.groups()
        first = 256 * int(above.replace("x", "").replace("/", "") + last)
        width = 256 if width is None else int(width)
        level = 0 if kind == "entries" else 8 * int(kind)
        nodes = self.leaves if kind == "entries" else self.levels[level] if level < len(self.levels) else []
        part = nodes[first : first + width]
        if len(part) < width or any(len(node) > MOST_BYTES for node in part):
            return None
        return b"".join(len(node).to_bytes(2, "big") + node if kind == "entries" else node for node in part)


def check_tree(audit, tree, hashes):
    """Every stored hash is that of a complete subtree, in the order of completion."""
    row = tree.row
    if row != hashes:
        different = [number for number, (ours, stored) in enumerate(zip(row, hashes)) if ours != stored]
        first = different[0] if different else min(len(row), len(hashes))
        audit.find("TREE", f"hash {first}", f"{len(row)} hashes follow from the leaves, {len(hashes)} are stored")


def parse(audit, position, raw):
    try:
        leaf = json.loads(raw)
        if canonical(leaf) != raw or leaf["v"] != 1 or set(leaf) != {"event", "time", "v"}:
            raise ValueError("it is not a canonical leaf of version 1")
        return leaf["time"], leaf["event"]
    except (ValueError, KeyError, TypeError) as error:
        audit.find("LEAF", position, error)
        return None


@functools.cache
def verify(key, token):
    """Raises an error if the key did not sign the token."""
    signed, signature = token.rsplit(".", 1)
    Ed25519PublicKey.from_public_bytes(unpadded(key)).verify(unpadded(signature), signed.encode())


def claims_of(audit, position, token, kind, keys=None):
    """The claims of a token, verified if there is a library for it. `keys` are others than those of decisions."""
    keys = audit.keys if keys is None else keys
    try:
        header, payload, _ = token.split(".")
        head = json.loads(unpadded(header))
        claims = json.loads(unpadded(payload))
    except ValueError as error:
        audit.find("CLAIMS", position, f"no token: {error}")
        return None
    if head.get("typ") != kind:
        audit.find("SIGNATURE", position, f"the token is of type {head.get('typ')}, not {kind}")
    if Ed25519PublicKey is not None:
        try:
            verify(keys[head["kid"]], token)
            audit.verified += 1
        except (InvalidSignature, KeyError, ValueError) as error:
            audit.find("SIGNATURE", position, f"{type(error).__name__} {error}")
    return claims


def fold(audit, leaves, high_water):
    """Goes through the log with a model of its own."""
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
        if audit.orders and kind != "eviction_order":
            missing(audit, position)
        if audit.unused and kind not in ("decision", "waiver"):
            not_used(audit, position)
        if audit.gang is not None and kind not in ("decision", "eviction_order", "waiver"):
            break_up(audit, position, f"a `{kind}` comes before its member {audit.gang['next']}")
        if audit.changing is not None and kind != "quotas":
            audit.find("FACTS", position, "a change of the trees is not complete")
            audit.changing = None
        if kind == "expiry":
            expire(audit, position, time, event)
            continue
        overdue(audit, position, now)
        if kind in FOLDED:
            FOLDED[kind](audit, position, time, event)
        elif (kind == "genesis") != (position == 0):
            audit.find("LEAF", position, "the log does not begin with its genesis, and only begin")
        elif kind != "genesis":
            audit.find("LEAF", position, f"this auditor does not know a `{kind}`")
    if audit.orders:
        missing(audit, "the end")
    if audit.unused:
        not_used(audit, "the end")
    if audit.gang is not None:
        break_up(audit, "the end", f"its member {audit.gang['next']} is missing")
    if high_water < now:
        audit.find("TIME", "the store", f"its time {high_water} is before that of the last leaf, {now}")
    overdue(audit, "the store", high_water)


def own_due(held):
    return held["confirm_by"] if held["confirmed"] is None else held["until"]


def due(held):
    """When it ends by itself: a job inside a lease that is over does so at once."""
    over = held["lease_over"]
    return own_due(held) if over is None else min(over, own_due(held))


def overdue(audit, position, now):
    # Within a second, only what becomes of others makes one due.
    if audit.looked == now:
        return
    audit.looked = now
    for name, held in list(audit.books.live.items()):
        if due(held) <= now:
            code = "INSIDE" if due(held) < own_due(held) else "EVICTED" if held["cut"] else "EXPIRY"
            audit.find(code, position, f"`{name}` was due at {due(held)} and is still held at {now}")
            end(audit, name, due(held), {})


# --- Facts ------------------------------------------------------------------------------------------------------


def change_quotas(audit, position, time, event):
    """The trees of quotas change; with the last of the leaves that say so."""
    if audit.changing is None:
        audit.changing = {path: node.own for path, node in audit.books.trees.items()}
    for path in event["removed"]:
        audit.changing.pop(path, None)
    audit.changing.update((node["account"], node) for node in event["changed"])
    if event["more"]:
        return
    audit.counts["changes of the trees while something was held"] += bool(audit.books.live)
    owns, audit.changing = audit.changing, None
    try:
        audit.books.trees = books.forest(owns.values())
    except KeyError as error:
        audit.find("FACTS", position, f"the cohort {error} is not there")


def activate_bundle(audit, position, time, event):
    audit.digests["bundle_digest"] = event["digest"]


def erase(audit, position, time, event):
    """Personal values are beside the log: it tells of how many decisions some were erased."""
    if not 1 <= event["decisions"] < position or not event["caller"]:
        audit.find("LEAF", position, "it erased nothing, or more than there was")


def activate_facts(audit, position, time, event):
    audit.digests["facts_digest"] = event["digest"]
    audit.active = audit.facts.get(event["revision"])
    if audit.active is None:
        audit.find("FACTS", position, f"nobody wrote facts `{event['revision']}`")
        return
    logged = {path: node.own for path, node in audit.books.trees.items()}
    if logged != audit.active.nodes:
        audit.find("FACTS", position, f"the trees are not those of facts `{event['revision']}`")


# --- Waivers and freezes ----------------------------------------------------------------------------------------


def approved(audit, position, event, kind):
    """What an approver signed, under the name that its leaf gives it."""
    # Where nobody wrote down who approves, the signature is not looked at.
    claims = claims_of(audit, position, event["token"], kind, audit.approvers or audit.keys)
    code = "WAIVED" if kind == WAIVER else "FROZEN"
    if claims is not None and claims["jti"] != event["id"]:
        audit.find(code, position, f"`{claims['jti']}` is logged as `{event['id']}`")
    return claims


def waive(audit, position, time, event):
    claims = approved(audit, position, event, WAIVER)
    if claims is None:
        return
    name, known = event["id"], audit.waivers.get(event["id"])
    if event["level"] != "overridable" or not claims["nbf"] <= time < claims["exp"]:
        audit.find("WAIVED", position, f"`{name}` is good from {claims['nbf']} to {claims['exp']}, and logged at {time}")
    if claims["requested_by"] == claims["approved_by"]:
        audit.find("WAIVED", position, f"`{name}` was approved by who asked for it")
    if known is not None and time < known["claims"]["exp"]:
        audit.find("WAIVED", position, f"`{name}` is logged once more")
    audit.waivers[name] = {"claims": claims, "used": 0}
    audit.unused.add(name)


def not_used(audit, position):
    audit.find("WAIVED", position, f"{sorted(audit.unused)} are logged, and the decision behind does not use them")
    audit.unused.clear()


def check_approved(audit, position, claims):
    """Waivers that a decision uses, and freezes that should have kept it from being a permit."""
    names, is_permit = claims["waivers"], claims["effect"] == "PERMIT"
    if names and (not is_permit or names != sorted(set(names))):
        audit.find("WAIVED", position, f"{names} are not the waivers of a permit, each once")
    for name in names:
        known = audit.waivers.get(name)
        audit.unused.discard(name)
        if known is None:
            audit.find("WAIVED", position, f"`{name}` was not logged before")
            continue
        known["used"] += 1
        fault = not_good(known, claims)
        if fault is not None:
            audit.find("WAIVED", position, f"`{name}`: {fault}")
    if audit.unused:
        not_used(audit, position)
    audit.counts["permits under a waiver"] += bool(names)
    freeze = frozen(audit, claims, claims["workload"])
    codes = {reason["code"] for reason in claims["reasons"]}
    if is_permit and freeze is not None:
        audit.find("FROZEN", position, f"it is admitted though `{freeze}` freezes it")
    if not is_permit and (freeze is not None) != ("FROZEN" in codes) and "GANG_INCOMPLETE" not in codes:
        audit.find("FROZEN", position, f"`{freeze}` freezes it, and it is denied for {sorted(codes)}")


def not_good(known, decision):
    """Why a waiver is not good for a decision."""
    claims, work, scope = known["claims"], decision["workload"], known["claims"]["scope"]
    if known["used"] > claims["uses"]:
        return f"it is used for the {known['used']}th time of {claims['uses']}"
    if not claims["nbf"] <= decision["iat"] < claims["exp"]:
        return f"it is good from {claims['nbf']} to {claims['exp']}, and used at {decision['iat']}"
    if decision["tenant_id"] not in scope["tenants"]:
        return f"it is not for `{decision['tenant_id']}`"
    if scope["clusters"] and work["cluster_id"] not in scope["clusters"]:
        return f"it is not for `{work['cluster_id']}`"
    if scope["kinds"] and decision["kind"] not in scope["kinds"]:
        return f"it is not for a {decision['kind']}"
    if work["gpu_count"] > claims.get("max_gpu_count", work["gpu_count"]):
        return f"it is for at most {claims['max_gpu_count']} GPUs"
    grant = decision["reservation"]
    seconds = grant["end"] - grant["start"]
    if seconds > claims.get("max_duration_seconds", seconds):
        return f"it is for at most {claims['max_duration_seconds']} seconds"
    return None


def lifted_wrongly(audit, decision, evaluation):
    """What an evaluation lifted that nothing lets it."""
    for candidate in evaluation.get("candidates", []):
        if candidate["gpu_model"] != decision["workload"]["gpu_model"] or decision["effect"] != "PERMIT":
            continue
        waived = candidate["outcome"].get("waived", [])
        if sorted({one["waiver"] for one in waived}) != decision["waivers"]:
            return f"{decision['waivers']} are not the waivers of its evaluation"
        for one in waived:
            known = audit.waivers.get(one["waiver"], {"claims": {"lifts": []}})
            if {"code": one["code"], "policy": one["policy"]} not in known["claims"]["lifts"]:
                return f"`{one['waiver']}` does not lift {one['code']} of `{one['policy']}`"
        for verdict in candidate["verdicts"]:
            counts = verdict["mode"] == "enforce" and verdict["level"] != "advisory"
            lifted = {one["code"] for one in waived if one["policy"] == verdict["policy"]}
            denied = {reason["code"] for reason in verdict["reasons"]}
            if counts and verdict["verdict"] == "INDETERMINATE":
                return f"`{verdict['policy']}` could not decide"
            if counts and denied and (verdict["level"] != "overridable" or not denied <= lifted):
                return f"`{verdict['policy']}`, which is {verdict['level']}, denies it for {sorted(denied - lifted or denied)}"
    return None


def frozen(audit, what, work):
    """Name of the freeze that covers a decision or a reservation, if one does."""
    own = {
        "clusters": work["cluster_id"],
        "kinds": what["kind"],
        "priority_classes": what["priority_class"],
        "tenants": what["tenant_id"],
    }
    for name, claims in sorted(audit.freezes.items()):
        scope = claims["scope"]
        if all(not scope[names] or value in scope[names] for names, value in own.items()):
            return name
    return None


def freeze(audit, position, time, event):
    claims = approved(audit, position, event, FREEZE)
    if claims is None:
        return
    if abs(time - claims["iat"]) > FRESH or event["id"] in audit.freezes:
        audit.find("FROZEN", position, f"`{event['id']}` was signed at {claims['iat']}, or stands already")
    audit.freezes[event["id"]] = claims


def thaw(audit, position, time, event):
    claims = approved(audit, position, event, THAW)
    if claims is None:
        return
    standing = audit.freezes.pop(event["id"], None)
    if standing is None or abs(time - claims["iat"]) > FRESH or claims["iat"] < standing["iat"]:
        audit.find("FROZEN", position, f"`{event['id']}` is lifted, and did not stand, or not by this order")


# --- Decisions --------------------------------------------------------------------------------------------------


def decide(audit, position, time, event):
    token = event["token"]
    claims = claims_of(audit, position, token, DECISION)
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
    check_approved(audit, position, claims)
    if {name: claims[name] for name in audit.digests} != audit.digests:
        audit.find("FACTS", position, "it was decided under another bundle or other facts than the active ones")
    what = audit.asked.get(claims["request_id"], {}).get("what")
    for name, code in {"extends": "EXTENDED", "lease_id": "INSIDE", "gang": "GANG"}.items():
        if what is not None and claims.get(name) != what.get(name):
            audit.find(code, position, f"`{name}` is {claims.get(name)}, not {what.get(name)} as asked for")
    is_sure = join(audit, position, claims)
    audit.counts["denials of members of gangs not worked out"] += grant is None and not is_sure
    if grant is None:
        codes = {reason["code"] for reason in claims["reasons"]}
        audit.codes.update(codes)
        if claims.get("evictions") or "terms" in claims:
            audit.find("CLAIMS", position, "a denial sends others away, or promises something")
        if what is not None and is_sure:
            check_denial(audit, position, claims, what, codes)
    elif "extends" in claims:
        audit.looked = None
        go_on(audit, position, claims, grant, what)
    else:
        audit.looked = None
        reserve(audit, position, claims, grant, what)
    if audit.gang is not None and audit.gang["next"] == audit.gang["size"]:
        part(audit, position)


def check_denial(audit, position, claims, what, codes):
    """Where a denial says how much was free, that much was: no reservation leaked when the server died."""
    if "FROZEN" in codes:
        # Nothing else was looked at.
        return
    start = what["start"] or claims["iat"]
    passed = start < claims["iat"]
    code = "RESERVATION_ENDED" if "extends" in what else "START_IN_THE_PAST"
    if "GANG_INCOMPLETE" in codes and not passed:
        would_have(audit, position, claims, what, start)
        return
    if passed != (code in codes) and "UNKNOWN_TENANT" not in codes:
        audit.find("START", position, f"decided at {claims['iat']}, asked for {start}, denied for {sorted(codes)}")
    if passed:
        return
    check_outside(audit, position, claims, what, codes)
    rooms = [(room, reason) for reason in claims["reasons"] if (room := ROOM.match(reason["message"]))]
    for room, reason in rooms:
        fault = check_room(audit, room, claims["priority_class"], start, start + what["duration_seconds"])
        if fault is not None:
            audit.find("DENIAL", position, f"{reason['message']}: {fault}")
    if rooms and len(rooms) == len(claims["reasons"]):
        check_spared(audit, position, claims, what)
        if position % SAMPLED == 0:
            check_instead(audit, position, claims, what, start)


def check_room(audit, room, priority_class, start, stop):
    """What is wrong with a denial's numbers."""
    account, asked, free = room[1], int(room[2]), int(room[3])
    own = audit.limit_for(account, priority_class)
    if own is None:
        return "nobody set a limit"
    audit.counts["denials worked out again: of a lease"] += account.startswith("lease/")
    if account in audit.books.budgets:
        audit.counts["denials worked out again: budget"] += 1
        use = audit.books.spent[account]
    else:
        use = audit.books.peak(account, start, stop)
    if room[4] is not None:
        audit.counts["denials worked out again: level"] += account not in audit.books.budgets
        right = (int(room[4]), free) == (own, max(0, own - use))
        return None if right and asked > free else f"{use} of {own} are in use"
    audit.counts["denials worked out again: cohort"] += 1
    binding, in_use, limit = room[5], int(room[6]), int(room[7])
    if binding not in audit.books.trees:
        return f"`{binding}` is in no tree"
    seconds = range(start, stop)
    levels = [audit.books.total(binding, second) for second in seconds]
    charge = {"account": account, "amount": asked, "limit": own}
    obstacles = [audit.books.obstacle(charge, second, asked, 0) for second in seconds]
    if not any(obstacle is not None and obstacle[0] == binding for obstacle in obstacles):
        return f"`{binding}` is not in the way"
    if in_use not in levels or audit.books.trees[binding].limit != limit:
        return f"`{binding}` has {levels} of {audit.books.trees[binding].limit}"
    most = min(min(own - audit.books.total(account, at), audit.books.room(account, at)) for at in seconds)
    return None if free == max(0, min(most, asked - 1)) else f"{most} are free"


def reserve(audit, position, claims, grant, what):
    name, start, evictions = grant["id"], grant["start"], claims.get("evictions", [])
    if name in audit.reservations:
        audit.find("DOUBLED", position, f"reservation `{name}` was given at {audit.reservations[name]['position']} too")
        return
    if not claims["iat"] <= start < grant["end"] <= start + books.LONGEST or not claims["iat"] < grant["confirm_by"]:
        audit.find("CLAIMS", position, "the reservation's times make no sense")
        return
    if what is not None:
        check_start(audit, position, claims, grant, what)
    check_place(audit, position, claims, grant, what)
    check_promise(audit, position, claims, {})
    victims = check_victims(audit, position, claims, grant)
    check_charges(audit, position, claims, grant, victims)
    held = new_held(audit, position, claims, grant)
    held.update(waits_for=[victim["id"] for victim in victims])
    audit.reservations[name] = audit.books.live[name] = held
    audit.books.hold(held)
    audit.books.spend(grant["charges"])
    for victim in victims:
        victim["told_by"] = name
        audit.counts["orders: GPUs told to go"] += victim["milli"] // 1000
    audit.orders.extend((claims, name, eviction) for eviction in evictions)
    audit.counts["permits that displace others"] += bool(evictions)
    note_peaks(audit, grant)


def new_held(audit, position, claims, grant):
    """What is known of a reservation."""
    term = {"start": grant["start"], "end": grant["end"], "charges": grant["charges"], "trees": audit.books.trees}
    held = {name: grant[name] for name in ("id", "epoch", "start", "end", "confirm_by")}
    held.update(position=position, work=claims["workload"], terms=[term], epochs={grant["epoch"]})
    held.update({name: claims[name] for name in ("kind", "priority_class", "tenant_id")})
    held.update(lease_id=claims.get("lease_id"), lease_over=None)
    held.update(milli=claims["workload"]["gpu_count"] * claims["workload"]["gpu_milli"])
    held.update(confirmed=None, over=None, ended=None, refunds={}, refunded_gpu_seconds=0, settled_in={})
    held.update(promise=claims.get("terms", {}))
    held.update(until=grant["end"], cut=False, told_by=None, waits_for=[])
    return held


def check_charges(audit, position, claims, grant, victims):
    """All of it is charged below the limits, and fits beside what others hold."""
    for charge in grant["charges"]:
        limit = audit.limit_for(charge["account"], claims["priority_class"])
        if charge["limit"] != limit:
            audit.find("LIMIT", position, f"`{charge['account']}` is charged below {charge['limit']}, not {limit}")
            charge["limit"] = min(charge["limit"], limit or 0)
    found = audit.books.misfits(grant["charges"], grant["start"], grant["end"], victims)
    for charge, (account, use, limit) in found:
        code = "LIMIT"
        if account in audit.books.trees:
            code = "BORROWED" if account == charge["account"] else "LENT"
        audit.find(code, position, f"`{account}` has {use} of {limit}")


# --- Going on, inside, together ---------------------------------------------------------------------------------


def go_on(audit, position, claims, grant, what):
    """A reservation goes on: from its end on, without a break, in the next epoch, with charges of its own."""
    audit.counts["extensions"] += 1
    told, held = claims["extends"], audit.books.live.get(claims["extends"]["reservation_id"])
    wrong = not_to_go_on(audit, claims, told, claims["workload"])
    if wrong is not None:
        audit.find("EXTENDED", position, f"{told} does not go on: {wrong}, as it is {held}")
    if held is None:
        return
    ours = held["id"], held["epoch"] + 1, held["end"], grant["end"]
    if (grant["id"], grant["epoch"], grant["start"], grant["confirm_by"]) != ours or grant["end"] <= grant["start"]:
        audit.find("EXTENDED", position, f"{grant} does not go on from epoch {held['epoch']} and {held['end']}")
        return
    if grant["epoch"] in held["epochs"]:
        audit.find("EXTENDED", position, f"epoch {grant['epoch']} of `{held['id']}` was given before")
    if claims.get("evictions") or claims.get("preemption"):
        audit.find("EXTENDED", position, "it displaces others")
    check_place(audit, position, claims, grant, what)
    check_promise(audit, position, claims, held["promise"])
    held["promise"] = claims.get("terms", {})
    check_charges(audit, position, claims, grant, [])
    term = {"start": grant["start"], "end": grant["end"], "charges": grant["charges"], "trees": audit.books.trees}
    audit.books.go_on(held, term)
    held["epoch"] = grant["epoch"]
    held["epochs"].add(held["epoch"])
    audit.counts["extensions: of a job inside a lease"] += held["lease_id"] is not None
    audit.counts["extensions: of what was made longer before"] += len(held["terms"]) > 2
    note_peaks(audit, grant)


def not_to_go_on(audit, claims, told, workload):
    """Why a reservation does not go on; `None` if it does where there is room."""
    held = audit.books.live.get(told["reservation_id"])
    if held is None or held["tenant_id"] != claims["tenant_id"]:
        return "UNKNOWN_RESERVATION"
    if held["epoch"] != told["epoch"]:
        return "STALE_EPOCH"
    if held["confirmed"] is None:
        return "RESERVATION_NOT_CONFIRMED"
    if held["told_by"] is not None:
        return "RESERVATION_MAKES_ROOM"
    work = [claims["kind"], claims["priority_class"], claims.get("lease_id"), workload]
    if (told["start"], told["end"]) != (held["start"], held["end"]):
        return "EXTENSION_MISMATCH"
    if work != [held["kind"], held["priority_class"], held["lease_id"], held["work"]]:
        return "EXTENSION_MISMATCH"
    return None


def not_inside(audit, claims, workload, start, stop):
    """Why a job does not run inside the lease that it names; `None` if it does where there is room, or names none."""
    if "lease_id" not in claims:
        return None
    lease = audit.books.live.get(claims["lease_id"])
    if lease is None or (lease["kind"], lease["tenant_id"]) != ("lease", claims["tenant_id"]):
        return "UNKNOWN_LEASE"
    if lease["confirmed"] is None:
        return "LEASE_NOT_CONFIRMED"
    same = all(lease["work"][name] == workload[name] for name in ("cluster_id", "gpu_model", "isolation_level"))
    same = same and workload["gpu_milli"] <= lease["work"]["gpu_milli"]
    return None if same and lease["start"] <= start and stop <= lease["until"] else "OUTSIDE_LEASE"


def check_place(audit, position, claims, grant, what):
    """It charges what its policies claim; inside a lease, that is the lease, which has to be there all the time."""
    inside = "lease_id" in claims
    wrong = not_inside(audit, claims, claims["workload"], grant["start"], grant["end"])
    if wrong is not None:
        lease = audit.reservations.get(claims["lease_id"])
        audit.find("INSIDE", position, f"{grant['start']} to {grant['end']} is not inside it: {wrong}, {lease}")
    if what is not None:
        expected = charges_of(audit, what, claims["workload"]["gpu_model"], grant["start"])
        names = ("account", "amount", "kind", "unit")
        both = expected, grant["charges"]
        ours, theirs = ([[charge[name] for name in names] for charge in charges] for charges in both)
        if ours != theirs:
            audit.find("INSIDE" if inside else "CLAIMS", position, f"it charges {theirs}, not {ours}")
    if not inside or wrong is not None:
        return
    audit.counts["jobs inside leases"] += "extends" not in claims
    account = f"lease/{claims['lease_id']}"
    if not any(charge["account"] == account for charge in grant["charges"]):
        audit.find("INSIDE", position, f"it charges nothing to `{account}`")
    others = {job["id"] for job in audit.books.live.values() if job["lease_id"] == claims["lease_id"]}
    audit.counts["jobs inside leases: beside others"] += bool(others - {grant["id"]})


def check_outside(audit, position, claims, what, codes):
    """What is denied because of the reservation that it names is so for the right reason, and for no other."""
    if "PREEMPTION_NOT_PERMITTED" in codes:
        # Policies have denied it before the ledger was asked.
        return
    kept = {}
    for model in what["gpu_models"]:
        workload = dict(claims["workload"], gpu_model=model)
        start = what["start"] or claims["iat"]
        wrong = not_to_go_on(audit, claims, what["extends"], workload) if "extends" in what else None
        kept[model] = wrong or not_inside(audit, claims, workload, start, start + what["duration_seconds"])
    ours = {wrong for wrong in kept.values() if wrong is not None}
    if codes & KEPT != ours or (codes == ours) == (None in kept.values()):
        audit.find("EXTENDED" if "extends" in what else "INSIDE", position, f"denied for {sorted(codes)}, not {kept}")
    for wrong in ours:
        audit.counts[f"kept from {'going on' if 'extends' in what else 'a lease'}: {wrong}"] += 1


# Why a request may be denied because of the reservation that it names.
KEPT = {"UNKNOWN_RESERVATION", "STALE_EPOCH", "RESERVATION_NOT_CONFIRMED", "RESERVATION_MAKES_ROOM"}
KEPT |= {"EXTENSION_MISMATCH", "UNKNOWN_LEASE", "LEASE_NOT_CONFIRMED", "OUTSIDE_LEASE"}


def join(audit, position, claims):
    """Takes note of a member of a gang; whether the books are those that it was decided on."""
    place = claims.get("gang")
    ours = None if place is None else (place["id"], place["size"], claims["iat"])
    if audit.gang is not None:
        # Those that are denied together stand one after the other too.
        if (ours, place and place["index"]) != (audit.gang["ours"], audit.gang["next"]):
            break_up(audit, position, f"{place} is not its member {audit.gang['next']}")
        elif claims["effect"] != audit.gang["effect"]:
            audit.find("GANG", position, f"a {claims['effect']} beside a {audit.gang['effect']}")
    if place is None:
        return True
    if audit.gang is None:
        if place["index"] != 0 or place["id"] in audit.gangs or place["size"] < 2:
            audit.find("GANG", position, f"it does not begin with {place}")
            return False
        audit.gangs.add(place["id"])
        audit.gang = {"ours": ours, "size": place["size"], "next": 0, "effect": claims["effect"]}
        audit.gang.update(held=[], codes=[], is_sure=True)
    audit.gang["next"] += 1
    audit.gang["codes"].append({reason["code"] for reason in claims["reasons"]})
    return audit.gang["is_sure"]


def would_have(audit, position, claims, what, start):
    """A member that is denied because of others would have been admitted: those after it were decided beside it."""
    if audit.gang is None:
        audit.find("GANG", position, "it is no member of a gang")
        return
    stop = start + what["duration_seconds"]
    rule = audit.terms.get("rules", {}).get(what["tenant_id"])
    # On the first of its models that fits: the denial names the first that was asked for.
    for model in what["gpu_models"]:
        charges = charges_of(audit, what, model, start)
        wrong = not_inside(audit, claims, dict(claims["workload"], gpu_model=model), start, stop)
        fits = wrong is None and audit.books.fits(charges, start, stop)
        if fits:
            break
    if not fits:
        audit.gang["is_sure"] = False
        # Whom it would have displaced, nobody says.
        if not what["may_preempt"] or what["start"] or rule is None:
            audit.find("GANG", position, f"it would not have been admitted alone: {wrong or charges}")
        return
    grant = {"id": claims["jti"], "epoch": 1, "start": start, "end": stop, "confirm_by": stop, "charges": charges}
    held = new_held(audit, position, claims, grant)
    audit.books.live[held["id"]] = held
    audit.books.hold(held)
    audit.books.spend(charges)
    audit.gang["held"].append(held)
    audit.counts["members of gangs that would have been admitted"] += 1


def part(audit, position):
    """All members are decided; of a gang that is denied, nothing is held."""
    gang, audit.gang = audit.gang, None
    for held in gang["held"]:
        held["over"] = held["start"]
        audit.books.end(held)
        audit.books.spend(held["terms"][0]["charges"], -1)
    audit.counts[f"gangs: {gang['effect']}"] += 1
    if gang["effect"] == "DENY" and all("GANG_INCOMPLETE" in codes for codes in gang["codes"]):
        audit.find("GANG", position, "it is denied although no member is")


def break_up(audit, position, why):
    audit.find("GANG", position, f"gang `{audit.gang['ours'][0]}`: {why}")
    part(audit, position)


def note_peaks(audit, held):
    """The most that accounts ever had, and whether this one borrows."""
    borrows = False
    for charge in held["charges"]:
        account = charge["account"]
        if account.startswith("lease/"):
            full = audit.books.peak(account, held["start"], held["end"]) == audit.hard_limit(account)
            audit.counts["leases filled by jobs"] += full and charge["unit"] == "milli-gpu"
            continue
        if charge["kind"] == "budget":
            note_peak(audit, account, audit.books.spent[account], audit.hard_limit(account))
            continue
        for path in (account, *(node.own["account"] for node in audit.books.above(account))):
            note_peak(audit, path, audit.books.peak(path, held["start"], held["end"]), audit.hard_limit(path))
        node = audit.books.trees.get(account)
        if node is not None and node.cohort is not None:
            over = audit.books.peak(account, held["start"], held["end"]) - node.quota
            borrows |= over > 0
            note_peak(audit, f"{account}, borrowed", over, node.limit - node.quota)
    audit.counts["permits on borrowed quota"] += borrows


def note_peak(audit, account, use, limit):
    if use > audit.peaks.get(account, (0, 0))[0]:
        audit.peaks[account] = (use, limit)


def check_start(audit, position, claims, grant, what):
    """It begins when it was asked for, at once, or when its victims are gone, and is to be confirmed before that."""
    now, within, rule = claims["iat"], audit.terms["confirm_within"], claims.get("preemption")
    asks = what["may_preempt"] and claims["priority_class"] == "INTERNAL_RESEARCH"
    if rule != (audit.terms["rules"].get(what["tenant_id"]) if asks else None):
        audit.find("CLAIMS", position, f"its rule of preemption is not the policy's: {rule}")
    begins = what["start"] or now
    at = {(begins, min(begins + within, grant["end"]))}
    if asks and rule is not None and not what["start"]:
        starts = starts_tried(audit, rule, now, grant["charges"])
        displaces = {(start, min(now + within, start)) for start in starts}
        check_sooner(audit, position, claims, grant, rule, [start for start in starts if start < grant["start"]])
        at = displaces if claims.get("evictions") else at | displaces
    audit.counts["permits in advance"] += begins > now
    if (grant["start"], grant["confirm_by"]) not in at:
        found = grant["start"], grant["confirm_by"]
        audit.find("START", position, f"it begins and is to be confirmed by {found}, not {at}")
    length = grant["end"] - grant["start"]
    at_once = not_inside(audit, claims, claims["workload"], begins, begins + length) is None
    if grant["start"] > begins and at_once and audit.books.fits(grant["charges"], begins, begins + length):
        audit.find("START", position, "it would have fitted at once")


# --- Preemption -------------------------------------------------------------------------------------------------


def check_promise(audit, position, claims, before):
    """What a reservation is promised is what the policy says for its tenant, and never less than it was before. Without
    records of the run nobody knows what the policy says."""
    said, promises = claims.get("terms"), audit.terms.get("promises")
    policy = (said or {}) if promises is None else promises.get(claims["tenant_id"])
    best = {name: max(before.get(name, 0), own) for name, own in policy.items()} if policy else before or None
    if said != best:
        audit.find("CLAIMS", position, f"it is promised {said}, not {best}")
    audit.counts["permits with a promise"] += said is not None


def starts_tried(audit, rule, now, charges):
    """When a preemptor may begin: after the grace, or the longer notice of somebody whom the rule names."""
    accounts = {charge["account"] for charge in books.levels(charges)}
    first = now + max(1, rule["grace_seconds"])
    notices = {
        now + held["promise"].get("notice_seconds", 0)
        for held in audit.books.live.values()
        if is_named(rule, held) and charges_one_of(held, accounts)
    }
    return [first, *sorted(start for start in notices if start > first)[:LATER]]


def check_sooner(audit, position, claims, grant, rule, starts):
    """What begins after a longer notice could not have begun sooner, at anybody's expense."""
    length = grant["end"] - grant["start"]
    for start in starts:
        stop = start + length
        if claims.get("lease_id") is None and audit.books.fits(grant["charges"], start, stop):
            audit.find("START", position, f"it would have fitted at {start}")
        candidates = those_who_may_go(audit, rule, start, no_room(audit, grant["charges"], start, stop), claims["iat"])
        check_cheapest(audit, position, (grant["charges"], start, stop), rule, candidates, [])
    audit.counts["permits that wait for a longer notice"] += bool(starts) and bool(claims.get("evictions"))


def check_victims(audit, position, claims, grant):
    """Whether those may be told to go that are, and have to be; the victims."""
    victims, rule, start = [], claims.get("preemption"), grant["start"]
    evictions = claims.get("evictions", [])
    if not evictions:
        return []
    accounts = no_room(audit, grant["charges"], start, grant["end"])
    candidates = {held["id"]: held for held in those_who_may_go(audit, rule, start, accounts, claims["iat"])}
    if rule is None or claims["priority_class"] != "INTERNAL_RESEARCH" or len(evictions) > rule["max_victims"]:
        audit.find("VICTIM", position, f"it may not displace {len(evictions)} others")
    names = [eviction["reservation"] for eviction in evictions]
    if names != sorted(set(names)):
        audit.find("VICTIM", position, "victims are named twice, or not in order")
    for eviction in evictions:
        held = audit.books.live.get(eviction["reservation"])
        why = None if held is None or rule is None else why_spared(audit, rule, held, start, claims["iat"])
        if why is not None:
            audit.find(why[0], position, f"`{held['id']}` of `{held['tenant_id']}` {why[1]}: {held['promise']}, {rule}")
        elif eviction["reservation"] not in candidates:
            audit.find("VICTIM", position, f"`{eviction['reservation']}` may not be told to go: {held}")
        if held is None:
            continue
        if (eviction["evict_by"], eviction["tenant_id"]) != (start, held["tenant_id"]):
            audit.find("VICTIM", position, f"`{held['id']}` is told wrongly: {eviction}")
        if eviction["epoch"] != held["epoch"] + 1:
            audit.find("EPOCH", position, f"`{held['id']}` is in {held['epoch']}, not before {eviction['epoch']}")
        victims.append(held)
    for tenant, count in collections.Counter(victim["tenant_id"] for victim in victims).items():
        if rule is not None and count > rule.get("max_victims_per_tenant", count):
            audit.find("PROTECTED", position, f"{count} of `{tenant}` go, at most {rule['max_victims_per_tenant']} may")
    for spared in victims:
        others = [victim for victim in victims if victim is not spared]
        if audit.books.fits(grant["charges"], start, grant["end"], others):
            audit.find("VICTIM", position, f"`{spared['id']}` need not go")
    check_cheapest(audit, position, (grant["charges"], start, grant["end"]), rule, candidates.values(), victims)
    return victims


def no_room(audit, charges, start, stop):
    """The level accounts without room for charges; none if room in a budget or a cohort is missing too."""
    found = audit.books.misfits(charges, start, stop)
    direct = all(charge["kind"] == "level" and charge["account"] == account for charge, (account, _, _) in found)
    return {charge["account"] for charge, _ in found} if direct else set()


def is_named(rule, held):
    """Whether a rule lets a reservation be displaced at all, whenever."""
    return (
        held["confirmed"] is not None
        and held["told_by"] is None
        and held["lease_id"] is None
        and held["priority_class"] == "EXTERNAL_COMMERCIAL"
        and held["priority_class"] in rule["victim_classes"]
        and held["tenant_id"] not in rule.get("protected_tenants", ())
    )


def charges_one_of(held, accounts):
    return any(charge["account"] in accounts for term in held["terms"] for charge in books.levels(term["charges"]))


def why_spared(audit, rule, held, start, now):
    """What a reservation was promised, or its tenant is granted, that keeps it from going; with the code of it."""
    promise, tenant = held["promise"], held["tenant_id"]
    if start < held["start"] + promise.get("min_runtime_seconds", 0):
        return "PROMISE", "has not run as long as it was promised"
    if start < now + promise.get("notice_seconds", 0):
        return "PROMISE", "has less notice than it was promised"
    if tenant in rule.get("protected_tenants", ()):
        return "PROTECTED", "is protected"
    cool_down = rule.get("cool_down_seconds", 0)
    if cool_down and tenant in audit.lost and start < audit.lost[tenant] + cool_down:
        return "PROTECTED", f"lost work at {audit.lost[tenant]}"
    return None


def those_who_may_go(audit, rule, start, accounts, now):
    """Whom the rule names that charge an account without room, ran long enough, and are not spared."""
    return [
        held
        for held in audit.books.live.values()
        if rule is not None
        and is_named(rule, held)
        and held["start"] + rule["min_runtime_seconds"] <= start < held["end"]
        and why_spared(audit, rule, held, start, now) is None
        and charges_one_of(held, accounts)
    ]


def work_lost(victims, start):
    """What a set of victims costs: GPUs times seconds since their start, then their number."""
    return sum(victim["milli"] * (start - victim["start"]) for victim in victims), len(victims)


def check_cheapest(audit, position, asked, rule, candidates, victims):
    """With few candidates no other set would have cost less; without victims, none makes room at all."""
    candidates = list(candidates)
    if not candidates or len(candidates) > TRIED:
        return
    audit.counts["searches for victims done again"] += 1
    charges, start, stop = asked
    if not victims and not audit.books.fits(charges, start, stop, candidates):
        return
    for size in range(1, min(len(candidates), rule["max_victims"]) + 1):
        for others in itertools.combinations(candidates, size):
            tenants = collections.Counter(other["tenant_id"] for other in others)
            if max(tenants.values()) > rule.get("max_victims_per_tenant", size):
                continue
            cheaper = not victims or work_lost(others, start) < work_lost(victims, start)
            if cheaper and audit.books.fits(charges, start, stop, others):
                names = [other["id"] for other in others]
                audit.find("SPARED", position, f"{names} cost {work_lost(others, start)}, {work_lost(victims, start)}")
                return


def check_spared(audit, position, claims, what):
    """A request that may displace others and was denied all the same: nobody could make room for any of its models."""
    rule = audit.terms.get("rules", {}).get(what["tenant_id"])
    if not what["may_preempt"] or what["start"] or claims["priority_class"] != "INTERNAL_RESEARCH" or rule is None:
        return
    if "lease_id" in what:
        # What runs inside a lease makes no room.
        return
    audit.counts["denials of who may displace others"] += 1
    now = claims["iat"]
    if any(ROOM.match(reason["message"])[1] in audit.books.budgets for reason in claims["reasons"]):
        return
    for model in what["gpu_models"]:
        charges = books.levels(charges_of(audit, what, model, now))
        for start in starts_tried(audit, rule, now, charges):
            stop = start + what["duration_seconds"]
            without = no_room(audit, charges, start, stop)
            candidates = those_who_may_go(audit, rule, start, without, now)
            check_cheapest(audit, position, (charges, start, stop), rule, candidates, [])


def charges_of(audit, what, model, start):
    """What a request charges for one of its models, and under which limits, in the order of the accounts."""
    month = datetime.datetime.fromtimestamp(start, datetime.UTC).strftime("%Y-%m")
    accounts = {
        f"cluster/{what['cluster_id']}/gpu/{model}": ("level", "milli-gpu"),
        f"cluster/{what['cluster_id']}/fabric-gbps": ("level", "gbps"),
        f"tenant/{what['tenant_id']}/gpu": ("level", "milli-gpu"),
        f"tenant/{what['tenant_id']}/gpu-seconds/{month}": ("budget", "gpu-second"),
    }
    if "lease_id" in what:
        # The lease holds and has paid everything.
        accounts = {
            f"lease/{what['lease_id']}": ("level", "milli-gpu"),
            f"lease/{what['lease_id']}/fabric-gbps": ("level", "gbps"),
        }
    return [
        {
            "account": account,
            "amount": amounts(what)[unit],
            "kind": kind,
            "limit": audit.limit_for(account, what["priority_class"]) or 0,
            "unit": unit,
        }
        for account, (kind, unit) in sorted(accounts.items())
        if amounts(what)[unit] > 0
    ]


def check_instead(audit, position, claims, what, start):
    """What a denial says would have been admitted: the most GPUs, the longest duration, the earliest start."""
    audit.counts["denials asked what would have been admitted"] += 1
    told = []
    for reason in claims["reasons"]:
        instead = dict(reason.get("counterfactual", {}))
        instead.pop("account", None)
        told.append((ROOM.match(reason["message"])[1], instead))
    expected = []
    for model in what["gpu_models"]:
        charges = charges_of(audit, what, model, start)
        refused = audit.books.misfits(charges, start, start + what["duration_seconds"])
        instead = fit_instead(audit, charges, what, start)
        if "extends" in what:
            # What goes on does so at once, on all of its GPUs.
            instead = {name: value for name, value in instead.items() if name == "duration_seconds"}
        expected += [one for charge, _ in refused if (one := (charge["account"], instead)) not in expected]
    if told != expected:
        audit.find("DENIAL", position, f"{told} would have been admitted instead, not {expected}")


def fit_instead(audit, charges, what, start):
    """The most GPUs, the longest duration and the earliest later start that fit, each tried one after the other."""
    gpus, length = what["gpu_count"], what["duration_seconds"]

    def fits(begin, seconds, part, whole, units):
        scaled = [
            dict(charge, amount=-(-charge["amount"] * part // whole)) if charge["unit"] in units else charge
            for charge in charges
        ]
        return audit.books.fits(scaled, begin, begin + seconds)

    latest = max((held["until"] for held in audit.books.live.values()), default=start)
    lease = audit.books.live.get(what.get("lease_id"))
    bound = books.UNBOUNDED if lease is None else lease["until"]
    ways = {
        "gpu_count": (n for n in range(gpus - 1, 0, -1) if fits(start, length, n, gpus, ("milli-gpu", "gpu-second"))),
        "duration_seconds": (n for n in range(length - 1, 0, -1) if fits(start, n, n, length, ("gpu-second",))),
        "start": (at for at in range(start + 1, latest + 1) if fits(at, length, 1, 1, ()) and at + length <= bound),
    }
    best = {name: next(way, None) for name, way in ways.items()}
    return {name: value for name, value in best.items() if value is not None}


def amounts(what):
    """What a request charges, by unit. GPU-seconds are rounded up."""
    milli = what["gpu_count"] * what["gpu_milli"]
    return {
        "milli-gpu": milli,
        "gpu-second": -(-milli * what["duration_seconds"] // 1000),
        "gbps": what["fabric_gbps"],
    }


def order(audit, position, time, event):
    """An order of eviction: the next of those that the decision before it asks for, signed."""
    if not audit.orders:
        audit.find("ORDER", position, "no decision asks for it")
        return
    claims, preemptor, eviction = audit.orders.popleft()
    ours = (eviction["epoch"], eviction["evict_by"], preemptor, eviction["reservation"])
    if (event["epoch"], event["evict_by"], event["preemptor"], event["victim"]) != ours or time != claims["iat"]:
        audit.find("ORDER", position, f"it is not the one that the decision asks for: {eviction}")
    signed = claims_of(audit, position, event["token"], ORDER)
    victim = audit.reservations.get(eviction["reservation"], {})
    said = dict(eviction, preemptor=preemptor, exp=victim.get("end"), placet=1)
    said.update({name: claims[name] for name in ("aud", "iss", "iat", "jti")})
    if signed is not None and signed != said:
        audit.find("ORDER", position, f"it says {signed}, not {said}")


def missing(audit, position):
    audit.find("ORDER", position, f"{len(audit.orders)} orders of eviction are missing before it")
    audit.orders.clear()


# --- What becomes of reservations -------------------------------------------------------------------------------


def settle(audit, position, time, event):
    """The live reservation that an event names."""
    held = audit.books.live.get(event["reservation"])
    if held is None:
        late = audit.reservations.get(event["reservation"])
        if event["kind"] == "confirmation" and late is not None and late["confirmed"] is None:
            audit.find("DEADLINE", position, f"`{late['id']}` is confirmed at {time}, not before {late['confirm_by']}")
            return None
        audit.find("SETTLED", position, f"`{event['reservation']}` is not held")
    elif event["epoch"] != held["epoch"]:
        audit.find("EPOCH", position, f"epoch {event['epoch']} is not {held['epoch']}")
    return held


def confirm(audit, position, time, event):
    held = settle(audit, position, time, event)
    if held is None:
        return
    if held["confirmed"] is not None:
        audit.find("SETTLED", position, f"`{held['id']}` was confirmed before")
    freeze = frozen(audit, held, held["work"])
    if freeze is not None:
        audit.find("FROZEN", position, f"`{held['id']}` is confirmed though `{freeze}` freezes it")
    held["confirmed"], held["settled_in"]["confirm"] = time, event["epoch"]
    audit.counts["preemptors: confirmed"] += bool(held["waits_for"])
    audit.counts["confirmations before the start"] += time < held["start"]
    audit.looked = None
    for victim in audit.books.victims(held):
        tenant = victim["tenant_id"]
        audit.lost[tenant] = max(held["start"], audit.lost.get(tenant, 0))
    audit.books.cut(held)


def release(audit, position, time, event):
    held = settle(audit, position, time, event)
    if held is None:
        return
    audit.counts["preemptors: released unconfirmed"] += bool(held["waits_for"])
    if held["told_by"] is not None:
        kind = "before the preemptor was confirmed" if not held["cut"] else "after it"
        audit.counts[f"victims released {kind}"] += 1
    audit.counts["releases before the start"] += time < held["start"]
    whole = held["confirmed"] is None
    held["settled_in"]["release"] = event["epoch"]
    audit.counts["releases of what was made longer"] += len(held["terms"]) > 1
    give_back(audit, position, time, event, refunds(held, None if whole else time), "RELEASED")


def refunds(held, since):
    """The budget that is given back of what lies ahead, of each term by itself; of all of it if there was no use."""
    back, held["refunded_gpu_seconds"] = collections.Counter(), 0
    for term in held["terms"]:
        length = term["end"] - term["start"]
        left = length if since is None else max(0, term["end"] - max(since, term["start"]))
        budgets = [charge for charge in term["charges"] if charge["kind"] == "budget"]
        own = {charge["account"]: charge["amount"] * left // length for charge in budgets}
        back.update(own)
        in_seconds = (own[charge["account"]] for charge in budgets if charge["unit"] == "gpu-second")
        held["refunded_gpu_seconds"] += max(in_seconds, default=0)
    return dict(back)


def expire(audit, position, time, event):
    held = settle(audit, position, time, event)
    if held is None:
        return
    cause = "unconfirmed" if held["confirmed"] is None else "evicted" if held["cut"] else "ended"
    if due(held) < own_due(held):
        cause = "lease_ended"
    audit.counts[f"expiries: {cause}"] += 1
    first = min((due(other), name) for name, other in audit.books.live.items())
    if first < (due(held), held["id"]):
        audit.find("EXPIRY", position, f"`{first[1]}` was due before, at {first[0]}")
    audit.counts["preemptors: not confirmed"] += bool(held["waits_for"])
    if (event["cause"], time) != (cause, due(held)):
        causes = (event["cause"], cause)
        code = "INSIDE" if "lease_ended" in causes else "EVICTED" if "evicted" in causes else "EXPIRY"
        audit.find(code, position, f"`{held['id']}` is {cause} at {due(held)}, not {event['cause']} at {time}")
    whole = held["confirmed"] is None
    state = "REVOKED" if cause in ("evicted", "lease_ended") else "EXPIRED"
    give_back(audit, position, time, event, refunds(held, None if whole else time), state)


def give_back(audit, position, time, event, expected, state):
    logged = {refund["account"]: refund["amount"] for refund in event["refunds"]}
    expected = {account: amount for account, amount in expected.items() if amount > 0}
    if logged != expected or len(logged) != len(event["refunds"]):
        audit.find("REFUND", position, f"{event['refunds']} instead of {expected}")
        # Who was told what is right was told something else than the log has.
        audit.books.live[event["reservation"]]["refunded_gpu_seconds"] = max(logged.values(), default=0)
    end(audit, event["reservation"], time, logged, state)


def end(audit, name, time, given, state=None):
    held, audit.looked = audit.books.live[name], None
    held["over"], held["refunds"], held["ended"] = time, given, state
    audit.books.end(held)
    for account, amount in given.items():
        audit.books.spent[account] -= amount


FOLDED = {
    "decision": decide,
    "confirmation": confirm,
    "release": release,
    "eviction_order": order,
    "quotas": change_quotas,
    "bundle_activation": activate_bundle,
    "facts_activation": activate_facts,
    "erasure": erase,
    "waiver": waive,
    "freeze": freeze,
    "thaw": thaw,
}


# --- Once more, and without the order of the log ----------------------------------------------------------------


def sweep(audit):
    """At every second, what was really held is within the limits, and so is what flowed up the trees."""
    seconds = collections.defaultdict(list)
    for held in audit.reservations.values():
        over = held["end"] if held["over"] is None else held["over"]
        for term in held["terms"]:
            for second in range(term["start"], min(term["end"], over, term["start"] + books.LONGEST)):
                seconds[second].append(term)
        lease = audit.reservations.get(held["lease_id"])
        stayed = lease is not None and lease["over"] is not None and over > max(lease["over"], held["start"])
        if stayed:
            audit.find("INSIDE", held["id"], f"it ran up to {over}, its lease `{lease['id']}` up to {lease['over']}")
    for second, those in sorted(seconds.items()):
        use, limits = collections.Counter(), {}
        for held in those:
            for charge in books.levels(held["charges"]):
                use[charge["account"]] += charge["amount"]
                limits[charge["account"]] = max(charge["limit"], limits.get(charge["account"], 0))
        for account, amount in use.items():
            if amount > limits[account]:
                audit.find("LIMIT", f"second {second}", f"`{account}` has {amount} of {limits[account]}")
        # Where the trees changed meanwhile, more may be held than may be admitted now.
        trees = those[0]["trees"]
        if trees and all(held["trees"] is trees for held in those):
            audit.counts["seconds at which cohorts were added up again"] += 1
            sweep_trees(audit, second, use, trees)


def sweep_trees(audit, second, use, trees):
    """From the leaves up, and with no model of what was admitted."""
    totals = collections.Counter({account: use[account] for account in trees})

    def depth(node):
        return 0 if node.cohort is None else 1 + depth(trees[node.cohort])

    for node in sorted(trees.values(), key=depth, reverse=True):
        held = totals[node.own["account"]]
        if held > node.limit:
            code = "BORROWED" if node.cohort is not None else "LENT"
            audit.find(code, f"second {second}", f"`{node.own['account']}` has {held} of {node.limit}")
        if node.cohort is not None:
            totals[node.cohort] += max(0, held - node.kept)


# --- What is stored beside the log ------------------------------------------------------------------------------


def check_tables(audit, store):
    """The table of decisions and the evidence say what the tokens say."""
    rows = store.execute("SELECT caller, request_id, name, request_digest, position FROM decisions").fetchall()
    stored = {tuple(row[:2]): (row[2], row[3].hex(), row[4]) for row in rows}
    ours = {}
    for request, decision in audit.decisions.items():
        claims = decision["claims"]
        ours[request] = (claims["jti"], claims["request_digest"].removeprefix("sha256:"), decision["position"])
    for request in sorted(stored.keys() | ours.keys()):
        if stored.get(request) != ours.get(request):
            audit.find("TABLE", request, f"{stored.get(request)} is stored, {ours.get(request)} is in the log")
    evidence = {row[0]: row[1:] for row in store.execute("SELECT position, input, evaluation FROM evidence")}
    for decision in audit.decisions.values():
        position, claims = decision["position"], decision["claims"]
        given, evaluation = evidence.pop(position, (None, None))
        digests = [digest(given), digest(evaluation)]
        if evaluation is not None and (claims["waivers"] or claims["effect"] == "PERMIT" and b'"DENY"' in evaluation):
            fault = lifted_wrongly(audit, claims, json.loads(evaluation))
            if fault is not None:
                audit.find("WAIVED", position, fault)
        if digests != [claims.get("input_digest"), claims["evaluation_digest"]]:
            audit.find("EVIDENCE", position, "input or evaluation are not those of the token")
    for position in evidence:
        audit.find("EVIDENCE", position, "belongs to no decision")


def digest(part):
    return None if part is None else f"sha256:{hashlib.sha256(part).hexdigest()}"


# --- What was published of the log --------------------------------------------------------------------------------


class NoteKey:
    """A key for one kind of signature (C2SP signed-note, "Verifier keys"): `name+hash+base64`."""

    KIND = b""

    def __init__(self, text):
        self.name, self.hash, encoded = text.split("+", 2)
        typed = base64.b64decode(encoded, validate=True)
        ours = hashlib.sha256(self.name.encode() + b"\n" + typed).digest()[:4].hex()
        if typed[:1] != self.KIND or len(typed) != 33 or ours != self.hash:
            raise ValueError(f"`{text}` is no key of that kind")
        self.bytes = typed[1:]

    def is_of(self, line):
        """Whether a signature line says that it is of this key."""
        parts = line.split(" ")
        return parts[:2] == ["\u2014", self.name] and base64.b64decode(parts[2], validate=True)[:4].hex() == self.hash


class WitnessKey(NoteKey):
    """The key of a witness (C2SP tlog-cosignature, `cosignature/v1`)."""

    KIND = b"\4"

    def check(self, audit, text, line):
        """Raises an error unless the line cosigns the text."""
        signature = base64.b64decode(line.split(" ")[2], validate=True)[4:]
        if len(signature) != 72:
            raise ValueError("a cosignature has a time and 64 bytes")
        time = int.from_bytes(signature[:8], "big")
        if Ed25519PublicKey is not None:
            message = f"cosignature/v1\ntime {time}\n{text}\n"
            Ed25519PublicKey.from_public_bytes(self.bytes).verify(signature[8:], message.encode())
            audit.counts["cosignatures verified"] += 1


class LogKey(NoteKey):
    """The key of a log's checkpoints."""

    KIND = b"\1"

    def parts(self, note):
        """The text of a note with the log's own lines, and the lines of others."""
        text, signatures = note.rsplit("\n\n", 1)
        lines = signatures.removesuffix("\n").split("\n")
        ours = [line for line in lines if self.is_of(line)]
        return "\n".join([text, "", *ours]), [line for line in lines if not self.is_of(line)]

    def open(self, audit, note):
        """What a checkpoint says, if this key signed it: its size and root. Raises an error if not."""
        text, signatures = note.rsplit("\n\n", 1)
        origin, size, root = text.split("\n")[:3]
        if origin != self.name:
            raise ValueError(f"it is of the log `{origin}`")
        lines = [line.split(" ") for line in signatures.removesuffix("\n").split("\n")]
        ours = [base64.b64decode(line[2], validate=True) for line in lines if line[:2] == ["\u2014", self.name]]
        ours = [signature[4:] for signature in ours if signature[:4].hex() == self.hash]
        if len(ours) != 1:
            raise ValueError(f"it has {len(ours)} signatures of the log's key")
        if Ed25519PublicKey is not None:
            Ed25519PublicKey.from_public_bytes(self.bytes).verify(ours[0], f"{text}\n".encode())
            audit.counts["checkpoint signatures verified"] += 1
        if str(int(size)) != size:
            raise ValueError(f"`{size}` is no number of leaves")
        return int(size), base64.b64decode(root, validate=True)


class Published:
    """Checkpoints in the order in which they were made, or served: each is of the log, and none goes back."""

    def __init__(self, audit, tree, key):
        self.audit, self.tree, self.key, self.size = audit, tree, key, 0

    def check(self, where, note):
        """How many leaves it has; `None` if it is not a checkpoint of this log."""
        audit = self.audit
        try:
            size, root = self.key.open(audit, note)
        except (InvalidSignature, ValueError, IndexError) as error:
            audit.find("NOTE", where, f"{type(error).__name__} {error}")
            return None
        if size < self.size:
            audit.find("BACK", where, f"it has {size} leaves, one before it has {self.size}")
        self.size = max(size, self.size)
        if size > len(self.tree.leaves):
            audit.find("FORK", where, f"it has {size} leaves, the log {len(self.tree.leaves)}")
        elif root != self.tree.root(size):
            ours = self.tree.root(size).hex()
            audit.find("FORK", where, f"its root is {root.hex()}, that of the {size} leaves {ours}")
        return size


def check_published(audit, tree, store):
    """Every checkpoint that was ever made or served is of this log, and so is every tile that was served."""
    if len(audit.log_keys) != 1:
        audit.find("NOTE", "the server", f"it published {len(audit.log_keys)} keys of the log, not one")
        return
    key = LogKey(*audit.log_keys)
    rows = store.execute("SELECT number, size, note FROM checkpoints ORDER BY number").fetchall()
    if [number for number, _, _ in rows] != list(range(len(rows))):
        audit.find("UNSTORED", "the store", "a checkpoint that it made is missing")
    made, witnesses, stored = Published(audit, tree, key), list(map(WitnessKey, audit.witnesses)), {}
    for number, size, note in rows:
        where = f"stored {number}"
        if made.check(where, note) not in (size, None):
            audit.find("NOTE", where, f"it is stored as one of {size} leaves")
        try:
            ours, others = key.parts(note)
            check_cosigned(audit, witnesses, ours.split("\n\n")[0], others)
            stored[ours] = set(others)
        except (InvalidSignature, ValueError, IndexError) as error:
            audit.find("NOTE", where, f"{type(error).__name__} {error}")
    audit.counts["checkpoints stored"] = len(rows)
    audit.counts["cosignatures stored"] = sum(map(len, stored.values()))
    check_served(audit, Published(audit, tree, key), stored)
    for what in ("checkpoints served", "tiles served: hashes", "tiles served: entries", "cosignatures acknowledged"):
        if not audit.counts[what]:
            audit.find("UNREAD", what, "there were none")


def check_cosigned(audit, witnesses, text, lines):
    """Raises an error unless all lines are cosignatures of witnesses, of none more than one."""
    signed = []
    for line in lines:
        signer = next((witness for witness in witnesses if witness.is_of(line)), None)
        if signer is None or signer in signed:
            raise ValueError(f"`{line}` is of nobody who is known, or of somebody once more")
        signer.check(audit, text, line)
        signed.append(signer)


def check_stored(audit, key, where, note, stored):
    """What the log said of itself is stored byte for byte, and so is each line that it was given."""
    try:
        ours, others = key.parts(note)
    except (ValueError, IndexError) as error:
        audit.find("NOTE", where, f"{type(error).__name__} {error}")
        return
    if ours not in stored:
        audit.find("UNSTORED", where, "the store does not have it, byte for byte")
    elif not set(others) <= stored[ours]:
        audit.find("UNSTORED", where, "the store does not have all of its cosignatures")


def check_served(audit, served, stored):
    """Goes through what the reader of the log was served, over all lives of the server."""
    known = {}
    for number, line in enumerate(audit.served):
        where = f"served {number}"
        if line["served"] == "end":
            audit.counts["questions for the checkpoint"] += line["questions"]
        elif line["served"] == "cosigned":
            audit.counts["cosignatures acknowledged"] += 1
            # The server's answer has the line that was handed in, or an earlier one of the same witness.
            if len(line["note"].rsplit("\n\n", 1)[1].splitlines()) < 2:
                audit.find("UNSTORED", where, "it was acknowledged without the cosignature")
            check_stored(audit, served.key, where, line["note"], stored)
        elif line["served"] == "tile":
            check_tile(audit, served, where, line)
        elif line["status"] != 200:
            audit.find("NOTE", where, f"there was no checkpoint: {line['status']} {line['note']}")
        else:
            text = line["note"].rsplit("\n\n", 1)[0]
            audit.counts["checkpoints served"] += text not in known
            audit.counts["checkpoints served by a later process"] += known.get(text, line["cycle"]) != line["cycle"]
            known[text] = line["cycle"]
            served.check(where, line["note"])
            check_stored(audit, served.key, where, line["note"], stored)


def check_tile(audit, served, where, line):
    path, ours = line["path"], served.tree.tile(line["path"])
    audit.counts["tiles served: " + ("entries" if "entries" in path else "hashes")] += 1
    audit.counts["tiles served: of them cut off"] += ".p/" in path
    if line["status"] != 200:
        audit.find("TILE", where, f"`{path}` of {line['size']} leaves was refused with {line['status']}")
    elif line["digest"] != digest(ours):
        audit.find("TILE", where, f"`{path}` is not what follows from the leaves")


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
    ours = [answer["effect"], *(what[name] for name in ("kind", "priority_class", "tenant_id", "cluster_id"))]
    theirs = [claims[name] for name in ("effect", "kind", "priority_class", "tenant_id")] + [got["cluster_id"]]
    if theirs != ours or (got["gpu_count"], length) != (what["gpu_count"], what["duration_seconds"]):
        audit.find("CLAIMS", decision["position"], f"it does not answer {what}")
    for charge in (grant or {"charges": []})["charges"]:
        if charge["amount"] != amounts(what)[charge["unit"]]:
            audit.find("CLAIMS", decision["position"], f"{charge} instead of {amounts(what)[charge['unit']]}")


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
    # A confirmation that is repeated names the epoch of then: that of the reservation, or the next one.
    of_then = held["settled_in"].get(ask["ask"], held["epoch"])
    if not of_then <= what["epoch"] <= held["epoch"] or what["tenant_id"] != held["tenant_id"]:
        audit.find("CHANGED", request, "settled with a stale epoch or by another tenant")
    if answer["epoch"] != what["epoch"]:
        audit.find("CHANGED", request, f"the client was told of epoch {answer['epoch']}, not {what['epoch']}")
    given = {
        "confirm": ("ACTIVE", held["confirmed"], 0),
        "release": ("RELEASED", held["over"], held["refunded_gpu_seconds"]),
    }[ask["ask"]]
    ended = ask["ask"] == "release" and held["ended"] != "RELEASED"
    if ended or (held["id"], *given) != (answer["reservation_id"], state, answer["time"], answer["refunded_gpu_seconds"]):
        code = "LOST" if given[1] is None or ended else "CHANGED"
        audit.find(code, request, f"the client was told {state} at {answer['time']}, the log has {given}")


def check_refusal(audit, request, ask, answer):
    """Refusals change nothing, so that the log cannot have them; but it must not contradict them."""
    what, code = ask["what"], answer["code"]
    if ask["ask"] == "admit":
        audit.find("REFUSED", request, f"an admission was refused with {code}")
        return
    held, _ = named(audit, what)
    true = {
        "CONFIRM_DEADLINE_PASSED": held and held["confirmed"] is None and held["ended"] == "EXPIRED",
        "RESERVATION_ENDED": held and f"it is {held['ended']}" in answer["message"],
        "STALE_EPOCH": held and what["epoch"] != held["epoch"],
        "NOT_YOURS": held and what["tenant_id"] != held["tenant_id"],
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
    tree = Tree(leaves)
    audit.root = tree.root(len(leaves)).hex()
    check_tree(audit, tree, [stored for _, stored in numbers])
    check_published(audit, tree, store)
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
                "peaks": audit.peaks,
                "findings": audit.findings,
            }
        )
    )


def tell(audit):
    for name, count in sorted(audit.counts.items()):
        print(f"{name:45} {count:>10}")
    for code, count in sorted(audit.codes.items()):
        print(f"{'denials: ' + code:45} {count:>10}")
    for account, (most, limit) in sorted(audit.peaks.items()):
        print(f"{'peak of ' + account:45} {most:>10} of {limit}")
    if Ed25519PublicKey is None:
        print("signatures were not verified: the Python library `cryptography` is missing")
    for finding in audit.findings[:SHOWN]:
        print(finding)
    print(f"root {audit.root}: {len(audit.findings)} findings")


if __name__ == "__main__":
    sys.exit(main())
