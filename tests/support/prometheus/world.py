"""Real programs on loopback: relays, their Cellos (simulators), Prometheus, Alertmanager, and who is notified."""

import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy/prometheus"
# Time in rules and in Alertmanager's configuration runs so much faster.
HASTE = 75
# No `for` is longer than this many seconds.
LONGEST = 8


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(url, body=None, method=None, timeout=10):
    """Status and body of one request; an error status is an answer too, and 0 is none."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(what, holds, seconds=60):
    """Waits until it holds; says what did not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


def hurry(text):
    """Rules or Alertmanager's configuration with every duration and age HASTE times shorter."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def shorter(match, longest=float("inf")):
        seconds = int(match[2]) * units[match[3]] / HASTE
        return f"{match[1]}{max(1, round(1000 * min(seconds, longest)))}ms"

    text = re.sub(r"(\[)(\d+)([smhd])(?=\])", shorter, text)
    text = re.sub(r"(offset )(\d+)([smhd])\b", shorter, text)
    text = re.sub(r"(for: )(\d+)([smhd])\b", lambda match: shorter(match, LONGEST), text)
    text = re.sub(r"((?:interval|group_wait|group_interval): )(\d+)([smhd])\b", shorter, text)
    return re.sub(r"(age:seconds > )(\d+)", lambda match: f"{match[1]}{int(match[2]) / HASTE:.2f}", text)


class Programs:
    """Everything that was started, and its files; ended when left."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.running):
            program.terminate()
        for program in self.running:
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    def start(self, name, arguments, environment=None):
        log = open(self.folder / f"{name}.log", "w")  # noqa: SIM115 it is the program's
        program = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self.running.append(program)
        return program


class Relay:
    """A relay with a Cello of its own, in a namespace of its own."""

    def __init__(self, programs, binary, name, settings=None):
        self.name, self.binary = name, str(binary)
        self.folder = programs.folder / name
        (self.folder / "keys").mkdir(parents=True)
        self.keys("first")
        ports = {part: free_port() for part in ("ingest", "ops", "admin", "cello")}
        self.base = {part: f"http://127.0.0.1:{port}" for part, port in ports.items()}
        self.target = f"127.0.0.1:{ports['ops']}"
        chosen = {
            "INGEST__LISTEN": f"127.0.0.1:{ports['ingest']}",
            "OPS__LISTEN": self.target,
            "ADMIN__LISTEN": f"127.0.0.1:{ports['admin']}",
            "CELLO__BASE_URL": self.base["cello"],
            "CELLO__CREDENTIALS_DIR": str(self.folder / "keys"),
            "OUTBOX__DIR": str(self.folder / "outbox"),
            "OUTBOX__MIN_FREE_BYTES": "1MiB",
            "LOG__FORMAT": "json",
        } | (settings or {})
        self.environment = {f"CELLO_RELAY_{key}": value for key, value in chosen.items()}
        cello = [self.binary, "simulate", "--listen", f"127.0.0.1:{ports['cello']}"]
        programs.start(f"{name}-cello", cello, {})
        until(f"{name}: the simulator answers", lambda: call(f"{self.base['cello']}/_sim/stats")[0] == 200)
        self.process = programs.start(name, [self.binary, "run"], self.environment)
        until(f"{name}: the relay is ready", lambda: call(f"{self.base['ops']}/readyz")[0] == 200)

    def keys(self, value):
        """Other keys; a file is never seen half written."""
        for file in ("access-key-id", "secret-access-key"):
            written = self.folder / f"{file}.new"
            written.write_text(f"{file}-{value}\n")
            written.rename(self.folder / "keys" / file)

    def faults(self, faults):
        status, answer = call(f"{self.base['cello']}/_sim/faults", faults, "PUT")
        assert status == 200, answer

    def post(self, user, note="", **payload):
        event = {
            "eventName": "ReferralUpdated",
            "payload": {"ucc": "code", "newUserId": user} | payload,
            "context": {"note": note, "event": {"trigger": "new-signup", "timestamp": "2026-11-20T03:18:01.620Z"}},
        }
        return call(f"{self.base['ingest']}/events", event)[0]

    def read(self, path):
        return call(self.base["ingest"] + path)[0]

    def run(self, *arguments):
        """A subcommand of the binary, as in the relay's container; exit code and output."""
        done = subprocess.run(
            [self.binary, *arguments], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    def metrics(self):
        return call(f"{self.base['ops']}/metrics")[1]


class Prometheus:
    """Prometheus with the rules, hurried; each relay is scraped as so many pods of its namespace."""

    def __init__(self, programs, relays, alertmanager):
        self.base = f"http://127.0.0.1:{free_port()}"
        (programs.folder / "rules.yaml").write_text(hurry((PROMETHEUS / "rules.yaml").read_text()))
        targets = "".join(
            f"      - targets: [{json.dumps(relay.target)}]\n"
            f"        labels: {{namespace: {relay.name}, pod: {relay.name}-{pod}}}\n"
            for relay, pods in relays
            for pod in range(pods)
        )
        config = (
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yaml]\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: [{json.dumps(alertmanager)}]}}]}}]}}\n"
            f"scrape_configs:\n  - job_name: cello-relay\n    static_configs:\n{targets}"
        )
        file = programs.folder / "prometheus.yaml"
        file.write_text(config)
        programs.start(
            "prometheus",
            [
                shutil.which("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={programs.folder / 'tsdb'}",
                f"--web.listen-address={self.base[7:]}",
                "--rules.alert.resend-delay=2s",
            ],
            dict(os.environ),
        )
        until("Prometheus is ready", lambda: call(f"{self.base}/-/ready")[0] == 200)

    def ask(self, path, **query):
        status, answer = call(f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30)
        answer = json.loads(answer or "{}")
        if status != 200:
            raise AssertionError(f"{path} {query}: {answer.get('error')}")
        return answer["data"]

    def firing(self):
        """(namespace, alert, severity) of all that fire now."""
        alerts = [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(a["labels"].get("namespace"), a["labels"]["alertname"], a["labels"]["severity"]) for a in alerts}

    def range(self, query, start, step=1):
        return self.ask("query_range", query=query, start=start, end=time.time(), step=step)["result"]


class Receivers:
    """Who is called: keeps each notification."""

    def __init__(self):
        self.notifications = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                firing = sorted({alert["labels"]["alertname"] for alert in body["alerts"] if alert["status"] == "firing"})
                namespace = body["groupLabels"].get("namespace")
                outer.notifications.append((self.path.strip("/"), namespace, body["status"], firing))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, namespace):
        """Whatever was sent, that all is well again included."""
        return [kept for kept in self.notifications if kept[1] == namespace]


def alertmanager(programs, receivers):
    """Alertmanager with the shipped configuration, hurried; gives its address."""
    text = hurry((PROMETHEUS / "alertmanager.yaml").read_text())
    text = text.replace("127.0.0.1:9099", f"127.0.0.1:{receivers.server.server_port}")
    file = programs.folder / "alertmanager.yaml"
    file.write_text(text)
    address = f"127.0.0.1:{free_port()}"
    programs.start(
        "alertmanager",
        [
            shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"),
            f"--config.file={file}",
            f"--storage.path={programs.folder / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
        ],
        dict(os.environ),
    )
    until("Alertmanager is ready", lambda: call(f"http://{address}/-/ready")[0] == 200)
    return address
