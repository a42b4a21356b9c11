"""Runs every command that runbooks and questions name, against a relay with a dead letter."""

import os
import pathlib
import re
import shutil
import subprocess

from world import ROOT, call, until

# What changes the relay for those that follow comes later; what needs a stopped relay comes last.
LATE = ["cello-relay outbox replay", "cello-relay outbox discard", "cello-relay pause", "cello-relay resume", "cello-relay drain"]
STOPPED = ["cello-relay outbox check", "cello-relay outbox rebind"]


def named():
    """The lines of all sh blocks that call the relay, once each, without comments and `kubectl exec`; with the page."""
    found = {}
    for page in [ROOT / "deploy/questions.md", *sorted((ROOT / "deploy/runbooks").glob("*.md"))]:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.M | re.S):
            for line in block.splitlines():
                command = re.sub(r"^kubectl exec .*? -- ", "", line.split(" #")[0].strip())
                if command.startswith("cello-relay "):
                    found.setdefault(command, page.name)
    return found


def place(command):
    order = [number for number, start in enumerate([*LATE, *STOPPED], 1) if command.startswith(start)]
    return order[0] if order else 0


def dead_letter(relay):
    """The id of an event that Cello refuses."""
    relay.faults([{"path": "/events", "user": "refused", "status": 400, "message": "no such ucc"}])
    ids = []

    def dead():
        ids[:] = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", relay.run("outbox", "list", "--state", "dead")[1])
        return ids

    if not dead():
        assert relay.post("refused") == 200
        until("an event is a dead letter", dead)
    return ids[0]


def lay_aside(relay, command):
    """What a page names as moved aside lies there: a copy of the database, as if it had been damaged."""
    outbox = relay.folder / "outbox"
    for name in re.findall(r"outbox-\w+\.damaged\.db", command):
        for companion in ["", "-wal"]:
            shutil.copy(outbox / f"outbox.db{companion}", outbox / f"{name}{companion}")


def run(relay, command):
    environment = relay.environment | {"PATH": f"{pathlib.Path(relay.binary).parent}:{os.environ['PATH']}"}
    shell = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(
        shell, env=environment, cwd=relay.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout}{done.stderr}"


def check(relay):
    commands = sorted(named().items(), key=lambda found: place(found[0]))
    assert len(commands) >= 25, commands
    one = '{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"by-file"},"context":{}}\n'
    (relay.folder / "events.ndjson").write_text(one)
    stopped = False
    for command, page in commands:
        if place(command) > len(LATE) and not stopped:
            relay.process.terminate()
            assert relay.process.wait(60) == 0
            stopped = True
        if not stopped:
            event = dead_letter(relay)
        lay_aside(relay, command)
        try:
            run(relay, command.replace(" ID", f" {event}"))
        except AssertionError as error:
            raise AssertionError(f"{page}: {error}") from None
    print(f"{len(commands)} commands of the pages ran")
    assert call(f"{relay.base['ops']}/livez")[0] == 0
