from __future__ import annotations

import os

import pytest

from monitor.lab.feature_evaluation import in_processes


def square_and_process(number):
    return number * number, os.getpid()


@pytest.mark.slow
def test_results_come_in_order_from_other_processes():
    made = list(in_processes(square_and_process, iter(range(7)), 2))
    assert [value for value, _ in made] == [0, 1, 4, 9, 16, 25, 36]
    processes = {process for _, process in made}
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2


@pytest.mark.slow
def test_errors_of_the_work_and_of_what_is_given_are_raised():
    def given():
        yield 3
        raise LookupError("nothing more")

    with pytest.raises(LookupError, match="nothing more"):
        list(in_processes(square_and_process, given(), 1))
    with pytest.raises(TypeError):
        list(in_processes(square_and_process, [None], 1))
