"""Seeds: the same for the same path, and never shared between neighbours, roles or runs."""

from hypothesis import given
from hypothesis import strategies as st

from carl.seeding import Role, seed_of, seeds_of, spawn

runs = st.integers(0, 2**32)
roles = st.sampled_from(Role)


@given(runs, roles, st.lists(st.integers(0, 2**31), max_size=3))
def test_a_path_fixes_its_seed(run: int, role: Role, path: list[int]) -> None:
    seed = seed_of(run, role, *path)
    assert seed == seed_of(run, role, *path)
    assert 0 <= seed < 2**31


@given(runs, roles, st.integers(0, 40), st.integers(0, 40))
def test_asking_for_more_keeps_the_first(run: int, role: Role, few: int, more: int) -> None:
    assert seeds_of(run, role, few + more)[:few] == seeds_of(run, role, few)


def test_roles_runs_and_neighbours_share_nothing() -> None:
    """Runs 0 to 7, every role, 4 runners of 32 slots: seed + index would repeat nearly all of them."""
    seeds = [
        seed for run in range(8) for role in Role for runner in range(4) for seed in seeds_of(run, role, 32, runner)
    ]
    assert len(set(seeds)) == len(seeds) == 8 * len(Role) * 4 * 32


def test_a_path_is_not_its_sum() -> None:
    assert seed_of(0, Role.TRAINING, 1, 2) != seed_of(0, Role.TRAINING, 2, 1)
    assert seed_of(1, Role.TRAINING, 0) != seed_of(0, Role.TRAINING, 1)
    assert spawn(3, Role.CURVE, 1).spawn_key == (Role.CURVE, 1)


def test_seeds_stay_over_versions_of_this_package() -> None:
    """Recorded runs are repeated by their seeds."""
    assert [int(role) for role in Role] == list(range(len(Role)))
    assert seeds_of(0, Role.EXPERT, 3) == [2044266242, 1790637272, 504456060]
