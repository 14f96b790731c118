"""Where a reward program came from, and who approved it: data beside its content, of which its id knows nothing."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel, ConfigDict

from carl import __version__

PACKAGES = ("gymnasium", "minigrid", "numpy", "opencv-python-headless")
"""Packages that change what a frame shows, or what a program makes of it."""


EDITED = "edited by hand"
"""What origins say of a program that a person changed."""


class _Record(BaseModel):
    """Frozen; fields of a later carl are kept, so that they survive being written again."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Verdict(_Record):
    """A verdict of the gate in short; ``verification.json`` has it in full.

    Attributes:
        digest: of that report without what a clock measured (``VerificationReport.digest``).
        accepted: whether the program passed.
        episodes: how many were judged, by kind.
        passed, failed: names of the checks.
    """

    digest: str
    accepted: bool
    episodes: Mapping[str, int] = {}
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Approval(_Record):
    """That a person read a program and its verdict, and wants it trained on.

    Attributes:
        by: the person.
        at: when, in ISO 8601, UTC.
        program: the id of what was read; an approval is void for any other.
        verdict: the digest of the verdict that was shown; an approval is void for any other.
        seed: of the run on whose episodes that is; None: not recorded.
    """

    by: str
    at: str
    program: str
    verdict: str
    note: str = ""
    seed: int | None = None


class Provenance(_Record):
    """Where a program came from.

    Equal runs write equal provenance: nothing but approvals has a time.

    Attributes:
        program: id of the program that this is about, which tells of an edited one; empty: an older carl wrote it.
        origin: what proposed it; ``EDITED`` for what a person changed.
        task, seed: of the run. Its episodes' seeds are spawned from ``seed``.
        model: that was asked; empty if none was.
        prompts: names and versions of the prompts that it was asked with.
        pictures: digest of those that it was shown; empty if none was.
        splits: how many episodes of each kind, by the set that they are of: search, held-out-<n>.
        verdict: on episodes that the search never saw; None if there is none yet.
        versions: of carl, and of ``PACKAGES``.
        parent: id of the program that was edited.
        replaced: id of the run's earlier program, if this one was put in its place and is not made out of it.
        approvals: oldest first, those of its parents included.
    """

    program: str = ""
    origin: str = ""
    task: str = ""
    seed: int | None = None
    model: str = ""
    prompts: tuple[str, ...] = ()
    pictures: str = ""
    splits: Mapping[str, Mapping[str, int]] = {}
    verdict: Verdict | None = None
    versions: Mapping[str, str] = {}
    parent: str = ""
    replaced: str = ""
    approvals: tuple[Approval, ...] = ()

    def of_edited(self, program: str, parent: str) -> "Provenance":
        """That of ``program``, which a person made out of ``parent``: both are ids."""
        origin = self.origin if EDITED in self.origin else "; ".join(filter(None, [self.origin, EDITED]))
        changed = {"program": program, "origin": origin, "parent": parent, "replaced": ""}
        return self.model_copy(update=changed | {"splits": {}, "verdict": None, "versions": versions()})


def versions() -> dict[str, str]:
    """The versions of carl and of those ``PACKAGES`` that are installed, by name."""
    found = {"carl": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
