"""An app that has everything keeps all of it."""

import copy
import pathlib
import subprocess
import tempfile
import unittest

import yaml

import manifests

LOCAL_VOLUMES = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
KUBERNETES = manifests.KUBERNETES


def app_pod():
    """A pod template with all that a component could run over."""
    return {
        "metadata": {
            "labels": {"app": "busy", "version": "7"},
            "annotations": {LOCAL_VOLUMES: "scratch", "kubectl.kubernetes.io/default-container": "busy", "cello-relay/pod-grace": "300s"},
        },
        "spec": {
            "terminationGracePeriodSeconds": 300,
            "serviceAccountName": "busy",
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000]},
            "enableServiceLinks": False,
            "initContainers": [
                {
                    "name": "mesh-proxy",
                    "image": "mesh:1",
                    "restartPolicy": "Always",
                    "startupProbe": {"httpGet": {"path": "/ready", "port": 4191}},
                    "lifecycle": {"preStop": {"exec": {"command": ["mesh", "wait"]}}},
                    "ports": [{"name": "mesh", "containerPort": 4191}],
                },
                {"name": "migrate", "image": "busy:1", "args": ["migrate"], "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}]},
            ],
            "containers": [
                {
                    "name": "busy",
                    "image": "busy:1",
                    "env": [{"name": "A", "value": "b"}],
                    "lifecycle": {"preStop": {"exec": {"command": ["sleep", "15"]}}},
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, {"name": "data", "mountPath": "/data"}],
                },
                {"name": "helper", "image": "helper:1"},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "config", "configMap": {"name": "busy"}}],
        },
    }


def workload(kind, labels):
    version = "batch/v1" if kind.endswith("ob") else "apps/v1"
    metadata = {"name": "busy", "labels": {"app": "busy", **labels}, "annotations": {"team": "busy"}}
    document = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {"template": app_pod()}}
    if kind == "StatefulSet":
        document["spec"]["serviceName"] = "busy"
        document["spec"]["volumeClaimTemplates"] = [
            {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
        ]
    if kind.endswith("ob"):
        document["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    if kind == "CronJob":
        document["spec"] = {"schedule": "1 1 * * *", "jobTemplate": {"spec": document["spec"]}}
    return document


def render(document, components):
    """What kustomize makes of one workload."""
    # Roots have to be relative, so the app lies beside the components.
    with tempfile.TemporaryDirectory(dir=KUBERNETES.parents[1] / "target") as folder:
        path = pathlib.Path(folder)
        (path / "app.yaml").write_text(yaml.safe_dump(document))
        roots = [f"../../deploy/kubernetes/{component}" for component in components]
        (path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["app.yaml"], "components": roots}))
        return yaml.safe_load(manifests.render(path))


def without_relay(document):
    """The document less all that is the relay's; also the names of the containers started before the app."""
    document = copy.deepcopy(document)
    pod = manifests.template(document)
    spec = pod["spec"]
    order = [container["name"] for container in spec["initContainers"]]
    del pod["metadata"]["labels"]["cello-relay/role"]
    spec["initContainers"] = [one for one in spec["initContainers"] if not manifests.is_relay(one)]
    spec["volumes"] = [one for one in spec["volumes"] if not one["name"].startswith("cello-relay")]
    notes = pod["metadata"]["annotations"]
    notes[LOCAL_VOLUMES] = ",".join(one for one in notes[LOCAL_VOLUMES].split(",") if not one.startswith("cello-relay"))
    claims = document["spec"].get("volumeClaimTemplates")
    if claims:
        document["spec"]["volumeClaimTemplates"] = [one for one in claims if one["metadata"]["name"] != "cello-relay-outbox"]
    return document, order


