"""Contracts to inherit, as pytest tests: what a Task or a RewardSource of yours has to do for carl to work with it.

In a test module of yours::

    from carl.testing import RewardSourceContract, TaskContract

    class TestMyTask(TaskContract):
        @pytest.fixture
        def task(self):
            return my_package.MY_TASK

    class TestMyReward(RewardSourceContract):
        @pytest.fixture
        def source(self):
            return my_package.MyReward()

        @pytest.fixture
        def task(self):
            return my_package.MY_TASK

The class attributes set how much is tried; set them in the subclass for slow environments.
"""

from carl.testing.reward import RewardSourceContract
from carl.testing.task import TaskContract, difference

__all__ = ["RewardSourceContract", "TaskContract", "difference"]
