// Usage: go run client.go BASE_URL cello|relay
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

var (
	client        = &http.Client{Timeout: 20 * time.Second}
	authorization string
)

type answer struct {
	AccessToken, RefreshToken, Link string
	Success, Valid                  bool
	IDs                             []string
}

func event(user string, n int, pad string) string {
	return fmt.Sprintf(`{"eventName":"ReferralUpdated","payload":{"ucc":"cello-ucc","newUserId":"%s"},"context":{"n":%d,"pad":"%s",`+
		`"event":{"trigger":"new-signup","timestamp":"2026-11-20T03:18:01.620Z"}}}`, user, n, pad)
}

func send(method, path string, body io.Reader, headers ...string) (int, answer) {
	request, err := http.NewRequest(method, os.Args[1]+path, body)
	check(err)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	for at := 0; at < len(headers); at += 2 {
		request.Header.Set(headers[at], headers[at+1])
	}
	response, err := client.Do(request)
	check(err)
	defer response.Body.Close()
	var said answer
	check(json.NewDecoder(response.Body).Decode(&said))
	// What is left of the body must be read for the connection to be used again.
	_, err = io.Copy(io.Discard, response.Body)
	check(err)
	return response.StatusCode, said
}

func post(path, body string, headers ...string) (int, answer) {
	return send("POST", path, strings.NewReader(body), headers...)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	status, tokens := post("/token", `{"accessKeyId": "key-id", "secretAccessKey": "secret-key"}`)
	fmt.Println("token", status)
	status, _ = post("/token", `{"refreshToken": "`+tokens.RefreshToken+`"}`)
	fmt.Println("refresh", status)
	authorization = "Bearer " + tokens.AccessToken
	status, said := post("/events", event("document", 0, ""))
	fmt.Println("event", status, said.Success)
	status, _ = post("/events", `{"eventName": "ReferralUpdated", "payload": {}, "context": {}}`)
	fmt.Println("refused", status)
	status, said = send("GET", "/referral-codes/cello-ucc", nil)
	fmt.Println("code", status, said.Valid)
	status, said = send("GET", "/referral-codes/active-link/"+url.PathEscape("user/7"), nil)
	fmt.Println("link", status, said.Link)
	if os.Args[2] == "relay" {
		relay()
	}
}

func relay() {
	status, said := post("/events/batch", "["+event("batch", 0, "")+","+event("batch", 1, "")+"]")
	fmt.Println("batch", status, len(said.IDs))
	ndjson := []string{"Content-Type", "application/x-ndjson"}
	status, said = post("/events/batch", event("lines", 0, "")+"\n"+event("lines", 1, "")+"\n", ndjson...)
	fmt.Println("lines", status, len(said.IDs))
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, err := zip.Write([]byte(event("gzip", 0, "")))
	check(err)
	check(zip.Close())
	status, said = send("POST", "/events", &packed, "Content-Encoding", "gzip")
	fmt.Println("gzip", status, said.Success)
	// A reader of unknown length goes out in chunks.
	status, said = send("POST", "/events", io.MultiReader(strings.NewReader(event("chunked", 0, ""))))
	fmt.Println("chunked", status, said.Success)
	var large strings.Builder
	for n := 0; n < 10; n++ {
		large.WriteString(event("large", n, strings.Repeat("x", 200_000)) + "\n")
	}
	status, said = post("/events/batch", large.String(), append(ndjson, "Expect", "100-continue")...)
	fmt.Println("large", status, len(said.IDs))
	taken := 0
	for n := 0; n < 100; n++ {
		if status, _ := post("/events", event("posts", n, "")); status == 200 {
			taken++
		}
	}
	fmt.Println("posts", taken)
}
