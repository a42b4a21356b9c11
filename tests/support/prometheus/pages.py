"""Rules, runbooks, pages and the dashboard belong together: nothing is missing and nothing is left over."""

import re
import subprocess

from world import PROMETHEUS, ROOT

DEPLOY = ROOT / "deploy"
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
# Metrics of others that rules and dashboard read.
OTHERS = re.compile(r"(up|ALERTS|process_\w+|kube_pod_\w+|container_cpu_\w+)$")


def alerts():
    return set(re.findall(r"^ +- alert: (\w+)$", (PROMETHEUS / "rules.yaml").read_text(), re.M))


def check_runbooks():
    pages = {page.stem for page in (DEPLOY / "runbooks").glob("*.md")} - {"README"}
    assert pages == alerts(), f"runbook without alert or alert without runbook: {sorted(pages ^ alerts())}"
    rules = (PROMETHEUS / "rules.yaml").read_text()
    for rule in re.split(r"^ +- alert: ", rules, flags=re.M)[1:]:
        name = rule.split("\n")[0]
        link = re.search(r"runbook_url: https://\S+/blob/main/(\S+)", rule)
        assert link and link[1] == f"deploy/runbooks/{name}.md", f"{name}: {link and link[1]}"
        assert re.search(r"labels: \{severity: (critical|warning|info), service: cello-relay", rule), name
    for name in pages:
        text = (DEPLOY / "runbooks" / f"{name}.md").read_text()
        assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS, name
        assert f"[{name}]({name}.md)" in (DEPLOY / "runbooks/README.md").read_text(), f"{name} is not in the list"


def check_tests():
    """Each alert is tested in both directions."""
    tests = "".join(file.read_text() for file in PROMETHEUS.glob("*.test.yaml"))
    for name in sorted(alerts()):
        for way in ("fires", "does not fire"):
            assert re.search(rf'name: "{name} {way}\b', tests), f"no test that {name} {way}"


def check_inhibitions():
    """Alertmanager's rules speak of alerts that there are."""
    text = (PROMETHEUS / "alertmanager.yaml").read_text()
    for match in re.findall(r'alertname=~?"(CelloRelay[^"]*)"', text):
        prefix, _, rest = match.partition("(")
        for name in rest.rstrip(")").split("|") if rest else [""]:
            assert prefix + name in alerts(), prefix + name


def check_links():
    for page in DEPLOY.rglob("*.md"):
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def check_questions():
    """40 questions; each answer names a command or a test, and the tests exist."""
    text = (DEPLOY / "questions.md").read_text()
    answers = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^#|\Z)", text, re.M | re.S)
    assert [int(number) for number, _ in answers] == list(range(1, 41)), [number for number, _ in answers]
    sources = "\n".join(file.read_text() for top in ("src", "tests") for file in (ROOT / top).rglob("*.rs"))
    tests = set(re.findall(r"\bfn (\w+)\(", sources))
    for number, answer in answers:
        names = [name for name in re.findall(r"`([a-z0-9_]+)`", answer) if name.count("_") >= 3]
        for name in names:
            assert name in tests, f"question {number}: there is no test {name}"
        proofs = re.findall(r"`(?:cello-relay|tests/|cargo|promtool|kubectl|deploy/)[^`]*`", answer)
        assert names or proofs, f"question {number} is answered without a proof"


def documented():
    """name -> (kind, labels, meaning), as metrics.md has them."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", (PROMETHEUS / "metrics.md").read_text(), re.M)
    return {name: (kind, labels, meaning) for name, kind, labels, meaning in rows}


def registry(exposed):
    """The same of a live /metrics."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", exposed, re.M))
    meanings = dict(re.findall(r"^# HELP (\w+) (.*)$", exposed, re.M))
    labels = {name: {} for name in kinds}
    for name, inner in re.findall(r"^(\w+)\{(.*)\} \S+$", exposed, re.M):
        family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        for label, value in re.findall(r'(\w+)="([^"]*)"', inner):
            if label != "le":
                labels[family].setdefault(label, []).append(value)
    found = {}
    for name, kind in kinds.items():
        shown = []
        for label, values in labels[name].items():
            told = name.endswith("_info") and label != "durability"
            shown.append(f"`{label}`" if told else f"`{label}`: " + ", ".join(dict.fromkeys(values)))
        found[name] = (kind, "; ".join(shown), meanings[name])
    return found


def values_of(labels):
    """label -> its values, of a column of metrics.md."""
    return {told.partition(": ")[0]: set(filter(None, told.partition(": ")[2].split(", "))) for told in labels.split("; ")}


def check_fresh(exposed):
    """A relay that has just started has each label value of metrics.md, and no other."""
    for name, (_, labels, _) in registry(exposed).items():
        written, there = values_of(documented()[name][1]), values_of(labels)
        for label in there.keys() - {"`durability`"}:
            assert written[label] == there[label], f"{name}: {label}: {sorted(written[label] ^ there[label])} is only in one of metrics.md and registry"


def check_metrics(exposed):
    lint = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, text=True)
    assert lint.returncode == 0 and not lint.stderr, lint.stderr
    pages, live = documented(), registry(exposed)
    assert pages.keys() == live.keys(), f"metrics.md and the registry differ: {sorted(pages.keys() ^ live.keys())}"
    for name, (kind, labels, meaning) in live.items():
        written = pages[name]
        assert (kind, meaning) == (written[0], written[2]), f"{name}: {written} is not {(kind, meaning)}"
        for told, there in zip(written[1].split("; "), labels.split("; "), strict=True):
            label, _, values = there.partition(": ")
            allowed = told.partition(": ")[2].split(", ")
            assert label == told.partition(": ")[0], f"{name}: label {label} is not in metrics.md"
            # A rarer value gets its series when it occurs; those from the start are all named.
            missing = [value for value in allowed if values and value not in values.split(", ") and label != "`durability`"]
            assert not missing, f"{name}: {missing} is in metrics.md and not in the registry"
    print(f"metrics.md names {len(live)} metrics, as the registry does")


def check_names(text, where):
    """Every metric that a query reads is one that there is."""
    recorded = set(re.findall(r"record: (\S+)", (PROMETHEUS / "rules.yaml").read_text()))
    for name in re.findall(r"(?<![\w:\"$/])(?:cello_relay|namespace)[\w:]*", text):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        known = name in recorded or name in documented() or base in documented() or name == "namespace"
        assert known or OTHERS.match(name), f"{where}: there is no metric {name}"


def queries(rules):
    lines = [line for line in rules.splitlines() if not re.match(r"\s*(#|summary|description|runbook_url|- name)", line)]
    return re.sub(r"\b(service: cello-relay|cello-relay)\b", "", "\n".join(lines))


def check():
    check_runbooks()
    check_tests()
    check_inhibitions()
    check_links()
    check_questions()
    check_names(queries((PROMETHEUS / "rules.yaml").read_text()), "rules.yaml")
    print(f"{len(alerts())} alerts, each with its runbook and its tests; 40 questions answered")


if __name__ == "__main__":
    check()
