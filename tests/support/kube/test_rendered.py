"""Rendered files are what the components make, and every schema takes them."""

import pathlib
import re
import subprocess
import unittest

import kubernetes_validate
import yaml

import generate
import manifests

OLDEST = (1, 29)


def versions():
    """Every Kubernetes from the oldest supported to the newest that is known."""
    schemas = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    found = {tuple(map(int, path.name[1:].split(".")[:2])) for path in schemas.glob("v*-local-strict")}
    return [f"{major}.{minor}" for major, minor in sorted(found) if (major, minor) >= OLDEST]


class Rendered(unittest.TestCase):
    maxDiff = None

    def test_plain_yaml_is_what_kustomize_makes(self):
        if manifests.kustomize() is None:
            manifests.skipped("rendering: no kubectl or kustomize that knows components")
            return
        made = generate.rendered()
        self.assertEqual(sorted(made), sorted(path.name for path in manifests.RENDERED.iterdir()))
        for name, text in made.items():
            self.assertEqual(text, (manifests.RENDERED / name).read_text(), f"{name}: tests/checks/kubernetes --write")

    def test_rule_and_dashboard_objects_are_what_their_files_say(self):
        resources = yaml.safe_load((manifests.MONITORING / "kustomization.yaml").read_text())["resources"]
        self.assertEqual(resources, ["podmonitor.yaml", "prometheusrule.yaml", "dashboard.yaml"])
        made = generate.monitoring()
        for name in resources[1:]:
            if name not in made:
                manifests.skipped(f"{name}: its source is not here")
                continue
            self.assertEqual(made[name], (manifests.MONITORING / name).read_text(), f"{name}: tests/checks/kubernetes --write")

    def test_every_object_passes_the_strict_schema_of_every_version(self):
        checked = 0
        known = versions()
        self.assertGreaterEqual(len(known), 9)
        for name, document in manifests.everything():
            if document["apiVersion"].startswith("monitoring.coreos.com/"):
                continue
            for version in known:
                with self.subTest(example=name, kind=document["kind"], version=version):
                    kubernetes_validate.validate(document, version, strict=True)
                    checked += 1
        print(f"\n{checked} validations, Kubernetes {known[0]} to {known[-1]}")

    def test_objects_in_the_pages_pass_them_too_and_their_relays_have_settings_that_the_program_knows(self):
        seen = []
        for page in sorted((manifests.ROOT / "deploy").glob("*.md")):
            for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S):
                document = yaml.safe_load(block)
                if "kind" not in document:
                    continue
                for version in versions():
                    kubernetes_validate.validate(document, version, strict=True)
                spec = document["spec"] if document["kind"] == "Pod" else manifests.template(document)["spec"]
                for container in filter(manifests.is_relay, spec["containers"]):
                    values = {entry["name"]: entry["value"] for entry in container["env"]}
                    done = subprocess.run([manifests.RELAY, "check-config"], env=values, capture_output=True, text=True, check=False)
                    self.assertEqual((done.returncode, done.stderr), (0, ""), page.name)
                    seen.append(page.name)
        self.assertEqual(seen, ["lost-nodes.md", "plain-container.md"])

    def test_an_unknown_field_would_not_pass(self):
        document = manifests.documents("deployment")[0]
        manifests.template(document)["spec"]["initContainers"][0]["restartPolice"] = "Always"
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, versions()[0], strict=True)

    def test_kinds_of_the_prometheus_operator_have_only_fields_that_it_knows(self):
        known = {
            "PodMonitor": {"namespaceSelector", "selector", "podMetricsEndpoints"},
            "PrometheusRule": {"groups"},
        }
        endpoint = {"port", "path", "relabelings"}
        group = {"name", "interval", "limit", "labels", "rules"}
        rule = {"record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
        for document in manifests.documents("monitoring"):
            if document["kind"] not in known:
                continue
            self.assertLessEqual(set(document["spec"]), known[document["kind"]])
            for one in document["spec"].get("podMetricsEndpoints", []):
                self.assertLessEqual(set(one), endpoint)
            for one in document["spec"].get("groups", []):
                self.assertLessEqual(set(one), group)
                for each in one["rules"]:
                    self.assertLessEqual(set(each), rule)


if __name__ == "__main__":
    unittest.main()
