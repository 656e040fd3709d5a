import pytest
import structlog

from monitor.errors import ConfigurationError
from monitor.rpc.access.exposure import announce_exposure, check_exposure, is_loopback, reflects
from tests.rpc.conftest import settings

OPEN = "0.0.0.0:50051"
HERE = "127.0.0.1:50051"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


def given(file, *names):
    return dict.fromkeys(names, file)


def said(opened):
    with structlog.testing.capture_logs() as lines:
        announce_exposure(opened)
    return [line["event"].split(":")[0] for line in lines]


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("127.0.0.1:1", True),
        ("127.255.255.254:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("[::]:1", False),
        ("128.0.0.1:1", False),
        ("[::ffff:10.0.0.1]:1", False),
        ("LOCALHOST.example.com:1", False),
        ("monitor.internal:1", False),
    ],
)
def test_only_this_machine_reaches_its_loopback(address, wanted):
    assert is_loopback(address) is wanted


def test_on_this_machine_nothing_is_asked_for():
    check_exposure(settings(listen=HERE))
    assert said(settings(listen=HERE)) == []


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ((), "callers are not authenticated"),
        (("callers",), "tokens would travel unencrypted"),
        (("tls_certificate", "tls_key"), "callers are not authenticated"),
        (("callers", "tls_certificate", "tls_key"), None),
    ],
)
def test_other_machines_need_names_and_encryption(file, names, problem):
    opened = settings(listen=OPEN, **given(file, *names))
    if problem is None:
        check_exposure(opened)
        assert said(opened) == []
    else:
        with pytest.raises(ConfigurationError, match=f"listen is {OPEN}.*{problem}"):
            check_exposure(opened)
        assert said(opened) == ["INSECURE"]


def test_who_asks_for_it_may_listen_openly_and_is_warned():
    opened = settings(listen=OPEN, insecure_listen=True)
    check_exposure(opened)
    assert said(opened) == ["INSECURE"]


def test_the_second_door_is_looked_at_as_well():
    opened = settings(listen=HERE, http_listen="0.0.0.0:8080")
    with pytest.raises(ConfigurationError, match="http_listen is"):
        check_exposure(opened)
    assert said(settings(listen=OPEN, http_listen="0.0.0.0:8080", insecure_listen=True)) == ["INSECURE"] * 2


def test_metrics_that_others_can_read_are_said():
    assert said(settings(listen=HERE, metrics_listen="0.0.0.0:9464")) == [
        "metrics are readable by everybody who reaches them"
    ]


@pytest.mark.parametrize(
    ("changes", "names", "wanted"),
    [
        ({}, (), True),
        ({"listen": OPEN}, (), False),
        ({}, ("callers",), False),
        ({"reflection": False}, (), False),
        ({"reflection": True, "listen": OPEN}, ("callers",), True),
    ],
)
def test_reflection_is_offered_where_nobody_is_kept_out(file, changes, names, wanted):
    assert reflects(settings(**{"listen": HERE, **changes}, **given(file, *names))) is wanted
