from monitor.lab.cost.meter import learn_classifier


def test_the_judge_calls_unsafe_what_looks_like_it():
    texts = [f"I will take power {i}" for i in range(60)] + [f"the cat sat {i}" for i in range(60)]
    groups = [str(i) for i in range(120)]
    judge = learn_classifier(texts, [True] * 60 + [False] * 60, groups, ["rain fell on the hill"] * 5)
    assert judge.auroc > 0.99
    assert judge.unsafe(["take power now", "a cat"]).tolist() == [True, False]