@unittest.skipIf(manifests.kustomize() is None, "no kustomize")
class App(unittest.TestCase):
    maxDiff = None

    def test_nothing_of_the_apps_is_lost_lowered_or_changed(self):
        cases = [(kind, {"cello-relay/inject": "enabled"}, "components/sidecar") for kind in ("Deployment", "StatefulSet", "Job", "CronJob")]
        cases += [(kind, {**labels, "cello-relay/order": "last"}, component) for kind, labels, component in cases]
        cases += [("StatefulSet", {"cello-relay/inject": "pvc", "cello-relay/fs-group": "app"}, "components/sidecar-pvc")]
        for kind, labels, component in cases:
            for rest in (["overlays/production"], ["components/to-gateway"]):
                with self.subTest(kind=kind, labels=labels, rest=rest):
                    before = workload(kind, labels)
                    last = "cello-relay/order" in labels
                    after, order = without_relay(render(before, [component, *rest, *(["components/sidecar-last"] * last)]))
                    self.assertEqual(after, before)
                    self.assertEqual(order, ["mesh-proxy", "migrate", "cello-relay"] if last else ["cello-relay", "mesh-proxy", "migrate"])

    def test_the_claim_comes_beside_the_apps_own(self):
        labels = {"cello-relay/inject": "pvc", "cello-relay/fs-group": "app"}
        made = render(workload("StatefulSet", labels), ["components/sidecar-pvc", "overlays/production"])
        self.assertEqual([one["metadata"]["name"] for one in made["spec"]["volumeClaimTemplates"]], ["data", "cello-relay-outbox"])
        self.assertEqual(made["spec"]["template"]["spec"]["securityContext"]["fsGroup"], 2000)

    def test_an_apps_own_group_is_never_changed_in_silence(self):
        with self.assertRaisesRegex(RuntimeError, "fsGroup"):
            render(workload("StatefulSet", {"cello-relay/inject": "pvc"}), ["components/sidecar-pvc", "overlays/production"])

    def test_the_app_may_name_the_components_in_any_order(self):
        document = workload("Deployment", {"cello-relay/inject": "enabled"})
        made = [render(document, order) for order in (["components/sidecar", "overlays/sandbox"], ["overlays/sandbox", "components/sidecar"])]
        for one in made:
            one["spec"]["template"]["spec"]["initContainers"][0]["env"].sort(key=lambda entry: entry["name"])
        self.assertEqual(*made)

    def test_a_workload_without_the_label_is_left_alone(self):
        document = workload("Deployment", {})
        for components in (["components/sidecar", "overlays/production"], ["components/sidecar-pvc"], ["components/sidecar", "components/to-gateway"]):
            self.assertEqual(render(document, components), document)

    def test_a_guaranteed_pod_stays_guaranteed(self):
        for kind in ("Deployment", "StatefulSet", "Job", "CronJob"):
            with self.subTest(kind=kind):
                document = workload(kind, {"cello-relay/inject": "enabled", "cello-relay/qos": "guaranteed"})
                made = render(document, ["components/sidecar", "overlays/sandbox"])
                relay = manifests.template(made)["spec"]["initContainers"][0]
                for resource in ("cpu", "memory"):
                    self.assertEqual(relay["resources"]["requests"][resource], relay["resources"]["limits"][resource])

    def test_an_app_that_says_nothing_of_its_grace_gets_none_and_the_relay_takes_that(self):
        document = workload("Deployment", {"cello-relay/inject": "enabled"})
        pod = manifests.template(document)
        del pod["spec"]["terminationGracePeriodSeconds"], pod["metadata"]["annotations"]["cello-relay/pod-grace"]
        made = manifests.template(render(document, ["components/sidecar", "overlays/sandbox"]))
        self.assertNotIn("terminationGracePeriodSeconds", made["spec"])
        self.assertNotIn("cello-relay/pod-grace", made["metadata"]["annotations"])
        values = manifests.environment(made["spec"]["initContainers"][0], made)
        self.assertEqual(values["CELLO_RELAY_SHUTDOWN__POD_GRACE"], "", "what the kubelet makes of it")
        done = subprocess.run([manifests.RELAY, "check-config"], env=values, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"shutdown\.pod_grace +- ")

    def test_the_order_is_refused_rather_than_mixed_up_where_the_relay_is_not_first(self):
        document = workload("Deployment", {"cello-relay/inject": "enabled", "cello-relay/order": "last"})
        with self.assertRaisesRegex(RuntimeError, "initContainers/0/name"):
            render(document, ["components/sidecar", "components/sidecar-last", "components/sidecar-last"])


if manifests.kustomize() is None:
    manifests.skipped("applying the components to an app: no kubectl or kustomize that knows components")

if __name__ == "__main__":
    unittest.main()
