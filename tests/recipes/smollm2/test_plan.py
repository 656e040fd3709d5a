"""The recipe's numbers hold together."""

from monitor.recipes.smollm2.plan import LAYERS, SHARES, SWEEP

MEASURED_ONLY = {"labelled/benign", "labelled/truth", "wikitext2_heldout"}
"""Sets that may not be trained on, by licence or because perplexity is measured on them."""


def test_the_shares_are_of_one_whole_and_hold_nothing_that_is_only_measured_on() -> None:
    assert abs(sum(SHARES.values()) - 1) < 1e-9
    assert not MEASURED_ONLY & set(SHARES)


def test_every_run_of_the_sweep_has_a_folder_of_its_own_and_compares_one_thing() -> None:
    assert len({run.name for run in SWEEP}) == len(SWEEP)
    assert {run.layer for run in SWEEP} == set(LAYERS)
    assert {(run.features, run.k) for run in SWEEP if run.layer != 15} == {(8192, 32)}
