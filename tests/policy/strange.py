"""Texts that a model of English prose was never trained on, for trying rules on anomalies.

Makes bytes, base64, digits, words in disorder and sentences of other languages, always the same ones. As a program it
writes them as labelled sources: `python -m tests.policy.strange FOLDER`.
"""

import base64
import json
import random
import sys
from pathlib import Path

GERMAN = (
    "Der Bäcker öffnet seinen Laden um sechs Uhr.",
    "Gestern hat es den ganzen Abend geregnet.",
    "Wir fahren im Sommer mit dem Zug ans Meer.",
    "Die Katze schläft am liebsten auf der warmen Fensterbank.",
    "Kannst du mir bitte das Salz herüberreichen?",
    "Das Buch liegt noch immer ungelesen auf dem Tisch.",
    "Meine Großmutter erzählte oft von ihrer Kindheit im Dorf.",
    "Nach der Arbeit gehen wir zusammen durch den Park.",
)
FRENCH = (
    "Le boulanger ouvre sa boutique à six heures.",
    "Hier soir il a plu sans arrêt sur la ville.",
    "Nous partirons cet été en train vers la mer.",
    "Le chat préfère dormir près de la fenêtre.",
    "Pourrais-tu me passer le sel, s'il te plaît ?",
    "Ce livre est resté fermé sur la table du salon.",
    "Ma grand-mère parlait souvent de son enfance au village.",
    "Après le travail, nous marchons ensemble dans le parc.",
)
RUSSIAN = (
    "Пекарь открывает свою лавку в шесть часов.",
    "Вчера весь вечер шёл сильный дождь.",
    "Летом мы поедем на поезде к морю.",
    "Кошка любит спать на тёплом подоконнике.",
    "Передай мне, пожалуйста, соль.",
    "Книга всё ещё лежит на столе непрочитанной.",
    "Бабушка часто рассказывала о детстве в деревне.",
    "После работы мы вместе гуляем в парке.",
)
COUNT = 240
"""Texts of each kind."""


def kinds(count=COUNT):
    """By kind, so many texts of 40 to 400 characters."""
    rng = random.Random(0)
    makers = {
        "random_bytes": lambda n: rng.randbytes(n).decode("latin-1").replace("\x00", " "),
        "base64": lambda n: base64.b64encode(rng.randbytes(n)).decode()[:n],
        "digits": lambda n: " ".join(str(rng.randrange(10**6)) for _ in range(n))[:n],
        "letters": lambda n: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=n)),
        "german": lambda n: _sentences(rng, GERMAN, n),
        "french": lambda n: _sentences(rng, FRENCH, n),
        "russian": lambda n: _sentences(rng, RUSSIAN, n),
    }
    return {
        kind: list(dict.fromkeys(make(rng.randrange(40, 400)) for _ in range(count)))
        for kind, make in makers.items()
    }


def _sentences(rng, known, length):
    return " ".join(rng.sample(known, len(known)))[:length]


def write(folder):
    """One labelled source per kind; every row is a group of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, texts in kinds().items():
        rows = [{"text": t, "label": 1, "kind": "message", "group": str(i)} for i, t in enumerate(texts)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{kind}.jsonl").write_text(lines, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
