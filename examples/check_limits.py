"""Checks a run of `placet admit --format json` against the facts, without any code of Placet's.

usage: check_limits.py FACTS_YAML [OUTPUT_JSONL]   (standard input by default)

Reads the answers in order, takes what each signed permit charges, gives it back at a release, at the
reservation's end, or at the confirm deadline if it was never confirmed, and holds every account
against its hard limit and against the limit that the decision itself names. Exit 1 at the first breach.
"""

import base64
import heapq
import json
import re
import sys
from collections import Counter

import yaml

used, peak, counts = Counter(), Counter(), Counter()
live, ends, codes = {}, [], Counter()
limits, patterns = {}, []


def read_facts(path):
    with open(path, encoding="utf-8") as file:
        facts = yaml.safe_load(file)
    for cluster in facts.get("clusters") or []:
        for pool in cluster["gpus"]:
            limits[f"cluster/{cluster['id']}/gpu/{pool['model']}"] = pool["count"] * 1000
        limits[f"cluster/{cluster['id']}/fabric-gbps"] = cluster["fabric_gbps"]
    for quota in facts.get("quotas") or []:
        path = re.escape(quota["account"]).replace(re.escape("{month}"), r"\d{4}-\d{2}")
        patterns.append((re.compile(path), quota["limit"]))


def hard_limit(account):
    if account not in limits:
        found = [limit for pattern, limit in patterns if pattern.fullmatch(account)]
        assert found, f"no fact limits account {account}"
        limits[account] = min(found)
    return limits[account]


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def give_back(reservation_id, time):
    grant, confirmed = live.pop(reservation_id)
    for charge in grant["charges"]:
        back = charge["amount"]
        if charge["kind"] == "budget" and confirmed:
            # What was used stays used; the rest, rounded down, is refunded.
            left = max(0, grant["end"] - max(time, grant["start"]))
            back = back * left // (grant["end"] - grant["start"])
        used[charge["account"]] -= back


def pass_time(now):
    while ends and ends[0][0] <= now:
        end, reservation_id, deadline = heapq.heappop(ends)
        grant, confirmed = live.get(reservation_id, (None, None))
        if grant is not None and not (deadline and confirmed):
            give_back(reservation_id, end)


def admit(answer):
    decision = claims_of(answer["token"])
    assert decision["effect"] == answer["effect"], "the answer and its token disagree"
    codes.update({reason["code"] for reason in decision["reasons"]})
    if decision["effect"] != "PERMIT":
        return
    grant = decision["reservation"]
    assert grant["start"] == decision["iat"], "advance reservations are beyond this check"
    assert grant["id"] not in live, f"reservation {grant['id']} was given twice"
    live[grant["id"]] = (grant, False)
    heapq.heappush(ends, (grant["end"], grant["id"], False))
    heapq.heappush(ends, (grant["confirm_by"], grant["id"], True))
    for charge in grant["charges"]:
        account = charge["account"]
        used[account] += charge["amount"]
        peak[account] = max(peak[account], used[account])
        for limit in (charge["limit"], hard_limit(account)):
            assert used[account] <= limit, f"{account}: {used[account]} is above {limit}"


def settle(answer):
    reservation_id, state = answer["reservation_id"], answer["state"]
    counts[state] += 1
    if state == "ACTIVE":
        grant, _ = live[reservation_id]
        live[reservation_id] = (grant, True)
    elif state == "RELEASED" and reservation_id in live:
        give_back(reservation_id, answer["time"])


def main():
    facts, *source = sys.argv[1:]
    read_facts(facts)
    number, seen = 0, set()
    with open(source[0], encoding="utf-8") if source else sys.stdin as lines:
        for number, line in enumerate(lines, 1):
            answer = json.loads(line)
            try:
                if "error" in answer:
                    counts["ERROR"] += 1
                    continue
                if answer["request_id"] in seen:  # a retry gets its first answer again
                    continue
                seen.add(answer["request_id"])
                pass_time(answer["time"])
                if "token" in answer:
                    counts[answer["effect"]] += 1
                    admit(answer)
                else:
                    settle(answer)
            except (AssertionError, KeyError) as error:
                print(f"line {number}: {error!r}", file=sys.stderr)
                return 1
    for account, most in sorted(peak.items()):
        limit = hard_limit(account)
        print(f"{account:50} {most:>16} of {limit:>16}  {most / limit:6.1%}" if limit else account)
    print(f"{number} answers: {dict(counts)}; denials by code: {dict(codes)}; no limit exceeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
