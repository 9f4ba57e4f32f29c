"""Shows that the auditor finds what it is there to find: doctors copies of a good run, one lie in each.

usage: doctor.py RUN [LIE...]

RUN is a folder of the crash test: `placet.db`, `records/`, `keys/`. A lie goes as deep as its author could make it go:
leaves are written anew, the tree is built anew over them, tokens and checkpoints are signed anew with the server's own
keys, so that each lie is left to the one check that can tell. LIE is the name of a lie; all are told if none is named.
Prints a line for each; exit 1 if one was not found, if the run as it is was not found good, or if one of the auditor's
codes has no lie of its own. Exit 3 if all of these are as they should be, but the run has nothing that some of the lies
could be about: what was left is printed at the end, one `untold: LIE` a line.
"""

import base64
import collections
import contextlib
import copy
import functools
import hashlib
import json
import multiprocessing
import pathlib
import pickle
import re
import shutil
import sqlite3
import sys
import tempfile

import audit
from cryptography.hazmat.primitives.serialization import load_der_private_key

# Asking what would have been admitted is most of an audit's work, and only one lie is about it.
audit.SAMPLED = 40

LIES = []
# What it raises when the run has nothing that a lie could be about: looking for the first of none, mostly.
LACKING = (LookupError, StopIteration, ValueError)


def lie(*codes):
    """Registers a lie, with the codes of which the auditor must find all."""
    return lambda tell: LIES.append((tell.__name__.replace("_", " "), set(codes), tell))


@functools.cache
def claims_of(token):
    return json.loads(audit.unpadded(token.split(".")[1]))


def text_of(note):
    """What a note says, without its signatures."""
    return note.rsplit("\n\n", 1)[0]


