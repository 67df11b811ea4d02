"""A small fleet to look at: sidecars, a simulated bot beside each, and a Prometheus that scrapes them.

In: the programs `statsieve` and `prometheus`, and how many seconds to run (0: until stopped). Out: its address on
stdout. Always: every process it started ends with it; the last sidecar is a poor one (limits hit, lines thinned, lines
refused), so that every panel has something to show.
"""

import argparse
import json
import math
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules"

# Of every sidecar, and of the poor one.
SETTINGS = ["listen.udp=127.0.0.1:0", "http.listen=127.0.0.1:0", "distinct.export_registers=true"]
POOR = [
    "sampling.mode=fixed",
    "sampling.rate=0.5",
    "cardinality.max_series_per_family=60",
    "rate_limit.samples_per_second=250",
    "mapping.rules=[{match='noise.*',name='noise',action='drop'}]",
]


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


def start_sidecar(program, settings, children):
    """Starts one and gives the addresses in its log: lines, HTTP."""
    arguments = [part for setting in settings for part in ("--set", setting)]
    child = subprocess.Popen([program, *arguments], stderr=subprocess.PIPE, text=True)
    children.append(child)
    found = {}
    for line in child.stderr:
        listener, address = re.search(r"listener=(\w+)", line), re.search(r"address=\"?([\d.:]+)", line)
        if listener and address:
            found[listener[1]] = address[1]
        if "http" in found:
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return found["udp"], found["http"]
    raise SystemExit(f"{program} ended before it listened")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--statsieve", default="target/release/statsieve")
    parser.add_argument("--prometheus", default=".tools/prometheus/prometheus")
    parser.add_argument("--listen", default="127.0.0.1:9090", help="of Prometheus")
    parser.add_argument("--native", action="store_true", help="scrape native histograms")
    parser.add_argument("--seconds", type=float, default=0)
    options = parser.parse_args()

    # SIGTERM ends it as Ctrl-C does, with all that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children, stopped, groups = [], threading.Event(), {"support-bot": [], "shop-bot": []}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(4):
                poor = number == 3
                udp, http = start_sidecar(options.statsieve, SETTINGS + POOR * poor, children)
                groups["shop-bot" if number > 1 else "support-bot"].append(http)
                host, port = udp.split(":")
                threading.Thread(target=Bot(number, (host, int(port)), poor).run, args=(stopped,), daemon=True).start()
            config = {
                "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
                "rule_files": [f"{RULES}/{name}.yml" for name in ("distinct", "statsieve")],
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": targets}]} for job, targets in groups.items()
                ],
            }
            # JSON is YAML.
            Path(folder, "prometheus.yml").write_text(json.dumps(config))
            native = ["--enable-feature=native-histograms"] if options.native else []
            server = subprocess.Popen(
                [
                    options.prometheus,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={options.listen}",
                    "--log.level=warn",
                    "--web.enable-lifecycle",
                    *native,
                ]
            )
            children.append(server)
            print(f"http://{options.listen}", flush=True)
            deadline = time.monotonic() + options.seconds if options.seconds else math.inf
            while time.monotonic() < deadline and all(child.poll() is None for child in children):
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass
        finally:
            stopped.set()
            for child in children:
                child.terminate()
            for child in children:
                child.wait()


if __name__ == "__main__":
    main()
