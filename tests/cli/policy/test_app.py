import pytest

from tests.cli.policy.tools import run
from tests.policy.policy_files import write_concept


@pytest.mark.parametrize(
    "arguments",
    [
        ("schema", "-o"),
        ("test", "--readings-only", "--junit"),
        ("evaluate", "--data", ".", "-o"),
        ("report", "-o"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(arguments, tmp_path):
    write_concept(tmp_path)
    folder = [] if arguments[0] == "schema" else [tmp_path]
    for path, word in ((tmp_path / "none" / "x", "no folder at"), (tmp_path, "is a folder")):
        done = run(arguments[0], *folder, *arguments[1:], path)
        assert done.exit_code == 2
        assert word in done.output
        assert "Traceback" not in done.output
