"""The files in which a search records what it tried; their names carry no state."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from carl.artefacts import read_json, whole, write_json
from carl.program import RewardProgram
from carl.synthesis.tried import Candidate, HeldOut, Rejection
from carl.verification.report import VerificationReport

_OLDER = re.compile(r"held-out-(\d+)-[0-9a-f]+\.json")
"""Files of a carl that named refusals on held-out episodes by the number of their set, and held the report alone."""


class Ledger:
    """A folder with one JSON file for each candidate and for each answer that was none.

    A candidate's file holds its ``number``, ``proposer``, ``program``, ``report`` and ``cost``, what the search had
    ``spent`` by then, and, once it was judged on held-out episodes, ``held_out``: the number of their ``set`` and the
    ``report``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, candidate: Candidate) -> None:
        """Write a candidate's file; raises ConfigError."""
        self._write(
            self.path(candidate).stem,
            candidate.program,
            candidate.report,
            candidate.held_out,
            number=candidate.number,
            proposer=candidate.proposer,
            cost=asdict(candidate.cost),
            spent=asdict(candidate.spent),
        )

    def path(self, candidate: Candidate) -> Path:
        """Where a candidate's file lies."""
        return self.folder / f"{candidate.number:02d}-{candidate.program.id}.json"

    def refuse(self, program: RewardProgram, verdict: HeldOut) -> None:
        """Write that held-out episodes speak against a program of whatever origin; raises ConfigError."""
        self._write(f"refused-{program.id}", program, verdict.report, verdict)

    def reject(self, rejections: Iterable[Rejection]) -> None:
        """Write the answers that could not be used; raises ConfigError."""
        for index, rejection in enumerate(rejections, 1):
            write_json(self.folder / f"answer-{index:02d}.json", {"rejected": rejection.reason, **asdict(rejection)})

    def verdicts(self) -> dict[str, HeldOut]:
        """The verdicts on held-out episodes, by the id of the program; raises ConfigError for a damaged file."""
        found = (self._verdict(path) for path in sorted(self.folder.glob("*.json")))
        return {verdict.report.program_id: verdict for verdict in found if verdict}

    def refusals(self) -> list[HeldOut]:
        """Those verdicts that refused the program; raises ConfigError for a damaged file."""
        return [verdict for verdict in self.verdicts().values() if not verdict.report.accepted]

    def candidates(self) -> list[Candidate]:
        """The candidates of earlier attempts, in their order; raises ConfigError for a damaged file."""
        found = (_candidate(path) for path in self.folder.glob("*.json"))
        return sorted((each for each in found if each), key=lambda each: each.number)

    def seconds(self) -> float:
        """What the search took so far, over all attempts; raises ConfigError for a damaged file."""
        return max((_seconds(path) for path in self.folder.glob("*.json")), default=0.0)

    def _write(
        self,
        name: str,
        program: RewardProgram,
        report: VerificationReport,
        verdict: HeldOut | None,
        **more: Any,
    ) -> None:
        content = {**more, "program": program.model_dump(mode="json"), "report": report.model_dump(mode="json")}
        if verdict:
            content["held_out"] = {"set": verdict.number, "report": verdict.report.model_dump(mode="json")}
        write_json(self.folder / f"{name}.json", content)

    @staticmethod
    def _verdict(path: Path) -> HeldOut | None:
        content: Mapping[str, Any] = read_json(path, dict)
        older = _OLDER.fullmatch(path.name)
        with whole(str(path)):
            if older:
                return HeldOut(int(older[1]), VerificationReport.model_validate(content["report"]))
            if "rejected" in content or (content["program"] and "held_out" not in content):
                return None
            judged = content["held_out"]
            return HeldOut(int(judged["set"]), VerificationReport.model_validate(judged["report"]))


def _candidate(path: Path) -> Candidate | None:
    """What a candidate's file holds, but for its cost; None for any other file."""
    content: Mapping[str, Any] = read_json(path, dict)
    if "number" not in content:
        return None
    with whole(str(path)):
        return Candidate(
            int(content["number"]),
            RewardProgram.model_validate(content["program"]),
            VerificationReport.model_validate(content["report"]),
            Ledger._verdict(path),
            proposer=str(content.get("proposer", "")),
        )


def _seconds(path: Path) -> float:
    """What the search had taken when a candidate's file was written; 0 for any other file, or one of an older carl."""
    content: Mapping[str, Any] = read_json(path, dict)
    with whole(str(path)):
        return float(content.get("spent", {}).get("seconds", 0.0))
