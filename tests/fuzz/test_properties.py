"""Properties that hold for every input that hypothesis can think of."""

import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitor.errors import BadRequest, ConfigurationError, Overloaded, PolicyError
from monitor.policy.files.loader import load_policies
from monitor.rpc.access.callers import entry_line, find_token, new_token, read_callers
from monitor.rpc.access.quota import CallerQuotas
from monitor.rpc.access.roles import Caller, Role
from monitor.telemetry.decisions import lines
from monitor.telemetry.metrics.metrics import Metrics
from tests.policy.policy_files import DICTIONARY, MODEL

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@FEW
@given(names=st.lists(NAMES, min_size=1, max_size=5), roles=st.sets(st.sampled_from(Role), min_size=1))
def test_what_a_token_is_written_for_is_what_it_opens(tmp_path, names, roles):
    path, tokens = tmp_path / "callers", [new_token() for _ in names]
    path.write_text("\n".join(entry_line(n, roles, t) for n, t in zip(names, tokens, strict=True)))
    entries = read_callers(path)
    for name, token in zip(names, tokens, strict=True):
        found = find_token(entries, token)
        assert found is not None
        assert (found.caller.name, found.caller.roles) == (name, roles)
        assert find_token(entries, token[:-1]) is None


@FEW
@given(content=VALUES)
def test_a_file_of_callers_is_read_or_refused(tmp_path, content):
    path = tmp_path / "callers"
    path.write_text(json.dumps(content))
    try:
        assert read_callers(path)
    except ConfigurationError as error:
        said = str(error)
        assert said.startswith(str(path))


KEYS = st.sampled_from(
    [
        "apiVersion",
        "metadata",
        "features",
        "concept",
        "rules",
        "suppress",
        "name",
        "threshold",
        "action",
        "pooling",
    ]
)
DOCUMENTS = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=5), max_size=6)


@FEW
@given(document=DOCUMENTS)
def test_a_policy_is_read_or_refused_with_its_place(tmp_path, document):
    (tmp_path / "greed.yaml").write_text(json.dumps(document))
    try:
        load_policies(tmp_path, dictionary_digest=DICTIONARY, model_digest=MODEL, features=100)
    except PolicyError as error:
        said = str(error)
        assert "greed.yaml:" in said


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@FEW
@given(
    seq=st.integers(1, 2**60),
    content=st.dictionaries(st.text(string.ascii_lowercase, min_size=1, max_size=8), JSON, max_size=5),
    cut=st.integers(1, 40),
    flip=st.integers(0, 10_000),
)
def test_a_line_of_the_log_is_read_whole_or_not_at_all(seq, content, cut, flip):
    content.pop("seq", None)
    line = lines.seal(seq, lines.body(content))[:-1]
    assert lines.decode(line)["seq"] == seq
    changed = bytearray(line)
    changed[flip % len(line)] ^= 1
    for broken in (line[:-cut], bytes(changed)):
        try:
            lines.decode(broken)
        except lines.TornLine:
            continue
        raise AssertionError("a broken line was read")


class Counting(RuleBasedStateMachine):
    """Calls and tokens of two callers, in any order: never more than allowed, never less than nothing."""

    def __init__(self):
        super().__init__()
        self.allowances = CallerQuotas(3, 50, 1.0, Metrics())
        self.callers = [Caller("a", frozenset(Role)), Caller("b", frozenset(Role), calls=2, tokens=20)]
        self.open = []

    @rule(which=st.integers(0, 1))
    def begin(self, which):
        caller = self.callers[which]
        limit = caller.calls or 3
        entered = self.allowances.call(caller)
        mine = sum(other is caller for other, *_ in self.open)
        try:
            charge = entered.__enter__()
        except Overloaded:
            assert mine == limit
            return
        assert mine < limit
        self.open.append((caller, entered, charge))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), tokens=st.integers(0, 60))
    def take(self, data, tokens):
        caller, _, charge = data.draw(st.sampled_from(self.open))
        limit, mine = caller.tokens or 50, self.tokens(caller)
        try:
            charge.take(tokens)
        except BadRequest:
            assert tokens > limit
        except Overloaded:
            assert tokens + mine > limit
        else:
            assert tokens + mine <= limit

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data):
        held = data.draw(st.sampled_from(self.open))
        self.open.remove(held)
        held[1].__exit__(None, None, None)

    def tokens(self, caller):
        return sum(charge.tokens for other, _, charge in self.open if other is caller)

    @invariant()
    def counted(self):
        for caller in self.callers:
            assert self.allowances._tokens[caller.name] == self.tokens(caller)

    def teardown(self):
        for _, entered, _ in self.open:
            entered.__exit__(None, None, None)
        assert not +self.allowances._calls


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)
