"""Every command in the manifests and pages, run with the real program and the manifests' own environment."""

import contextlib
import json
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import manifests

LIMIT = 60.0
PAGES = ("README.md", "adopting.md", "upgrading.md", "lost-nodes.md", "plain-container.md")
EVENT = {"eventName": "ReferralUpdated", "payload": {"ucc": "cello-ucc", "newUserId": "user-1"}, "context": {}}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def call(url, body=None, token=None):
    """(status, body) of an HTTP request; status 0 when nothing answers."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(condition, what):
    """Waits for what other processes do; the limit is only for those that never do it."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT} s: {what}")


class Machine:
    """Stands in for a pod: its paths are in a folder, its ports are free ones of this machine."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.ports = {}
        self.running = []
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "cello-relay").symlink_to(manifests.RELAY)

    def local(self, text):
        """A manifest's text with this machine's paths and ports."""
        for path in ("/var/lib/cello-relay", "/var/run/secrets/cello-relay", "/dev/termination-log"):
            text = re.sub(f"(?<![\\w.-]){path}", f"{self.folder}{path}", text)
        text = text.replace("[::]:", "127.0.0.1:").replace(",[::1]:8755", "")
        # One port for one number, so that two relays that want the same one meet.
        return re.sub(r"\b87[45]\d\b", lambda found: str(self.port(int(found[0]))), text)

    def port(self, number):
        return self.ports.setdefault(number, free_port())

    def start(self, container, pod, **over):
        """Starts a container's process as its manifest says; `over` are environment variables in place of its own."""
        values = {key: self.local(value) for key, value in manifests.environment(container, pod).items()}
        # Listeners that the manifest leaves to their defaults.
        values.setdefault("CELLO_RELAY_INGEST__LISTEN", f"127.0.0.1:{self.port(8745)}")
        values.setdefault("CELLO_RELAY_ADMIN__LISTEN", f"127.0.0.1:{self.port(8747)}")
        values |= {f"CELLO_RELAY_{key}": value for key, value in over.items()}
        for mount in container["volumeMounts"]:
            pathlib.Path(self.local(mount["mountPath"])).mkdir(parents=True, exist_ok=True)
        (self.folder / "dev").mkdir(exist_ok=True)
        values = {key: value for key, value in values.items() if value} | self.path()
        process = self.spawn([*container.get("command", ["cello-relay"]), *container["args"]], values)
        return process, values

    def path(self):
        return {"PATH": f"{self.folder}/bin:/usr/local/bin:/usr/bin:/bin"}

    def spawn(self, command, values):
        log = (self.folder / f"log-{len(self.running)}").open("w")
        process = subprocess.Popen(command, env=values, stdout=log, stderr=log, cwd=self.folder)
        log.close()
        self.running.append(process)
        return process

    def simulate(self):
        """A Cello; gives its base URL."""
        address = f"127.0.0.1:{free_port()}"
        self.spawn(["cello-relay", "simulate", "--listen", address], self.path())
        until(lambda: call(f"http://{address}/_sim/stats")[0] == 200, "the simulator")
        return f"http://{address}"

    def probe(self, container, name):
        """The status that the kubelet would see."""
        get = container[name]["httpGet"]
        return call(f"http://127.0.0.1:{self.port(get['port'])}{get['path']}")[0]

    def started(self, container):
        until(lambda: self.probe(container, "startupProbe") == 200, "startup probe")

    def end(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextlib.contextmanager
def machine():
    with tempfile.TemporaryDirectory() as folder:
        one = Machine(folder)
        try:
            yield one
        finally:
            one.end()


def write_keys(one, folder="/var/run/secrets/cello-relay"):
    path = pathlib.Path(one.local(folder))
    path.mkdir(parents=True, exist_ok=True)
    (path / "access-key-id").write_text("id\n")
    (path / "secret-access-key").write_text("secret\n")


def relay_of(name):
    found = [(container, manifests.template(document)) for example, document, container, _ in manifests.relays() if example == name]
    return found[0]


def arrived(cello):
    return json.loads(call(f"{cello}/_sim/events")[1])["events"]


def upstream(cello):
    return {"CELLO__ENVIRONMENT": "", "CELLO__BASE_URL": cello}


def own_command(words):
    """The `cello-relay …` of a line, also behind `kubectl exec … --`, with its redirections; None if there is none."""
    if "--" in words and words[0] == "kubectl":
        words = words[words.index("--") + 1 :]
    return words if words[:1] == ["cello-relay"] else None


def redirected(words, folder):
    """The command without its redirections, and the files that these name."""
    files = {}
    for sign in ("<", ">", ">>"):
        if sign in words:
            at = words.index(sign)
            files[sign] = folder / words[at + 1]
            words = words[:at]
    return words, files


class Commands(unittest.TestCase):
    def test_probes_let_the_app_start_with_cello_away_and_no_keys(self):
        for name in ("deployment", "statefulset", "job", "cronjob", "gateway"):
            with self.subTest(example=name), machine() as one:
                container, pod = relay_of(name)
                if name == "gateway":
                    token = pathlib.Path(one.local("/var/run/secrets/cello-relay-gateway/token"))
                    token.parent.mkdir(parents=True)
                    token.write_text("t0ken-of-the-gateway\n")
                one.start(container, pod, **upstream(f"http://127.0.0.1:{free_port()}"))
                one.started(container)
                for probe in ("livenessProbe", "readinessProbe"):
                    if probe in container:
                        self.assertEqual(one.probe(container, probe), 200, probe)

    def test_jobs_post_wait_and_complete_and_the_relay_ends_with_a_report(self):
        if shutil.which("curl") is None:
            manifests.skipped("the Jobs' commands: no curl")
            return
        for name in ("job", "cronjob"):
            with self.subTest(example=name), machine() as one:
                container, pod = relay_of(name)
                cello = one.simulate()
                write_keys(one)
                process, _ = one.start(container, pod, **upstream(cello))
                one.started(container)
                command = [one.local(part) for part in pod["spec"]["containers"][0]["command"]]
                done = subprocess.run(command, env=one.path(), capture_output=True, text=True, timeout=LIMIT, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(len(arrived(cello)), 1)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(LIMIT), 0)
                report = pathlib.Path(one.local("/dev/termination-log")).read_text()
                self.assertIn("undelivered=0 dead=0", report)

    def test_the_pre_stop_hook_returns_at_once_and_posts_are_still_taken(self):
        with machine() as one:
            container, pod = relay_of("deployment")
            cello = one.simulate()
            write_keys(one)
            process, values = one.start(container, pod, **upstream(cello))
            one.started(container)
            before = time.monotonic()
            done = subprocess.run(container["lifecycle"]["preStop"]["exec"]["command"], env=values, timeout=LIMIT, check=False)
            self.assertEqual(done.returncode, 0)
            self.assertLess(time.monotonic() - before, 5)
            self.assertIsNone(process.poll())
            status, _ = call(f"http://127.0.0.1:{one.port(8745)}/events", EVENT)
            self.assertEqual(status, 200)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(LIMIT), 0)
            self.assertEqual(len(arrived(cello)), 1)

    def test_two_relays_of_one_pod_do_not_meet(self):
        with machine() as one:
            document = manifests.documents("two-products")[0]
            pod = manifests.template(document)
            both = [container for container in pod["spec"]["initContainers"] if manifests.is_relay(container)]
            both.sort(key=lambda container: container["name"])
            self.assertEqual(len(both), 2)
            cellos = []
            for container in both:
                mounts = [mount["mountPath"] for mount in container["volumeMounts"] if "secrets" in mount["mountPath"]]
                write_keys(one, mounts[0])
                cellos.append(one.simulate())
                one.start(container, pod, **upstream(cellos[-1]))
            for container in both:
                one.started(container)
            for entry, cello in zip(pod["spec"]["containers"][0]["env"], cellos):
                self.assertEqual(call(one.local(entry["value"]) + "/events", EVENT)[0], 200)
                until(lambda cello=cello: len(arrived(cello)) == 1, "the event of each product")

    def test_a_sidecar_delivers_through_the_gateway_which_takes_nothing_without_the_token(self):
        with machine() as inner, machine() as outer:
            cello = outer.simulate()
            write_keys(outer)
            token = "t0ken-of-the-gateway"
            for one, path in ((outer, "/var/run/secrets/cello-relay-gateway/token"), (inner, "/var/run/secrets/cello-relay/token")):
                file = pathlib.Path(one.local(path))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(token + "\n")
            gateway, gateway_pod = relay_of("gateway")
            outer.start(gateway, gateway_pod, **upstream(cello))
            outer.started(gateway)
            base = f"http://127.0.0.1:{outer.port(8745)}"
            self.assertEqual(call(f"{base}/events", EVENT)[0], 401)
            self.assertEqual(call(f"{base}/events", EVENT, "other")[0], 401)
            sidecar, pod = relay_of("via-gateway")
            inner.start(sidecar, pod, CELLO__BASE_URL=base)
            inner.started(sidecar)
            self.assertEqual(call(f"http://127.0.0.1:{inner.port(8745)}/events", EVENT)[0], 200)
            until(lambda: len(arrived(cello)) == 1, "the event at Cello")
            # No more than the one event came: the refused ones did not.
            self.assertEqual(len(arrived(cello)), 1)

    def test_commands_of_the_pages_work(self):
        """`cello-relay …` in them runs beside a relay; what only needs kubectl itself is run without a cluster."""
        ran = {"cello-relay": 0, "kubectl": 0}
        with machine() as one:
            container, pod = relay_of("deployment")
            cello = one.simulate()
            write_keys(one)
            process, values = one.start(container, pod, **upstream(cello))
            one.started(container)
            live, stopped = [], []
            for page in (manifests.ROOT / "deploy" / name for name in PAGES):
                for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
                    for line in block.replace("\\\n", " ").splitlines():
                        words = shlex.split(line, comments=True)
                        own = own_command(words)
                        if own:
                            (stopped if "check" in own or "rebind" in own else live).append((page.name, own))
                        elif words[:2] in (["kubectl", "kustomize"], ["kubectl", "create"]):
                            ran["kubectl"] += self.kubectl(page.name, words, one)
            for commands in (live, stopped):
                for page, words in commands:
                    command, files = redirected(words, one.folder)
                    fed = files["<"].read_text() if "<" in files else ""
                    done = subprocess.run(command, env=values, input=fed, capture_output=True, text=True, timeout=LIMIT, check=False)
                    self.assertEqual(done.returncode, 0, f"{page}: {shlex.join(words)}: {done.stderr}")
                    if ">" in files:
                        files[">"].write_text(done.stdout)
                    if ">>" in files:
                        with files[">>"].open("a") as file:
                            file.write(done.stdout)
                    ran["cello-relay"] += 1
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    self.assertEqual(process.wait(LIMIT), 0)
        print(f"\ncommands of the pages that were run: {ran}")
        self.assertGreaterEqual(ran["cello-relay"], 8)

    def kubectl(self, page, words, one):
        if words[1] == "create":
            words = [*words, "--dry-run=client", "-o", "yaml"]
        elif manifests.kustomize() is None:
            return 0
        if shutil.which("kubectl") is None:
            manifests.skipped(f"{shlex.join(words)} of {page}: no kubectl")
            return 0
        (one.folder / "keys").mkdir(exist_ok=True)
        for name in ("access-key-id", "secret-access-key", "token"):
            (one.folder / "keys" / name).write_text("x")
        if words[1] == "kustomize":
            words = [*words[:2], str(manifests.ROOT / words[2])]
        done = subprocess.run(words, cwd=one.folder, capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 0, f"{page}: {shlex.join(words)}: {done.stderr}")
        return 1


if __name__ == "__main__":
    unittest.main()
