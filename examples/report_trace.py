"""Draws a run of the trace with tenants in cohorts, and sums it up in tables.

usage: report_trace.py FACTS_YAML EVENTS_JSONL OUTPUT_JSONL TARGET_FOLDER

Writes trace.svg and tables.md. Everything is taken from the events sent and the answers, through
check_limits.py, which also checks the run first. Same input, same bytes.
"""

import json
import sys
from bisect import bisect_right
from collections import Counter
from pathlib import Path

from check_limits import Facts, Run

HOUR, DAY = 3_600, 86_400
# What is drawn of the trace, in days from its start: before, little more than nothing runs.
SHOWN_DAYS = (108, 150)
# What is not a task: booked in advance, or part of the burst.
AHEAD, BURST = "ahead-", "burst-"
# Classes of lines and of text.
INK, FAINT, RED = "ink", "faint", "red"
# Okabe and Ito's colours, which colour-blind people tell apart, on light and on dark.
COLOURS = ["#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7"]
STYLE = """
text{font:12px system-ui,sans-serif;fill:#1f2328}text.faint{fill:#6e7781}text.red{fill:#b3122a}
.title{font-weight:600;font-size:16px}.head{font-weight:600;font-size:13px}.small{font-size:11px}
path.ink{stroke:#1f2328}path.faint{stroke:#8c959f}path.red{stroke:#b3122a}.paper{fill:#fff}
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}text{fill:#e6edf3}path.ink{stroke:#e6edf3}
path.faint{stroke:#6e7681}text.faint{fill:#8b949e}path.red{stroke:#ff7b72}text.red{fill:#ff7b72}}
""".strip()


class Series:
    """A level as a step function: value from each time on."""

    def __init__(self, steps):
        self.times = [time for time, _ in steps]
        self.values = [value for _, value in steps]

    def at(self, time):
        at = bisect_right(self.times, time)
        return self.values[at - 1] if at else 0

    def changes(self, start, end):
        """Times within an interval at which it has a value: its start and each change."""
        low, high = bisect_right(self.times, start), bisect_right(self.times, end - 1)
        return [start, *self.times[low:high]]


