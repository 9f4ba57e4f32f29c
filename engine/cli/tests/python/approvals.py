"""Tells lies about waivers and freezes of a store, and has the auditor find each of them.

usage: approvals.py FOLDER

FOLDER holds `placet.db`, `jwks.json`, `approvers.json` and the private keys: `keys/` of the server, `NAME/` of each
approver. The truth must give no finding; each lie is signed by who should have signed it, and must be found. Prints the
lies, one a line; exit 1 if one was not found, or there was none to tell.
"""

import base64
import copy
import json
import pathlib
import sqlite3
import sys

import audit
from cryptography.hazmat.primitives.serialization import load_der_private_key

# Others are about what only a run with records has.
LOOKED_AT = {"CLAIMS", "FROZEN", "LEAF", "SIGNATURE", "TIME", "WAIVED"}
LIES = []


def lie(code, needs):
    """Registers a lie about logs that have a leaf of some kind, with the code of which it must be found."""
    return lambda tell: LIES.append((tell.__name__.replace("_", " "), code, needs, tell))


class Log:
    """The leaves of a store, open for doctoring."""

    def __init__(self, folder):
        self.folder = folder
        store = sqlite3.connect(folder / "placet.db")
        self.leaves = [json.loads(leaf) for (leaf,) in store.execute("SELECT leaf FROM leaves ORDER BY position")]
        (self.high_water,) = store.execute("SELECT high_water FROM meta").fetchone()
        self.evaluations = dict(store.execute("SELECT position, evaluation FROM evidence"))
        store.close()
        self.jwks = json.loads((folder / "jwks.json").read_text())["keys"]
        self.approvers = json.loads((folder / "approvers.json").read_text())["approvers"]

    def of(self, kind):
        return [position for position, leaf in enumerate(self.leaves) if leaf["event"]["kind"] == kind]

    def claims(self, position):
        return json.loads(audit.unpadded(self.leaves[position]["event"]["token"].split(".")[1]))

    def waived(self):
        """Positions of the decisions that used waivers."""
        return [position for position in self.of("decision") if self.claims(position)["waivers"]]

    def sign(self, position, change):
        """Changes what is signed in a leaf, and has it signed anew by whoever signed it."""
        event, claims = self.leaves[position]["event"], self.claims(position)
        change(claims)
        header = event["token"].split(".")[0]
        kid = json.loads(audit.unpadded(header))["kid"]
        owners = {key["kid"]: entry["name"] for entry in self.approvers for key in entry["keys"]}
        path = self.folder / owners.get(kid, "keys") / "signing-key.pkcs8"
        key = load_der_private_key(path.read_bytes(), None)
        signed = f"{header}.{unpadded(audit.canonical(claims))}"
        event["token"] = f"{signed}.{unpadded(key.sign(signed.encode()))}"

    def evaluation(self, position, change):
        evaluation = json.loads(self.evaluations[position])
        change(evaluation)
        self.evaluations[position] = audit.canonical(evaluation)

    def findings(self):
        found = audit.Audit()
        found.keys.update({key["kid"]: key["x"] for key in self.jwks})
        found.approvers.update({key["kid"]: key["x"] for entry in self.approvers for key in entry["keys"]})
        audit.fold(found, list(map(audit.canonical, self.leaves)), self.high_water)
        for decision in found.decisions.values():
            evaluation = json.loads(self.evaluations.get(decision["position"], "{}"))
            fault = audit.lifted_wrongly(found, decision["claims"], evaluation)
            if fault is not None:
                found.find("WAIVED", decision["position"], fault)
        return [finding for finding in found.findings if finding.split()[0] in LOOKED_AT]


def unpadded(content):
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@lie("WAIVED", "waiver")
def a_waiver_is_used_once_too_often(log):
    first, *_, last = log.waived()
    name = log.claims(first)["waivers"]
    log.sign(last, lambda claims: claims.update(waivers=name))


@lie("WAIVED", "waiver")
def a_waiver_is_used_after_its_time(log):
    time = log.leaves[log.waived()[0]]["time"]
    log.sign(log.of("waiver")[0], lambda claims: claims.update(exp=time))


@lie("WAIVED", "waiver")
def a_waiver_is_used_before_its_time(log):
    time = log.leaves[log.waived()[0]]["time"]
    log.sign(log.of("waiver")[0], lambda claims: claims.update(nbf=time + 1))


