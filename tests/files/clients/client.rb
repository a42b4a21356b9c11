# Usage: ruby client.rb BASE_URL cello|relay; nothing but the standard library.
require "json"
require "net/http"
require "stringio"
require "uri"
require "zlib"

BASE, MODE = ARGV
JSON_TYPE = { "Content-Type" => "application/json" }.freeze
LINES_TYPE = { "Content-Type" => "application/x-ndjson" }.freeze

def event(user, n, pad = "")
  {
    eventName: "ReferralUpdated",
    payload: { ucc: "cello-ucc", newUserId: user },
    context: { n: n, pad: pad, event: { trigger: "new-signup", timestamp: "2026-11-20T03:18:01.620Z" } },
  }
end

def lines(events)
  events.map { |one| "#{one.to_json}\n" }.join
end

server = URI(BASE)
Net::HTTP.start(server.host, server.port, read_timeout: 20, continue_timeout: 10) do |http|
  post = lambda do |path, body, headers = JSON_TYPE|
    answer = http.post(path, body, headers)
    [answer.code, JSON.parse(answer.body)]
  end
  get = lambda do |path, headers|
    answer = http.get(path, headers)
    [answer.code, JSON.parse(answer.body)]
  end

  status, tokens = post.("/token", { accessKeyId: "key-id", secretAccessKey: "secret-key" }.to_json)
  puts "token #{status}"
  puts "refresh #{post.("/token", { refreshToken: tokens["refreshToken"] }.to_json)[0]}"
  bearer = { "Authorization" => "Bearer #{tokens["accessToken"]}" }
  status, said = post.("/events", event("document", 0).to_json, JSON_TYPE.merge(bearer))
  puts "event #{status} #{said["success"]}"
  empty = { eventName: "ReferralUpdated", payload: {}, context: {} }.to_json
  puts "refused #{post.("/events", empty, JSON_TYPE.merge(bearer))[0]}"
  status, said = get.("/referral-codes/cello-ucc", bearer)
  puts "code #{status} #{said["valid"]}"
  status, said = get.("/referral-codes/active-link/#{URI.encode_www_form_component("user/7")}", bearer)
  puts "link #{status} #{said["link"]}"
  next unless MODE == "relay"

  status, said = post.("/events/batch", [event("batch", 0), event("batch", 1)].to_json)
  puts "batch #{status} #{said["ids"].length}"
  status, said = post.("/events/batch", lines([event("lines", 0), event("lines", 1)]), LINES_TYPE)
  puts "lines #{status} #{said["ids"].length}"
  status, said = post.("/events", Zlib.gzip(event("gzip", 0).to_json), JSON_TYPE.merge("Content-Encoding" => "gzip"))
  puts "gzip #{status} #{said["success"]}"
  chunked = Net::HTTP::Post.new("/events", JSON_TYPE.merge("Transfer-Encoding" => "chunked"))
  chunked.body_stream = StringIO.new(event("chunked", 0).to_json)
  answer = http.request(chunked)
  puts "chunked #{answer.code} #{JSON.parse(answer.body)["success"]}"
  large = lines((0...10).map { |n| event("large", n, "x" * 200_000) })
  status, said = post.("/events/batch", large, LINES_TYPE.merge("Expect" => "100-continue"))
  puts "large #{status} #{said["ids"].length}"
  puts "posts #{(0...100).count { |n| post.("/events", event("posts", n).to_json)[0] == "200" }}"
end
