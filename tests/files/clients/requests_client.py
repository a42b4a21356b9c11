"""Usage: requests_client.py BASE_URL cello|relay"""
import gzip, json, sys, urllib.parse

import requests

BASE, MODE = sys.argv[1:]
session = requests.Session()


def event(user, n, pad=""):
    return {
        "eventName": "ReferralUpdated",
        "payload": {"ucc": "cello-ucc", "newUserId": user},
        "context": {"n": n, "pad": pad, "event": {"trigger": "new-signup", "timestamp": "2026-11-20T03:18:01.620Z"}},
    }


def post(path, **arguments):
    answer = session.post(BASE + path, timeout=20, **arguments)
    return answer.status_code, answer.json()


def get(path):
    answer = session.get(BASE + path, timeout=20)
    return answer.status_code, answer.json()


def truth(value):
    return "true" if value is True else repr(value)


status, tokens = post("/token", json={"accessKeyId": "key-id", "secretAccessKey": "secret-key"})
print("token", status)
print("refresh", post("/token", json={"refreshToken": tokens["refreshToken"]})[0])
session.headers["Authorization"] = "Bearer " + tokens["accessToken"]
status, said = post("/events", json=event("document", 0))
print("event", status, truth(said["success"]))
print("refused", post("/events", json={"eventName": "ReferralUpdated", "payload": {}, "context": {}})[0])
status, said = get("/referral-codes/cello-ucc")
print("code", status, truth(said["valid"]))
status, said = get("/referral-codes/active-link/" + urllib.parse.quote("user/7", safe=""))
print("link", status, said["link"])
if MODE != "relay":
    sys.exit()

status, said = post("/events/batch", json=[event("batch", n) for n in range(2)])
print("batch", status, len(said["ids"]))
lines = lambda events: "".join(json.dumps(one) + "\n" for one in events).encode()
ndjson = {"Content-Type": "application/x-ndjson"}
status, said = post("/events/batch", data=lines(event("lines", n) for n in range(2)), headers=ndjson)
print("lines", status, len(said["ids"]))
packed = gzip.compress(json.dumps(event("gzip", 0)).encode())
kind = {"Content-Type": "application/json"}
status, said = post("/events", data=packed, headers={**kind, "Content-Encoding": "gzip"})
print("gzip", status, truth(said["success"]))
text = json.dumps(event("chunked", 0)).encode()
# A generator has no length and goes out in chunks.
status, said = post("/events", data=(text[at : at + 50] for at in range(0, len(text), 50)), headers=kind)
print("chunked", status, truth(said["success"]))
status, said = post("/events/batch", data=lines(event("large", n, "x" * 200_000) for n in range(10)), headers=ndjson)
print("large", status, len(said["ids"]))
print("posts", sum(post("/events", json=event("posts", n))[0] == 200 for n in range(100)))
