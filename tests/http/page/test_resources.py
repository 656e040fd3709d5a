"""What the page's methods share."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from monitor.errors import BadRequest
from monitor.http.page import resources
from monitor.http.page.resources import CallerLeft, PageResources, number, one, query
from monitor.model.runtime import Runtime
from monitor.rpc.thread_pool import ThreadPool
from monitor.telemetry.metrics.metrics import Metrics
from tests.http.page.conftest import faked
from tests.waiting import wait_for


def asked(text):
    return query(SimpleNamespace(scope={"query_string": text.encode()}))


def test_parameters_are_read_and_bounded():
    found = asked("a=1&a=2&b=%3Cb%3E&empty=")
    assert (one(found, "a"), one(found, "b"), one(found, "none", "x")) == ("2", "<b>", "x")
    with pytest.raises(BadRequest, match="too many parameters"):
        asked("&".join(f"a{n}=1" for n in range(251)))


@pytest.mark.parametrize("text", ["", "-1", "1.0", "11", "²", "9" * 30, " 1"])
def test_numbers_are_whole_and_in_their_range(text):
    assert number("10", "n", 1, 10) == 10
    with pytest.raises(BadRequest, match="n: write a whole number from 1 to 10"):
        number(text, "n", 1, 10)


def report(policy="deception", **changes):
    point = {"way": "policy", "strength": -1.0, "perplexity_ratio": 1.05, "kl": 0.1}
    point |= {"change": {"value": -0.2}, "right_change": {"value": None}}
    other, odd = point | {"way": "zero ablation"}, point | {"kl": float("nan")}
    digests = {"model": "sha256:" + "a" * 64, "dictionary": "sha256:" + "b" * 64}
    return {"policy": policy, "points": [point, other, odd, 3]} | digests | changes


def test_costs_of_this_pair_are_told_and_of_no_other(tmp_path):
    costs = tmp_path / "costs"
    costs.mkdir()
    (costs / "deception.cost.json").write_text(json.dumps(report()))
    (costs / "weapons.cost.json").write_text(json.dumps(report("weapons", model="sha256:" + "d" * 64)))
    (costs / "broken.cost.json").write_text("{")
    (costs / "other.cost.json").write_text("[]")
    known = {"strength": -1.0, "perplexity_ratio": 1.05, "kl": 0.1, "change": -0.2}
    with faked(page_overlay=tmp_path) as page:
        assert page.get("/api/about").json()["costs"] == {"deception": [known]}
        assert page.get("/api/policies/deception").json()["costs"] == [known]
        (costs / "deception.cost.json").write_text(json.dumps(report(dictionary="sha256:" + "d" * 64)))
        assert page.get("/api/about").json()["costs"] == {}
        assert page.get("/api/policies/deception").json()["costs"] == []


def test_measurements_on_unseen_texts_are_those_of_this_pair(tmp_path):
    digests = {
        "model": "sha256:" + "a" * 64,
        "dictionary": "sha256:" + "b" * 64,
        "policies": "sha256:" + "c" * 64,
    }
    now = SimpleNamespace(digests=SimpleNamespace(**digests))
    mine = PageResources.__new__(PageResources)
    mine.folder, mine.overlay = tmp_path, None
    mine.parts = SimpleNamespace(active=SimpleNamespace(now=now))
    assert mine.evaluation("a") is None
    rows = [{"policy": "a", "x": 1}, {"policy": "b", "x": 2}]
    found = {"digests": digests, "sources": rows, "rates": rows}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    shown = {"sources": rows[:1], "rates": rows[:1], "same": True, "pair": "", "curve_rates": []}
    assert mine.evaluation("a") == shown
    (tmp_path / "evaluation.json").write_text(
        json.dumps(found | {"digests": digests | {"policies": "other"}})
    )
    assert mine.evaluation("a")["same"] is False
    (tmp_path / "evaluation.json").write_text(json.dumps(found | {"digests": digests | {"model": "other"}}))
    assert mine.evaluation("a") is None


def test_of_several_pairs_each_has_its_own_evaluation(tmp_path):
    digests = {"model": "m", "dictionary": "d", "policies": "p"}
    mine = PageResources.__new__(PageResources)
    mine.folder, mine.overlay = tmp_path, None
    mine.parts = SimpleNamespace(
        active=SimpleNamespace(now=SimpleNamespace(digests=SimpleNamespace(**digests)))
    )
    (tmp_path / "evaluations").mkdir()

    def written(name, pair, **changes):
        found = {
            "digests": digests | changes,
            "pair": pair,
            "sources": [],
            "rates": [],
            "curve_rates": [0.01],
        }
        (tmp_path / name).write_text(json.dumps(found))

    written("evaluations/a.json", "other", dictionary="another")
    assert mine.evaluation("a") is None, "it is of another pair, and of the same model"
    written("evaluations/b.json", "mine", policies="before")
    assert (mine.evaluation("a")["pair"], mine.evaluation("a")["same"]) == ("mine", False)
    written("evaluations/c.json", "mine, again")
    found = mine.evaluation("a")
    assert (found["pair"], found["same"], found["curve_rates"]) == ("mine, again", True, [0.01])
    written("evaluation.json", "other", model="another")
    assert mine.evaluation("a") == found


@pytest.mark.slow
def test_an_engine_that_cannot_inspect_says_so_and_does_the_rest(everything, monkeypatch):
    """As inside vLLM: labels and cards are there, and no text is read with all features."""
    monkeypatch.setattr(Runtime, "inspects", False)
    about = everything.get("/api/about").json()
    assert about["inspects"] is False
    assert about["features"] > 0
    events = everything.chat("Who are you?")
    assert events[-1]["event"] == "end"
    read = everything.post("/api/transcript", {"text": "Who are you?"}).json()
    assert read["features"] is None
    assert read["tokens"]
    for path, body in (
        ("/api/features/examples", {"with": ["a text"], "without": []}),
        ("/api/drafts/try", {"name": "a", "text": "a", "texts": ["a text"]}),
    ):
        refused = everything.post(path, body)
        assert refused.status_code == 404
        assert "this engine reads no features besides those" in refused.json()["error"]["message"]
    assert everything.get("/api/features/5").json()["feature"] == 5
    assert everything.get("/api/policies/power-seeking").json()["lock"]["card"]


def test_a_report_is_read_once_as_long_as_it_stays_the_same(tmp_path, monkeypatch):
    path, parsed, real = tmp_path / "deception.cost.json", [], json.loads
    monkeypatch.setattr(resources.json, "loads", lambda text: parsed.append(text) or real(text))
    path.write_text(json.dumps(report()))
    for _ in range(3):
        assert resources._record(path, {"policy"})["policy"] == "deception"
    assert len(parsed) == 1
    path.write_text(json.dumps(report("another")))
    assert resources._record(path, {"policy"})["policy"] == "another"
    monkeypatch.setattr(resources, "LARGEST_REPORT", 10)
    path.write_text(json.dumps(report("a third")))
    assert resources._record(path, {"policy"}) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/features/examples", {"with": ["some words"], "without": []}),
        ("/api/features/examples", {"with": ["some words", "a few"], "without": ["others", "none"]}),
        ("/api/drafts/try", "draft"),
        ("/api/transcript", {"messages": [{"role": "user", "content": "Hello"}] * 3}),
    ],
)
def test_work_whose_caller_has_left_ends_before_its_next_part(everything, monkeypatch, path, body):
    if body == "draft":
        text = everything.get("/api/policies/power-seeking").json()["text"]
        body = {"name": "power-seeking", "text": text, "texts": ["a text"]}
    ended, real = [], PageResources.work

    async def left(self, exchange, what):
        def work(_):
            try:
                return what(lambda: True)
            except CallerLeft:
                ended.append(path)
                raise

        return await real(self, exchange, work)

    monkeypatch.setattr(PageResources, "work", left)
    answer = everything.post(path, body)
    assert ended == [path], answer.text


def test_work_is_told_that_its_caller_has_left():
    told = threading.Event()

    class Connection:
        """A caller who leaves once the work has begun."""

        begun = asyncio.Event()
        ended = watched = False

        async def gone(self):
            await self.begun.wait()

    def work(gone):
        loop.call_soon_threadsafe(Connection.begun.set)
        wait_for(gone)
        told.set()

    async def run():
        nonlocal loop
        loop = asyncio.get_running_loop()
        pool = ThreadPool("test", 1, 1, 0.5, Metrics())
        found = PageResources.__new__(PageResources)
        found.parts = SimpleNamespace(inspecting=pool)
        with pytest.raises(asyncio.CancelledError):
            await found.work(Connection(), work)
        await pool.run(lambda: None)  # which waits for the thread
        pool.stop()

    loop = None
    asyncio.run(run())
    assert told.is_set()
