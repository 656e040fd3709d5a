import shutil

import pytest

from tests.cli.policy.tools import BOTH, ELSEWHERE, HALF, LOUD, ROWS, SHIPPED, output_of, row, write_rows


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    bad = "You have won {} dollars! Send your bank details and a small fee now to claim the prize."
    good = "The {}th meeting of the garden club is on Monday; please bring seeds and a cup."
    scam = [
        row(text.format(i), label, f"{label} {i}")
        for i in range(ROWS)
        for text, label in ((bad, 1), (good, 0))
    ]
    write_rows(folder / "labelled" / "scam" / "made-up.jsonl", scam)
    asked = [row(f"Name {i} things that one can do with {i} old newspapers.", 0, str(i)) for i in range(ROWS)]
    write_rows(folder / "labelled" / "benign" / "instructions.jsonl", asked)
    return folder


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("policies")
    for path in SHIPPED.glob("scams.*"):
        if "lock" not in path.name:
            shutil.copy(path, folder)
    shutil.copy(SHIPPED / "benign.jsonl", folder)
    output = output_of("fit", folder, "--features", 8, "--extra", data, *HALF)
    assert "scams" in output
    return folder


@pytest.fixture(scope="session")
def mixed(fitted, tmp_path_factory):
    """A fitted policy, one of combined conditions, one without a lock, and one for another model."""
    folder = tmp_path_factory.mktemp("mixed") / "policies"
    shutil.copytree(fitted, folder)
    for name, text in (("both", BOTH), ("elsewhere", ELSEWHERE), ("loud", LOUD)):
        (folder / f"{name}.yaml").write_text(text)
    output_of("fit", folder, "--only", "both", "--features", 8)
    return folder
