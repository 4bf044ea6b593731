"""The service's Dockerfile, read as instructions: enough of the format for one file of ours."""

import re
from dataclasses import dataclass

from tests.unit.deploy.composed import ROOT


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def stages(service: str) -> list[list[Instruction]]:
    """The instructions stage by stage, with the build argument filled in."""
    text = (ROOT / "deploy/docker/service.Dockerfile").read_text()
    joined = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ").replace("${SERVICE}", service)
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, rest.strip()))
    return found


def copied(stage: list[Instruction]) -> list[tuple[list[str], str]]:
    """Sources and destination of each COPY from the build context."""
    copies = [step.rest.split() for step in stage if step.word == "COPY" and not step.rest.startswith("--from")]
    return [(parts[:-1], parts[-1]) for parts in copies]


def syncs(stage: list[Instruction]) -> list[list[str]]:
    """The arguments of each `uv` that is run."""
    return [step.rest.split()[1:] for step in stage if step.word == "RUN" and step.rest.startswith("uv ")]
