"""Writes grafana/dashboards/*.json from grafana/source.

In: nothing, or the folder to write to. Needs Python 3.9 or later and no packages.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE / "source"))

import bot, fleet, sidecar  # noqa: E401, E402

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "dashboards"
for source in (bot, sidecar, fleet):
    text = json.dumps(source.DASHBOARD, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{source.__name__}.json").write_text(text, encoding="utf-8")
