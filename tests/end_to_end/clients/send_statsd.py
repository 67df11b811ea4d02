"""Sends a fixed set of metrics by the PyPI package `statsd`; prints how many lines that were.

Usage: send_statsd.py HOST PORT [tcp]
       send_statsd.py PATH    (a unix stream)

    py.requests     counter, 1 + 3 + 4 (the last in a pipeline, so several lines in a datagram)
    py.hits         counter, 2 times 1, with InfluxDB tags in its name: region=eu, user_id=42
    py.queue        gauge, 10, then by deltas -7 and +3
    py.level        gauge, -7, which the client sends as 0 and then a delta of -7
    py.latency      timer, 250 ms (in a pipeline) and 1.5 s
"""

import datetime
import sys

import statsd


def main(host, port=None, protocol="udp"):
    if port is None:
        client = statsd.UnixSocketStatsClient(host, prefix="py")
    elif protocol == "tcp":
        client = statsd.TCPStatsClient(host, int(port), prefix="py")
    else:
        client = statsd.StatsClient(host, int(port), prefix="py", maxudpsize=512)
    lines = 0
    client.incr("requests")
    client.incr("requests", 3)
    lines += 2
    for _ in range(2):
        client.incr("hits,region=eu,user_id=42")
        lines += 1
    client.gauge("queue", 10)
    client.gauge("queue", -7, delta=True)
    client.gauge("queue", 3, delta=True)
    lines += 3
    client.gauge("level", -7)
    lines += 2
    client.timing("latency", datetime.timedelta(seconds=1.5))
    lines += 1
    with client.pipeline() as pipeline:
        pipeline.incr("requests", 4)
        pipeline.timing("latency", 250)
    lines += 2
    client.close()
    print(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
