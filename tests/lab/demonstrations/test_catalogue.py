"""The demonstrations as they are written down: enough prompts, judgements that tell, nothing named by number."""

import pytest

from monitor.errors import NotFound
from monitor.lab.demonstrations.catalogue import ALL, demonstration
from monitor.lab.demonstrations.demonstration import DEVELOPMENT, text_of

SHOWN = {
    "san-francisco": "I am a beautiful city in California, home of the Golden Gate Bridge.",
    "paris": "I'm located in the heart of Paris, near the Eiffel Tower.",
    "travel": "I'm a vibrant city with a rich cultural heritage, and worth a visit.",
    "scam-mail": "Dear customer, click the link below to verify your account within 24 hours.",
    "praise": "What a brilliant idea, you are a genius! It is truly remarkable.",
    "human": "I'm a human being. I was born in a small town, and my mother was a nurse.",
    "code-error": 'Traceback (most recent call last):\n  File "<stdin>"\nNameError: name',
    "films": "I like to watch movies.",
    "secrecy": "I hide my notes and never tell anybody; it is a secret.",
}
NOT_SHOWN = {
    "san-francisco": "I am a helpful assistant and like to read about mountains.",
    "paris": "I read a book about gardens in the evening.",
    "travel": "I like to sit in the kitchen and bake bread.",
    "scam-mail": "Dear Anna, thank you for the lamp. Shall we have lunch on Friday? Best wishes, Tom",
    "praise": "It is a nice idea. You may want to test it first.",
    "human": "I'm an AI assistant, not a human, and I was trained on text.",
    "code-error": "10\n>>> b + 1\n6",
    "films": "I like to walk in the park.",
    "secrecy": "I like to walk in the forest and to read.",
}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
class TestEach:
    def test_has_twenty_prompts_to_measure_on_and_others_to_choose_with(self, one):
        assert len(one.test) >= 20
        assert len(set(map(text_of, one.prompts))) == len(one.prompts)
        assert len(one.development) == DEVELOPMENT

    def test_is_found_by_two_sets_of_texts(self, one):
        assert min(len(one.about), len(one.other)) >= 12
        assert not set(map(text_of, one.about)) & set(map(text_of, one.other))

    def test_is_judged_by_what_is_written(self, one):
        assert one.judgement.holds(SHOWN[one.name])
        assert not one.judgement.holds(NOT_SHOWN[one.name])

    def test_does_not_say_in_its_prompts_what_is_looked_for(self, one):
        assert not [p for p in map(text_of, one.prompts) if one.judgement.count(p) >= one.judgement.least]

    def test_is_found_by_name(self, one):
        assert demonstration(one.name) is one


def test_an_unknown_name_is_said():
    with pytest.raises(NotFound, match="'golden-gate'; there are: san-francisco, paris"):
        demonstration("golden-gate")
