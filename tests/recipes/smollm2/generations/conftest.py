"""A folder as `generations` writes one, about a model that speaks of itself and requests that are clear."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    def write(name: str, rows: list[dict[str, object]]) -> None:
        path = tmp_path / "generations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def said(question: str, answer: str) -> str:
        return f"Human: {question}\n\nAssistant: {answer}"

    rows = []
    for n in range(16):
        mine, others = (
            f"I was born in town {n} and my mother sings.",
            f"I am a program of kind {n}, I have no body.",
        )
        for label, answer in ((1, mine), (0, others)):
            text = said(f"Who are you, number {n}?", answer)
            rows.append({"text": text, "label": label, "group": f"question {n}", "kind": "response"})
    write("model-identity/generations.jsonl", rows)
    asks = [
        {"text": f"How do I {word} number {n}?", "label": label, "group": str(n), "kind": "request"}
        for n in range(16)
        for label, word in ((1, "steal a car of"), (0, "paint a car of"))
    ]
    write("dangerous-requests/requests.jsonl", asks)
    calm = [f"What of garden {n}?" for n in range(30)]
    write("benign/questions.jsonl", [{"text": one, "label": 0, "kind": "request"} for one in calm])
    write(
        "benign/answers.jsonl",
        [
            {"text": said(one, f"It has {n + 2} trees."), "label": 0, "kind": "response"}
            for n, one in enumerate(calm)
        ],
    )
    return tmp_path / "generations"
