"""Draws docs/images/dashboard.svg: the panels of the chart's dashboard, recorded from five minutes
of real services.

RabbitMQ, Ceph's gateway and Prometheus are started as in the tests; engines are simulated. One run
keeps the services busy. Then a second run with another model version adds a burst, two more
verifiers start, and one of them is killed. The lines come from the panels' own queries. `--keep
FILE` saves the recording; `--draw FILE` draws a saved one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder, free_ports
from tests.integration.prometheus import Prometheus, Series, filled_in, running_prometheus
from tests.integration.servers import own_s3, publish, running_rabbitmq

from proofloop.bus.topology import Topology
from proofloop.report.axes import Point, scale, spread, ticks

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "helm" / "proofloop" / "dashboards" / "proofloop.json"
PICTURE = ROOT / "docs" / "images" / "dashboard.svg"
STEP_S, WINDOW_S = 3.0, 20.0
PODS = ("generator-0", "verifier-0", "verifier-1", "verifier-2", "meta_verifier-0", "labeler-0")

RUN = """
[problems]
domain = "nano"
count = 5000
proofs_per_problem = 4
[engine]
kind = "simulated"
[engine.settings]
latency_s = 2.0
tokens = 900
malformed_share = 0.06
truncated_share = 0.03
failure_share = 0.02
[flow]
max_waiting_proofs = {waiting}
[models]
generator = "{version}"
verifier = "{version}"
meta_verifier = "{version}"
[labeling]
n = 8
m = 3
k = 2
"""

Recorded = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="also write the recording to this file")
    parser.add_argument("--draw", type=Path, help="draw this recording instead of making a new one")
    arguments = parser.parse_args()
    recorded = json.loads(arguments.draw.read_text()) if arguments.draw else record()
    if arguments.keep:
        arguments.keep.write_text(json.dumps(recorded))
    PICTURE.write_text(picture(recorded), "utf-8")
    print(PICTURE)


def record() -> Recorded:
    """Record all panels for five minutes; times are in seconds from the start of the first run."""
    with ExitStack() as stack:
        place = stack.enter_context(folder("proofloop-dashboard-"))
        for name in ("broker", "store", "prometheus"):
            (place / name).mkdir()
        broker = stack.enter_context(running_rabbitmq(place / "broker"))
        store = stack.enter_context(own_s3(place / "store"))
        fleet, _, _ = stack.enter_context(installation(broker, store, place))
        ports = dict(zip(PODS, free_ports(len(PODS)), strict=True))
        pages = {pod: f"http://127.0.0.1:{port}/metrics" for pod, port in ports.items()} | {
            "broker": broker.metrics
        }
        prometheus = stack.enter_context(running_prometheus(place / "prometheus", pages))
        for pod in PODS:
            if pod not in ("verifier-1", "verifier-2"):
                serve(fleet, pod, ports[pod])
        wait_for_pods(prometheus, 4)
        began = time.time()
        events = play(fleet, ports, place, began)
        return read(prometheus, fleet.namespace, began, time.time()) | {"events": events}


def serve(fleet: Fleet, pod: str, port: int) -> None:
    role, _, number = pod.rpartition("-")
    fleet.start(role, int(number), "--concurrency", "24", "--metrics-port", str(port))


def wait_for_pods(prometheus: Prometheus, count: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        now = time.time()
        found = prometheus.series("sum(proofloop_broker_connected)", now, now)
        if found and found[0].points and found[0].points[-1][1] >= count:
            return
        time.sleep(1)
    raise SystemExit("error: the services did not connect within 300 s")


def play(fleet: Fleet, ports: dict[str, int], place: Path, began: float) -> list[tuple[float, str]]:
    """Run the scenario; returns its events with their times in seconds."""
    posing = []
    events = []

    def do(at_s: float, what: str) -> None:
        time.sleep(max(0.0, began + at_s - time.time()))
        events.append((round(time.time() - began), what))

    def pose(name: str, version: str, waiting: int) -> None:
        file = place / f"{name}.toml"
        file.write_text(RUN.format(version=version, waiting=waiting))
        posing.append(fleet.call("run", str(file)))

    do(0, "a run begins")
    pose("steady", "v11", 12)
    do(100, "a burst for version 12")
    pose("burst", "v12", 60)
    do(130, "no event in a queue")
    publish(
        fleet.environment["PROOFLOOP_BROKER"],
        Topology(fleet.namespace).queue("meta_verifier").name,
        b"no event",
    )
    do(160, "two more verifiers")
    for pod in ("verifier-1", "verifier-2"):
        serve(fleet, pod, ports[pod])
    do(230, "a verifier is killed")
    fleet.kill("verifier", 1)
    do(250, "it is back")
    serve(fleet, "verifier-1", ports["verifier-1"])
    time.sleep(max(0.0, began + 300 - time.time()))
    for process in posing:
        process.kill()
        process.wait()
    return events


def read(prometheus: Prometheus, namespace: str, began: float, end: float) -> Recorded:
    """All panels with the series of their queries."""
    panels = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        series = [
            {
                "name": named(target["legendFormat"], one, namespace),
                "points": since(began, one.points),
            }
            for target in panel.get("targets", ())
            for one in prometheus.series(
                filled_in(target["expr"], namespace, WINDOW_S), began, end, STEP_S
            )
        ]
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
        panels.append(
            {"title": panel["title"], "type": panel["type"], "unit": unit, "series": series}
        )
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"
    date = time.strftime("%Y-%m-%d", time.gmtime(began))
    return {"panels": panels, "machine": machine, "date": date}


def named(legend: str, one: Series, namespace: str) -> str:
    name = re.sub(r"{{(\w+)}}", lambda found: one.labels.get(found[1], ""), legend)
    return name.replace(namespace, "proofloop")


def since(began: float, points: tuple[Point, ...]) -> list[Point]:
    return [(round(at - began), float(f"{value:.4g}")) for at, value in points]


WIDTH, COLUMN, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1100, 540, 168, 46, 172, 26, 20
MOST_NAMES, NAME_APART, LAST_S = 9, 13.0, 300.0
COLOURS = (
    "#1b6ca8",
    "#d1495b",
    "#2e8b57",
    "#c98a00",
    "#7b4ea3",
    "#3aa6a6",
    "#7d5a3c",
    "#8a8a8a",
    "#e377c2",
)
ROLES = ("generator", "meta_verifier", "verifier", "labeler")
CSS = """text{font:11px system-ui,sans-serif;fill:#333}.t{font-weight:600}
.row{font-weight:600;font-size:14px}
.a{fill:#777;font-size:10px}.g{stroke:#eee}.e{stroke:#bbb;stroke-dasharray:2 3}
path.l{fill:none;stroke-width:1.5}"""


def picture(recorded: Recorded) -> str:
    """The SVG: the panels in two columns below the title of their row."""
    parts = []
    y = 52
    column = 0
    for panel in recorded["panels"]:
        if panel["type"] == "row":
            y, column = y + column * (HEIGHT + 10), 0
            parts.append(f'<text class="row" x="10" y="{y + 16}">{escape(panel["title"])}</text>')
            y += 26
            continue
        parts.append(f'<g transform="translate({7 + column * (COLUMN + 6)} {y})">')
        parts += [*panel_of(panel, recorded["events"]), "</g>"]
        y, column = y + column * (HEIGHT + 10), 1 - column
    height = y + column * (HEIGHT + 10) + 6
    events = "; ".join(f"{at:g} s: {what}" for at, what in recorded["events"])
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>The dashboard of proofloop, drawn from a recorded run</title><style>{CSS}</style>",
        '<rect width="100%" height="100%" fill="#f4f5f7"/>',
        '<text class="row" x="10" y="22">The panels of the dashboard over five minutes,'
        f" {recorded['date']}, "
        f"{escape(recorded['machine'])}</text>",
        f'<text class="a" x="10" y="40">{escape(events)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def panel_of(panel: Recorded, events: list[tuple[float, str]]) -> Iterator[str]:
    drawn = sorted(
        (one for one in panel["series"] if any(value for _, value in one["points"])), key=order
    )
    shown = sorted(drawn, key=lambda one: -max(value for _, value in one["points"]))[:MOST_NAMES]
    shown = [one for one in drawn if one in shown]
    more = f" ({len(shown)} of {len(drawn)} lines)" if len(shown) < len(drawn) else ""
    highest = max((value for one in shown for _, value in one["points"]), default=1.0)
    marks = ticks(0, highest, 3)
    across, up = scale(0, LAST_S, LEFT, COLUMN - RIGHT), scale(0, marks[-1], HEIGHT - BOTTOM, TOP)
    yield f'<rect width="{COLUMN}" height="{HEIGHT}" rx="3" fill="white" stroke="#ddd"/>'
    yield (
        f'<text class="t" x="10" y="17">{escape(panel["title"])}<tspan'
        f' class="a">{more}</tspan></text>'
    )
    for mark in marks:
        yield f'<path class="g" d="M{LEFT} {up(mark):.1f}H{COLUMN - RIGHT}"/>'
        label = written(mark, panel["unit"])
        yield (
            f'<text class="a" x="{LEFT - 5}" y="{up(mark) + 3:.1f}"'
            f' text-anchor="end">{label}</text>'
        )
    for at in range(0, 301, 60):
        yield (
            f'<text class="a" x="{across(at):.0f}" y="{HEIGHT - 6}" text-anchor="middle">{at // 60}'
            " min</text>"
        )
    for at, _ in events[1:]:
        yield f'<path class="e" d="M{across(at):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
    yield from lines(shown, across, up)


def order(one: Recorded) -> tuple[int, str]:
    """The sort key of a line: by role in the order of the pipeline, then by name."""
    name = str(one["name"])
    return next((at for at, role in enumerate(ROLES) if role in name), len(ROLES)), name


def lines(shown: list[Recorded], across: Any, up: Any) -> Iterator[str]:
    if not shown:
        yield f'<text class="a" x="{(COLUMN - RIGHT) / 2}" y="{HEIGHT / 2}">nothing happened</text>'
    ends = spread([up(one["points"][-1][1]) for one in shown], NAME_APART, TOP, HEIGHT - BOTTOM - 2)
    for number, (one, end) in enumerate(zip(shown, ends, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        path = "L".join(f"{across(x):.0f} {up(value):.1f}" for x, value in one["points"])
        yield f'<path class="l" stroke="{colour}" d="M{path}"/>'
        name = escape(one["name"])
        yield (
            f'<text x="{COLUMN - RIGHT + 6}" y="{end + 3.5:.1f}"'
            f' style="fill:{colour}">{name}</text>'
        )


def written(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    number = f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
    return f"{number} s" if unit == "s" else f"{number}/s" if unit == "ops" else number


if __name__ == "__main__":
    main()
