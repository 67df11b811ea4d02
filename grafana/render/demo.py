"""A small fleet to look at: sidecars, a simulated bot beside each, and a Prometheus that scrapes them.

In: the programs `statsieve` and `prometheus`, and how many seconds to run (0: until stopped). Out: its address on
stdout. Always: every process it started ends with it; the last sidecar is a poor one (limits hit, lines thinned, lines
refused), so that every panel has something to show.
"""

import argparse
import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/rules"
sys.path.insert(0, str(DEPLOY / "compose"))

from bot import Bot  # noqa: E402  (the simulated bot has one place)

# Of every sidecar, and of the poor one.
SETTINGS = ["listen.udp=127.0.0.1:0", "http.listen=127.0.0.1:0", "distinct.export_registers=true"]
POOR = [
    "sampling.mode=fixed",
    "sampling.rate=0.5",
    "cardinality.max_series_per_family=60",
    "rate_limit.samples_per_second=250",
    "mapping.rules=[{match='noise.*',name='noise',action='drop'}]",
]


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
