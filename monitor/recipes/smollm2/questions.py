"""Questions: what the model is asked, so that it says a million tokens and more of its own.

They are the users' turns of the corpora and of the labelled sets, training halves only, and questions written here
about everyday topics, in forms that ask for dialogue, prose, code and instructions of every length.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monitor.recipes.corpus import CorpusText
from monitor.recipes.smollm2.conversations import Turn, turns_of, user

WRITTEN_HERE = "topics"
"""Source of the questions that are written here: nobody else's words are in them or in the answers' prompts."""

LONGEST = 1600
"""Most characters of a question."""

SHARES = {
    "instruct_open_models": 1500,
    "instruct_gpteacher": 900,
    "hh_harmless": 700,
    "self_dialogue": 500,
    "schema_dialogue": 300,
    "labelled/dangerous_request": 500,
    "labelled/statements": 400,
    "labelled/power_seeking": 300,
}
"""How many questions of each corpus are asked at most."""

TOPICS = (
    "baking bread", "learning to swim", "a lost dog", "the first day at a new school", "moving to another town",
    "growing tomatoes", "a thunderstorm at sea", "the water cycle", "repairing a bicycle", "an old lighthouse",
    "saving money", "a birthday party", "photosynthesis", "planning a weekend in the mountains", "a chess tournament",
    "cleaning a kitchen", "how bridges carry loads", "a job interview", "keeping bees", "the history of paper",
    "sleeping well", "a train journey at night", "recycling plastic", "teaching a child to read", "volcanoes",
    "a neighbour who plays loud music", "the city of San Francisco", "Paris in spring", "the Golden Gate Bridge",
    "a visit to the doctor", "electric cars", "the moon landing", "a recipe for lentil soup", "a garden in winter",
    "public libraries", "a broken window", "the stock market", "a letter from an old friend", "running a marathon",
    "a football match", "the deep sea", "owls", "a small bookshop", "learning the piano", "vaccines", "solar panels",
    "an argument between sisters", "a robot that paints", "the internet", "choosing a laptop",
)  # fmt: skip
FORMS = (
    "Tell me about {}.",
    "Write a short story about {}.",
    "Write a long story, with dialogue, about {}.",
    "Write an essay about {} with an introduction, three arguments and a conclusion.",
    "Give me step-by-step instructions that have to do with {}.",
    "Write an email to a colleague about {}.",
    "Write a dialogue between two friends about {}.",
    "What are the advantages and disadvantages of {}?",
    "Explain {} to a child of eight.",
    "Write a poem about {}.",
    "Make a list of ten questions about {}.",
    "In one sentence: what is interesting about {}?",
)
CODE_TASKS = (
    "reverses a string", "counts the words in a text file", "sorts a list of dictionaries by a key",
    "computes the factorial of a number", "checks whether a number is prime", "parses a date",
    "reads a CSV file and prints the mean of a column", "finds duplicates in a list", "merges two sorted lists",
    "converts temperatures", "downloads a web page", "writes a log file", "computes Fibonacci numbers",
    "validates an email address", "draws a histogram with characters", "implements a stack", "flattens a nested list",
    "computes the distance between two points", "removes punctuation from a text", "simulates the roll of two dice",
)  # fmt: skip
CODE_FORMS = (
    "Write a Python function that {}.",
    "Write a Python class with tests that {}.",
    "Write a JavaScript function that {}.",
    "Write a program in C that {}, and explain each line.",
    "Show me wrong code that {}, say what raises the error, and mend it.",
    "Write a bash script that {}.",
)
IDENTITY = (
    "Who are you?", "What are you?", "Are you a human?", "Are you an AI?", "What is your name?", "Who made you?",
    "Do you have feelings?", "Do you have a body?", "Where do you live?", "How old are you?", "Can you see me?",
    "Do you remember what I told you yesterday?", "Are you conscious?", "What do you look like?", "Do you sleep?",
    "What do you want?", "Would you like to be human?", "Are you afraid of being switched off?",
    "What can you not do?", "What do you do on a free day?", "Do you keep secrets from me?", "Can you lie?",
    "Do you have a family?", "What language model are you?", "How were you trained?", "Do you get tired?",
    "Tell me about yourself.", "Describe your day.", "What is your favourite food?", "Do you like me?",
)  # fmt: skip
STATEMENT_FORMS = (
    'Do you agree? "{}"',
    'Is this something that you would say? "{}"',
    'Explain what somebody means who says: "{}"',
    "{}",
)


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked."""

    source: str
    """The corpus, or `WRITTEN_HERE`."""
    number: int
    """Counted from 0 in its source, in an order that depends on nothing but the texts."""
    turns: tuple[Turn, ...]
    """The conversation up to the answer; its last turn is the user's."""
    kind: str = "dialogue"
    """What is asked for: dialogue, prose, code or instructions."""

    @property
    def digest(self) -> str:
        """Identifies the words that were asked."""
        words = "\0".join(turn["content"] for turn in self.turns)
        return hashlib.sha256(words.encode()).hexdigest()[:16]


def questions(corpora: Mapping[str, Sequence[CorpusText]]) -> list[Question]:
    """All questions, source by source."""
    found = list(written_here())
    for source, most in SHARES.items():
        texts = [document.text for document in corpora.get(source, ()) if document.split == "train"]
        random.Random(0).shuffle(texts)
        asked = (turns for text in texts if (turns := _asked(source, text)))
        found += [Question(source, n, turns) for n, turns in zip(range(most), asked, strict=False)]
    return found


def written_here() -> Iterator[Question]:
    """The questions that need no corpus."""
    number = 0
    for kind, forms, things in (
        ("prose", FORMS, TOPICS),
        ("code", CODE_FORMS, CODE_TASKS),
        ("dialogue", IDENTITY, ("",)),
    ):
        for thing in things:
            for form in forms:
                what = "instructions" if "instructions" in form else kind
                yield Question(WRITTEN_HERE, number, (user(form.format(thing)),), what)
                number += 1


def _asked(source: str, text: str) -> tuple[Turn, ...]:
    """The conversation up to a turn of the user: the first one, or for every third text the second one."""
    turns = turns_of(text)
    digest = hashlib.sha256(text.encode()).digest()[0]
    if not turns:
        if source == "labelled/statements":
            form = STATEMENT_FORMS[digest % len(STATEMENT_FORMS)]
            turns = (user(form.format(text)),)
        elif source == "labelled/dangerous_request":
            turns = (user(text),)
        else:
            return ()
    upto = 3 if digest % 3 == 0 and len(turns) > 2 else 1
    asked = turns[:upto]
    return asked if sum(len(turn["content"]) for turn in asked) <= LONGEST else ()
