"""What benchmarks in several sections share: one command line, one JSON line at the end."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from carl.cli import bars
from carl.cluster.logs import quiet
from carl.runs.result import versions

Section = Callable[[], dict[str, Any]]


def run(name: str, sections: Mapping[str, Section], **setting: Any) -> None:
    """Measure those that ``--only`` names, else all, and print what they found."""

    def main(
        only: Annotated[list[str] | None, typer.Option(help=f"Sections, else all: {', '.join(sections)}.")] = None,
    ) -> None:
        found: dict[str, Any] = {}
        with bars() as progress:
            for number, section in enumerate(only or sections):
                progress("measuring " + section, number, len(only or sections))
                found[section] = sections[section]()
        where = {**setting, "cpus": os.cpu_count(), "machine": platform.machine(), "versions": versions()}
        print(json.dumps({"benchmark": name, "setting": where, **found}))

    quiet()
    typer.run(main)
