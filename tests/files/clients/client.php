<?php
// Usage: php client.php BASE_URL cello|relay; the extension php-curl, as HTTP libraries of PHP use it.
[, $base, $mode] = $argv;
$curl = curl_init();

function event(string $user, int $n, string $pad = ''): array
{
    return [
        'eventName' => 'ReferralUpdated',
        'payload' => ['ucc' => 'cello-ucc', 'newUserId' => $user],
        'context' => [
            'n' => $n,
            'pad' => $pad,
            'event' => ['trigger' => 'new-signup', 'timestamp' => '2026-11-20T03:18:01.620Z'],
        ],
    ];
}

function lines(array $events): string
{
    return implode('', array_map(fn ($one) => json_encode($one) . "\n", $events));
}

function send(string $path, array $headers, array $options): array
{
    global $base, $curl;
    curl_reset($curl);
    curl_setopt_array($curl, $options + [
        CURLOPT_URL => $base . $path,
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 20,
    ]);
    $body = curl_exec($curl);
    if ($body === false) {
        throw new RuntimeException(curl_error($curl));
    }
    return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), json_decode($body, true, 512, JSON_THROW_ON_ERROR)];
}

function post(string $path, $body, array $headers = [], string $type = 'application/json'): array
{
    $text = is_string($body) ? $body : json_encode($body);
    return send($path, ["Content-Type: $type", ...$headers], [CURLOPT_POSTFIELDS => $text]);
}

function say(...$words): void
{
    echo implode(' ', array_map(fn ($word) => is_bool($word) ? var_export($word, true) : $word, $words)), "\n";
}

[$status, $tokens] = post('/token', ['accessKeyId' => 'key-id', 'secretAccessKey' => 'secret-key']);
say('token', $status);
say('refresh', post('/token', ['refreshToken' => $tokens['refreshToken']])[0]);
$bearer = ['Authorization: Bearer ' . $tokens['accessToken']];
[$status, $said] = post('/events', event('document', 0), $bearer);
say('event', $status, $said['success']);
say('refused', post('/events', '{"eventName": "ReferralUpdated", "payload": {}, "context": {}}', $bearer)[0]);
[$status, $said] = send('/referral-codes/cello-ucc', $bearer, []);
say('code', $status, $said['valid']);
[$status, $said] = send('/referral-codes/active-link/' . rawurlencode('user/7'), $bearer, []);
say('link', $status, $said['link']);
if ($mode !== 'relay') {
    exit;
}

[$status, $said] = post('/events/batch', [event('batch', 0), event('batch', 1)]);
say('batch', $status, count($said['ids']));
$ndjson = 'application/x-ndjson';
[$status, $said] = post('/events/batch', lines([event('lines', 0), event('lines', 1)]), [], $ndjson);
say('lines', $status, count($said['ids']));
[$status, $said] = post('/events', gzencode(json_encode(event('gzip', 0))), ['Content-Encoding: gzip']);
say('gzip', $status, $said['success']);
$rest = json_encode(event('chunked', 0));
$read = function ($curl, $file, int $most) use (&$rest): string {
    [$part, $rest] = [substr($rest, 0, min($most, 50)), substr($rest, min($most, 50))];
    return $part;
};
$headers = ['Content-Type: application/json', 'Transfer-Encoding: chunked'];
[$status, $said] = send('/events', $headers, [CURLOPT_POST => true, CURLOPT_READFUNCTION => $read]);
say('chunked', $status, $said['success']);
// More than 1 MiB: the library asks by itself with `Expect: 100-continue`.
$large = lines(array_map(fn ($n) => event('large', $n, str_repeat('x', 200000)), range(0, 9)));
[$status, $said] = post('/events/batch', $large, [], $ndjson);
say('large', $status, count($said['ids']));
say('posts', count(array_filter(range(0, 99), fn ($n) => post('/events', event('posts', $n))[0] === 200)));
