"""A receiver of change notifications in aiohttp and redis-py, for comparison: what a careful engineer would write.

It does the job of Närvaro's acknowledged path: parse, compare each `clientState` in constant time, leave out what was
seen before, queue the rest, and answer 202 once Redis has it (503 where it has not). One process, one event loop;
aiohttp's and hiredis's C parsers; one round trip for all notifications of a POST where nothing was seen before is not
possible with plain commands, so there are two, each a pipeline. With `script` both become one.

    aiohttp.py REDIS_PORT CLIENT_STATES (commands | script)

CLIENT_STATES is a JSON file: subscription id to its `clientState`. Prints the port that it listens at.
"""

import asyncio
import hmac
import json
import sys

# This file is named as the package is, and stands first on the path.
sys.path.pop(0)

import redis.asyncio as redis  # noqa: E402
from aiohttp import web  # noqa: E402

SEEN_SECS = 600
QUEUE = "queue"

TAKE = """
local taken = 0
for i = 1, #ARGV, 2 do
  if redis.call('SET', 'seen:' .. ARGV[i], '', 'NX', 'EX', 600) then
    redis.call('XADD', 'queue', '*', 'n', ARGV[i + 1])
    taken = taken + 1
  end
end
return taken
"""


class Receiver:
    def __init__(self, client, client_states, form):
        self.client = client
        self.client_states = client_states
        self.take = self.by_script if form == "script" else self.by_commands
        self.script = client.register_script(TAKE)

    async def notify(self, request):
        try:
            body = json.loads(await request.read())
            notifications = body["value"]
            genuine = [one for one in notifications if self.is_genuine(one)]
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400)
        if genuine:
            try:
                await self.take(genuine)
            except redis.RedisError:
                return web.Response(status=503)
        return web.Response(status=202)

    def is_genuine(self, notification):
        expected = self.client_states.get(notification["subscriptionId"])
        return expected is not None and hmac.compare_digest(expected, notification["clientState"])

    @staticmethod
    def version(notification):
        data = notification["resourceData"]
        return f'{data["id"]}:{data["@odata.etag"]}'

    @staticmethod
    def entry(notification):
        return f'{notification["subscriptionId"]} {notification["changeType"]} {notification["resourceData"]["id"]}'

    async def by_commands(self, genuine):
        if len(genuine) == 1:
            one = genuine[0]
            if await self.client.set(f"seen:{self.version(one)}", "", nx=True, ex=SEEN_SECS):
                await self.client.xadd(QUEUE, {"n": self.entry(one)})
            return
        first = self.client.pipeline(transaction=False)
        for one in genuine:
            first.set(f"seen:{self.version(one)}", "", nx=True, ex=SEEN_SECS)
        unseen = [one for one, new in zip(genuine, await first.execute()) if new]
        second = self.client.pipeline(transaction=False)
        for one in unseen:
            second.xadd(QUEUE, {"n": self.entry(one)})
        await second.execute()

    async def by_script(self, genuine):
        await self.script(args=[part for one in genuine for part in (self.version(one), self.entry(one))])


async def main():
    port, client_states, form = sys.argv[1:4]
    with open(client_states, encoding="utf-8") as file:
        known = json.load(file)
    client = redis.Redis(port=int(port))
    await client.ping()
    receiver = Receiver(client, known, form)
    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_post("/graph/v1/notify", receiver.notify)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
