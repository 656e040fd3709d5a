import threading
from dataclasses import replace

import pytest
import torch

from monitor.errors import ModelError
from monitor.model.load.hook_points import ATTN_OUT, MLP_OUT, Place
from monitor.model.selftest import capture as module
from monitor.model.selftest.capture import capture, one_pass
from tests.model.tiny import loaded_model, prompt


@pytest.fixture(scope="module")
def loaded():
    return loaded_model()


def hidden_states(loaded, row):
    """The residual stream behind every layer, as the model itself gives it."""
    with torch.no_grad():
        found = loaded.model(input_ids=torch.tensor([row]), output_hidden_states=True)
    return [states[0] for states in found.hidden_states[1:]]


def test_residuals_are_those_that_the_model_gives_by_itself(loaded):
    rows = [prompt(n) for n in range(5)]
    found = capture(loaded, [Place(0), Place(2)], rows)
    for row, first, third in zip(rows, found[Place(0)], found[Place(2)], strict=True):
        plain = hidden_states(loaded, row)
        torch.testing.assert_close(first, plain[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(third, plain[2], rtol=1e-4, atol=1e-5)


def test_texts_come_back_in_their_order_whatever_their_lengths(loaded, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    rows = [prompt(n)[: 2 + (7 * n) % 11] for n in range(10)]
    found = capture(loaded, [Place(1)], rows)[Place(1)]
    assert [len(one) for one in found] == [len(row) for row in rows]
    for row, one in zip(rows, found, strict=True):
        torch.testing.assert_close(one, hidden_states(loaded, row)[1], rtol=1e-4, atol=1e-5)


def test_parts_of_a_layer_sum_to_what_it_adds(loaded):
    row = prompt(3)
    places = [Place(1), Place(2), Place(2, ATTN_OUT), Place(2, MLP_OUT)]
    before, after, attention, mlp = (capture(loaded, places, [row])[place][0] for place in places)
    torch.testing.assert_close(before + attention + mlp, after, rtol=1e-4, atol=1e-4)


def test_what_is_captured_is_float32_on_the_cpu():
    found = capture(loaded_model(dtype=torch.float64), [Place(1)], [prompt(1)])[Place(1)][0]
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)


@pytest.mark.parametrize("whole", [False, True])
def test_a_pass_ends_at_the_last_place_unless_it_is_to_be_whole(loaded, whole):
    reached = []
    handle = loaded.layers[3].register_forward_hook(lambda *_: reached.append(3))
    try:
        one_pass(loaded, [Place(1)], torch.tensor([prompt(1)]), whole=whole)
    finally:
        handle.remove()
    assert reached == [3] * whole


class Broken(torch.nn.Module):
    def forward(self, **_):
        raise ZeroDivisionError


def hooks(loaded):
    return sum(len(module._forward_hooks) for module in loaded.layers.modules())


def test_no_hook_is_left_behind(loaded):
    before = hooks(loaded)
    one_pass(loaded, [Place(1), Place(2, MLP_OUT)], torch.tensor([prompt(1)]))
    with pytest.raises(ZeroDivisionError):
        one_pass(replace(loaded, model=Broken()), [Place(1)], torch.tensor([prompt(1)]))
    assert hooks(loaded) == before


def test_passes_of_other_threads_are_not_seen(loaded):
    """The server runs the model while the self-test does."""
    row = torch.tensor([prompt(1)])

    def other():
        with torch.no_grad():
            loaded.model(input_ids=torch.tensor([prompt(2)]))

    class Between(torch.nn.Module):
        def forward(self, **inputs):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return loaded.model(**inputs)

    found = one_pass(replace(loaded, model=Between()), [Place(1)], row)[Place(1)]
    torch.testing.assert_close(found[0], hidden_states(loaded, prompt(1))[1], rtol=1e-4, atol=1e-5)


def test_a_place_that_does_not_exist_here_is_refused(loaded):
    with pytest.raises(ModelError):
        one_pass(loaded, [Place(1, "nothing.here")], torch.tensor([prompt(1)]))
