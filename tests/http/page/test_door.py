"""The page's door: its port, its files and its paths."""

import re
import ssl
from pathlib import Path

import httpx2 as httpx
import pytest
from typer.main import get_command

from monitor.cli.app import app
from monitor.errors import ConfigurationError
from monitor.http.page.door import METHODS, STATIC
from monitor.rpc.access.exposure import check_exposure
from monitor.rpc.access.roles import METHODS as ROLES
from tests.http.page.conftest import DEADLINE, faked
from tests.rpc.certificates import authority, issued
from tests.rpc.conftest import settings


def named_commands():
    """What the page tells people to run, with something in the place of what the page fills in."""
    texts = "".join(path.read_text("utf-8") for path in STATIC.glob("*.js"))
    found = re.findall(r'["`](sae-monitor [^"`]+)["`]', texts)
    return sorted({re.sub(r"[$]{[^}]+}", "scams", command) for command in found})


def test_the_page_names_commands():
    assert len(named_commands()) >= 2


@pytest.mark.parametrize("command", named_commands())
def test_commands_that_the_page_names_are_taken(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("POLICIES", "DATA", "OVERLAY"):
        (tmp_path / folder).mkdir()
    group, words = get_command(app), command.split()[1:]
    while hasattr(group, "commands"):
        name, *words = words
        group = group.commands[name]
        group = group.load() if hasattr(group, "load") else group
    group.make_context(command, words)


def test_the_page_and_its_files_are_there(fake):
    index = fake.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    for path in re.findall(r'(?:href|src)="(/[^"]+)"', index.text):
        assert fake.get(path).status_code == 200, path
    for file in STATIC.iterdir():
        answer = fake.get(f"/static/{file.name}")
        assert answer.content == file.read_bytes()
        kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}[
            file.suffix
        ]
        assert answer.headers["content-type"].startswith(kind)


def test_nothing_is_loaded_from_elsewhere_or_made_of_text():
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://(?!\$\{)", text), file.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), file.name
        assert " style=" not in text, file.name
        assert "<script>" not in text, file.name


def test_no_other_file_can_be_had(fake):
    for path in (
        "/static/../door.py",
        "/static/%2e%2e/door.py",
        "/static//etc/passwd",
        "/door.py",
        "/api",
        "/api/none",
    ):
        assert fake.get(path).status_code == 404, path
    assert fake.post("/", {}).status_code == 405


def test_every_method_says_who_may_call_it(fake):
    assert len(METHODS) > 8
    assert set(METHODS) <= set(ROLES)
    assert fake.get("/health").text == "serving\n"


def test_an_address_that_others_reach_needs_callers_and_encryption(tmp_path):
    with pytest.raises(ConfigurationError, match=r"page is 0\.0\.0\.0:8080"):
        check_exposure(settings(page="0.0.0.0:8080"))
    check_exposure(settings(page="0.0.0.0:8080", insecure_listen=True))


def test_a_port_that_is_taken_and_a_folder_that_cannot_be_written_are_clear_errors(fake, tmp_path):
    with (
        pytest.raises(ConfigurationError, match="page: cannot listen on"),
        faked(page=fake.url.removeprefix("http://")),
    ):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match=r"page_overlay: .* cannot be used"),
        faked(page_overlay=tmp_path / "file" / "a"),
    ):
        pass


def test_the_files_are_part_of_the_package():
    assert {"index.html", "page.css", "app.js"} <= {file.name for file in STATIC.iterdir()}
    assert Path("monitor/http/page/static") == Path(*STATIC.parts[-4:])


def test_over_tls_people_log_in_by_a_cookie_that_travels_encrypted_alone(tmp_path, known_callers):
    trusted = authority()
    files = issued(trusted, "127.0.0.1").write(tmp_path)
    known = ssl.create_default_context(cadata=trusted.pem.decode())
    with (
        faked(callers=known_callers.path, **files) as page,
        httpx.Client(base_url=page.url, verify=known, trust_env=False, timeout=DEADLINE) as client,
    ):
        assert page.url.startswith("https://")
        sent = {"authorization": f"Bearer {known_callers.tokens['infers']}", "origin": page.url}
        assert "; Secure" in client.post("/api/login", headers=sent).headers["set-cookie"]
        about = client.get("/api/about").json()
        assert (about["caller"], about["encrypted"]) == ("infers", True)
