"""Follows deploy/container/Containerfile without a container engine: builds, copies, and notes the rest down.

In: the Containerfile and, of the repository, what its ignore file lets through. Out: a folder with `root/`, the image's
files, and `image.json`, its environment, user, entry point and health check. The profile is `dev`, unoptimised: it is
the image that is tested, not the optimiser. Anything that it does not understand ends it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
FILE = REPOSITORY / "deploy/container/Containerfile"


def context():
    """Whether a path of the repository is part of the build's context."""
    lines = FILE.with_name(FILE.name + ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*" and all(rule.startswith("!") for rule in rules[1:]), rules
    allowed = [Path(rule[1:]) for rule in rules[1:]]
    return lambda path: any(path == rule or rule in path.parents for rule in allowed)


def instructions():
    text = "\n".join(line for line in FILE.read_text().splitlines() if not line.startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, rest = line.split(maxsplit=1)
            yield word, rest.strip()


def put(sources, target, to_folder):
    """As COPY does: a folder's content, or a file into a folder or under a new name."""
    for source in sources:
        assert source.exists(), f"COPY: no {source}"
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            place = target / source.name if to_folder else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


def main():
    work = Path(sys.argv[1]).resolve()
    out, stage, image = work / "out", None, {"env": {}}
    is_in_context = context()
    variables = {**os.environ, "CARGO_TARGET_DIR": str(work / "target")}
    variables |= {"CARGO_PROFILE_DEV_OPT_LEVEL": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
    for old in ["src", "root", "out"]:
        shutil.rmtree(work / old, ignore_errors=True)
    for word, rest in instructions():
        if word == "FROM":
            stage = work / ("src" if rest.endswith(" AS build") else "root")
            assert stage.name == "src" or rest == "scratch", rest
            stage.mkdir(parents=True)
        elif word == "WORKDIR":
            assert rest == "/src", rest
        elif word == "ARG":
            name, value = rest.split("=", 1)
            variables[name] = {"PROFILE": "dev"}.get(name, value)
        elif word == "COPY":
            *sources, target = rest.split()
            if sources[0] == "--from=build":
                sources = [Path(str(out) + source.removeprefix("/out")) for source in sources[1:]]
            else:
                strangers = [source for source in sources if not is_in_context(Path(source))]
                assert not strangers, f"not in the build's context: {strangers}"
                sources = [REPOSITORY / source for source in sources]
            put(sources, stage / target.lstrip("/"), to_folder=target.endswith("/"))
        elif word == "RUN":
            command = re.sub(r"/out\b", str(out), rest)
            # What it needs is fetched first, unless it is here: cargo install would ask the registry every time.
            subprocess.run(["cargo", "fetch", "--locked"], cwd=REPOSITORY, check=True)
            offline = {**variables, "CARGO_NET_OFFLINE": "true"}
            subprocess.run(["sh", "-ec", command], cwd=stage, env=offline, check=True)
        elif word == "ENV":
            name, value = rest.split("=", 1)
            image["env"][name] = value
        elif word == "HEALTHCHECK":
            image["healthcheck"] = json.loads(rest.split("CMD", 1)[1])
        elif word == "ENTRYPOINT":
            image["entrypoint"] = json.loads(rest)
        elif word == "USER":
            image["user"] = rest
        else:
            assert word in ["LABEL", "EXPOSE"], f"{word} is not understood"
    (work / "image.json").write_text(json.dumps(image))


main()
