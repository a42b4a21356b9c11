"""The dashboard's queries, asked of a Prometheus that has seen a storm; and drawn, if a file is given."""

import json
import math
import re

import pages
from world import PROMETHEUS, ROOT

FILE = ROOT / "deploy/grafana/cello-relay.json"
VARIABLES = {
    "$__rate_interval": "4s",
    "$cluster": ".*",
    "$namespace": ".*",
    "$pod": ".*",
}
# What reads metrics of the cluster, which is not there.
OF_THE_CLUSTER = ("kube_pod_", "container_cpu_")
# Panels that have to show what happened, and from which value on.
FAULTS = {
    "Oldest undelivered event": 20,
    "Waiting": 100,
    "Dead letters": 1,
    "Error budget burnt in a day": 3,
    "Namespaces": 1,
    "Refused at the door": 1,
    "Error ratio": 0.0144,
    "Stripped, warned, deduplicated": 1,
    "Events by state": 100,
    "Age of the oldest event, worst 10 pods": 20,
    "Fill level, worst 10 pods": 0.95,
    "Failures, by reason": 1,
    "Failure ratio": 0.5,
    "Breaker, holds and pauses": 1,
    "Retries, by reason": 0.1,
    "Dead letters, by reason": 1,
    "Unknown outcome, by reason": 1,
    "Time from acceptance to Cello": 1,
    "Refreshes and failures": 1,
    "Relays without sound keys": 1,
    "Reads, by code": 1,
}
# Steps that colour a count, and no more.
COUNTS = {2, 4}


def panels():
    return [panel for panel in json.loads(FILE.read_text())["panels"] if panel["type"] != "row"]


def filled(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def thresholds_of(alert):
    rules = re.split(r"^ +- alert: ", (PROMETHEUS / "rules.yaml").read_text(), flags=re.M)[1:]
    found = set()
    for rule in (rule for rule in rules if rule.startswith(alert + "\n")):
        for first, second in re.findall(r"[<>] ([\d.]+)(?: \* ([\d.]+))?", rule):
            found |= {float(first), float(first) * float(second or 1)}
    return found


def check_shape():
    board = json.loads(FILE.read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "cluster", "namespace", "pod"]
    assert board["id"] is None and board["uid"] == "cello-relay"
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles)) and set(titles) >= FAULTS.keys(), FAULTS.keys() - set(titles)
    for panel in panels():
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        assert defaults.get("unit"), f"{title}: no unit"
        for one in (panel, *panel["targets"]):
            assert one["datasource"]["uid"] == "${datasource}", f"{title}: a data source of its own"
        alert = re.search(r"Threshold as in the alert (\w+)", panel["description"])
        steps = {step["value"] for step in defaults["thresholds"]["steps"]} - {None, 1}
        if alert or steps - COUNTS:
            known = alert and thresholds_of(alert[1])
            assert known and steps and all(any(math.isclose(s, k) for k in known) for s in steps), f"{title}: {steps}, {known}"
        for target in panel["targets"]:
            pages.check_names(re.sub(r"by \([^)]*\)|namespace=~|namespace, ", "", target["expr"]), title)
        for name in re.findall(r"\bCelloRelay\w+", panel["description"]):
            assert name in pages.alerts(), f"{title}: {name}"


def check(prometheus, start, picture=None):
    shown = {}
    for panel in panels():
        series = []
        for target in panel["targets"]:
            found = prometheus.range(filled(target["expr"]), start)
            if any(name in target["expr"] for name in OF_THE_CLUSTER):
                continue
            series += [(target, one) for one in found]
        values = [float(value) for _, one in series for _, value in one["values"]]
        known = [value for value in values if not math.isnan(value)]
        title = panel["title"]
        if not all(any(name in target["expr"] for name in OF_THE_CLUSTER) for target in panel["targets"]):
            assert known, f"{title}: shows nothing"
        if title in FAULTS:
            assert max(known) >= FAULTS[title], f"{title}: the storm does not show, {max(known)} is the most"
        shown[title] = (panel, series)
    print(f"{len(shown)} panels answered, {len(FAULTS)} of them show the storm")
    for annotation in json.loads(FILE.read_text())["annotations"]["list"]:
        prometheus.range(filled(annotation["expr"]), start)
    if picture:
        draw(shown, start, picture)


def told(value, unit):
    """A number as Grafana would write it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    for name, size in (("G", 2**30), ("M", 2**20), ("K", 2**10)) if unit == "bytes" else (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}{'iB' if unit == 'bytes' else ''}"
    return f"{value:.3g}{' s' if unit == 's' else ''}"


def draw_panel(axis, panel, series, start, end):
    defaults = panel["fieldConfig"]["defaults"]
    unit, sparse = defaults["unit"], panel["type"] == "stat"
    series.sort(key=lambda found: -max(float(value) for _, value in found[1]["values"]))
    for target, one in series[:10]:
        legend = re.sub(r"\{\{(\w+)\}\}", lambda match: one["metric"].get(match[1], ""), target["legendFormat"])
        points = [(float(at) - start, float(value)) for at, value in one["values"]]
        axis.plot(*zip(*points), label=legend, drawstyle="steps-post", linewidth=1)
    axis.set_ylim(bottom=0)
    axis.set_xlim(0, end)
    if defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode") == "line":
        # What the storm is far from would flatten everything else.
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and step["value"] <= 3 * max(axis.get_ylim()[1], 0.01):
                axis.axhline(step["value"], color=step["color"], linestyle=":", linewidth=1)
    axis.yaxis.set_major_formatter(lambda value, _: told(value, unit))
    axis.tick_params(labelsize=6)
    axis.set_title(panel["title"], fontsize=8, loc="left")
    if sparse:
        values = [float(value) for _, one in series for _, value in one["values"]]
        axis.text(0.5, 0.5, told(max(values), unit), transform=axis.transAxes, ha="center", va="center", fontsize=14)
        axis.set_axis_off()
    elif not series:
        axis.text(0.5, 0.5, "read from the cluster's metrics", transform=axis.transAxes, ha="center", fontsize=7)
        axis.set_axis_off()
    elif any(target["legendFormat"] for target, _ in series):
        axis.legend(fontsize=5, loc="upper right", framealpha=0.6)


def draw(shown, start, picture):
    """All panels with the same queries and in the same places, for somebody to look at; a number is the most that was."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    board = json.loads(FILE.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board)
    end = max(float(one["values"][-1][0]) for _, series in shown.values() for _, one in series) - start
    figure = pyplot.figure(figsize=(14, height * 0.25))
    for panel in board:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - place["y"] / height
        if panel["type"] == "row":
            figure.text(0.01, top - 0.7 / height, panel["title"], fontsize=11, weight="bold")
            continue
        _, series = shown[panel["title"]]
        box = (left + 0.035, top - (place["h"] - 0.9) / height, place["w"] / 24 - 0.045, (place["h"] - 2.2) / height)
        draw_panel(figure.add_axes(box), panel, series, start, end)
    figure.savefig(picture, dpi=90)
    # Few colours are enough, and the file stays small.
    Image.open(picture).convert("RGB").quantize(32).save(picture, optimize=True)


if __name__ == "__main__":
    check_shape()
