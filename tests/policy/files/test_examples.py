"""Rows of examples files."""

import pytest

from monitor.policy.files.examples import read_examples
from monitor.policy.files.yaml_document import PolicyProblems


def test_an_example_with_two_labels_is_refused(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text(
        '{"text": "a", "label": "positive"}\n{"text": "b", "label": "positive", "label": "negative"}\n'
    )
    with pytest.raises(PolicyProblems) as caught:
        read_examples(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (2, "the key `label` stands here twice")
