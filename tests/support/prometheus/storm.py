"""A real Prometheus scrapes real relays through a storm; the right alerts fire, are told once, and clear.

    fleet   one relay, scraped as 50 pods: Cello answers 500 and 503 for as long as an hour would be
    keys    the access keys are refused, later replaced
    full    delivery is paused until the outbox is full, later resumed
    dead    one user's event is refused by Cello, and an app sends events that the relay refuses
    calm    nothing happens, under the same load
"""

import pathlib
import sys
import tempfile
import threading
import time

import commands
import dashboard
import pages
from world import Programs, Prometheus, Receivers, Relay, alertmanager, until

PODS = 50
EXPECTED = {
    "fleet": {
        ("CelloRelayUpstreamFailing", "warning"),
        ("CelloRelayOutboxStalled", "warning"),
        ("CelloRelayOutboxStalled", "critical"),
        ("CelloRelayEphemeralBacklog", "warning"),
    },
    "keys": {
        ("CelloRelayCredentialsRejected", "critical"),
        ("CelloRelayDeliveryHeld", "warning"),
        ("CelloRelayTokenExpiring", "warning"),
    },
    "full": {
        ("CelloRelayOutboxFillingUp", "warning"),
        ("CelloRelayOutboxFillingUp", "critical"),
        ("CelloRelayOutboxRefusing", "critical"),
        ("CelloRelayIngestErrorBudgetBurn", "critical"),
        ("CelloRelayDeliveryPaused", "warning"),
    },
    "dead": {
        ("CelloRelayEventsDeadLettered", "warning"),
        ("CelloRelayDeadLettersStanding", "warning"),
        ("CelloRelayEventsRefused", "warning"),
    },
    "calm": set(),
}
# May fire beside those, as time and load would have it: they follow from the same causes.
ALLOWED = {
    "keys": {
        ("CelloRelayOutboxStalled", "warning"),
        ("CelloRelayOutboxStalled", "critical"),
    },
    "full": {
        ("CelloRelayOutboxStalled", "warning"),
        ("CelloRelayOutboxStalled", "critical"),
        ("CelloRelayIngestErrorBudgetBurn", "warning"),
    },
}

# A machine that is too busy to be scraped says so, and rightly.
BUSY = {("CelloRelayDown", "warning"), ("CelloRelayDownMost", "critical")}
# Looks back two hours, so it is not waited for.
SLOW = {("full", "CelloRelayIngestErrorBudgetBurn", "warning")}


class Load:
    """Each relay gets two events and some reads a second, until it ends."""

    def __init__(self, relays):
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.send, args=(relay,), daemon=True) for relay in relays]
        for thread in self.threads:
            thread.start()

    def send(self, relay):
        count = 0
        while not self.ended.wait(0.5):
            count += 1
            relay.post(f"user-{count % 20}", currency="ZZZ")
            relay.read(f"/new-users/user-{count % 20}/reward")
            relay.read("/referral-codes/active-link/user-1")

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def begin_faults(relays):
    relays["fleet"].faults([{"path": "/events", "every": 2, "status": 500}, {"status": 503}])
    relays["keys"].faults({"refuseKeys": True, "revokeTokens": True})
    full = relays["full"]
    assert full.run("pause")[0] == 0
    for size in (200_000, 10_000, 0):
        while full.post("user-1", "x" * size) == 200:
            pass
    dead = relays["dead"]
    dead.faults([{"path": "/events", "user": "refused", "status": 400, "message": "no such ucc"}])
    for number in range(40):
        assert dead.post(f"user-{number}", price="free") == 400
    assert dead.post("refused") == 200


def end_faults(relays):
    relays["fleet"].faults({"rules": []})
    relays["keys"].faults({"rules": []})
    relays["keys"].keys("second")
    assert relays["full"].run("resume")[0] == 0
    code, said = relays["dead"].run("outbox", "discard", "--reason", "http_400", "--yes")
    assert code == 0, said


def watch(prometheus, seen, done, patience, mend=None):
    """Collects what fires until it is done; every 15 s somebody tries to mend things."""
    tried = time.monotonic()

    def look():
        nonlocal tried
        seen.update(prometheus.firing())
        if mend and time.monotonic() - tried > 15:
            tried = time.monotonic()
            mend()
        return done()

    until("what should have fired or cleared", look, patience)


def storm(programs, binary):
    small = {"OUTBOX__MAX_BYTES": "8MiB", "OUTBOX__RESERVE": "1MiB", "IDEMPOTENCY__MAX_BYTES": "1MiB"}
    settings = {"fleet": {"OUTBOX__DURABILITY": "pod"}, "full": small}
    relays = {name: Relay(programs, binary, name, settings.get(name)) for name in EXPECTED}
    pages.check_fresh(relays["calm"].metrics())
    receivers = Receivers()
    scraped = [(relay, PODS if name == "fleet" else 1) for name, relay in relays.items()]
    prometheus = Prometheus(programs, scraped, alertmanager(programs, receivers))
    load = Load(relays.values())
    start = time.time()
    until("all pods are scraped", lambda: len(prometheus.ask("query", query="up == 1")["result"]) == PODS + 4)
    time.sleep(3)  # a stretch of calm at the left of every graph
    begin_faults(relays)

    seen = set()
    expected = {(name, *alert) for name, alerts in EXPECTED.items() for alert in alerts}
    allowed = expected | {(name, *alert) for name in EXPECTED for alert in ALLOWED.get(name, set()) | BUSY}

    # Refused keys are tried again in five minutes, which haste does not shorten; others at once.
    def try_other_keys():
        relays["keys"].keys(f"wrong-{time.monotonic()}")

    try:
        watch(prometheus, seen, lambda: expected <= seen, 90, try_other_keys)
    except AssertionError:
        raise AssertionError(f"did not fire: {sorted(expected - seen)}") from None
    print(f"fired after {time.time() - start:.0f} s: {len(expected)} alerts as expected")
    end_faults(relays)
    try:
        watch(prometheus, seen, lambda: not prometheus.firing() - SLOW, 90)
    except AssertionError:
        raise AssertionError(f"did not clear: {sorted(prometheus.firing())}") from None
    print(f"cleared after {time.time() - start:.0f} s")
    load.end()
    assert seen <= allowed, f"should not have fired: {sorted(seen - allowed)}"
    tell_once(receivers)
    return relays, prometheus, start


def tell_once(receivers):
    """One outage of Cello seen by 50 pods is at most a ticket and a page."""
    fleet = [kept for kept in receivers.of("fleet") if not {name for name, _ in BUSY} & set(kept[3])]
    for receiver, namespace, _, alerts in receivers.notifications:
        print(f"  notified {receiver:6} {namespace}: {', '.join(alerts) or 'all is well again'}")
    assert 1 <= len(fleet) <= 2, f"{PODS} pods and one outage gave {len(fleet)} notifications: {fleet}"
    assert [kept[0] for kept in fleet] == ["ticket", "page"], fleet
    told = {name for kept in receivers.of("keys") for name in kept[3]}
    assert "CelloRelayDeliveryHeld" not in told, "the cause mutes what follows from it"
    assert not [kept for kept in receivers.of("calm") if not {name for name, _ in BUSY} & set(kept[3])]


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    picture = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder, Programs(folder) as programs:
        relays, prometheus, start = storm(programs, binary)
        dashboard.check(prometheus, start, picture)
        pages.check_metrics(relays["calm"].metrics())
        commands.check(relays["dead"])


if __name__ == "__main__":
    main()