@lie("WAIVED", "waiver")
def a_waiver_is_anothers(log):
    log.sign(log.of("waiver")[0], lambda claims: claims["scope"].update(tenants=["acme"]))


@lie("WAIVED", "waiver")
def a_waiver_is_for_less(log):
    log.sign(log.of("waiver")[0], lambda claims: claims.update(max_gpu_count=7))


@lie("WAIVED", "waiver")
def a_waiver_was_approved_by_who_asked_for_it(log):
    log.sign(log.of("waiver")[0], lambda claims: claims.update(requested_by=claims["approved_by"]))


@lie("WAIVED", "waiver")
def a_waiver_is_not_logged(log):
    log.leaves[log.of("waiver")[0]]["event"] = copy.deepcopy(log.leaves[1]["event"])


@lie("WAIVED", "waiver")
def a_waiver_is_logged_and_not_used(log):
    log.sign(log.waived()[0], lambda claims: claims.update(waivers=[]))


@lie("WAIVED", "waiver")
def a_denial_uses_a_waiver(log):
    denied = next(p for p in log.of("decision") if p > log.waived()[0] and log.claims(p)["effect"] == "DENY")
    names = log.claims(log.waived()[0])["waivers"]
    log.sign(denied, lambda claims: claims.update(waivers=names))


@lie("WAIVED", "waiver")
def a_mandatory_policy_is_lifted(log):
    def change(evaluation):
        for candidate in evaluation["candidates"]:
            for verdict in candidate["verdicts"]:
                verdict["level"] = "mandatory"

    log.evaluation(log.waived()[0], change)


@lie("WAIVED", "waiver")
def another_code_is_lifted_than_the_waiver_lifts(log):
    log.sign(log.of("waiver")[0], lambda claims: claims["lifts"][0].update(code="RESIDENCY_TENANT"))


@lie("SIGNATURE", "waiver")
def a_waiver_is_changed_after_it_was_signed(log):
    event = log.leaves[log.of("waiver")[0]]["event"]
    before = event["token"].rsplit(".", 1)[1]
    log.sign(log.of("waiver")[0], lambda claims: claims.update(uses=3))
    event["token"] = event["token"].rsplit(".", 1)[0] + "." + before


@lie("FROZEN", "freeze")
def work_is_admitted_under_a_freeze(log):
    thaw = log.of("thaw")[0]
    behind = next(p for p in log.of("decision") if p > thaw and log.claims(p)["effect"] == "PERMIT")
    # The thaw comes behind it, in the same second.
    log.leaves.insert(behind, log.leaves.pop(thaw))
    log.leaves[behind]["time"] = log.leaves[behind - 1]["time"]


@lie("FROZEN", "freeze")
def work_is_confirmed_under_a_freeze(log):
    thaw, confirmed = log.of("thaw")[0], log.of("confirmation")[-1]
    log.leaves.insert(confirmed, log.leaves.pop(thaw))
    log.leaves[confirmed]["time"] = log.leaves[confirmed - 1]["time"]


@lie("FROZEN", "freeze")
def work_is_denied_for_a_freeze_that_does_not_stand(log):
    log.sign(log.of("freeze")[0], lambda claims: claims["scope"].update(clusters=["se-sto-1"]))


@lie("FROZEN", "freeze")
def a_freeze_was_kept_for_later(log):
    log.sign(log.of("freeze")[0], lambda claims: claims.update(iat=claims["iat"] - 301))


@lie("FROZEN", "freeze")
def a_thaw_lifts_what_does_not_stand(log):
    log.leaves[log.of("freeze")[0]]["event"] = copy.deepcopy(log.leaves[1]["event"])


def main():
    folder = pathlib.Path(sys.argv[1])
    truth, told, missed = Log(folder).findings(), [], []
    if truth:
        sys.exit("the truth is found to be wrong:\n" + "\n".join(truth))
    for name, code, needs, tell in LIES:
        log = Log(folder)
        if not log.of(needs):
            continue
        tell(log)
        found = {finding.split()[0] for finding in log.findings()}
        (told if code in found else missed).append(name)
    print("\n".join(told))
    if missed or not told:
        sys.exit("not found: " + "; ".join(missed or ["anything to lie about"]))


main()
