"""Sends a fixed set of metrics by the PyPI package `datadog`; prints how many lines that were.

Usage: send_datadog.py HOST PORT
       send_datadog.py unixgram://PATH | unixstream://PATH

    bot.messages         counter, 2 + 3, tags user_id:42 and activity_type:message
    bot.queue.size       gauge, 12.5, tag queue:outbox
    bot.update.duration  timer, 120 ms, tag type:message
    bot.reply.bytes      histogram, 2048, tag command:help
    bot.batch.length     distribution, 3.5
    an event             error, with title and text that hold separators
    bot.db               service check, status 2, tag shard:1

The client's figures about itself are off, so that the number of lines is known.
"""

import sys

from datadog.dogstatsd.base import DogStatsd


def main(host, port=None):
    where = {"host": host, "port": int(port)} if port else {"socket_path": host}
    client = DogStatsd(namespace="bot", disable_telemetry=True, **where)
    client.increment("messages", 2, tags=["user_id:42", "activity_type:message"])
    client.increment("messages", 3, tags=["user_id:42", "activity_type:message"])
    client.gauge("queue.size", 12.5, tags=["queue:outbox"])
    client.timing("update.duration", 120, tags=["type:message"])
    client.histogram("reply.bytes", 2048, tags=["command:help"])
    client.distribution("batch.length", 3.5)
    client.event("a|b: c", "line\none|t:info", alert_type="error", tags=["k:v"])
    client.service_check("bot.db", 2, tags=["shard:1"], message="it is: down")
    client.flush()
    client.close_socket()
    print(8)


if __name__ == "__main__":
    main(*sys.argv[1:])
