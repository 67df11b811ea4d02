"""aiogram 3: what a bot sends (README), from one middleware for updates and one for calls of the Bot API.

    metrics = Metrics(statsd, commands={"start", "help"})
    dispatcher.update.outer_middleware(metrics.update)
    bot.session.middleware(metrics.call)

Yours to say, since only the bot knows:

    statsd.increment("cache.requests", tags=["cache:profile", "result:hit"])
    statsd.gauge("queue.size", queue.qsize(), tags=["queue:outbox"])

Nothing here waits: a datagram that the socket does not take is dropped, and counted by the client.
"""

from contextvars import ContextVar
from time import perf_counter

from aiogram import exceptions
from datadog.dogstatsd.base import DogStatsd

# For a unix socket: DogStatsd(socket_path="/run/statsieve/statsd.sock", namespace="bot"); it does not wait either.
statsd = DogStatsd(host="127.0.0.1", port=8125, namespace="bot")

STATUS = {
    exceptions.TelegramUnauthorizedError: 401, exceptions.TelegramForbiddenError: 403,
    exceptions.TelegramNotFound: 404, exceptions.TelegramConflictError: 409,
    exceptions.TelegramEntityTooLarge: 413, exceptions.TelegramRetryAfter: 429,
    exceptions.TelegramServerError: 500, exceptions.RestartingTelegram: 500,
    exceptions.TelegramNetworkError: "network",
}  # fmt: skip


class Metrics:
    def __init__(self, client, commands=()):
        self.statsd, self.commands, self.unanswered = client, commands, ContextVar("unanswered", default=None)

    async def update(self, handler, update, data):
        kind, user, message = update.event_type, data.get("event_from_user"), update.message
        text = (message.text or "") if message else ""
        # A word that anybody can make up would be a label without bounds.
        command = text[1:].split("@")[0].split()[0:1] if text.startswith("/") else None
        command = command and (command[0] if command[0] in self.commands else "other")
        started, result = perf_counter(), "ok"
        self.unanswered.set((command, started) if command else None)
        if user:
            activity = message.content_type.value if message else kind
            self.statsd.increment("messages", tags=[f"user_id:{user.id}", f"activity_type:{activity}"])
        try:
            return await handler(update, data)
        except Exception as error:
            result = "failed"
            self.statsd.increment("errors", tags=[f"kind:{type(error).__name__}"])
            raise
        finally:
            self.statsd.increment("updates", tags=[f"type:{kind}", f"result:{result}"])
            self.statsd.timing("update.duration", (perf_counter() - started) * 1000, tags=[f"type:{kind}"])
            if command:
                self.statsd.increment("commands", tags=[f"command:{command}", f"result:{result}"])

    async def call(self, make_request, bot, method):
        started, status = perf_counter(), 200
        try:
            return await make_request(bot, method)
        except Exception as error:
            status = STATUS.get(type(error), 400 if isinstance(error, exceptions.TelegramAPIError) else "failed")
            raise
        finally:
            now, name = perf_counter(), method.__api_method__
            self.statsd.increment("api.calls", tags=[f"method:{name}", f"status:{status}"])
            # getUpdates waits for updates: that is no latency.
            if name != "getUpdates":
                self.statsd.timing("api.latency", (now - started) * 1000, tags=[f"method:{name}"])
            # The first thing sent for a command is its reply.
            if status == 200 and name.startswith("send") and self.unanswered.get():
                command, came = self.unanswered.get()
                self.unanswered.set(None)
                self.statsd.timing("reply.latency", (now - came) * 1000, tags=[f"command:{command}"])
