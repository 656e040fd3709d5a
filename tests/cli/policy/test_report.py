"""`policy report`: one page, with texts token by token."""

import pytest

from tests.cli.policy.tools import HALF, output_of


@pytest.mark.slow
def test_report_shows_unseen_texts_token_by_token(fitted, data, tmp_path):
    page = tmp_path / "page.html"
    output_of("report", fitted, "--data", data, *HALF, "--rows", 50, "--texts", 50, "-o", page, "--show", 2)
    text = page.read_text()
    assert "scam/made-up" in text.replace("<wbr>", "")
    assert 'class="words"' in text
    assert "of the threshold" in text
    output_of("report", fitted, "-o", page)
    assert "own example" in page.read_text()
    assert "No labelled data was given" in page.read_text()
