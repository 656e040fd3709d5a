"""Policies with locks of many kinds, and what they resolve to."""

from monitor.policy.files.lock import LockModel, write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.probe_weights import store_probe
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, read_source
from tests.policy.policy_files import CONCEPT, DICTIONARY, EXAMPLES, MODEL, PAIR, lock_for, write_policy

WIDTH = 4


RUNNING = Running(MODEL, DICTIONARY, 100, width=WIDTH)


WEIGHTS = [0.5, -1.25, 0.0, 2.0]


def relocked(**changes):
    return LockModel.model_validate(lock_for(EXAMPLES).model_dump(by_alias=True) | changes)


def resolved(path, running=RUNNING):
    problems = []
    return resolve(read_source(path, running), running, problems), problems


def with_probe(folder, weights=WEIGHTS, text=CONCEPT):
    path = write_policy(folder, text.replace("pooling: max", "pooling: max"))
    probe = store_probe(lock_path(path, PAIR), weights, bias=-0.5, scale=2.0)
    write_lock(path, relocked(detector="probe", probe=probe.model_dump()), PAIR)
    return path
