#!/bin/sh
# Usage: curl.sh BASE_URL cello|relay
set -eu
base=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
json='Content-Type: application/json'

event() { printf '{"eventName":"ReferralUpdated","payload":{"ucc":"cello-ucc","newUserId":"%s"},"context":{"n":%s,"pad":"%s","event":{"trigger":"new-signup","timestamp":"2026-11-20T03:18:01.620Z"}}}' "$1" "$2" "${3-}"; }
# ask ARGUMENT…: the body goes to a file, the status to stdout.
ask() { curl -sS --max-time 20 -o "$work/answer" -w '%{http_code}' "$@"; }
field() { sed -n "s/.*\"$1\": *\"\\{0,1\\}\\([^,\"}]*\\).*/\\1/p" "$work/answer"; }
count() { grep -o '[0-9a-f]\{8\}-[0-9a-f]\{4\}-' "$work/answer" | wc -l; }

echo "token $(ask "$base/token" -H "$json" -d '{"accessKeyId": "key-id", "secretAccessKey": "secret-key"}')"
access=$(field accessToken)
refresh=$(field refreshToken)
echo "refresh $(ask -X POST "$base/token" -H "$json" -d "{\"refreshToken\": \"$refresh\"}")"
authorization="Authorization: Bearer $access"
echo "event $(ask "$base/events" -H "$json" -H "$authorization" -d "$(event document 0)") $(field success)"
echo "refused $(ask "$base/events" -H "$json" -H "$authorization" -d '{"eventName": "ReferralUpdated", "payload": {}, "context": {}}')"
echo "code $(ask --location --request GET "$base/referral-codes/cello-ucc" --header "$authorization") $(field valid)"
echo "link $(ask "$base/referral-codes/active-link/user%2F7" -H "$authorization") $(field link)"
[ "$2" = relay ] || exit 0

echo "batch $(ask "$base/events/batch" -H "$json" -d "[$(event batch 0),$(event batch 1)]") $(count)"
{ event lines 0; echo; event lines 1; echo; } >"$work/lines"
echo "lines $(ask "$base/events/batch" -H 'Content-Type: application/x-ndjson' --data-binary "@$work/lines") $(count)"
event gzip 0 | gzip >"$work/packed"
echo "gzip $(ask "$base/events" -H "$json" -H 'Content-Encoding: gzip' --data-binary "@$work/packed") $(field success)"
event chunked 0 >"$work/chunked"
echo "chunked $(ask "$base/events" -H "$json" -H 'Transfer-Encoding: chunked' --data-binary "@$work/chunked") $(field success)"
# More than 1 MiB: curl asks by itself with `Expect: 100-continue`.
pad=$(head -c 200000 /dev/zero | tr '\0' x)
for n in 0 1 2 3 4 5 6 7 8 9; do event large "$n" "$pad"; echo; done >"$work/large"
echo "large $(ask "$base/events/batch" -H 'Content-Type: application/x-ndjson' --data-binary "@$work/large") $(count)"
# One call of curl, one connection.
n=0
while [ "$n" -lt 100 ]; do
  [ "$n" = 0 ] || echo next
  printf 'url = "%s/events"\nheader = "%s"\ndata = "%s"\noutput = "/dev/null"\nwrite-out = "%%{http_code}\\n"\n' \
    "$base" "$json" "$(event posts "$n" | sed 's/"/\\"/g')"
  n=$((n + 1))
done >"$work/posts"
echo "posts $(curl -sS --max-time 60 -K "$work/posts" | grep -c '^200$')"
