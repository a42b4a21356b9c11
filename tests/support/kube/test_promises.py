"""What schemas cannot see: the rules that make a relay safe in a pod."""

import os
import re
import subprocess
import unittest

import yaml

import manifests

OPS = "cello-relay-op"


def check_config(environment):
    """Asks the real program what it thinks of an environment."""
    return subprocess.run(
        [manifests.RELAY, "check-config"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def service_links(service, ports):
    """What the kubelet adds to every container for a Service of the namespace."""
    name = service.upper().replace("-", "_")
    links = {f"{name}_SERVICE_HOST": "10.0.0.1", f"{name}_SERVICE_PORT": str(ports[0]), f"{name}_PORT": f"tcp://10.0.0.1:{ports[0]}"}
    for port in ports:
        links[f"{name}_SERVICE_PORT_HTTP"] = str(port)
        for end, value in {"": f"tcp://10.0.0.1:{port}", "_PROTO": "tcp", "_PORT": str(port), "_ADDR": "10.0.0.1"}.items():
            links[f"{name}_PORT_{port}_TCP{end}"] = value
    return links


def effective(environment):
    """The settings in force, without where they come from."""
    done = check_config(environment)
    return done.returncode, done.stdout, done.stderr


def ordered(pod):
    """A pod template whose lists by name are in one order."""
    for place in ("initContainers", "containers"):
        for container in pod["spec"][place]:
            container.get("env", []).sort(key=lambda entry: entry["name"])
    pod["spec"]["volumes"].sort(key=lambda volume: volume["name"])
    return pod


class Promises(unittest.TestCase):
    maxDiff = None
    current = "all examples"

    def _formatMessage(self, msg, standardMsg):
        return f"{self.current}: {super()._formatMessage(msg, standardMsg)}"

    def each(self):
        """Every relay in turn; failures name it."""
        for name, document, container, sidecar in manifests.relays():
            self.current = f"{name}, {document['kind']}, {container['name']}"
            yield name, document, manifests.template(document), container, sidecar

    def test_every_kind_of_workload_is_among_the_examples(self):
        kinds = {document["kind"] for _, document, _, sidecar in manifests.relays() if sidecar}
        self.assertEqual(kinds, {"Deployment", "StatefulSet", "Job", "CronJob"})

    def test_sidecars_restart_always_and_have_no_readiness_probe(self):
        for _, _, _, container, sidecar in self.each():
            if sidecar:
                self.assertEqual(container["restartPolicy"], "Always")
                self.assertNotIn("readinessProbe", container)
            else:
                self.assertEqual(container["readinessProbe"]["httpGet"]["path"], "/readyz")

    def test_probes_ask_the_ops_listener_by_number(self):
        for _, _, pod, container, _ in self.each():
            listen = manifests.environment(container, pod)["CELLO_RELAY_OPS__LISTEN"]
            self.assertTrue(listen.startswith("[::]:"), "the kubelet comes from outside the pod")
            for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez")):
                self.assertEqual(container[probe]["httpGet"], {"path": path, "port": int(listen[5:])})
            self.assertIn(int(listen[5:]), [port["containerPort"] for port in container["ports"] if port["name"].startswith(OPS)])

    def test_nothing_but_the_gateway_takes_events_from_outside_the_pod(self):
        for _, _, pod, container, sidecar in self.each():
            values = manifests.environment(container, pod)
            listen = values.get("CELLO_RELAY_INGEST__LISTEN", "127.0.0.1:8745")
            if sidecar:
                self.assertTrue(all(part.startswith(("127.0.0.1:", "[::1]:")) for part in listen.split(",")))
            else:
                self.assertIn("CELLO_RELAY_INGEST__TOKEN_FILE", values)
            self.assertNotIn("CELLO_RELAY_INGEST__ALLOW_UNAUTHENTICATED_REMOTE", values)

    def test_the_outbox_is_full_before_its_volume_is(self):
        for _, document, pod, container, _ in self.each():
            values = manifests.environment(container, pod)
            mount = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}[values["CELLO_RELAY_OUTBOX__DIR"]]
            volume = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount]
            claims = [claim for claim in document["spec"].get("volumeClaimTemplates", []) if claim["metadata"]["name"] == mount]
            self.assertEqual(len(volume) + len(claims), 1, "one volume")
            if volume:
                self.assertEqual(values["CELLO_RELAY_OUTBOX__DURABILITY"], "pod")
                room = volume[0]["emptyDir"]["sizeLimit"]
            else:
                self.assertEqual(values["CELLO_RELAY_OUTBOX__DURABILITY"], "persistent")
                self.assertEqual(claims[0]["spec"]["accessModes"], ["ReadWriteOncePod"])
                self.assertIn("fsGroup", pod["spec"]["securityContext"])
                room = claims[0]["spec"]["resources"]["requests"]["storage"]
            self.assertLessEqual(manifests.size(values["CELLO_RELAY_OUTBOX__MAX_BYTES"]), 0.8 * manifests.size(room))

    def test_memory_is_limited_and_ephemeral_storage_is_not(self):
        measured = re.findall(r"\| ([\d.]+) MiB", (manifests.ROOT / "deploy" / "README.md").read_text())
        self.assertGreaterEqual(len(measured), 4)
        most = max(map(float, measured)) * 2**20
        for _, _, _, container, _ in self.each():
            # More than twice the most that deploy/README.md has.
            self.assertGreaterEqual(manifests.size(container["resources"]["limits"]["memory"]), 2 * most)
            self.assertNotIn("ephemeral-storage", container["resources"]["limits"])

    def test_the_drain_begins_with_the_end_of_the_pod(self):
        for _, _, pod, container, _ in self.each():
            self.assertEqual(container["lifecycle"]["preStop"]["exec"]["command"], ["cello-relay", "drain", "--no-wait"])
            values = manifests.environment(container, pod)
            self.assertEqual(values["CELLO_RELAY_SHUTDOWN__REPORT_FILE"], container.get("terminationMessagePath", "/dev/termination-log"))
            self.assertEqual(values["CELLO_RELAY_SHUTDOWN__POD_GRACE"], f"{pod['spec']['terminationGracePeriodSeconds']}s")

    def test_pod_security_restricted_takes_every_relay(self):
        for _, _, _, container, _ in self.each():
            context = container["securityContext"]
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
            self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertEqual((context["runAsUser"], context["runAsGroup"]), (65532, 65532))
            for key, wanted in {"allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True}.items():
                self.assertIs(context[key], wanted, key)

    def test_secrets_are_directories_of_files_and_never_environment(self):
        for _, _, pod, container, _ in self.each():
            for mount in container["volumeMounts"]:
                self.assertNotIn("subPath", mount)
            for entry in container["env"]:
                self.assertNotIn("secretKeyRef", entry.get("valueFrom", {}))
            self.assertNotIn("envFrom", container)
            values = manifests.environment(container, pod)
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            for key in ("CELLO__CREDENTIALS_DIR", "CELLO__BEARER_TOKEN_FILE", "INGEST__TOKEN_FILE"):
                value = values.get(f"CELLO_RELAY_{key}")
                if value:
                    self.assertTrue(any(value == path or value.startswith(path + "/") for path in mounts), value)

    def test_volumes_of_a_pod_that_hold_an_outbox_do_not_keep_a_node(self):
        key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
        for _, _, pod, _, _ in self.each():
            ours = [volume["name"] for volume in pod["spec"]["volumes"] if "emptyDir" in volume and volume["name"].startswith("cello-relay")]
            self.assertLessEqual(set(ours), set(pod["metadata"]["annotations"].get(key, "").split(",")))

    def test_ports_of_a_pod_are_told_apart(self):
        for _, _, pod, _, _ in self.each():
            ports = [port for place in ("initContainers", "containers") for one in pod["spec"].get(place, []) for port in one.get("ports", [])]
            for key in ("name", "containerPort"):
                self.assertEqual(len({port[key] for port in ports}), len(ports), key)
            self.assertTrue(all(len(port["name"]) <= 15 for port in ports))

    def test_ports_are_numbers_in_services_and_policies(self):
        seen = 0
        for _, document in manifests.everything():
            if document["kind"] == "Service":
                ports = [port["targetPort"] for port in document["spec"]["ports"]]
            elif document["kind"] == "NetworkPolicy":
                rules = document["spec"].get("ingress", []) + document["spec"].get("egress", [])
                ports = [port["port"] for rule in rules for port in rule["ports"]]
            else:
                continue
            self.assertTrue(ports and all(type(port) is int for port in ports), ports)
            seen += 1
        self.assertGreaterEqual(seen, 5)

    def test_selectors_meet_the_pods_that_they_are_meant_for(self):
        gateway = [manifests.template(document)["metadata"]["labels"] for _, document, _, sidecar in manifests.relays() if not sidecar][0]
        sidecars = [manifests.template(document)["metadata"]["labels"] for _, document, _, sidecar in manifests.relays() if sidecar]
        for name, document in manifests.everything():
            spec = document.get("spec", {})
            if document["kind"] == "Service":
                chosen, pods = spec["selector"], [gateway]
            elif document["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
                chosen = spec.get("podSelector", spec.get("selector"))["matchLabels"]
                pods = [gateway] if name == "gateway" else sidecars
            elif document["kind"] == "PodMonitor":
                wanted = {rule["key"] for rule in spec["selector"]["matchExpressions"]}
                for labels in [gateway, *sidecars]:
                    self.assertLessEqual(wanted, set(labels))
                continue
            else:
                continue
            for labels in pods:
                self.assertLessEqual(chosen.items(), labels.items(), f"{name} {document['kind']}")

    def test_prometheus_reads_every_relay_of_a_pod(self):
        monitor = [document for document in manifests.documents("monitoring") if document["kind"] == "PodMonitor"][0]
        read = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        for _, _, _, container, _ in self.each():
            self.assertTrue(read & {port["name"] for port in container["ports"]})
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            self.assertIn({"targetLabel": "job", "replacement": "cello-relay"}, endpoint["relabelings"])

    def test_policies_let_prometheus_reach_every_relay_of_a_pod(self):
        policies = {}
        for name in ("network-policy", "gateway"):
            rules = [rule for one in manifests.documents(name) if one["kind"] == "NetworkPolicy" for rule in one["spec"].get("ingress", [])]
            policies[name] = {port["port"] for rule in rules for port in rule["ports"]}
        for _, _, pod, container, sidecar in self.each():
            listen = manifests.environment(container, pod)["CELLO_RELAY_OPS__LISTEN"]
            self.assertIn(int(listen.rpartition(":")[2]), policies["network-policy" if sidecar else "gateway"])

    def test_policies_let_every_pod_ask_for_names(self):
        for name in ("network-policy", "gateway"):
            egress = [rule for one in manifests.documents(name) if one["kind"] == "NetworkPolicy" for rule in one["spec"].get("egress", [])]
            (dns,) = [rule for rule in egress if {port["port"] for port in rule["ports"]} == {53}]
            self.assertEqual({port["protocol"] for port in dns["ports"]}, {"UDP", "TCP"})
            self.assertEqual([next(iter(peer)) for peer in dns["to"]], ["namespaceSelector", "ipBlock"])
            self.assertEqual(dns["to"][1]["ipBlock"]["cidr"], "169.254.0.0/16", "NodeLocal DNSCache")

    def test_the_token_of_the_gateway_is_an_example_that_lets_nobody_in(self):
        for name, variable in (("gateway", "INGEST__TOKEN_FILE"), ("via-gateway", "CELLO__BEARER_TOKEN_FILE")):
            self.current = name
            (secret,) = [document for document in manifests.documents(name) if document["kind"] == "Secret"]
            (relay,) = [(document, container) for example, document, container, _ in manifests.relays() if example == name]
            pod = manifests.template(relay[0])
            folder, _, key = manifests.environment(relay[1], pod)[f"CELLO_RELAY_{variable}"].rpartition("/")
            (volume,) = [mount["name"] for mount in relay[1]["volumeMounts"] if mount["mountPath"] == folder]
            (mounted,) = [one["secret"]["secretName"] for one in pod["spec"]["volumes"] if one["name"] == volume]
            self.assertEqual((mounted, relay[0]["metadata"].get("namespace")), (secret["metadata"]["name"], secret["metadata"].get("namespace")))
            self.assertEqual(secret["stringData"], {key: ""})

    def test_sidecars_find_the_gateway(self):
        service = [one for one in manifests.documents("gateway") if one["kind"] == "Service" and one["spec"].get("type") == "ClusterIP"][0]
        url = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local:{service['spec']['ports'][0]['port']}"
        for name, _, pod, container, sidecar in self.each():
            if sidecar and name == "via-gateway":
                self.assertEqual(manifests.environment(container, pod)["CELLO_RELAY_CELLO__BASE_URL"], url)

    def test_every_variable_is_a_setting_that_the_program_knows(self):
        for _, _, pod, container, _ in self.each():
            values = manifests.environment(container, pod)
            done = check_config(values)
            # Nothing is mounted here.
            expected = ("warning: cello.allow_plaintext:", "warning: ingest.token_file /var/run/secrets/")
            said = [line for line in done.stderr.splitlines() if not line.startswith(expected)]
            self.assertEqual((done.returncode, said), (0, []))
            for key in values:
                self.assertIn(key.removeprefix("CELLO_RELAY_").replace("__", ".").lower(), done.stdout)
            self.assertEqual(check_config({**values, "CELLO_RELAY_OUTBOX__MAXBYTES": "1GiB"}).returncode, 78)

    def test_service_links_change_nothing(self):
        links = {}
        services = ["cello-relay", "cello-relay-gateway", "cello-relay-gateway-pods", "cello-relay-ingest", "cello-relay-outbox-max", "cello-relay-cello"]
        for service in services:
            links |= service_links(service, [8745, 8746])
        for _, _, pod, container, _ in self.each():
            values = manifests.environment(container, pod)
            self.assertEqual(effective({**values, **links}), effective(values))

    def test_a_cronjob_gets_the_same_relay_as_a_job(self):
        job, cronjob = (ordered(manifests.template(manifests.documents(name)[0])) for name in ("job", "cronjob"))
        self.assertEqual(job, cronjob)

    def test_the_second_relay_of_a_pod_differs_only_in_names_and_ports(self):
        pod = manifests.template(manifests.documents("two-products")[0])
        both = {one["name"]: one for one in pod["spec"]["initContainers"]}
        second = yaml.safe_dump(both["cello-relay-b"]).replace("cello-relay-b", "cello-relay").replace("8756", "8746").replace("op2", "ops")
        second = yaml.safe_load(second)
        moved = {"CELLO_RELAY_INGEST__LISTEN", "CELLO_RELAY_ADMIN__LISTEN"}
        second["env"] = [entry for entry in second["env"] if entry["name"] not in moved]
        for one in (second, both["cello-relay"]):
            one["env"].sort(key=lambda entry: entry["name"])
        self.assertEqual(second, both["cello-relay"])


if __name__ == "__main__":
    unittest.main()
