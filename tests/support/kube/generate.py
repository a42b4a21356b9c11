"""Writes the files that are made from others: plain YAML of the examples, and the rule and dashboard objects."""

import sys

import yaml

import manifests

HEAD = "# Made by tests/checks/kubernetes --write; a check holds it equal to its source.\n"


class Text(str):
    """Printed as a block, so that diffs are readable."""


yaml.SafeDumper.add_representer(
    Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def blocks(value):
    if isinstance(value, dict):
        return {key: blocks(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [blocks(inner) for inner in value]
    return Text(value) if isinstance(value, str) and "\n" in value else value


def thing(version, kind, name, labels, **rest):
    labels = {"app.kubernetes.io/part-of": "cello-relay", **labels}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **rest}


def monitoring():
    """File name → text, for the sources that there are."""
    deploy = manifests.ROOT / "deploy"
    made = {}
    rules = deploy / "prometheus" / "rules.yaml"
    if rules.exists():
        groups = yaml.safe_load(rules.read_text())["groups"]
        made["prometheusrule.yaml"] = thing(
            "monitoring.coreos.com/v1", "PrometheusRule", "cello-relay", {}, spec={"groups": groups}
        )
    boards = sorted((deploy / "grafana").glob("*.json"))
    if boards:
        data = {board.name: board.read_text() for board in boards}
        made["dashboard.yaml"] = thing("v1", "ConfigMap", "cello-relay-dashboard", {"grafana_dashboard": "1"}, data=data)
    return {
        name: HEAD + yaml.safe_dump(blocks(document), sort_keys=False, width=2**20) for name, document in made.items()
    }


def rendered():
    """File name → text, of every example."""
    return {f"{name}.yaml": HEAD + manifests.render(manifests.EXAMPLES / name) for name in manifests.NAMES}


if __name__ == "__main__":
    for name, text in monitoring().items():
        (manifests.MONITORING / name).write_text(text)
    if manifests.kustomize() is None:
        sys.exit("no kubectl or kustomize that knows components")
    for name, text in rendered().items():
        (manifests.RENDERED / name).write_text(text)
