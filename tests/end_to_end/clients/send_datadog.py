"""Sends a fixed set of metrics by the PyPI package `datadog`; prints how many lines that were.

Usage: send_datadog.py HOST PORT

    bot.messages         counter, 2 + 3, tags user_id:42 and activity_type:message
    bot.queue.size       gauge, 12.5, tag queue:outbox
    bot.update.duration  timer, 120 ms, tag type:message
    bot.reply.bytes      histogram, 2048, tag command:help
    bot.batch.length     distribution, 3.5

The client's figures about itself are off, so that the number of lines is known.
"""

import sys

from datadog.dogstatsd.base import DogStatsd


def main(host, port):
    client = DogStatsd(host=host, port=int(port), namespace="bot", disable_telemetry=True)
    client.increment("messages", 2, tags=["user_id:42", "activity_type:message"])
    client.increment("messages", 3, tags=["user_id:42", "activity_type:message"])
    client.gauge("queue.size", 12.5, tags=["queue:outbox"])
    client.timing("update.duration", 120, tags=["type:message"])
    client.histogram("reply.bytes", 2048, tags=["command:help"])
    client.distribution("batch.length", 3.5)
    client.flush()
    client.close_socket()
    print(6)


if __name__ == "__main__":
    main(*sys.argv[1:])
