"""Lets a real Dispatcher and Bot of aiogram handle updates with the example's middlewares; the Bot API is made up.

In: host and port, or the path of a unix socket. Out: nothing. What it does is what the test expects to be counted.
"""

import asyncio
import json
import logging
import sys

from aiogram import Bot, Dispatcher
from aiogram.client.session.base import BaseSession
from aiogram.filters import Command
from aiogram.types import Update
from datadog.dogstatsd.base import DogStatsd

from aiogram_metrics import Metrics


class MadeUp(BaseSession):
    """Answers as the Bot API would; the third message meets its quota."""

    sent = 0

    async def make_request(self, bot, method, timeout=None):
        me = {"id": 7, "is_bot": True, "first_name": "x", "username": "the_bot"}
        answer, status = {"ok": True, "result": me}, 200
        if method.__api_method__ == "sendMessage":
            self.sent += 1
            answer["result"] = {"message_id": 9, "date": 1, "chat": {"id": 1, "type": "private"}}
            if self.sent == 3:
                answer, status = {"ok": False, "description": "slow down", "parameters": {"retry_after": 5}}, 429
        return self.check_response(bot, method, status, json.dumps(answer)).result

    async def stream_content(self, *_, **__):
        yield b""

    async def close(self):
        pass


async def main():
    logging.disable()
    if len(sys.argv) > 2:
        socket = {"host": sys.argv[1], "port": int(sys.argv[2])}
    else:
        # The kernel queues ten datagrams on a unix socket. Here every number is looked at, so here the client waits.
        socket = {"socket_path": sys.argv[1], "socket_timeout": 10}
    metrics = Metrics(DogStatsd(namespace="bot", **socket), commands={"help", "fail"})
    bot, dispatcher = Bot("1:x", session=MadeUp()), Dispatcher()
    dispatcher.update.outer_middleware(metrics.update)
    bot.session.middleware(metrics.call)

    @dispatcher.message(Command("help"))
    async def help_(message):
        await message.answer("first")
        await message.answer("second")

    @dispatcher.message(Command("fail"))
    async def fail(message):
        await message.answer("too much")

    @dispatcher.callback_query()
    async def button(query):
        raise KeyError("no such button")

    texts = ["/help@the_bot me", "/fail", "/made_up_by_somebody", "good morning"]
    chat, user = {"id": 1, "type": "private"}, {"id": 42, "is_bot": False, "first_name": "x"}
    messages = [{"message": {"message_id": 1, "date": 1, "chat": chat, "from": user, "text": text}} for text in texts]
    for number, update in enumerate([*messages, {"callback_query": {"id": "1", "from": user, "chat_instance": "1"}}]):
        try:
            await dispatcher.feed_update(bot, Update.model_validate({"update_id": number, **update}))
        except Exception:
            # The dispatcher would log it.
            pass
    metrics.statsd.increment("cache.requests", tags=["cache:profile", "result:hit"])
    metrics.statsd.gauge("queue.size", 12, tags=["queue:outbox"])
    metrics.statsd.flush()


asyncio.run(main())
