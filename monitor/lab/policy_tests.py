"""The tests beside the policies of a folder, run on given readings and on texts that a pair reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.lab.policies import bound_elsewhere, running_of
from monitor.policy.files.cases import Case, Result, TextReader, read_tests, run_case
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock_folders import locks_of
from monitor.policy.files.occurrences import Kind, occurrences
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, Source, orphans, with_lock
from monitor.policy.files.yaml_document import PolicyProblems, Problem
from monitor.policy.policy import Policy
from monitor.records import Readings, WatchPlan

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader

SETUP = "(set-up)"
"""Stands for the case where a policy or its test file cannot be used."""
LEFT_OUT = "reads texts; left out"
"""Why a case was skipped that needs a pair where there is none."""


def run_tests(folder: Path, reader: PairReader | None, pair: str = "") -> list[Result]:
    """Results of every case, and of test files and locks whose policy is not there, which fail.

    Without a reader, the cases of a policy run with each of its locks, or with that in the folder `pair` alone. Skipped
    ones are of policies for other models, or on texts that nobody reads.
    """
    running = None if reader is None else running_of(reader.pair)
    results = [Result(_stem(one), SETUP, False, _all(PolicyProblems([one]))) for one in orphans(folder)]
    for source in read_folder(folder, running):
        if running is None:
            results += _with_each_lock(source, pair)
        else:
            results += results_of(source, reader, running)
    return results


def _with_each_lock(source: Source, pair: str) -> list[Result]:
    """Results on readings alone; where there are several locks, each case says which one it ran with."""
    pairs = [name for name in locks_of(source.path) if pair in ("", name)]
    if not pairs:
        return results_of(source, None, None)
    results: list[Result] = []
    for name in pairs:
        try:
            mine = results_of(with_lock(source, name), None, None)
        except PolicyProblems as error:
            mine = [Result(source.model.metadata.name, SETUP, False, _all(error))]
        results += mine if len(pairs) == 1 else [replace(one, case=f"{one.case} ({name})") for one in mine]
    return results


def results_of(source: Source, reader: PairReader | None, running: Running | None) -> list[Result]:
    """Results of every case of one policy for what runs; see `run_tests`."""
    name = source.model.metadata.name
    bound = "" if running is None else bound_elsewhere(source, running)
    try:
        tests = read_tests(source)
        policy = None if bound else _policy(source, running)
    except PolicyProblems as error:
        return [Result(name, SETUP, False, _all(error))]
    if policy is not None:
        return [_ran(policy, case, _text_reader(reader)) for case in tests.cases]
    return [
        Result(name, case.name, False, f"{bound}; not tested on this model", skipped=True)
        for case in tests.cases
    ]


def _ran(policy: Policy, case: Case, read: TextReader | None) -> Result:
    try:
        result = run_case(policy, case, read)
    except PolicyProblems as error:
        return Result(policy.name, case.name, False, _all(error))
    return result or Result(policy.name, case.name, False, LEFT_OUT, skipped=True)


def _policy(source: Source, running: Running | None) -> Policy:
    """The resolved policy: for what runs, or for what its lock was fitted to."""
    problems: list[Problem] = []
    policy = resolve(source, running or _fitted(source), problems)
    if policy is None:
        raise PolicyProblems(problems)
    return policy


def _fitted(source: Source) -> Running:
    if source.lock is None:
        return Running("", source.model.dictionary or "", 2**31)
    return Running(source.lock.model.digest, source.lock.dictionary.digest, source.lock.dictionary.features)


def _text_reader(reader: PairReader | None) -> TextReader | None:
    if reader is None:
        return None

    def read(prompt: str, response: str, plan: WatchPlan) -> tuple[Readings, Readings]:
        if not reader.takes_turns:
            return _plainly(reader, prompt, response, plan)
        if not prompt:
            answer = reader.judged_columns(occurrences(response, Kind.RESPONSE, turns=True)[0], plan)
            return answer[:0], answer
        asked = occurrences(prompt, Kind.REQUEST, turns=True)[0]
        before = reader.judged_columns(asked, plan)
        if not response or isinstance(asked, str):
            return before, before[:0]
        answer = reader.judged_columns((*asked, {"role": "assistant", "content": response}), plan)
        return before, answer[
            1:
        ]  # There has been a token that rules pass over, so its first row is not needed.

    return read


def _plainly(reader: PairReader, prompt: str, response: str, plan: WatchPlan) -> tuple[Readings, Readings]:
    """A prompt and a response of a model without a chat template."""
    if not prompt:
        found = reader.watched(reader.ids(response), plan)[1]
        return found[:0], found
    # Behind the prompt, as the model would have written it: without the tokens that begin a text.
    written = reader.pair.loaded.text.inner(response, continued=True) if response else []
    return reader.watched_parts(reader.ids(prompt), written, plan)


def _stem(problem: Problem) -> str:
    """Name of the policy that a file of this problem belongs to."""
    return Path(problem.file).name.partition(".")[0]


def _all(error: PolicyProblems) -> str:
    """Every problem with what to write instead; where each stands is `policy check`'s to say."""
    return "\n".join(f"{one.message}; {one.hint}" if one.hint else one.message for one in error.problems)
