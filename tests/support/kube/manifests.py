"""Finds, renders and reads the manifests under deploy/kubernetes."""

import functools
import os
import pathlib
import shutil
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
EXAMPLES = KUBERNETES / "examples"
RENDERED = KUBERNETES / "rendered"
MONITORING = KUBERNETES / "components" / "monitoring"
RELAY = os.environ.get("CELLO_RELAY", str(ROOT / "target" / "debug" / "cello-relay"))
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


@functools.cache
def kustomize():
    """The command that renders, or None: components need kustomize 4 or later."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            tried = subprocess.run([*command, str(EXAMPLES / "network-policy")], capture_output=True, check=False)
            if tried.returncode == 0:
                return command
    return None


def skipped(reason):
    """Says so on a line of its own, as the run of all checks counts it."""
    print(f"\nskipped: {reason}", flush=True)


def render(directory):
    """The YAML that a kustomization makes; an error carries kustomize's own words."""
    done = subprocess.run([*kustomize(), str(directory)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def documents(name):
    """The objects of a rendered example."""
    return list(yaml.safe_load_all((RENDERED / f"{name}.yaml").read_text()))


def everything():
    """Every object of every rendered example, with the example's name."""
    return [(name, document) for name in NAMES for document in documents(name)]


def template(document):
    """The pod template of a workload, or None."""
    if document["kind"] == "CronJob":
        document = document["spec"]["jobTemplate"]
    return document.get("spec", {}).get("template") if isinstance(document.get("spec"), dict) else None


def is_relay(container):
    return container["name"].startswith("cello-relay")


def relays():
    """(example, pod template, container, whether it is a sidecar) for every relay in the rendered examples."""
    found = []
    for name, document in everything():
        pod = template(document)
        if pod is None:
            continue
        for place in ("initContainers", "containers"):
            for container in pod["spec"].get(place, []):
                if is_relay(container):
                    found.append((name, document, container, place == "initContainers"))
    return found


def environment(container, pod):
    """What the kubelet would put in the container's environment."""
    values = {}
    for entry in container["env"]:
        if "value" in entry:
            values[entry["name"]] = entry["value"]
        else:
            path = entry["valueFrom"]["fieldRef"]["fieldPath"]
            key = path.removeprefix("metadata.annotations['").removesuffix("']")
            # An annotation that is not there is an empty string.
            values[entry["name"]] = pod["metadata"].get("annotations", {}).get(key, "")
    return values


def size(text):
    """Bytes of 512Mi (Kubernetes) and of 384MiB (the relay)."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    text = text.removesuffix("B")
    return int(text[:-2]) * units[text[-2:]]
