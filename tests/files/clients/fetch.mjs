// Usage: node fetch.mjs BASE_URL cello|relay
import http from 'node:http';
import { gzipSync } from 'node:zlib';

const [base, mode] = process.argv.slice(2);
const json = { 'Content-Type': 'application/json' };
const ndjson = { 'Content-Type': 'application/x-ndjson' };

const event = (user, n, pad = '') => ({
  eventName: 'ReferralUpdated',
  payload: { ucc: 'cello-ucc', newUserId: user },
  context: { n, pad, event: { trigger: 'new-signup', timestamp: '2026-11-20T03:18:01.620Z' } },
});
const lines = (events) => events.map((one) => JSON.stringify(one) + '\n').join('');
const times = (count, make) => Array.from({ length: count }, (_, n) => make(n));

async function ask(path, options) {
  const answer = await fetch(base + path, { signal: AbortSignal.timeout(20_000), ...options });
  return [answer.status, await answer.json()];
}
const post = (path, body, headers = json) => ask(path, { method: 'POST', headers, body });

let [status, said] = await post('/token', JSON.stringify({ accessKeyId: 'key-id', secretAccessKey: 'secret-key' }));
console.log('token', status);
const Authorization = 'Bearer ' + said.accessToken;
console.log('refresh', (await post('/token', JSON.stringify({ refreshToken: said.refreshToken })))[0]);
[status, said] = await post('/events', JSON.stringify(event('document', 0)), { ...json, Authorization });
console.log('event', status, said.success);
const empty = JSON.stringify({ eventName: 'ReferralUpdated', payload: {}, context: {} });
console.log('refused', (await post('/events', empty, { ...json, Authorization }))[0]);
[status, said] = await ask('/referral-codes/cello-ucc', { headers: { Authorization } });
console.log('code', status, said.valid);
[status, said] = await ask('/referral-codes/active-link/' + encodeURIComponent('user/7'), { headers: { Authorization } });
console.log('link', status, said.link);
if (mode !== 'relay') process.exit();

[status, said] = await post('/events/batch', JSON.stringify(times(2, (n) => event('batch', n))));
console.log('batch', status, said.ids.length);
[status, said] = await post('/events/batch', lines(times(2, (n) => event('lines', n))), ndjson);
console.log('lines', status, said.ids.length);
const packed = gzipSync(JSON.stringify(event('gzip', 0)));
[status, said] = await post('/events', packed, { ...json, 'Content-Encoding': 'gzip' });
console.log('gzip', status, said.success);
// A stream has no length and goes out in chunks.
const stream = new Blob([JSON.stringify(event('chunked', 0))]).stream();
[status, said] = await ask('/events', { method: 'POST', headers: json, body: stream, duplex: 'half' });
console.log('chunked', status, said.success);

// fetch cannot ask with `Expect`; node's own http can.
const body = lines(times(10, (n) => event('large', n, 'x'.repeat(200_000))));
[status, said] = await new Promise((resolve, reject) => {
  const headers = { ...ndjson, 'Content-Length': body.length, Expect: '100-continue' };
  const request = http.request(base + '/events/batch', { method: 'POST', headers, timeout: 20_000 });
  request.on('continue', () => request.end(body));
  request.on('error', reject);
  request.on('response', async (answer) => {
    let text = '';
    for await (const part of answer) text += part;
    resolve([answer.statusCode, JSON.parse(text)]);
  });
  request.flushHeaders();
});
console.log('large', status, said.ids.length);
let taken = 0;
for (let n = 0; n < 100; n++) taken += (await post('/events', JSON.stringify(event('posts', n))))[0] === 200;
console.log('posts', taken);
