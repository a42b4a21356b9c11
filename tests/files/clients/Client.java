// Usage: java Client.java BASE_URL cello|relay
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.regex.Pattern;
import java.util.zip.GZIPOutputStream;

public class Client {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static String base, authorization;

    static String event(String user, int n, String pad) {
        return """
            {"eventName":"ReferralUpdated","payload":{"ucc":"cello-ucc","newUserId":"%s"},"context":{"n":%d,"pad":"%s",\
            "event":{"trigger":"new-signup","timestamp":"2026-11-20T03:18:01.620Z"}}}""".formatted(user, n, pad);
    }

    static HttpRequest.Builder to(String path) {
        var request = HttpRequest.newBuilder(URI.create(base + path)).timeout(Duration.ofSeconds(20));
        return authorization == null ? request : request.header("Authorization", authorization);
    }

    static HttpResponse<String> send(HttpRequest.Builder request) throws Exception {
        return CLIENT.send(request.build(), BodyHandlers.ofString());
    }

    static HttpRequest.Builder body(String path, String type, BodyPublisher body) {
        return to(path).header("Content-Type", type).POST(body);
    }

    static HttpResponse<String> post(String path, String body) throws Exception {
        return send(body(path, "application/json", BodyPublishers.ofString(body)));
    }

    static String field(HttpResponse<String> answer, String name) {
        var found = Pattern.compile('"' + name + "\": *\"?([^,\"}]*)").matcher(answer.body());
        return found.find() ? found.group(1) : answer.body();
    }

    static long count(HttpResponse<String> answer) {
        return Pattern.compile("[0-9a-f]{8}-[0-9a-f]{4}-").matcher(answer.body()).results().count();
    }

    static void say(String what, HttpResponse<String> answer, Object more) {
        System.out.println((what + " " + answer.statusCode() + " " + more).strip());
    }

    public static void main(String[] arguments) throws Exception {
        base = arguments[0];
        var tokens = post("/token", "{\"accessKeyId\": \"key-id\", \"secretAccessKey\": \"secret-key\"}");
        say("token", tokens, "");
        say("refresh", post("/token", "{\"refreshToken\": \"" + field(tokens, "refreshToken") + "\"}"), "");
        authorization = "Bearer " + field(tokens, "accessToken");
        var answer = post("/events", event("document", 0, ""));
        say("event", answer, field(answer, "success"));
        say("refused", post("/events", "{\"eventName\": \"ReferralUpdated\", \"payload\": {}, \"context\": {}}"), "");
        answer = send(to("/referral-codes/cello-ucc"));
        say("code", answer, field(answer, "valid"));
        answer = send(to("/referral-codes/active-link/" + URLEncoder.encode("user/7", StandardCharsets.UTF_8)));
        say("link", answer, field(answer, "link"));
        if (arguments[1].equals("relay")) relay();
    }

    static void relay() throws Exception {
        var ndjson = "application/x-ndjson";
        var answer = post("/events/batch", "[" + event("batch", 0, "") + "," + event("batch", 1, "") + "]");
        say("batch", answer, count(answer));
        var lines = BodyPublishers.ofString(event("lines", 0, "") + "\n" + event("lines", 1, "") + "\n");
        answer = send(body("/events/batch", ndjson, lines));
        say("lines", answer, count(answer));
        var packed = new ByteArrayOutputStream();
        try (var gzip = new GZIPOutputStream(packed)) {
            gzip.write(event("gzip", 0, "").getBytes(StandardCharsets.UTF_8));
        }
        var zipped = BodyPublishers.ofByteArray(packed.toByteArray());
        answer = send(body("/events", "application/json", zipped).header("Content-Encoding", "gzip"));
        say("gzip", answer, field(answer, "success"));
        // A stream has no length and goes out in chunks.
        var bytes = event("chunked", 0, "").getBytes(StandardCharsets.UTF_8);
        var stream = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes));
        answer = send(body("/events", "application/json", stream));
        say("chunked", answer, field(answer, "success"));
        var large = new StringBuilder();
        for (int n = 0; n < 10; n++) large.append(event("large", n, "x".repeat(200_000))).append('\n');
        var asked = body("/events/batch", ndjson, BodyPublishers.ofString(large.toString()));
        answer = send(asked.expectContinue(true));
        say("large", answer, count(answer));
        int taken = 0;
        for (int n = 0; n < 100; n++) taken += post("/events", event("posts", n, "")).statusCode() == 200 ? 1 : 0;
        System.out.println("posts " + taken);
    }
}
