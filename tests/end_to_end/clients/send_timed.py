"""Times a block of 50 ms by `timed()` of the PyPI package `datadog`; prints how many lines were sent (1).

Usage: send_timed.py HOST PORT

`timed()` measures seconds and sends them with the type `ms`, unless the client was made with `use_ms=True`. So the line
is `bot.block:0.05...|ms`, which a server that goes by the protocol reads as 50 microseconds.
"""

import sys
import time

from datadog.dogstatsd.base import DogStatsd


def main(host, port):
    client = DogStatsd(host=host, port=int(port), namespace="bot", disable_telemetry=True)
    with client.timed("block"):
        time.sleep(0.05)
    client.flush()
    client.close_socket()
    print(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
