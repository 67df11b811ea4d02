"""Reads an exposition by the parsers of the PyPI package `prometheus-client`; prints what they found as JSON.

Usage: read_back.py HOST PORT

The text format is read by the classic parser, OpenMetrics by the strict one, which refuses much that Prometheus takes.
Prints {"text": {series: value}, "openmetrics": {series: value}, "types": {format: {family: type}}}, a series being
name{label="value",...} with labels in order of their names and values as they are (not escaped).
"""

import json
import sys
import urllib.request

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

FORMATS = {
    "text": ("text/plain;version=0.0.4", parser.text_string_to_metric_families),
    "openmetrics": (
        "application/openmetrics-text;version=1.0.0",
        openmetrics_parser.text_string_to_metric_families,
    ),
}


def series(sample):
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def main(host, port):
    found = {"types": {}}
    for name, (accept, read) in FORMATS.items():
        request = urllib.request.Request(f"http://{host}:{port}/metrics", headers={"Accept": accept})
        # No proxy: the address is this machine's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            families = list(read(reply.read().decode("utf-8")))
        found[name] = {series(sample): sample.value for family in families for sample in family.samples}
        found["types"][name] = {family.name: family.type for family in families}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
