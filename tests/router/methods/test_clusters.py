"""Task labels that name single queries teach nothing and must not fill the memory."""

from dataclasses import replace

import numpy as np

from router.methods.clusters import MOST_TASKS, TasksRouter
from tests.router.data_sets import training


def test_a_task_for_every_query_is_no_task() -> None:
    data = training(MOST_TASKS + 1)
    named = replace(data, tasks=tuple(f"query {number}" for number in range(len(data))))
    fitted = TasksRouter(clusters=4).fit(named, seed=0)

    assert len(fitted.means_) == 4
    untold = TasksRouter(clusters=4).fit(replace(data, tasks=None), seed=0)
    np.testing.assert_array_equal(fitted.means_, untold.means_)


def test_as_many_tasks_as_may_be_are_tasks() -> None:
    data = training(MOST_TASKS)
    named = replace(data, tasks=tuple(f"task {number}" for number in range(len(data))))

    assert len(TasksRouter().fit(named, seed=0).means_) == MOST_TASKS
