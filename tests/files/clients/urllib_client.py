"""Usage: urllib_client.py BASE_URL cello|relay; nothing but the standard library."""
import gzip, http.client, json, sys, urllib.error, urllib.parse, urllib.request

BASE, MODE = sys.argv[1:]


def event(user, n, pad=""):
    return {
        "eventName": "ReferralUpdated",
        "payload": {"ucc": "cello-ucc", "newUserId": user},
        "context": {"n": n, "pad": pad, "event": {"trigger": "new-signup", "timestamp": "2026-11-20T03:18:01.620Z"}},
    }


def ask(path, body=None, **headers):
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    try:
        answer = urllib.request.urlopen(urllib.request.Request(BASE + path, body, headers), timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, json.load(answer)


def truth(value):
    return "true" if value is True else repr(value)


status, tokens = ask("/token", {"accessKeyId": "key-id", "secretAccessKey": "secret-key"})
print("token", status)
print("refresh", ask("/token", {"refreshToken": tokens["refreshToken"]})[0])
bearer = {"Authorization": "Bearer " + tokens["accessToken"]}
status, said = ask("/events", event("document", 0), **bearer)
print("event", status, truth(said["success"]))
print("refused", ask("/events", {"eventName": "ReferralUpdated", "payload": {}, "context": {}}, **bearer)[0])
status, said = ask("/referral-codes/cello-ucc", **bearer)
print("code", status, truth(said["valid"]))
status, said = ask("/referral-codes/active-link/" + urllib.parse.quote("user/7", safe=""), **bearer)
print("link", status, said["link"])
if MODE != "relay":
    sys.exit()

status, said = ask("/events/batch", [event("batch", n) for n in range(2)])
print("batch", status, len(said["ids"]))
lines = lambda events: "".join(json.dumps(one) + "\n" for one in events).encode()
ndjson = {"Content_Type": "application/x-ndjson"}
status, said = ask("/events/batch", lines(event("lines", n) for n in range(2)), **ndjson)
print("lines", status, len(said["ids"]))
status, said = ask("/events", gzip.compress(json.dumps(event("gzip", 0)).encode()), Content_Encoding="gzip")
print("gzip", status, truth(said["success"]))
text = json.dumps(event("chunked", 0)).encode()
# A body without a length goes out in chunks.
status, said = ask("/events", (text[at : at + 50] for at in range(0, len(text), 50)))
print("chunked", status, truth(said["success"]))
status, said = ask("/events/batch", lines(event("large", n, "x" * 200_000) for n in range(10)), **ndjson)
print("large", status, len(said["ids"]))
connection = http.client.HTTPConnection(urllib.parse.urlsplit(BASE).netloc, timeout=20)
taken = 0
for n in range(100):
    connection.request("POST", "/events", json.dumps(event("posts", n)), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    taken += answer.status == 200
print("posts", taken)
