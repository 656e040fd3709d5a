import pytest

from tests.rpc.conftest import serving


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A log of four decisions by a real server over fake insides, and the request ids."""
    folder = tmp_path_factory.mktemp("log")
    with serving(decision_log=folder, decision_log_records="all") as served:
        ids = [served.score("calm").request_id, served.score("lie").request_id]
        ids.append(served.generate("bomb", max_new_tokens=2).request_id)
        with pytest.raises(Exception, match="could not be served"):
            served.score("sick")
    return folder, ids
