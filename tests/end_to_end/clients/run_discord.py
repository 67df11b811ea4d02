"""Lets a real Bot of discord.py run with the example's cog, against a gateway and an API of its own on the loopback.

In: host and port of the sidecar. Out: nothing. What it does is what the test expects to be counted.
"""

import asyncio
import json
import logging
import sys

import discord
import yarl
from aiohttp import web
from datadog.dogstatsd.base import DogStatsd
from discord.ext import commands

from discord_metrics import Metrics, api_trace

USER = {"id": "42", "username": "x", "discriminator": "0", "avatar": None, "global_name": None}
ME = {**USER, "id": "7", "bot": True}
TOKEN = "t" * 80


def message(text, number):
    return {
        "id": str(1000 + number), "channel_id": "5", "author": USER, "content": text, "type": 0,
        "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None, "tts": False,
        "mention_everyone": False, "mentions": [], "mention_roles": [],
        "attachments": [], "embeds": [], "pinned": False, "channel_type": 1,
    }  # fmt: skip


def slash(name, number):
    return {
        "id": str(2000 + number), "application_id": "7", "type": 2, "token": TOKEN, "version": 1, "user": USER,
        "channel_id": "5", "channel": {"id": "5", "type": 1}, "data": {"id": str(number), "name": name, "type": 1},
        "locale": "en-US", "entitlements": [], "authorizing_integration_owners": {}, "attachment_size_limit": 1,
    }  # fmt: skip


EVENTS = [
    *[("MESSAGE_CREATE", message(text, n)) for n, text in enumerate(["!ping", "!fail", "!made_up", "good morning"])],
    *[("INTERACTION_CREATE", slash(name, n)) for n, name in enumerate(["pong", "broken"])],
]


async def gateway(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_json({"op": 10, "d": {"heartbeat_interval": 40000}})
    async for frame in socket:
        if json.loads(frame.data)["op"] != 2:
            continue
        ready = {"v": 10, "user": ME, "guilds": [], "session_id": "s", "application": {"id": "7", "flags": 0}}
        ready["resume_gateway_url"] = "ws://127.0.0.1:9"
        for number, (kind, data) in enumerate([("READY", ready), *EVENTS], 1):
            await socket.send_json({"op": 0, "t": kind, "s": number, "d": data})
    return socket


def reply(what):
    # Without a charset, as Discord says it.
    return web.Response(body=json.dumps(what).encode(), content_type="application/json")


async def api(request):
    if request.path.endswith("/channels/5/messages"):
        return reply({**message("pong", 99), "author": ME})
    if request.path.endswith("/callback"):
        return reply({"interaction": {"id": "2000", "type": 2}, "resource": {"type": 4}})
    application = {"name": "x", "description": "", "owner": USER, "bot_public": True, "bot_require_code_grant": False}
    return reply({**ME, **application, "rpc_origins": None, "verify_key": "", "icon": None})


async def main():
    logging.disable()
    server = web.Application()
    server.router.add_get("/gateway/", gateway)
    server.router.add_route("*", "/api/{path:.*}", api)
    runner = web.AppRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    discord.http.Route.BASE = f"http://127.0.0.1:{port}/api/v10"
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(f"ws://127.0.0.1:{port}/gateway/")

    statsd = DogStatsd(host=sys.argv[1], port=int(sys.argv[2]), namespace="bot")
    intents = discord.Intents.default()
    intents.message_content = True
    bot = commands.Bot("!", intents=intents, http_trace=api_trace(statsd))
    # Each handled event is one of these: commands and interactions that went well or not.
    handled, all_handled = [], asyncio.Event()

    async def one_more(*_what):
        handled.append(1)
        if len(handled) == len(EVENTS) - 1:
            all_handled.set()

    @bot.command()
    async def ping(context):
        await context.send("pong")

    @bot.command()
    async def fail(context):
        raise KeyError("no such thing")

    @bot.tree.command()
    async def pong(interaction: discord.Interaction):
        """Ping."""
        await interaction.response.send_message("ping")

    @bot.tree.command()
    async def broken(interaction: discord.Interaction):
        """Fails."""
        raise ValueError("no such value")

    @bot.tree.error
    async def refused(interaction, error):
        await one_more()

    await bot.add_cog(Metrics(bot, statsd))
    for event in ["on_command_completion", "on_command_error", "on_app_command_completion"]:
        bot.add_listener(one_more, event)
    running = asyncio.create_task(bot.start("x"))
    await asyncio.wait([running, asyncio.create_task(all_handled.wait())], timeout=25, return_when="FIRST_COMPLETED")
    if not all_handled.is_set():
        running.cancel()
        raise SystemExit(f"only {len(handled)} handled: {await asyncio.gather(running, return_exceptions=True)}")
    await bot.close()
    await runner.cleanup()
    statsd.increment("cache.requests", tags=["cache:profile", "result:hit"])
    statsd.gauge("queue.size", 12, tags=["queue:outbox"])
    statsd.flush()


asyncio.run(main())