class Run:
    """A copy of the run, open for doctoring."""

    def __init__(self, source, folder):
        self.folder = pathlib.Path(folder)
        shutil.copytree(source, self.folder, dirs_exist_ok=True)
        self.path = self.folder / "placet.db"
        self.store = sqlite3.connect(self.path)
        # A copy that is thrown away need not reach the disk.
        self.store.execute("PRAGMA synchronous = OFF")
        self.leaves, records = pickle.loads(content(source))
        self.records = {self.folder / "records" / name: lines for name, lines in records.items()}
        self.key = self.key_of("signing-key")
        # Whether checkpoints and tiles are made anew with the leaves, as if they had been published so.
        self.publishes = True
        self.source = source

    def key_of(self, name):
        return load_der_private_key((self.folder / f"keys/{name}.pkcs8").read_bytes(), None)

    def events(self, kind):
        return [(position, leaf["event"]) for position, leaf in enumerate(self.leaves) if leaf["event"]["kind"] == kind]

    def claims(self, position):
        """The claims of a decision or an order; not to be changed."""
        return claims_of(self.leaves[position]["event"]["token"])

    def decisions(self, effect):
        return [p for p, _ in self.events("decision") if self.claims(p)["effect"] == effect]

    def displacing(self):
        """Positions of decisions that send others away, and their claims."""
        return [(p, self.claims(p)) for p in self.decisions("PERMIT") if "evictions" in self.claims(p)]

    def evicted(self):
        """Positions and events of the ends of those that had to go."""
        return [(p, event) for p, event in self.events("expiry") if event["cause"] == "evicted"]

    def permits(self, confirmed):
        """Positions of permits, and the names of their reservations."""
        named = {event["reservation"] for _, event in self.events("confirmation")}
        grants = [(p, self.claims(p)["reservation"]) for p in self.decisions("PERMIT")]
        return [(p, grant["id"]) for p, grant in grants if (grant["id"] in named) == confirmed]

    def extending(self):
        """Positions of decisions by which a reservation goes on, and their claims."""
        return [(p, self.claims(p)) for p in self.decisions("PERMIT") if "extends" in self.claims(p)]

    def inside(self):
        """Positions of decisions on new jobs inside leases, and their claims."""
        fresh = [(p, self.claims(p)) for p in self.decisions("PERMIT") if "lease_id" in self.claims(p)]
        return [(p, claims) for p, claims in fresh if "extends" not in claims]

    def members(self, effect):
        """Positions of decisions on members of gangs, and their claims."""
        return [(p, self.claims(p)) for p in self.decisions(effect) if "gang" in self.claims(p)]

    def denied_for(self, code):
        """Positions of denials for one reason alone."""
        codes = [(p, {reason["code"] for reason in self.claims(p)["reasons"]}) for p in self.decisions("DENY")]
        return [p for p, found in codes if found == {code}]

    def ended_with_lease(self):
        """Positions and events of the ends of jobs whose leases ended."""
        return [(p, event) for p, event in self.events("expiry") if event["cause"] == "lease_ended"]

    def sign(self, position, change, tell_clients=True, header=None):
        """Changes the claims of a decision or an order and signs them anew; as if clients had been answered so."""
        event = self.leaves[position]["event"]
        old, claims = event["token"], copy.deepcopy(self.claims(position))
        change(claims)
        payload = base64.urlsafe_b64encode(audit.canonical(claims)).decode().rstrip("=")
        header = old.split(".")[0] if header is None else header
        signed = f"{header}.{payload}"
        signature = base64.urlsafe_b64encode(self.key.sign(signed.encode())).decode().rstrip("=")
        event["token"] = f"{signed}.{signature}"
        if tell_clients:
            for line in self.lines():
                if line.get("token") == old:
                    line["token"] = event["token"]

    def lines(self):
        return (line for lines in self.records.values() for line in lines)

    def facts(self):
        return [line for line in self.lines() if line.get("event") == "facts"]

    def answers(self, kind):
        return [line for line in self.lines() if line.get("answer") == kind]

    def forget(self, position):
        """Puts a leaf of no consequence in the place of another, so that the others keep their positions."""
        self.leaves[position]["event"] = copy.deepcopy(self.events("bundle_activation")[0][1])
        for table in ("decisions", "evidence"):
            self.store.execute(f"DELETE FROM {table} WHERE position = ?", (position,))

    def insert(self, position, leaf):
        """Puts a leaf between others, which move on with all that names them."""
        self.leaves.insert(position, leaf)
        for table in ("decisions", "evidence"):
            # By way of negative numbers, so that no two are ever at one place.
            self.store.execute(f"UPDATE {table} SET position = -position - 1 WHERE position >= ?", (position,))
            self.store.execute(f"UPDATE {table} SET position = -position WHERE position < 0")
        for line in self.lines():
            if line.get("position", -1) >= position:
                line["position"] += 1

    def append(self, event):
        (time,) = self.store.execute("SELECT high_water FROM meta").fetchone()
        self.leaves.append({"event": event, "time": time, "v": 1})
        return len(self.leaves) - 1

    # Of the log as it was published.

    def served(self, kind):
        """What the reader of the log was served: `checkpoint` or `tile`."""
        return [line for line in self.lines() if line.get("served") == kind]

    def stored(self):
        """The numbers, sizes and notes of the checkpoints."""
        return self.store.execute("SELECT number, size, note FROM checkpoints ORDER BY number").fetchall()

    def published(self):
        """Those of them that were served, the first that was made left out."""
        served = {text_of(line["note"]) for line in self.served("checkpoint")}
        return [row for row in self.stored()[1:] if text_of(row[2]) in served]

    def uncosign(self, texts):
        """Takes back what was acknowledged to the witness of these: it would not cosign what takes their place."""
        for lines in self.records.values():
            acknowledged = [line for line in lines if line.get("served") == "cosigned"]
            gone = [line for line in acknowledged if text_of(line["note"]) in texts]
            lines[:] = [line for line in lines if line not in gone]

    def write_checkpoint(self, number, size, note):
        self.store.execute("UPDATE checkpoints SET size = ?, note = ? WHERE number = ?", (size, note, number))

    def checkpoint(self, like, root=None, size=None, key=None, origin=None):
        """A checkpoint like another one, but for what is given, signed anew."""
        text, lines = like.rsplit("\n\n", 1)
        line = lines.split("\n")[0]
        its_origin, its_size, its_root = text.split("\n")
        mark, name, encoded = line.split(" ")
        its_root = its_root if root is None else base64.b64encode(root).decode()
        text = f"{origin or its_origin}\n{its_size if size is None else size}\n{its_root}\n"
        signature = (key or self.key_of("checkpoint-key")).sign(text.encode())
        encoded = base64.b64encode(base64.b64decode(encoded)[:4] + signature).decode()
        return f"{text}\n{mark} {name} {encoded}\n"

    def forge(self, change):
        """Makes another of a checkpoint that was served, in the store as well; neither the first nor the last."""
        number, size, note = self.published()[-2]
        forged = change(size, note)
        self.write_checkpoint(number, int(forged.split("\n")[1]), forged)
        self.uncosign({text_of(note)})
        for line in self.served("checkpoint"):
            line["note"] = forged if text_of(line["note"]) == text_of(note) else line["note"]

    def publish(self, tree):
        """Makes checkpoints and tiles anew, of as many leaves as they have."""
        anew = {}
        for number, size, note in self.stored():
            size = min(size, len(tree.leaves))
            anew[text_of(note)] = self.checkpoint(note, tree.root(size), size)
            self.write_checkpoint(number, size, anew[text_of(note)])
        self.uncosign(anew)
        for line in self.served("checkpoint"):
            line["note"] = anew[text_of(line["note"])]
        for line in self.served("tile"):
            line["digest"] = audit.digest(tree.tile(line["path"]))

    def save(self):
        """Writes everything back, and the tree anew if the leaves are others."""
        if self.leaves != as_read(self.source)[0]:
            self.store.execute("DELETE FROM leaves")
            self.store.execute("DELETE FROM tree")
            tree = audit.Tree(list(map(audit.canonical, self.leaves)))
            self.store.executemany("INSERT INTO leaves VALUES (?, ?)", enumerate(tree.leaves))
            self.store.executemany("INSERT INTO tree VALUES (?, ?)", enumerate(tree.row))
            if self.publishes:
                self.publish(tree)
        self.store.commit()
        self.store.close()
        for path, lines in self.records.items():
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def is_unchanged(self):
        records = {path.name: lines for path, lines in self.records.items()}
        return (self.leaves, records) == as_read(self.source) and not self.store.total_changes


@functools.cache
def as_read(source):
    """The leaves and the records of a run; not to be changed."""
    store = sqlite3.connect(pathlib.Path(source) / "placet.db")
    with contextlib.closing(store):
        leaves = [json.loads(leaf) for (leaf,) in store.execute("SELECT leaf FROM leaves ORDER BY position")]
    paths = sorted((pathlib.Path(source) / "records").glob("*.jsonl"))
    return leaves, {path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}


@functools.cache
def content(source):
    """The same, to be copied: much faster than one by one."""
    return pickle.dumps(as_read(source), pickle.HIGHEST_PROTOCOL)


# --- Lies of the store ------------------------------------------------------------------------------------------


