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


def draw(shown, start, picture):
    """All panels with the same queries, for somebody to look at."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 6
    figure, axes = pyplot.subplots(-(-len(shown) // columns), columns, figsize=(30, 36))
    for axis, (title, (panel, series)) in zip(axes.flat, shown.items()):
        series.sort(key=lambda found: -max(float(value) for _, value in found[1]["values"]))
        for target, one in series[:12]:
            legend = re.sub(r"\{\{(\w+)\}\}", lambda match: one["metric"].get(match[1], ""), target["legendFormat"])
            points = [(float(at) - start, float(value)) for at, value in one["values"]]
            axis.plot(*zip(*points), label=legend, drawstyle="steps-post")
        if panel["fieldConfig"]["defaults"].get("custom", {}).get("thresholdsStyle", {}).get("mode") == "line":
            for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
                if step["value"] is not None:
                    axis.axhline(step["value"], color=step["color"], linestyle=":")
        axis.set_title(f"{title} [{panel['fieldConfig']['defaults']['unit']}]", fontsize=10)
        if 0 < len(series) <= 12:
            axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(picture, dpi=60)


if __name__ == "__main__":
    check_shape()
