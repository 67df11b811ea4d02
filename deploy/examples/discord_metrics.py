"""discord.py 2: what a bot sends (README), from one cog and a trace of its HTTP calls.

    bot = commands.Bot("!", intents=intents, http_trace=api_trace(statsd))
    await bot.add_cog(Metrics(bot, statsd))    # in setup_hook

Yours to say, since only the bot knows:

    statsd.increment("cache.requests", tags=["cache:profile", "result:hit"])
    statsd.gauge("queue.size", queue.qsize(), tags=["queue:outbox"])

Nothing here waits: a datagram that the socket does not take is dropped, and counted by the client.
"""

import re
from time import perf_counter

import aiohttp
from datadog.dogstatsd.base import DogStatsd
from discord import app_commands
from discord.ext import commands

# For a unix socket: DogStatsd(socket_path="/run/statsieve/statsd.sock", namespace="bot"); it does not wait either.
statsd = DogStatsd(host="127.0.0.1", port=8125, namespace="bot")


# What users do wrong is no error of the bot.
REFUSED = (
    commands.CommandNotFound, commands.UserInputError, commands.CheckFailure, commands.CommandOnCooldown,
    app_commands.CheckFailure, app_commands.TransformerError,
)  # fmt: skip


class Metrics(commands.Cog):
    def __init__(self, bot, client):
        self.statsd, handle = client, bot.tree.on_error

        async def on_error(interaction, error):
            self.done(interaction.command, interaction.extras, "slash", getattr(error, "original", error))
            await handle(interaction, error)

        bot.tree.error(on_error)

    @commands.Cog.listener()
    async def on_socket_event_type(self, event):
        self.statsd.increment("updates", tags=[f"type:{event.lower()}", "result:ok"])

    @commands.Cog.listener()
    async def on_message(self, message):
        if not message.author.bot:
            self.statsd.increment("messages", tags=[f"user_id:{message.author.id}", "activity_type:message"])

    @commands.Cog.listener()
    async def on_interaction(self, interaction):
        interaction.extras["started"] = perf_counter()
        activity = f"activity_type:{interaction.type.name}"
        self.statsd.increment("messages", tags=[f"user_id:{interaction.user.id}", activity])

    @commands.Cog.listener()
    async def on_app_command_completion(self, interaction, command):
        self.done(command, interaction.extras, "slash")

    @commands.Cog.listener()
    async def on_command(self, context):
        vars(context)["started"] = perf_counter()

    @commands.Cog.listener()
    async def on_command_completion(self, context):
        self.done(context.command, vars(context), "command")

    @commands.Cog.listener()
    async def on_command_error(self, context, error):
        self.done(context.command, vars(context), "command", getattr(error, "original", error))

    def done(self, command, notes, kind, error=None):
        # A word that anybody can make up would be a label without bounds.
        command = f"command:{command.qualified_name if command else 'other'}"
        result = "refused" if isinstance(error, REFUSED) else "failed" if error else "ok"
        self.statsd.increment("commands", tags=[command, f"result:{result}"])
        if result == "failed":
            self.statsd.increment("errors", tags=[f"kind:{type(error).__name__}"])
        if "started" in notes:
            milliseconds = (perf_counter() - notes["started"]) * 1000
            self.statsd.timing("update.duration", milliseconds, tags=[f"type:{kind}"])
            if not error:
                self.statsd.timing("reply.latency", milliseconds, tags=[command])


def api_trace(client):
    async def start(session, notes, call):
        notes.started = perf_counter()

    async def end(session, notes, call):
        if not call.url.path.startswith("/api/"):
            return  # the gateway's connection
        # Ids and tokens are on nearly every path.
        path = re.sub(r"/(\d+|[^/]{40,})(?=/|$)", "/-", re.sub(r"^/api/v\d+", "", call.url.path))
        response = getattr(call, "response", None)
        method, status = f"method:{call.method}:{path}", response.status if response else "network"
        client.increment("api.calls", tags=[method, f"status:{status}"])
        client.timing("api.latency", (perf_counter() - notes.started) * 1000, tags=[method])

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(start)
    trace.on_request_end.append(end)
    trace.on_request_exception.append(end)
    return trace
