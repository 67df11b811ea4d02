"""Sends one of each kind by the PyPI package `datadog` as from a container; prints how many lines that were and, behind
a space, the id of the container that the client found.

Usage: send_from_container.py FOLDER HOST PORT
       send_from_container.py FOLDER unixgram://PATH
       send_from_container.py "" HOST PORT    (from where it really runs)

Tags come from the environment, as the client reads it. So does the container: FOLDER stands in for what it looks at,

    cgroup     /proc/self/cgroup
    namespace  /proc/self/ns/cgroup, that of the host if there is a file `host` beside it
    mount      /sys/fs/cgroup

The client's figures about itself are off, so that the number of lines is known.
"""

import os
import sys

from datadog.dogstatsd.base import DogStatsd
from datadog.dogstatsd.container import Cgroup


def look_at(folder):
    Cgroup.CGROUP_PATH = os.path.join(folder, "cgroup")
    Cgroup.CGROUP_NS_PATH = os.path.join(folder, "namespace")
    Cgroup.CGROUP_MOUNT_PATH = os.path.join(folder, "mount")
    if os.path.exists(os.path.join(folder, "host")):
        Cgroup.HOST_CGROUP_NAMESPACE_INODE = os.stat(Cgroup.CGROUP_NS_PATH).st_ino


def main(folder, host, port=None):
    if folder:
        look_at(folder)
    where = {"host": host, "port": int(port)} if port else {"socket_path": host}
    client = DogStatsd(namespace="bot", disable_telemetry=True, **where)
    client.increment("messages", 2, tags=["user_id:42", "activity_type:message"])
    client.gauge("queue.size", 12.5, tags=["queue:outbox"], cardinality="low")
    client.timing("update.duration", 120)
    client.event("deployed", "text", alert_type="info")
    client.service_check("bot.db", 1)
    client.flush()
    client.close_socket()
    print(5, client._container_id or "")


if __name__ == "__main__":
    main(*sys.argv[1:])