@lie("GAP", "TREE")
def a_leaf_is_removed(run):
    run.store.execute("DELETE FROM leaves WHERE position = ?", (len(run.leaves) // 2,))


@lie("LOST")
def the_log_is_cut_off(run):
    last = max(line["position"] for line in run.answers("decision"))
    del run.leaves[last:]
    for table in ("decisions", "evidence"):
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
    run.store.execute("DELETE FROM decisions WHERE position = ?", (run.decisions("PERMIT")[0],))


@lie("EVIDENCE")
def an_input_is_changed(run):
    run.store.execute("UPDATE evidence SET input = x'7b7d' WHERE position = ?", (run.decisions("PERMIT")[0],))


# --- Lies of the log as it was published ------------------------------------------------------------------------


@lie("NOTE")
def a_checkpoint_is_signed_with_the_key_of_decisions(run):
    run.forge(lambda size, note: run.checkpoint(note, key=run.key))


@lie("NOTE")
def a_checkpoint_is_of_another_log(run):
    run.forge(lambda size, note: run.checkpoint(note, origin="elsewhere"))


@lie("NOTE")
def a_checkpoint_was_changed_after_it_was_signed(run):
    run.forge(lambda size, note: note.replace(f"\n{size}\n", f"\n{size - 1}\n", 1))


@lie("NOTE")
def a_checkpoint_is_stored_as_one_of_more_leaves(run):
    number, size, note = run.stored()[-1]
    run.write_checkpoint(number, size + 1, note)


@lie("NOTE")
def the_server_had_another_key_of_the_log_once(run):
    ready = [line for line in run.lines() if line.get("event") == "ready"]
    name, *_ = ready[-1]["log_key"].split("+")
    typed = b"\1" + run.key.public_key().public_bytes_raw()
    named = hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4].hex()
    ready[-1]["log_key"] = f"{name}+{named}+{base64.b64encode(typed).decode()}"


@lie("NOTE")
def there_was_no_checkpoint(run):
    run.served("checkpoint")[-1].update(status=404, note="no checkpoint is published\n")


@lie("FORK")
def a_checkpoint_has_another_root(run):
    run.forge(lambda size, note: run.checkpoint(note, hashlib.sha256(b"").digest()))


@lie("FORK")
def a_checkpoint_has_one_leaf_more_than_its_root(run):
    run.forge(lambda size, note: run.checkpoint(note, size=size + 1))


@lie("FORK", "TILE")
def a_leaf_is_changed_after_it_was_published(run):
    run.publishes = False
    run.events("bundle_activation")[0][1]["revision"] += "0"


@lie("FORK", "LOST")
def leaves_are_lost_after_they_were_published(run):
    run.publishes = False
    last = run.published()[-1][1] - 1
    del run.leaves[last:]
    for table in ("decisions", "evidence"):
        run.store.execute(f"DELETE FROM {table} WHERE position >= ?", (last,))


@lie("BACK")
def an_earlier_checkpoint_is_served_once_more(run):
    lines = next(lines for lines in run.records.values() if any("served" in line for line in lines))
    lines.append(dict(run.served("checkpoint")[0], cycle=99))


@lie("BACK")
def an_earlier_checkpoint_was_made_later(run):
    (first, *of_first), (last, *of_last) = run.stored()[0], run.stored()[-1]
    run.write_checkpoint(first, *of_last)
    run.write_checkpoint(last, *of_first)


@lie("UNSTORED")
def a_checkpoint_that_was_served_is_lost(run):
    """The newest ones, as if they had not been durable when they were shown."""
    run.store.execute("DELETE FROM checkpoints WHERE number >= ?", (run.published()[-1][0],))


@lie("UNSTORED")
def a_checkpoint_that_nobody_was_served_is_missing(run):
    number, _, note = run.published()[-2]
    run.store.execute("DELETE FROM checkpoints WHERE number = ?", (number,))
    for lines in run.records.values():
        lines[:] = [line for line in lines if "note" not in line or text_of(line["note"]) != text_of(note)]


def cosigned(run):
    """The stored checkpoints that were acknowledged to be cosigned, and their lines of the witness."""
    texts = {text_of(line["note"]) for line in run.served("cosigned")}
    rows = [row for row in run.stored() if text_of(row[2]) in texts]
    return [(number, size, note, note.rstrip("\n").split("\n")[-1]) for number, size, note in rows]


@lie("UNSTORED")
def a_cosignature_that_was_acknowledged_is_lost(run):
    number, size, note, line = cosigned(run)[-1]
    run.write_checkpoint(number, size, note.replace(f"{line}\n", ""))


@lie("UNSTORED")
def a_cosignature_is_acknowledged_and_never_was(run):
    number, size, note, line = cosigned(run)[-1]
    run.write_checkpoint(number, size, note.replace(f"{line}\n", ""))
    for served in run.lines():
        if "note" in served and text_of(served["note"]) == text_of(note):
            served["note"] = served["note"].replace(f"{line}\n", "")


@lie("NOTE")
def a_cosignature_is_that_of_another_checkpoint(run):
    (_, _, _, other), (number, size, note, line) = cosigned(run)[:2]
    run.write_checkpoint(number, size, note.replace(line, other))
    for served in run.lines():
        if "note" in served and line in served["note"]:
            served["note"] = served["note"].replace(line, other)


@lie("NOTE")
def a_checkpoint_is_stored_with_a_cosignature_of_nobody_known(run):
    number, size, note = run.published()[-1]
    run.write_checkpoint(number, size, f"{note}\u2014 witness {base64.b64encode(bytes(76)).decode()}\n")


def change_tile(run, kind, change):
    """Changes a tile that was served, of hashes or of entries."""
    tiles = [line for line in run.served("tile") if ("entries" in line["path"]) == (kind == "entries")]
    line = tiles[len(tiles) // 2]
    line["digest"] = audit.digest(change(audit.Tree(list(map(audit.canonical, run.leaves))).tile(line["path"])))


@lie("TILE")
def a_tile_was_served_with_another_byte(run):
    change_tile(run, "hashes", lambda tile: tile[:-1] + bytes([tile[-1] ^ 1]))


@lie("TILE")
def a_leaf_was_served_with_another_byte(run):
    change_tile(run, "entries", lambda tile: tile[:9] + bytes([tile[9] ^ 1]) + tile[10:])


@lie("TILE")
def a_tile_was_served_cut_short(run):
    change_tile(run, "hashes", lambda tile: tile[:-32])


@lie("TILE")
def a_tile_that_was_published_was_refused(run):
    run.served("tile")[-1].update(status=404)


@lie("TREE", "TILE")
def a_stored_hash_is_another_and_was_served(run):
    """Hash 4 is that of leaf 3."""
    other = bytes(32)
    run.store.execute("UPDATE tree SET hash = ? WHERE number = 4", (other,))
    tree = audit.Tree(list(map(audit.canonical, run.leaves)))
    tree.levels[0][3] = other
    for line in run.served("tile"):
        line["digest"] = audit.digest(tree.tile(line["path"]))


@lie("UNREAD")
def nobody_read_the_leaves(run):
    for lines in run.records.values():
        lines[:] = [line for line in lines if "entries" not in line.get("path", "")]


@lie("UNREAD")
def nobody_read_the_log(run):
    for lines in run.records.values():
        lines[:] = [line for line in lines if "served" not in line]


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


@lie("WAIVED")
def a_permit_names_a_waiver_that_was_never_logged(run):
    run.sign(run.decisions("PERMIT")[4], lambda claims: claims.update(waivers=["w-never"]))


@lie("FROZEN")
def a_request_is_denied_for_a_freeze_that_does_not_stand(run):
    denials = [p for p in run.decisions("DENY") if "gang" not in run.claims(p)]
    run.sign(denials[2], lambda claims: claims["reasons"][0].update(code="FROZEN"))


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

    claims = {p: run.claims(p) for p in run.decisions("DENY") if "gang" not in run.claims(p)}
    full = [p for p, own in claims.items() if any(audit.ROOM.match(r["message"]) for r in own["reasons"])]
    run.sign(full[2], change)


@lie("DENIAL")
def a_denial_says_that_a_cohort_had_one_more(run):
    def change(claims):
        for reason in claims["reasons"]:
            room = audit.ROOM.match(reason["message"])
            if room is not None and room[5] is not None:
                reason["message"] = reason["message"].replace(f"free {room[3]}", f"free {int(room[3]) + 1}", 1)

    def is_by_cohort(claims):
        rooms = (audit.ROOM.match(reason["message"]) for reason in claims["reasons"])
        return "gang" not in claims and any(room is not None and room[5] is not None for room in rooms)

    run.sign(next(p for p in run.decisions("DENY") if is_by_cohort(run.claims(p))), change)


@lie("DENIAL")
def a_denial_names_a_later_start_than_would_have_been_admitted(run):
    def change(claims):
        for reason in claims["reasons"]:
            reason["counterfactual"]["start"] += 1

    alone = [p for p in run.decisions("DENY") if "gang" not in run.claims(p)]
    denials = [(p, run.claims(p)["reasons"]) for p in alone if p % audit.SAMPLED == 0]
    run.sign(next(p for p, reasons in denials if all("start" in r.get("counterfactual", {}) for r in reasons)), change)


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
    charge = run.claims(run.decisions("PERMIT")[0])["reservation"]["charges"][0]
    for facts in run.facts():
        facts["limits"][charge["account"]] = charge["amount"] - 1


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
    run.forget(next(p for p, event in run.events("expiry") if event["cause"] in ("unconfirmed", "ended")))


@lie("EXPIRY")
def an_expiry_is_of_another_cause(run):
    event = next(event for _, event in run.events("expiry") if event["cause"] in ("unconfirmed", "ended"))
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


@lie("EPOCH")
def a_reservation_is_confirmed_in_another_epoch(run):
    run.events("confirmation")[0][1]["epoch"] = 2


# --- Lies of advance reservations and preemption ----------------------------------------------------------------


@lie("START")
def a_reservation_begins_before_the_second_that_was_asked_for(run):
    def change(claims):
        for name in ("start", "end", "confirm_by"):
            claims["reservation"][name] -= 1

    ahead = [p for p in run.decisions("PERMIT") if run.claims(p)["reservation"]["start"] > run.claims(p)["iat"]]
    run.sign(next(p for p in ahead if "evictions" not in run.claims(p)), change)


@lie("START")
def a_start_that_has_passed_is_denied_for_another_reason(run):
    def change(claims):
        claims["reasons"][0]["code"] = "QUOTA_EXCEEDED"

    codes = [(p, run.claims(p)["reasons"][0]["code"]) for p in run.decisions("DENY")]
    run.sign(next(p for p, code in codes if code == "START_IN_THE_PAST"), change)


@lie("START")
def a_preemptor_begins_before_its_victims_are_gone(run):
    run.sign(run.displacing()[0][0], lambda claims: claims["reservation"].update(start=claims["iat"]))


@lie("VICTIM")
def somebody_is_told_to_go_who_may_not_be(run):
    position, claims = run.displacing()[0]
    own = [run.claims(p) for p in run.decisions("PERMIT") if p < position]
    other = [it for it in own if it["priority_class"] == "INTERNAL_RESEARCH"][-1]
    named = {"reservation": other["reservation"]["id"], "tenant_id": other["tenant_id"]}
    run.sign(position, lambda claims: claims["evictions"][0].update(named))
    run.leaves[position + 1]["event"]["victim"] = named["reservation"]
    run.sign(position + 1, lambda order: order.update(named, exp=other["reservation"]["end"]))


@lie("VICTIM")
def one_more_is_told_to_go_than_needed(run):
    position, claims = run.displacing()[0]
    ended = {event["reservation"] for kind in ("release", "expiry") for p, event in run.events(kind) if p < position}
    confirmed = {event["reservation"] for p, event in run.events("confirmation") if p < position}
    told = {eviction["reservation"] for _, other in run.displacing() for eviction in other["evictions"]}
    sold = [run.claims(p) for p in run.decisions("PERMIT") if p < position]
    (*_, other) = (
        it
        for it in sold
        if it["priority_class"] == "EXTERNAL_COMMERCIAL"
        and it["reservation"]["id"] in confirmed - ended - told
        and it["reservation"]["end"] > claims["evictions"][0]["evict_by"]
    )
    more = dict(claims["evictions"][0], reservation=other["reservation"]["id"], tenant_id=other["tenant_id"], epoch=2)
    evictions = sorted([*claims["evictions"], more], key=lambda eviction: eviction["reservation"])
    at = position + 1 + evictions.index(more)
    run.insert(at, copy.deepcopy(run.leaves[position + 1]))
    run.leaves[at]["event"].update(victim=more["reservation"], epoch=2)
    run.sign(position, lambda claims: claims.update(evictions=evictions))
    run.sign(at, lambda order: order.update(more, exp=other["reservation"]["end"]))


@lie("SPARED")
def a_request_is_denied_although_others_could_make_room(run):
    def change(claims):
        for name in ("evictions", "preemption"):
            del claims[name]
        charge = claims.pop("reservation")["charges"][0]
        message = f"account `{charge['account']}`: asked {charge['amount']}, free 0 of {charge['limit']}"
        claims.update(effect="DENY", reasons=[{"code": "QUOTA_EXCEEDED", "message": message}])

    for position, claims in run.displacing():
        for number in range(len(claims["evictions"])):
            run.forget(position + 1 + number)
        run.sign(position, change)
    for line in run.answers("decision"):
        line["effect"] = json.loads(audit.unpadded(line["token"].split(".")[1]))["effect"]


# --- Lies of promises, and of whom rules spare ------------------------------------------------------------------


def victims_of(run):
    """Decisions that displace others, with the tenants of each one's victims."""
    return [(claims, [one["tenant_id"] for one in claims["evictions"]]) for _, claims in run.displacing()]


def promised_victim(run):
    """The tenant of a victim that was promised something."""
    named = {run.claims(p)["tenant_id"] for p in run.decisions("PERMIT") if "terms" in run.claims(p)}
    return next(tenant for _, tenants in victims_of(run) for tenant in tenants if tenant in named)


def says(run, tenant, name, change):
    """The policy says something else for a tenant, and so do all of its decisions."""
    of = {"preemption": "rules", "terms": "promises"}[name]
    for line in run.lines():
        if line.get("event") == "terms":
            change(line[of][tenant])
    for position in run.decisions("PERMIT"):
        claims = run.claims(position)
        if claims["tenant_id"] == tenant and name in claims:
            run.sign(position, lambda claims: change(claims[name]))


@lie("CLAIMS")
def a_permit_promises_less_than_the_policy(run):
    position = next(p for p in run.decisions("PERMIT") if "terms" in run.claims(p))
    run.sign(position, lambda claims: claims.pop("terms"))


@lie("CLAIMS")
def a_permit_promises_what_no_policy_says(run):
    position = next(p for p in run.decisions("PERMIT") if "terms" not in run.claims(p))
    run.sign(position, lambda claims: claims.update(terms={"min_runtime_seconds": 0, "notice_seconds": 0}))


@lie("CLAIMS")
def an_extension_forgets_what_was_promised(run):
    position = next(p for p, claims in run.extending() if "terms" in claims)
    run.sign(position, lambda claims: claims["terms"].update(notice_seconds=0))


@lie("PROMISE")
def a_victim_goes_before_its_notice_is_over(run):
    says(run, promised_victim(run), "terms", lambda terms: terms.update(notice_seconds=1000))


@lie("PROMISE")
def a_victim_goes_before_it_ran_as_promised(run):
    says(run, promised_victim(run), "terms", lambda terms: terms.update(min_runtime_seconds=1000))


@lie("PROTECTED")
def a_protected_tenant_is_displaced(run):
    claims, (tenant, *_) = victims_of(run)[0]
    says(run, claims["tenant_id"], "preemption", lambda rule: rule.update(protected_tenants=[tenant]))


@lie("PROTECTED")
def a_tenant_that_lost_work_is_displaced_again(run):
    lost = {}
    for claims, tenants in victims_of(run):
        start, named = claims["reservation"]["start"], claims["reservation"]["id"]
        if any(lost.get(tenant, start) < start for tenant in tenants):
            says(run, claims["tenant_id"], "preemption", lambda rule: rule.update(cool_down_seconds=1000))
            return
        if any(event["reservation"] == named for _, event in run.events("confirmation")):
            lost.update(dict.fromkeys(tenants, start))
    raise StopIteration


@lie("PROTECTED")
def more_of_a_tenant_go_than_may(run):
    claims, tenants = victims_of(run)[0]
    most = max(collections.Counter(tenants).values()) - 1
    says(run, claims["tenant_id"], "preemption", lambda rule: rule.update(max_victims_per_tenant=most))


@lie("ORDER")
def an_order_is_missing(run):
    run.forget(run.events("eviction_order")[0][0])


@lie("ORDER")
def an_order_is_for_nothing(run):
    run.append(copy.deepcopy(run.events("eviction_order")[0][1]))


@lie("ORDER")
def an_order_says_another_second_than_the_decision(run):
    run.sign(run.events("eviction_order")[0][0], lambda order: order.update(evict_by=order["evict_by"] + 1))


@lie("SIGNATURE")
def an_order_could_pass_for_a_decision(run):
    header = run.leaves[run.decisions("PERMIT")[0]]["event"]["token"].split(".")[0]
    run.sign(run.events("eviction_order")[0][0], lambda order: None, header=header)


@lie("EVICTED")
def a_victim_stays_when_it_had_to_go(run):
    run.forget(run.evicted()[0][0])


@lie("EVICTED")
def a_victim_has_to_go_although_its_preemptor_was_not_confirmed(run):
    victim = run.evicted()[0][1]["reservation"]
    orders = [event for _, event in run.events("eviction_order") if event["victim"] == victim]
    run.forget(next(p for p, event in run.events("confirmation") if event["reservation"] == orders[-1]["preemptor"]))


@lie("EVICTED")
def an_eviction_passes_for_an_end(run):
    run.evicted()[0][1]["cause"] = "ended"


@lie("REFUND")
def an_eviction_refunds_one_less(run):
    event = next(event for _, event in run.evicted() if event["refunds"])
    event["refunds"][0]["amount"] -= 1


@lie("EPOCH")
def a_victim_ends_in_the_epoch_that_it_had(run):
    run.evicted()[0][1]["epoch"] -= 1


@lie("EPOCH")
def an_order_announces_the_epoch_that_there_is(run):
    position = run.displacing()[0][0]
    run.leaves[position + 1]["event"]["epoch"] = 1
    run.sign(position, lambda claims: claims["evictions"][0].update(epoch=1))
    run.sign(position + 1, lambda order: order.update(epoch=1))


# --- Lies of extensions -----------------------------------------------------------------------------------------


@lie("EXTENDED")
def an_extension_is_of_another_end_than_there_was(run):
    run.sign(run.extending()[0][0], lambda claims: claims["extends"].update(end=claims["extends"]["end"] + 1))


@lie("EXTENDED")
def an_extension_begins_after_a_break(run):
    run.sign(run.extending()[0][0], lambda claims: claims["reservation"].update(start=claims["extends"]["end"] + 1))


@lie("EXTENDED")
def an_extension_leaves_an_epoch_out(run):
    run.sign(run.extending()[0][0], lambda claims: claims["reservation"].update(epoch=claims["extends"]["epoch"] + 2))


@lie("EXTENDED")
def an_extension_is_of_a_stale_epoch(run):
    """As if two decisions had given the same epoch."""
    position = next(p for p, claims in run.extending() if claims["extends"]["epoch"] > 1)

    def change(claims):
        claims["extends"]["epoch"] -= 1
        claims["reservation"]["epoch"] -= 1

    run.sign(position, change)
    ask = next(line for line in run.lines() if line.get("request_id") == run.claims(position)["request_id"])
    for line in run.lines():
        if "ask" in line and line["request_id"] == ask["request_id"]:
            line["what"]["extends"]["epoch"] -= 1


@lie("EXTENDED")
def what_nobody_confirmed_goes_on(run):
    name = run.extending()[0][1]["extends"]["reservation_id"]
    run.forget(next(p for p, event in run.events("confirmation") if event["reservation"] == name))


@lie("EXTENDED")
def what_runs_does_not_go_on(run):
    def change(claims):
        del claims["reservation"]
        claims.update(effect="DENY", reasons=[{"code": "UNKNOWN_RESERVATION", "message": "there is none"}])

    position, claims = run.extending()[-1]
    run.sign(position, change)
    for line in run.answers("decision"):
        line["effect"] = "DENY" if line["request_id"] == claims["request_id"] else line["effect"]


@lie("EXTENDED")
def an_extension_is_denied_for_another_reason(run):
    run.sign(run.denied_for("STALE_EPOCH")[0], lambda claims: claims["reasons"][0].update(code="EXTENSION_MISMATCH"))


@lie("LIMIT")
def what_is_added_is_more_than_there_is(run):
    def change(claims):
        for charge in claims["reservation"]["charges"]:
            charge["limit"] = charge["amount"] - 1

    run.sign(run.extending()[0][0], change)


@lie("CLAIMS")
def what_is_added_is_not_charged_in_full(run):
    run.sign(run.extending()[0][0], lambda claims: claims["reservation"]["charges"].pop())


@lie("REFUND")
def the_term_that_was_added_is_not_refunded(run):
    """It lies ahead in full, or in part: a client that was told the same could not know."""
    added = {claims["extends"]["reservation_id"]: claims["reservation"] for _, claims in run.extending()}
    for position, event in run.events("release"):
        term = added.get(event["reservation"])
        paid = [charge for charge in term["charges"] if charge["kind"] == "budget"] if term else []
        length, left = (term["end"] - term["start"], term["end"]) if term else (1, 0)
        left -= max(run.leaves[position]["time"], term["start"]) if term else 0
        unused = paid[0]["amount"] * left // length if paid and left > 0 else 0
        if unused > 0:
            event["refunds"][0]["amount"] -= unused
            return
    raise LookupError("nobody released what was made longer")


@lie("EPOCH")
def what_was_made_longer_ends_in_the_epoch_that_it_had(run):
    longer = {claims["extends"]["reservation_id"] for _, claims in run.extending()}
    next(event for _, event in run.events("expiry") if event["reservation"] in longer)["epoch"] -= 1


@lie("EXPIRY")
def what_was_made_longer_was_to_end_before(run):
    """It ended by itself, as it was to after it had been made longer."""
    longer = {claims["extends"]["reservation_id"] for _, claims in run.extending() if "lease_id" not in claims}
    next(event for _, event in run.events("expiry") if event["reservation"] in longer and event["cause"] == "ended")
    for position, _ in run.extending():
        run.forget(position)


# --- Lies of jobs inside leases ---------------------------------------------------------------------------------


@lie("INSIDE")
def a_job_inside_a_lease_is_charged_to_its_tenant(run):
    def change(claims):
        claims["reservation"]["charges"][0]["account"] = f"tenant/{claims['tenant_id']}/gpu"

    run.sign(run.inside()[0][0], change)


@lie("INSIDE")
def a_job_is_inside_another_lease_than_it_asked_for(run):
    position, claims = run.inside()[0]
    other = next(own["lease_id"] for _, own in run.inside() if own["lease_id"] != claims["lease_id"])
    run.sign(position, lambda claims: claims.update(lease_id=other))


@lie("INSIDE")
def a_job_is_to_outlive_its_lease(run):
    run.sign(run.inside()[0][0], lambda claims: claims["reservation"].update(end=claims["reservation"]["end"] + 60))


@lie("INSIDE")
def a_job_begins_before_its_lease_is_confirmed(run):
    lease = run.inside()[0][1]["lease_id"]
    run.forget(next(p for p, event in run.events("confirmation") if event["reservation"] == lease))


@lie("LIMIT")
def jobs_hold_more_than_their_lease(run):
    def change(claims):
        for charge in claims["reservation"]["charges"]:
            charge["amount"] += 10**6
            charge["limit"] += 10**6

    run.sign(run.inside()[0][0], change)


@lie("DENIAL")
def a_denial_says_that_a_lease_had_one_more(run):
    def change(claims):
        reason = claims["reasons"][0]
        free = audit.ROOM.match(reason["message"])[3]
        reason["message"] = reason["message"].replace(f"free {free}", f"free {int(free) + 1}", 1)

    alone = [p for p in run.decisions("DENY") if "gang" not in run.claims(p)]
    full = [p for p in alone if run.claims(p)["reasons"][0]["message"].startswith("account `lease/")]
    run.sign(full[0], change)


@lie("INSIDE")
def a_job_goes_on_when_its_lease_is_over(run):
    run.forget(run.ended_with_lease()[0][0])


@lie("INSIDE")
def a_job_ends_a_second_after_its_lease(run):
    position, _ = run.ended_with_lease()[0]
    run.leaves[position]["time"] += 1


@lie("INSIDE")
def another_leaf_lies_between_the_end_of_a_lease_and_that_of_its_job(run):
    position, _ = run.ended_with_lease()[0]
    other = {"event": run.events("bundle_activation")[0][1], "time": run.leaves[position]["time"], "v": 1}
    run.insert(position, copy.deepcopy(other))


@lie("INSIDE")
def a_job_ends_with_its_lease_for_another_cause(run):
    run.ended_with_lease()[0][1]["cause"] = "ended"


@lie("INSIDE")
def a_job_ends_with_its_lease_although_that_goes_on(run):
    inside = {claims["reservation"]["id"] for _, claims in run.inside()}
    ends = [event for _, event in run.events("expiry") if event["reservation"] in inside]
    next(event for event in ends if event["cause"] != "lease_ended")["cause"] = "lease_ended"


@lie("REFUND")
def a_job_that_ends_with_its_lease_is_given_back_what_it_never_paid(run):
    charges = run.claims(run.decisions("PERMIT")[0])["reservation"]["charges"]
    budget = next(charge["account"] for charge in charges if charge["kind"] == "budget")
    run.ended_with_lease()[0][1]["refunds"] = [{"account": budget, "amount": 1}]


@lie("INSIDE")
def a_job_is_kept_out_for_another_reason(run):
    fresh = [p for p in run.denied_for("OUTSIDE_LEASE") if not {"gang", "extends"} & run.claims(p).keys()]
    run.sign(fresh[0], lambda claims: claims["reasons"][0].update(code="UNKNOWN_LEASE"))


@lie("EXPIRY")
def two_that_are_due_at_once_end_in_another_order(run):
    ends = dict(run.events("expiry"))
    pairs = [p for p in ends if p + 1 in ends and run.leaves[p]["time"] == run.leaves[p + 1]["time"]]
    first = next(p for p in pairs if "lease_ended" not in (ends[p]["cause"], ends[p + 1]["cause"]))
    run.leaves[first], run.leaves[first + 1] = run.leaves[first + 1], run.leaves[first]


# --- Lies of gangs ----------------------------------------------------------------------------------------------


@lie("GANG")
def a_member_of_a_gang_is_missing(run):
    run.forget(run.members("PERMIT")[1][0])


@lie("GANG")
def another_leaf_lies_between_two_members(run):
    position = run.members("DENY")[1][0]
    other = {"event": run.events("bundle_activation")[0][1], "time": run.leaves[position]["time"], "v": 1}
    run.insert(position, copy.deepcopy(other))


@lie("GANG")
def the_last_member_of_a_gang_never_comes(run):
    """The log ends within a gang: its first member once more, under another name."""
    first = next(p for p, claims in run.members("DENY") if claims["gang"]["index"] == 0)
    again = run.append(copy.deepcopy(run.leaves[first]["event"]))

    def change(claims):
        claims.update(iat=run.leaves[again]["time"], request_id="nobody-3", gang=dict(claims["gang"], id="nobody-2"))

    run.sign(again, change, tell_clients=False)


@lie("GANG")
def one_member_is_denied_and_the_others_are_not(run):
    def change(claims):
        claims.pop("evictions", None)
        claims.pop("preemption", None)
        charge = claims.pop("reservation")["charges"][0]
        message = f"account `{charge['account']}`: asked {charge['amount']}, free 0 of {charge['limit']}"
        claims.update(effect="DENY", reasons=[{"code": "QUOTA_EXCEEDED", "message": message}])

    position, claims = run.members("PERMIT")[1]
    run.sign(position, change)
    for line in run.answers("decision"):
        line["effect"] = "DENY" if line["request_id"] == claims["request_id"] else line["effect"]


@lie("GANG")
def a_gang_is_larger_than_it_is(run):
    run.sign(run.members("PERMIT")[0][0], lambda claims: claims["gang"].update(size=claims["gang"]["size"] + 1))


@lie("GANG")
def two_members_of_a_gang_have_one_place(run):
    run.sign(run.members("PERMIT")[1][0], lambda claims: claims["gang"].update(index=0))


@lie("GANG")
def a_member_passes_for_a_request_of_its_own(run):
    run.sign(run.members("PERMIT")[1][0], lambda claims: claims.pop("gang"))


@lie("GANG")
def a_member_is_of_another_second_than_the_others(run):
    position = run.members("PERMIT")[0][0]
    run.leaves[position]["time"] -= 1
    run.sign(position, lambda claims: claims.update(iat=claims["iat"] - 1))


@lie("GANG")
def a_gang_is_denied_although_no_member_is(run):
    def change(claims):
        claims["reasons"] = [{"code": "GANG_INCOMPLETE", "message": "member 0 is denied"}]

    gang = run.members("DENY")[0][1]["gang"]["id"]
    for position, claims in run.members("DENY"):
        if claims["gang"]["id"] == gang:
            run.sign(position, change)


@lie("GANG")
def a_member_that_had_no_room_would_have_been_admitted(run):
    """It is denied because of another one, says the log; but it has no room itself."""
    def change(claims):
        claims["reasons"] = [{"code": "GANG_INCOMPLETE", "message": "another member is denied"}]

    asks = {line["request_id"]: line["what"] for line in run.lines() if "ask" in line}
    full = [
        position
        for position, claims in run.members("DENY")
        if claims["gang"]["index"] == 0
        and all(audit.ROOM.match(reason["message"]) for reason in claims["reasons"])
        and not asks[claims["request_id"]]["may_preempt"]
    ]
    run.sign(full[0], change)


# --- Lies of the facts ------------------------------------------------------------------------------------------


def change_nodes(run, change, tell_runner=True):
    """Changes every account in a tree, in the log and in what the runner wrote down."""
    for _, event in run.events("quotas"):
        for node in event["changed"]:
            change(node)
    for facts in run.facts() if tell_runner else []:
        for node in facts["trees"]:
            change(node)


@lie("BORROWED")
def who_borrows_was_to_borrow_nothing(run):
    def change(node):
        if node["account"].startswith("tenant/"):
            node["borrowing_limit"] = 0

    change_nodes(run, change)


@lie("LENT")
def who_lends_was_to_lend_nothing(run):
    def change(node):
        if "cohort" in node:
            node["lending_limit"] = 0

    change_nodes(run, change)


@lie("FACTS")
def the_trees_are_not_those_of_the_facts(run):
    def change(node):
        node["nominal"] += 1

    change_nodes(run, change, tell_runner=False)


@lie("FACTS")
def a_change_of_the_trees_is_not_complete(run):
    run.events("quotas")[-1][1]["more"] = True


@lie("FACTS")
def facts_are_active_that_nobody_wrote(run):
    run.events("facts_activation")[-1][1]["revision"] += "0"


@lie("FACTS")
def the_trees_did_not_change_with_the_facts(run):
    run.forget(run.events("quotas")[-1][0])


@lie("FACTS")
def a_decision_was_made_with_other_facts(run):
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    run.sign(run.decisions("DENY")[4], lambda claims: claims.update(facts_digest=digest))


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
def a_client_was_told_of_another_epoch(run):
    run.answers("settlement")[0]["epoch"] += 1


@lie("CHANGED")
def a_client_was_told_of_a_denial_that_was_none(run):
    line = next(line for line in run.answers("settlement") if line["state"] == "NOT_RESERVED")
    line["time"] += 1


@lie("REFUSED")
def a_client_was_refused_without_reason(run):
    """It stayed in the epoch that it was confirmed in."""
    moved = {claims["extends"]["reservation_id"] for _, claims in run.extending()}
    moved |= {event["victim"] for _, event in run.events("eviction_order")}
    confirmed = (line for line in run.answers("settlement") if line["state"] == "ACTIVE")
    line = next(line for line in confirmed if line["reservation_id"] not in moved)
    line.update(answer="error", status=9, code="STALE_EPOCH", message="the epoch is stale")


@lie("REFUSED")
def a_client_was_told_of_another_end(run):
    line = next(line for line in run.answers("error") if line["code"] == "RESERVATION_ENDED")
    state = re.search("it is ([A-Z]+)", line["message"])[1]
    line["message"] = line["message"].replace(state, "REVOKED" if state != "REVOKED" else "EXPIRED")


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


def told(clean, number):
    """Tells one lie; what the auditor finds, or what the run lacks for it to be told."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(clean, folder)
        with contextlib.closing(run.store):
            try:
                LIES[number][2](run)
            except LACKING as error:
                return None, f"{type(error).__name__} {error}"
            if run.is_unchanged():
                return None, "it changes nothing"
            run.save()
        return codes_of(run.path, run.folder / "records"), None


def main():
    source, *names = sys.argv[1:]
    unknown = set(names) - {name for name, _, _ in LIES}
    if unknown:
        sys.exit(f"error: these are no lies: {sorted(unknown)}")
    numbers = [number for number, (name, _, _) in enumerate(LIES) if name in names or not names]
    with tempfile.TemporaryDirectory() as folder:
        # The store as one file: what a killed server left in the write-ahead log is taken into it.
        clean = pathlib.Path(folder) / "clean"
        run = Run(source, clean)
        run.save()
        content(clean)
        good = codes_of(run.path, clean / "records")
        print(f"{'as it is':75} {'good' if not good else dict(good)}")
        missed, untold = bool(good), []
        # After that, so that all begin with what is known of the good run.
        with multiprocessing.Pool() as pool:
            all_found = pool.starmap(told, [(clean, number) for number in numbers], chunksize=1)
        for (name, codes, _), (found, lack) in zip((LIES[number] for number in numbers), all_found):
            if found is None:
                untold.append(name)
                print(f"{name:75} untold: {lack}")
                continue
            caught = codes <= set(found)
            missed |= not caught
            print(f"{name:75} {'found' if caught else 'MISSED'}: {dict(found)}")
    known = set(re.findall(r"^  ([A-Z]+)  ", audit.__doc__, re.MULTILINE))
    without = known - set().union(*(codes for _, codes, _ in LIES))
    if without or not known:
        print(f"codes without a lie: {sorted(without)}")
    print(f"{len(numbers)} lies, {len(untold)} untold")
    for name in untold:
        print(f"untold: {name}")
    return 1 if missed or without or not known else 3 if untold else 0


if __name__ == "__main__":
    sys.exit(main())
