"""Who gets through the page's gate: sessions, origins, headers, roles."""

import httpx2 as httpx
import pytest

from monitor.http.page import gate
from monitor.http.page.gate import HEADERS, PageSessions
from tests.http.page.conftest import CALLERS, DEADLINE, faked


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def browser(page):
    return httpx.Client(base_url=page.url, trust_env=False, timeout=DEADLINE)


def log_in(client, token):
    return client.post(
        "/api/login", headers={"authorization": f"Bearer {token}", "origin": str(client.base_url).rstrip("/")}
    )


def test_a_session_ends_with_time_and_when_nobody_uses_it():
    clock = Clock()
    held = PageSessions(clock)
    number = held.begin("token")
    assert held.token(number) == "token"
    assert held.token(number[:-1]) is None
    clock.now = gate.UNUSED + 1
    assert held.token(number) is None
    number = held.begin("token")
    for _ in range(int(gate.LONGEST // gate.UNUSED) * 2):
        clock.now += gate.UNUSED / 2
        assert held.token(number) == "token"
    clock.now += gate.UNUSED / 2 + 1
    assert held.token(number) is None
    assert not len(held)


def test_sessions_are_bounded_and_can_be_ended(monkeypatch):
    monkeypatch.setattr(gate, "MOST_SESSIONS", 3)
    held = PageSessions()
    first, *others = [held.begin(str(n)) for n in range(3)]
    assert held.token(first) == "0"  # so that another is the one unused for longest
    held.begin("3")
    assert [held.token(one) for one in (first, *others)] == ["0", None, "2"]
    held.end(first)
    held.end("unknown")
    assert held.token(first) is None


def test_who_logs_in_again_and_again_ends_nobody_elses_session(monkeypatch):
    monkeypatch.setattr(gate, "MOST_SESSIONS", 5)
    monkeypatch.setattr(gate, "MOST_OF_ONE", 3)
    held = PageSessions()
    other = held.begin("another")
    mine = [held.begin("mine") for _ in range(9)]
    assert held.token(other) == "another"
    assert [held.token(one) for one in mine] == [None] * 6 + ["mine"] * 3


def test_every_answer_has_the_headers(fake, guarded):
    for page, path in (
        (fake, "/"),
        (fake, "/static/app.js"),
        (fake, "/api/about"),
        (guarded, "/api/about"),
        (fake, "/no"),
    ):
        found = page.get(path).headers
        assert {name: found[name] for name in HEADERS} == HEADERS
    assert fake.get("/api/about").headers["cache-control"] == "no-store"
    assert fake.get("/static/app.js").headers["cache-control"] == "no-cache"
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert "default-src 'none'" in HEADERS["content-security-policy"]


def test_without_callers_everybody_on_this_machine_may_look(fake):
    about = fake.get("/api/about").json()
    assert (about["logs_in"], about["roles"]) == (False, ["admin", "infer", "inspect"])


def test_without_a_token_nothing_is_told(guarded):
    for path in ("/api/about", "/api/alerts", "/api/features?q=a", "/api/policies/deception", "/api/drafts"):
        answer = guarded.get(path)
        assert answer.status_code == 401, path
        assert "deception" not in answer.text
    for path in (
        "/api/chat",
        "/api/transcript",
        "/api/drafts/save",
        "/api/features/1/label",
        "/api/login",
        "/api/logout",
    ):
        assert guarded.post(path, {}).status_code == 401, path
    assert guarded.get("/").status_code == 200  # the form to log in


def test_a_person_logs_in_and_out(guarded):
    with browser(guarded) as client:
        assert client.get("/api/about").status_code == 401
        assert log_in(client, "wrong").status_code == 401
        answer = log_in(client, guarded.callers.tokens["infers"])
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert guarded.callers.tokens["infers"] not in cookie
        about = client.get("/api/about").json()
        assert (about["caller"], about["roles"], about["logs_in"]) == ("infers", ["infer"], True)
        own = {"origin": guarded.url}
        number = dict(client.cookies)
        assert client.post("/api/logout", headers=own).status_code == 200
        client.cookies.update(number)
        assert client.get("/api/about").status_code == 401


def test_a_session_does_not_outlive_its_token(tmp_path, guarded):
    from monitor.rpc.access.roles import Role
    from tests.rpc.secured import Callers
    from tests.waiting import wait_for

    known = Callers(tmp_path / "callers.jsonl")
    token = known.add("leaves", Role.INFER)
    known.add("stays", Role.INFER)
    with faked(callers=known.path) as page, browser(page) as client:
        assert log_in(client, token).status_code == 200
        assert client.get("/api/about").status_code == 200
        known.path.write_text(known.path.read_text().splitlines()[1] + "\n")
        wait_for(lambda: client.get("/api/about").status_code == 401)


def test_cookies_alone_change_nothing_from_elsewhere(guarded):
    with browser(guarded) as client:
        log_in(client, guarded.callers.tokens["all"])
        body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": guarded.url.replace("127.0.0.1", "localhost")},
            {"origin": guarded.url + "0"},
            {"origin": guarded.url, "sec-fetch-site": "cross-site"},
            {"origin": guarded.url, "sec-fetch-site": "same-site"},
            {},  # no browser leaves it out, and nobody else has the cookie
        ):
            assert client.post("/api/chat", json=body, headers=headers).status_code == 403, headers
        assert client.get("/api/about", headers={"sec-fetch-site": "cross-site"}).status_code == 403
        assert client.post("/api/chat", json=body, headers={"origin": guarded.url}).status_code == 200


def test_without_callers_another_site_is_refused_too(fake):
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
    assert fake.post("/api/chat", body, origin="https://evil.example").status_code == 403
    assert fake.get("/api/alerts", **{"sec-fetch-site": "cross-site"}).status_code == 403
    plain = httpx.post(
        fake.url + "/api/chat", content=b"{}", headers={"content-type": "text/plain"}, trust_env=False
    )
    assert plain.status_code == 415
    assert fake.get("/api/about", host="evil.example").status_code == 421


@pytest.mark.parametrize("name", CALLERS)
def test_roles_say_who_may_look_chat_clamp_and_save(guarded, name):
    page, roles = guarded.of(name), {role.value for role in CALLERS[name]}
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    clamped = body | {"sae_monitor": {"clamps": [{"feature": 1, "target": -1}]}}
    asked = {
        "infer": [page.post("/api/chat", body), page.post("/api/transcript", {"text": "hello"})],
        "inspect": [
            page.get("/api/features?q=a"),
            page.get("/api/alerts/1"),
            page.get("/api/alerts/activity"),
            page.post("/api/drafts/check", {"name": "a", "text": ""}),
        ],
        "admin": [
            page.post("/api/drafts/save", {"name": "a", "text": ""}),
            page.post("/api/features/1/label", {"label": "a"}),
            page.post("/api/alerts/1/mark", {"text": "a"}),
        ],
    }
    for role, answers in asked.items():
        for answer in answers:
            assert (answer.status_code == 403) is (role not in roles), (role, answer.url)
    may_clamp = {"infer", "admin"} <= roles
    assert page.post("/api/chat", clamped).status_code == (200 if may_clamp else 403)
    assert page.get("/api/about").status_code == page.get("/api/drafts").status_code == 200
