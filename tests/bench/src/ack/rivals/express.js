'use strict';
// A receiver of change notifications in Express and ioredis, for comparison: what a careful engineer would write.
//
// It does the job of Närvaro's acknowledged path: parse, compare each `clientState` in constant time, leave out what was
// seen before, queue the rest, and answer 202 once Redis has it (503 where it has not). One process; ioredis joins the
// commands of one tick of the event loop into a pipeline. With `script` the two steps are one.
//
//     node express.js REDIS_PORT CLIENT_STATES (commands | script)
//
// CLIENT_STATES is a JSON file: subscription id to its `clientState`. Prints the port that it listens at.

const crypto = require('node:crypto');
const fs = require('node:fs');
const express = require('express');
const Redis = require('ioredis');

const SEEN_SECS = 600;
const QUEUE = 'queue';
const TAKE = `
local taken = 0
for i = 1, #ARGV, 2 do
  if redis.call('SET', 'seen:' .. ARGV[i], '', 'NX', 'EX', 600) then
    redis.call('XADD', 'queue', '*', 'n', ARGV[i + 1])
    taken = taken + 1
  end
end
return taken`;

const [port, clientStates, form] = process.argv.slice(2);
const known = new Map(
  Object.entries(JSON.parse(fs.readFileSync(clientStates, 'utf8'))).map(([id, state]) => [id, Buffer.from(state)]),
);
const redis = new Redis({ port: Number(port), host: '127.0.0.1', enableAutoPipelining: true });
redis.defineCommand('take', { numberOfKeys: 0, lua: TAKE });

function isGenuine(notification) {
  const expected = known.get(notification.subscriptionId);
  if (expected === undefined) return false;
  const given = Buffer.from(notification.clientState);
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

const version = ({ resourceData }) => `${resourceData.id}:${resourceData['@odata.etag']}`;
const entry = ({ subscriptionId, changeType, resourceData }) => `${subscriptionId} ${changeType} ${resourceData.id}`;

async function byCommands(genuine) {
  const answers = await Promise.all(
    genuine.map((one) => redis.set(`seen:${version(one)}`, '', 'EX', SEEN_SECS, 'NX')),
  );
  const unseen = genuine.filter((_, place) => answers[place] !== null);
  await Promise.all(unseen.map((one) => redis.xadd(QUEUE, '*', 'n', entry(one))));
}

const byScript = (genuine) => redis.take(...genuine.flatMap((one) => [version(one), entry(one)]));
const take = form === 'script' ? byScript : byCommands;

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(express.json({ limit: '8mb' }));
app.post('/graph/v1/notify', async (request, response) => {
  let genuine;
  try {
    genuine = request.body.value.filter(isGenuine);
  } catch {
    response.status(400).end();
    return;
  }
  try {
    if (genuine.length > 0) await take(genuine);
    response.status(202).end();
  } catch {
    response.status(503).end();
  }
});

redis.ping().then(() => {
  const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
});