class Panel:
    """A rectangle of the picture that shows an interval of time and amounts from 0 to `top`."""

    def __init__(self, svg, place, interval, top, title):
        self.svg, (self.x, self.y, self.width, self.height) = svg, place
        (self.start, self.end), self.top = interval, top
        svg.text(self.x, self.y - 8, title, "head")

    def across(self, time):
        return self.x + round((time - self.start) * self.width / (self.end - self.start))

    def up(self, gpus):
        return self.y + self.height - round(gpus * self.height / self.top)

    def axes(self, every, ticks, label):
        for gpus in range(0, self.top + 1, every):
            y = self.up(gpus)
            self.svg.line(self.x, y, self.x + self.width, y, FAINT, 0.5, "1 3")
            self.svg.text(self.x - 6, y + 4, gpus, "small", "end")
        for time, words in ticks:
            x, y = self.across(time), self.y + self.height
            self.svg.line(x, y, x, y + 4, INK, 1)
            self.svg.text(x, y + 16, words, "small", "middle")
        self.svg.line(self.x, self.up(0), self.x + self.width, self.up(0), INK, 1)
        self.svg.text(self.x + self.width / 2, self.y + self.height + 31, label, "small", "middle")

    def columns(self, series, pick):
        """One value a pixel: that at the time which `pick` chooses among those at which something
        changes within the pixel."""
        for column in range(self.width):
            low = self.start + column * (self.end - self.start) // self.width
            high = self.start + (column + 1) * (self.end - self.start) // self.width
            times = sorted({time for one in series for time in one.changes(low, high)})
            best = pick(times)
            yield [one.at(best) for one in series]

    def steps(self, heights, closed):
        """A path through one height a pixel; equal ones are joined."""
        path, before, run = [], self.up(0) if closed else heights[0], 0
        path.append(f"M{self.x} {before}")
        for height in heights:
            if height != before:
                path.append((f"h{run}" if run else "") + f"v{height - before}")
                before, run = height, 0
            run += 1
        path.append(f"h{run}")
        return "".join(path) + (f"V{self.up(0)}Z" if closed else "")

    def stack(self, series):
        """Areas upon each other, as they were at the fullest second of each pixel."""
        total = lambda time: sum(one.at(time) for one in series)
        columns = list(self.columns(series, lambda times: max(times, key=total)))
        for upto in range(len(series), 0, -1):
            heights = [self.up(sum(column[:upto]) / 1000) for column in columns]
            self.svg.path(self.steps(heights, True), f'fill="{COLOURS[upto - 1]}"')

    def area(self, series, colour):
        heights = [
            self.up(value / 1000)
            for (value,) in self.columns([series], lambda times: max(times, key=series.at))
        ]
        self.svg.path(self.steps(heights, True), f'fill="{colour}"')

    def curve(self, series, dash):
        """A line through the least value of each pixel."""
        columns = self.columns([series], lambda times: min(times, key=series.at))
        heights = [self.up(min(value / 1000, self.top)) for (value,) in columns]
        self.svg.path(
            self.steps(heights, False), f'fill="none" class="{INK}" stroke-dasharray="{dash}"'
        )

    def limit(self, gpus, words, dash=""):
        y = self.up(gpus)
        self.svg.line(self.x, y, self.x + self.width, y, INK, 1.5, dash)
        if words:
            self.svg.text(self.x + 4, y - 4, words, "small")

    def mark(self, time, words="", anchor="start", lift=0):
        x = self.across(time)
        self.svg.line(x, self.y - lift, x, self.y + self.height, RED, 1.2, "4 2")
        if words:
            shift = {"start": 4, "end": -4}.get(anchor, 0)
            self.svg.text(x + shift, self.y - lift + 9, words, "small", anchor, RED)

    def ticks_below(self, times, colour):
        """One tick for each pixel with at least one of the times."""
        columns = sorted({self.across(time) for time in times if self.start <= time < self.end})
        path = "".join(f"M{x} {self.y + self.height - 6}v6" for x in columns)
        self.svg.path(path, f'class="{colour}" fill="none"')


class Svg:
    def __init__(self, width, height):
        self.width, self.height, self.parts = width, height, []

    def text(self, x, y, words, kind="small", anchor="start", fill=None):
        words = str(words).replace("&", "&amp;").replace("<", "&lt;")
        kind = f"{kind} {fill}" if fill else kind
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{words}</text>'
        )

    def line(self, x, y, to_x, to_y, stroke, width, dash=""):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" class="{stroke}" stroke-width="{width}"{dashes}/>'
        )

    def path(self, d, style):
        self.parts.append(f'<path d="{d}" {style}/>')

    def box(self, x, y, width, height, style):
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {style}/>'
        )

    def whole(self, title):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img">'
            f"<title>{title}</title><style>{STYLE}</style>"
            '<rect width="100%" height="100%" class="paper"/>'
        )
        return head + "\n" + "\n".join(self.parts) + "\n</svg>\n"


