"""Has the PyPI package `datadog` tell of itself; prints as JSON how many lines were sent, and what was told in all.

Usage: tell_datadog.py HOST PORT LOST_PATH

Two workers send five counters each to HOST:PORT, and their figures behind every one. A third sends three to a unix
socket LOST_PATH that is not there, and its figures to HOST:PORT.
"""

import json
import logging
import sys

from datadog.dogstatsd.base import DogStatsd

TOLD = ["metrics", "packets_sent", "bytes_sent", "packets_dropped", "bytes_dropped"]
told = dict.fromkeys(TOLD, 0)
lines = 0


class Client(DogStatsd):
    """Adds up what is told."""

    def _flush_telemetry(self):
        global lines
        text = super()._flush_telemetry()
        for line in text.splitlines():
            lines += 1
            name, value = line.split("|")[0].rsplit(":", 1)
            name = name.removeprefix("datadog.dogstatsd.client.")
            if name in told:
                told[name] += int(value)
        return text


def main(host, port, lost):
    global lines
    logging.disable(logging.CRITICAL)  # what is lost is meant to be
    # Below 0, so that figures follow every packet.
    settings = {"namespace": "bot", "disable_buffering": True, "telemetry_min_flush_interval": -1}
    for worker in (1, 2):
        client = Client(host=host, port=int(port), constant_tags=[f"worker:{worker}"], **settings)
        for _ in range(5):
            client.increment("messages")
            lines += 1
        client.close_socket()
    client = Client(socket_path=lost, telemetry_host=host, telemetry_port=int(port), **settings)
    for _ in range(3):
        client.increment("messages")
    client.close_socket()
    print(json.dumps({"lines": lines, **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
