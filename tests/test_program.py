"""Programs as data: frozen, hashed by content, JSON in and out, and strict about what they are."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from carl.config import VerifyConfig
from carl.errors import ProgramError
from carl.program import MAX_SUBTASKS, RewardProgram, SubTask, approved
from carl.provenance import Approval, Provenance

SOURCE = "def progress(frame, initial):\n    return 0.0\n"


def program(*weights: float, ordered: bool = True) -> RewardProgram:
    subtasks = (SubTask(name=f"step {i}", code=SOURCE, weight=weight) for i, weight in enumerate(weights))
    return RewardProgram(subtasks=tuple(subtasks), ordered=ordered)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
subtasks = st.builds(SubTask, name=texts, description=texts, source=texts, weight=st.floats(1e-3, 1e3))  # in JSON
programs = st.builds(
    RewardProgram, subtasks=st.lists(subtasks, min_size=1, max_size=MAX_SUBTASKS).map(tuple), ordered=st.booleans()
)


@given(programs)
def test_json_gives_back_the_same_program(original: RewardProgram) -> None:
    copy = RewardProgram.from_json(original.to_json())
    assert copy == original
    assert copy.id == original.id


@given(programs, programs)
def test_ids_are_equal_exactly_if_programs_are(one: RewardProgram, other: RewardProgram) -> None:
    assert (one.id == other.id) == (one == other)


def test_the_id_depends_on_everything_that_pays() -> None:
    base = program(1.0, 2.0)
    variants = [
        program(1.0),
        program(1.0, 2.5),
        program(1.0, 2.0, ordered=False),
        RewardProgram(subtasks=base.subtasks[::-1]),
        RewardProgram(subtasks=(base.subtasks[0], base.subtasks[1].model_copy(update={"code": SOURCE + "\n"}))),
    ]
    assert len({base.id, *(variant.id for variant in variants)}) == 6


def test_the_id_stays_over_versions_of_this_package() -> None:
    assert program(1.0).id == "d10af32d4a3e3be1"


def test_a_usual_hold_is_left_out_of_json_and_id_and_another_is_not() -> None:
    base = program(1.0)
    lasts = RewardProgram(subtasks=(base.subtasks[0].model_copy(update={"hold": 3}),))
    assert "hold" not in base.to_json()
    assert RewardProgram.from_json(lasts.to_json()).subtasks[0].hold == 3
    assert lasts.id != base.id
    with pytest.raises(ValidationError):
        SubTask(name="never", code=SOURCE, hold=0)


def test_the_codes_key_in_json_is_its_older_name() -> None:
    assert [set(one) for one in json.loads(program(1.0).to_json())["subtasks"]] == [
        {"name", "description", "source", "weight"}
    ]
    assert SubTask.model_validate({"name": "step 0", "source": SOURCE}) == program(1.0).subtasks[0]


def test_the_most_it_can_pay() -> None:
    assert program(1.0, 2.0, 0.5).max_return == 3.5


def test_a_program_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        program(1.0).ordered = False  # type: ignore[misc]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_positive_and_finite(weight: float) -> None:
    with pytest.raises(ValidationError):
        program(weight)


@pytest.mark.parametrize("count", [0, MAX_SUBTASKS + 1])
def test_there_are_as_many_subtasks_as_progress_slots(count: int) -> None:
    with pytest.raises(ValidationError):
        program(*[1.0] * count)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '{"subtasks": []}', '{"subtasks": [{"name": "x"}]}', '{"subtasks": 3, "colour": "red"}'],
)
def test_what_is_no_program_is_an_error_of_ours(text: str, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="not a reward program"):
        RewardProgram.from_json(text)
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProgramError):
        RewardProgram.load(tmp_path / "p.json")


def test_unknown_fields_are_refused() -> None:
    data = json.loads(program(1.0).to_json()) | {"run": "rm"}
    with pytest.raises(ProgramError, match="run"):
        RewardProgram.from_json(json.dumps(data))


@pytest.mark.parametrize("name", ["\x1b[2Jtake", "take\nit", "take\u202e it"])
def test_a_name_that_steers_a_terminal_is_refused_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    path = tmp_path / "program.json"
    path.write_text(RewardProgram(subtasks=(SubTask(name=name, code=SOURCE),)).to_json())
    with pytest.raises(ProgramError, match=r"program\.json: the name of sub-task 1 holds control characters") as raised:
        RewardProgram.load(path)
    assert str(raised.value).isprintable()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"missing\.json"):
        RewardProgram.load(tmp_path / "missing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ProgramError, match=r"bytes\.json"):
        RewardProgram.load(tmp_path / "bytes.json")


def approved_by_ada(one: RewardProgram, program_id: str = "") -> RewardProgram:
    approval = Approval(by="Ada", at="2026-01-02T03:04:05+00:00", program=program_id or one.id, verdict="d1")
    origin = Provenance(
        origin="a model", task="Corridor", seed=0, splits={"search": {"expert": 60}}, approvals=(approval,)
    )
    return one.model_copy(update={"provenance": origin})


def test_provenance_travels_in_the_json_and_is_no_part_of_the_id() -> None:
    plain = program(1.0, 2.0)
    known = approved_by_ada(plain)
    assert "provenance" not in json.loads(plain.to_json())
    back = RewardProgram.from_json(known.to_json())
    assert (back.id, back) == (plain.id, plain)
    assert back.provenance == known.provenance
    later = known.to_json().replace('"origin"', '"of a later carl": 1, "origin"')
    assert '"of a later carl": 1' in RewardProgram.from_json(later).to_json()


def test_an_approval_holds_for_the_content_that_was_approved() -> None:
    strict, lax = VerifyConfig(require_approval=True), VerifyConfig()
    plain = program(1.0)
    assert approved(plain, lax)
    assert not approved(plain, strict)
    assert approved(approved_by_ada(plain), strict)
    changed = approved_by_ada(plain).model_copy(update={"subtasks": program(2.0).subtasks})
    assert not approved(changed, strict)
    assert changed.approval is None
