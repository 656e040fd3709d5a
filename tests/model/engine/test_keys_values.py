"""Slabs of keys and values: sequences grow, share tensors, move and make room, and none reads another's."""

import random

import pytest
import torch

from monitor.model.engine import keys_values
from monitor.model.engine.keys_values import KeysValues, Slabs


def numbers(tokens: int, heads: int = 1, begin: float = 0.0) -> torch.Tensor:
    return (begin + torch.arange(float(heads * tokens * 2))).reshape(1, heads, tokens, 2)


def test_keys_and_values_grow_and_keep_what_they_hold() -> None:
    held = KeysValues(Slabs())
    keys = numbers(200)
    held.put(0, 0, keys[:, :, :3], -keys[:, :, :3])
    room = held.room
    assert room >= 3
    seen, values = held.put(0, 3, keys[:, :, 3:], -keys[:, :, 3:])
    assert torch.equal(seen, keys)
    assert torch.equal(values, -keys)
    assert held.room >= 200 > room
    assert held.bytes == 2 * 2 * 4 * held.room


def test_layers_may_differ_in_heads_and_width() -> None:
    held = KeysValues(Slabs())
    held.put(0, 0, numbers(3, heads=2), numbers(3, heads=2))
    held.put(1, 0, numbers(3), torch.ones(1, 1, 3, 7))
    held.reserve(500)
    keys, values = held.put(1, 3, numbers(1), torch.ones(1, 1, 1, 7))
    assert torch.equal(keys[:, :, :3], numbers(3))
    assert values.shape == (1, 1, 4, 7)
    assert torch.equal(
        held.put(0, 3, numbers(1, heads=2), numbers(1, heads=2))[0][:, :, :3], numbers(3, heads=2)
    )


def test_what_was_written_into_a_slab_for_many_moves_too() -> None:
    held = KeysValues(Slabs())
    held.reserve(3)
    assert held.slab is not None
    for part in held.slab.layer(0, numbers(1), numbers(1)):
        part[held.place, :, :3] = numbers(3)[0]
    held.reserve(500)
    assert torch.equal(held.put(0, 3, numbers(1), numbers(1))[1][:, :, :3], numbers(3))


def test_sequences_of_about_one_length_share_a_slab() -> None:
    slabs = Slabs()
    short, other, long = (KeysValues(slabs) for _ in range(3))
    short.reserve(3)
    other.reserve(60)
    long.reserve(5000)
    assert short.slab is other.slab is not long.slab
    assert short.place != other.place
    assert long.slab is not None
    assert long.slab.places == 1


@pytest.mark.parametrize("known", [True, False], ids=["layer known", "layer new"])
def test_a_place_begins_with_zeros_whatever_stood_there(known: bool) -> None:
    """A mask cannot take out what is no number, so none may be left of another use of memory."""
    slabs = Slabs()
    first, second = KeysValues(slabs), KeysValues(slabs)
    first.reserve(8)
    second.reserve(8)
    layer = 0 if known else 1
    second.put(0, 0, numbers(2), numbers(2))
    assert first.slab is not None
    for part in first.slab.layer(layer, numbers(2), numbers(2)):
        if known:
            assert not part[first.place].any()
        part[first.place] = torch.nan
    place = first.place
    first.release()
    third = KeysValues(slabs)
    third.reserve(8)
    assert (third.slab, third.place) == (second.slab, place)
    for part in third.slab.layer(layer, numbers(2), numbers(2)):  # type: ignore[union-attr]
        assert not part[place].any()
    assert torch.equal(second.put(0, 2, numbers(1), numbers(1))[0][:, :, :2], numbers(2))


def test_what_is_released_may_begin_anew_and_an_empty_slab_is_forgotten() -> None:
    slabs = Slabs()
    held = KeysValues(slabs)
    held.put(0, 0, numbers(3), numbers(3))
    held.release()
    held.release()
    assert (held.room, held.bytes, slabs._slabs) == (0, 0, [])
    assert torch.equal(held.put(0, 0, numbers(2), numbers(2))[0], numbers(2))


def test_a_sequence_leaves_a_nearly_empty_slab_for_a_fuller_one() -> None:
    """Otherwise one that stays long would keep the memory of many that have ended."""
    slabs = Slabs()
    places = keys_values._SLAB // keys_values._FIRST
    held = [KeysValues(slabs) for _ in range(places + 1)]
    for number, one in enumerate(held):
        one.put(0, 0, numbers(3, begin=number), numbers(3))
    last, slab = held[-1], held[-1].slab
    assert slab is not held[0].slab
    last.reserve(4)
    assert last.slab is slab  # the other one is full
    held[1].release()
    last.reserve(4)
    assert last.slab is held[0].slab
    assert last.place == 1
    assert torch.equal(last.put(0, 3, numbers(1), numbers(1))[0][:, :, :3], numbers(3, begin=places))
    assert len(slabs._slabs) == 1


def test_any_order_of_growing_and_ending_keeps_everyones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_values, "_FIRST", 2)
    monkeypatch.setattr(keys_values, "_SLAB", 16)
    chance, slabs = random.Random(0), Slabs()
    held: dict[int, tuple[KeysValues, list[float]]] = {}
    for step in range(2000):
        if len(held) < 9:
            held[step] = (KeysValues(slabs), [])
        number = chance.choice(sorted(held))
        mine, wrote = held[number]
        new = torch.randn(1, 1, chance.randrange(1, 4), 1)
        keys, values = mine.put(step % 2, len(wrote), new, -new)
        mine.put(1 - step % 2, len(wrote), new, -new)
        wrote += new.flatten().tolist()
        assert keys.flatten().tolist() == wrote
        assert values.flatten().tolist() == [-one for one in wrote]
        if len(wrote) > 20 or chance.random() < 0.1:
            mine.release()
            del held[number]
    taken = [(id(one.slab), one.place) for one, _ in held.values() if one.slab is not None]
    assert len(set(taken)) == len(taken)
    assert sum(len(slab._taken) for slab in slabs._slabs) == len(taken)