class Report:
    def __init__(self, facts, events, answers):
        self.facts = Facts(facts)
        self.run = Run(self.facts)
        with open(answers, encoding="utf-8") as lines:
            self.answers = self.run.read(lines)
        self.requests = {}
        with open(events, encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                if "admit" in event:
                    self.requests[event["admit"]["request_id"]] = (event["time"], event["admit"])
        self.zero = min(time for time, _ in self.requests.values())
        (self.cluster,) = [one for one in self.facts.limits if "/gpu/" in one]
        self.cohorts = {
            root: node.members for root, node in self.facts.tree.items() if not node.cohort
        }
        self.members = [one for members in self.cohorts.values() for one in members]
        self.by_request = {one.decision["request_id"]: one for one in self.run.held.values()}
        charges = (
            c for one in self.run.held.values() for c in one.decision["reservation"]["charges"]
        )
        self.sold_limit = min(c["limit"] for c in charges if c["account"] == self.cluster) // 1000
        self.limit = self.facts.hard_limit(self.cluster) // 1000

    def extras(self, kind):
        return [one for name, one in self.by_request.items() if name.startswith(kind)]

    def day(self, time):
        return (time - self.zero) / DAY

    def is_extra(self, held):
        return held.decision["request_id"].startswith((AHEAD, BURST))

    def split(self):
        """Use of the cluster: what the first tenant booked and burst, and all else by tenant."""
        tenant = lambda one: f"tenant/{one.decision['tenant_id']}/gpu"
        first = self.members[0]
        own = lambda one: self.is_extra(one) and tenant(one) == first
        parts = [Series(self.run.history(self.cluster, own))]
        for member in self.members:
            mine = lambda one, member=member: tenant(one) == member and not own(one)
            parts.append(Series(self.run.history(self.cluster, mine)))
        return parts

    def may_hold(self, account, family):
        """At each change, the most that an account could hold beside the others of its cohort."""
        uses = {one: Series(self.run.history(one)) for one in family}
        node, cohort = self.facts.tree[account], self.facts.tree[account].cohort
        kept = self.facts.quota(account) - self.facts.lends(account)
        steps = []
        for time in sorted({time for one in family for time in uses[one].times}):
            flows = 0
            for one in self.facts.tree[cohort].members:
                if one != account:
                    beyond = uses[one].at(time) - (self.facts.quota(one) - self.facts.lends(one))
                    flows += max(0, beyond)
            room = kept + self.facts.quota(cohort) - flows
            steps.append((time, min(room, self.facts.quota(account) + node.borrowing)))
        return Series(steps)

    # The picture.

    def picture(self):
        svg = Svg(1000, 1010)
        svg.text(60, 28, "A real trace against one cluster: four tenants in two cohorts", "title")
        svg.text(
            60, 46, "GPUs held, from the signed decisions. Each pixel shows its fullest second."
        )
        self.legend(svg, 64)
        parts = self.split()
        self.overview(svg, parts)
        self.booked_run(svg, parts)
        self.burst(svg, parts)
        self.shares(svg)
        source = "Tasks: Alibaba cluster-trace-gpu-v2023 (Weng et al., USENIX ATC 2023). Tenants, quotas, bookings and burst are invented."
        svg.text(60, 1000, source, "small", fill=FAINT)
        return svg.whole("Use of a cluster by four tenants against its limits, over 42 days")

    def legend(self, svg, y):
        first, *others = [member.split("/")[1] for member in self.members]
        names = [f"{first}: booked run and burst", f"{first}: tasks", *others]
        x = 60
        for colour, name in zip(COLOURS, names):
            svg.box(x, y - 10, 12, 12, f'fill="{colour}"')
            svg.text(x + 17, y, name)
            x += 40 + 7 * len(name)
        svg.path(f"M{x} {y}v-8M{x + 4} {y}v-8M{x + 9} {y}v-8", f'class="{RED}" fill="none"')
        svg.text(x + 15, y, "denied requests")

    def interval(self, days):
        return self.zero + days[0] * DAY, self.zero + days[1] * DAY

    def overview(self, svg, parts):
        place = (60, 104, 900, 184)
        panel = Panel(svg, place, self.interval(SHOWN_DAYS), 46, "The cluster, GPUs by tenant")
        panel.stack(parts)
        days = range(SHOWN_DAYS[0] + 2, SHOWN_DAYS[1] + 1, 5)
        panel.axes(
            10, [(self.zero + day * DAY, day) for day in days], "days since the trace's start"
        )
        panel.limit(self.limit, f"{self.limit}: the cluster")
        panel.limit(self.sold_limit, f"{self.sold_limit}: limit of sold work", "6 3")
        for one in self.extras(AHEAD):
            words = f"booked: {one.levels[self.cluster] // 1000} GPUs"
            panel.mark(one.start, words, "end")
        panel.mark(self.extras(BURST)[0].decision["iat"], "burst")

    def denied(self):
        return [decision["iat"] for decision, _ in self.run.denials]

    def booked_run(self, svg, parts):
        (run,) = [
            one
            for one in self.extras(AHEAD)
            if one.decision["priority_class"] == "INTERNAL_RESEARCH"
        ]
        interval = run.start - 30 * HOUR, run.end + 6 * HOUR
        gpus = run.levels[self.cluster] // 1000
        title = f"A run of {gpus} GPUs, booked a day ahead"
        panel = Panel(svg, (60, 366, 420, 184), interval, 46, title)
        panel.stack(parts)
        hours = range(-24, 19, 6)
        panel.axes(
            10, [(run.start + hour * HOUR, hour) for hour in hours], "hours from the run's start"
        )
        panel.limit(self.limit, "")
        panel.limit(self.sold_limit, "", "6 3")
        panel.mark(run.decision["iat"], "booked")
        panel.mark(run.start, "begins")
        panel.mark(run.end, "ends")
        panel.ticks_below(self.denied(), RED)

    def burst(self, svg, parts):
        burst = self.extras(BURST)
        begin = burst[0].decision["iat"]
        title = f"A burst of {sum(one.levels[self.cluster] for one in burst) // 1000} GPUs that displaces"
        panel = Panel(svg, (540, 366, 420, 184), (begin - HOUR, begin + 8 * HOUR), 46, title)
        panel.stack(parts)
        panel.axes(
            10,
            [(begin + hour * HOUR, hour) for hour in range(-1, 9)],
            "hours from its first request",
        )
        panel.limit(self.limit, "")
        panel.limit(self.sold_limit, "", "6 3")
        orders = [one for one in burst if one.decision.get("evictions")]
        for one in orders:
            panel.mark(one.start)
        victims = sum(len(one.decision["evictions"]) for one in orders)
        panel.mark(orders[-1].start, f"{victims} leases evicted in {len(orders)} steps")
        panel.ticks_below(self.denied(), RED)

    def shares(self, svg):
        for column, (root, members) in enumerate(self.cohorts.items()):
            for row, member in enumerate(members):
                node = self.facts.tree[member]
                name, nominal = member.split("/")[1], node.nominal // 1000
                limits = ""
                for word, gpus in [("borrows", node.borrowing), ("lends", node.lending)]:
                    if gpus < float("inf"):
                        limits += f", {word} at most {gpus // 1000}"
                title = f"{root}: {name}, {nominal} GPUs of its own{limits}"
                place = (60 + 480 * column, 630 + 180 * row, 420, 110)
                top = 44 if nominal > 20 else 22
                panel = Panel(svg, place, self.interval(SHOWN_DAYS), top, title)
                series = Series(self.run.history(member))
                panel.area(series, COLOURS[self.members.index(member) + 1])
                days = range(SHOWN_DAYS[0] + 2, SHOWN_DAYS[1] + 1, 5)
                ticks = [(self.zero + day * DAY, day) for day in days]
                panel.axes(10 if top > 30 else 5, ticks, "days since the trace's start")
                panel.limit(nominal, "")
                panel.curve(self.may_hold(member, self.facts.family(root)), "5 3")
        svg.line(60, 968, 84, 968, INK, 1.5)
        svg.text(90, 972, "its nominal quota")
        svg.line(220, 968, 244, 968, INK, 1, "5 3")
        svg.text(250, 972, "the most that it could hold beside the other (least of each pixel)")

    # The tables.

    def tables(self):
        parts = [self.by_tenant(), self.by_extra(), self.whole()]
        return "".join("\n" + "\n".join(part) + "\n" for part in parts) + "\n"

    def by_tenant(self):
        head = "| tenant | cohort | requests | admitted | denied: capacity | denied: quota | GPU-hours held | own quota, GPUs | highest use | most borrowed | victims | GPU-hours run in vain | GPU-hours cut off |"
        lines = [head, "|---|---|" + "--:|" * 11]
        for root, members in self.cohorts.items():
            for member in members:
                name = member.split("/")[1]
                held = [one for one in self.run.held.values() if one.decision["tenant_id"] == name]
                denied = [
                    codes for decision, codes in self.run.denials if decision["tenant_id"] == name
                ]
                count = lambda code: sum(code in codes for codes in denied)
                peak = max(use for _, use in self.run.history(member))
                nominal = self.facts.tree[member].nominal
                gone = [one for one in self.run.evictions if one.decision["tenant_id"] == name]
                vain = sum(one.levels[self.cluster] * (one.over - one.start) for one in gone)
                planned = lambda one: one.decision["reservation"]["end"]
                cut = sum(one.levels[self.cluster] * (planned(one) - one.over) for one in gone)
                hours = sum(one.levels[self.cluster] * max(0, one.over - one.start) for one in held)
                figures = [
                    f"{len(held) + len(denied):,}",
                    f"{len(held):,}",
                    count("RESOURCE_UNAVAILABLE"),
                    count("QUOTA_EXCEEDED"),
                    f"{hours / 1000 / HOUR:,.0f}",
                    nominal // 1000,
                    f"{peak / 1000:.1f}",
                    f"{max(0, peak - nominal) / 1000:.1f}",
                    len(gone),
                    f"{vain / 1000 / HOUR:.1f}",
                    f"{cut / 1000 / HOUR:.1f}",
                ]
                lines.append(f"| {name} | {root} | " + " | ".join(map(str, figures)) + " |")
        return lines

    def by_extra(self):
        head = "| request | tenant | asked, day | begins, day | GPUs | hours | decision | GPU-hours held | orders of eviction | denied, but could have run until it begins |"
        lines = [head, "|---|---|--:|--:|--:|--:|---|--:|--:|--:|"]
        names = sorted(name for name in self.requests if name.startswith((AHEAD, BURST)))
        for name in names:
            time, request = self.requests[name]
            work, held = request.get("job") or request["lease"], self.by_request.get(name)
            start = held.start if held else work.get("start", time)
            hours, victims, waiting = 0, 0, "-"
            if held:
                hours = held.levels[self.cluster] * (held.over - held.start) / 1000 / HOUR
                victims = len(held.decision.get("evictions", []))
            if name.startswith(AHEAD):
                waiting = sum(
                    self.could_run_until(decision, start)
                    for decision, _ in self.run.denials
                    if decision["iat"] >= time
                )
            figures = [
                request["tenant_id"],
                f"{self.day(time):.3f}",
                f"{self.day(start):.3f}",
                work["gpu_count"],
                f"{work['duration_seconds'] / HOUR:g}",
                "admitted" if held else "denied",
                f"{hours:g}",
                victims,
                waiting,
            ]
            lines.append(f"| {name} | " + " | ".join(map(str, figures)) + " |")
        return lines

    def could_run_until(self, decision, time):
        """Whether a denial says that the request would be admitted if it ended then."""
        hints = [reason.get("counterfactual") or {} for reason in decision["reasons"]]
        return any(decision["iat"] + hint.get("duration_seconds", 0) == time for hint in hints)

    def whole(self):
        run = self.run
        peak = Counter(run.peak)
        lines = ["| of the whole run | |", "|---|--:|"]
        stale = run.counts["STALE_EPOCH"]
        rows = [
            ("events, and as many answers", f"{self.answers:,}"),
            ("permits, denials", f"{run.counts['PERMIT']:,}, {run.counts['DENY']:,}"),
            (
                "begin after their decision",
                sum(one.start > one.decision["iat"] for one in run.held.values()),
            ),
            (
                "releases by the holder, ends by themselves",
                f"{run.counts['RELEASED']:,}, {sum(one.why == 'ended' for one in run.held.values()):,}",
            ),
            (
                "evicted; of these, released later by who had not heard of it: refused, `STALE_EPOCH`",
                f"{len(run.evictions)}, {stale}",
            ),
            ("other events that were refused", run.counts["ERROR"] - stale),
            (
                f"highest use of the cluster, of {self.limit} GPUs",
                f"{peak[self.cluster] / 1000:.2f}",
            ),
            ("limits exceeded, at admission or at any second", 0),
        ]
        return lines + [f"| {name} | {value} |" for name, value in rows]


def main():
    facts, events, answers, target = sys.argv[1:]
    report = Report(facts, events, answers)
    target = Path(target)
    (target / "trace.svg").write_text(report.picture(), encoding="utf-8")
    (target / "tables.md").write_text(report.tables(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
