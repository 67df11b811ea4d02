"""A simulated bot: sends what the README's table "What a bot sends" holds, until it is stopped.

In: where to send to. Out: datagrams of some lines each, as clients pack them. Always: nothing else is needed than
Python, and a sidecar that is not there changes nothing.
"""

import argparse
import math
import random
import signal
import socket
import threading
import time


class Bot:
    """Sends the README's table as a busy bot would: more by day, slower when busy, now and then an error."""

    def __init__(self, number, address, poor):
        self.random = random.Random(number)
        self.number = number
        self.poor = poor
        self.backlog = 40.0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(address)

    def lines_of_an_update(self, busy):
        pick, chance = self.random.choice, self.random.random
        user = self.number * 3000 + int(6000 ** chance())
        kind = self.random.choices(["message", "callback_query", "inline_query"], [7, 2, 1])[0]
        failed = chance() < (0.0012 if self.poor else 0.0004)
        yield f"bot.updates:1|c|#type:{kind},result:{'failed' if failed else 'ok'}"
        yield f"bot.update.duration:{self.milliseconds(8, busy)}|ms|#type:{kind}"
        if failed:
            yield f"bot.errors:1|c|#kind:{pick(['timeout', 'timeout', 'flood_wait', 'database'])}"
        activity = self.random.choices(["message", "photo", "voice", "sticker"], [12, 4, 2, 1])[0]
        yield f"bot.messages:1|c|#user_id:{user},activity_type:{activity}"
        for cache, rate in [("profile", 0.97), ("chat", 0.94)]:
            hit = chance() < rate - (0.12 if self.poor else 0.02) * busy
            yield f"bot.cache.requests:1|c|#cache:{cache},result:{'hit' if hit else 'miss'}"
        if chance() < 0.4:
            command = self.random.choices(["help", "start", "search", "settings"], [5, 4, 3, 1])[0]
            yield f"bot.commands:1|c|#command:{command},result:{'failed' if chance() < 0.003 else 'ok'}"
            yield (
                f"bot.reply.latency:{self.milliseconds(240 if command == 'search' else 90, busy)}|ms|#command:{command}"
            )
        method = self.random.choices(["sendMessage", "editMessageText", "answerCallbackQuery"], [6, 2, 2])[0]
        status = self.random.choices([200, 429, 400, 502], [985, 2 + int(18 * busy), 2, 1])[0]
        yield f"bot.api.calls:1|c|#method:{method},status:{status}"
        yield f"bot.api.latency:{self.milliseconds(60, busy)}|ms|#method:{method}"
        if self.poor:
            yield f"noise.{pick('ab')}:1|c"
            yield f"bot.sessions:1|c|#session:{self.random.randrange(10**9)}"
            if chance() < 0.01:
                yield pick(["bot.broken", "bot.updates:x|c", "bot.updates:-1|c", "bot.updates:1|g|#type:message"])

    def milliseconds(self, middle, busy):
        return round(middle * math.exp(self.random.gauss(0.9 * busy, 0.6)), 2)

    def run(self, stopped):
        started = time.monotonic()
        while not stopped.is_set():
            busy = 0.5 + 0.5 * math.sin((time.monotonic() - started) / 150 + self.number)
            lines = [line for _ in range(round(2 + 5 * busy)) for line in self.lines_of_an_update(busy)]
            self.backlog = max(3.0, self.backlog + self.random.gauss(0, 12) + 110 * busy**4 - 0.2 * self.backlog)
            lines.append(f"bot.queue.size:{self.backlog:.0f}|g|#queue:outbox")
            lines.append(f"bot.queue.size:{self.backlog / 7:.0f}|g|#queue:retry")
            try:
                # Some lines in a datagram, as clients pack them.
                for first in range(0, len(lines), 8):
                    self.socket.send("\n".join(lines[first : first + 8]).encode())
            except ConnectionRefusedError:
                pass
            stopped.wait(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8125)
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    Bot(0, (options.host, options.port), poor=False).run(stopped)


if __name__ == "__main__":
    main()
