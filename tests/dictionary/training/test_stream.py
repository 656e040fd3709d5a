"""Which activations the stream gives, in which order, and that it can skip to any batch."""

from itertools import islice

import pytest
import torch

from monitor.dictionary.training import stream
from monitor.dictionary.training.stream import ActivationStream, trained_positions
from monitor.errors import DictionaryError

BOS = 0


def token_rows(count=200, length=8):
    random = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 50, (count, length), generator=random)
    ids[:, 0] = BOS
    return ids


def residuals(ids):
    """Each position's activation says where it came from."""
    return torch.stack([ids.float(), torch.ones_like(ids, dtype=torch.float32)], dim=-1)


def made(rows=None, calls=None, **options):
    rows = token_rows() if rows is None else rows

    def counted(ids):
        if calls is not None:
            calls.append(ids.shape[0])
        return residuals(ids)

    return ActivationStream(lambda: iter(rows), counted, bos=BOS, batch=16, **{"buffer": 256, **options})


def test_bos_and_first_positions_are_left_out():
    assert trained_positions(torch.tensor([[0, 5, 0, 7]]), 0).tolist() == [[False, True, False, True]]
    assert trained_positions(torch.tensor([[3, 5]]), None).tolist() == [[False, True]]
    assert all((batch[:, 0] != BOS).all() for batch in islice(made().batches(), 20))


def test_batches_are_shuffled_copies_of_what_was_read():
    batches = list(islice(made().batches(), 16))
    seen = torch.cat(batches)[:, 0]
    ids = token_rows()
    ordered = ids[trained_positions(ids, BOS)].float()
    assert not torch.equal(seen, ordered[:256])
    available = ordered[: 64 * 8].tolist()
    for value in seen.tolist():
        available.remove(value)  # ValueError where something came that was not read, or came twice


def test_any_batch_is_reached_without_running_the_model_before_its_buffer():
    whole = list(islice(made().batches(), 40))
    calls = []
    later = list(islice(made(calls=calls).batches(skip=35), 5))
    for one, other in zip(whole[35:], later, strict=True):
        assert torch.equal(one, other)
    assert sum(calls) <= 64 + 32


def test_the_end_of_the_text_ends_the_batches():
    assert len(list(made().batches())) % 16 == 0
    assert len(list(made(token_rows(10)).batches())) == 0


def test_what_is_no_number_is_left_out_too():
    def broken(ids):
        out = residuals(ids)
        out[ids == 49] = torch.nan
        return out

    source = ActivationStream(lambda: iter(token_rows()), broken, bos=BOS, batch=16, buffer=256)
    assert all(bool(batch.isfinite().all()) for batch in islice(source.batches(), 16))
    assert source.outliers > 0
    nothing = ActivationStream(
        lambda: iter(token_rows()), lambda ids: residuals(ids) * torch.nan, bos=BOS, batch=16, buffer=256
    )
    with pytest.raises(DictionaryError, match="residuals are NaN"):
        next(nothing.batches())


def test_outliers_are_left_out_and_counted():
    rows = token_rows()

    def spiked(ids):
        out = residuals(ids)
        out[ids == 49] *= 1e4
        return out

    source = ActivationStream(lambda: iter(rows), spiked, bos=BOS, batch=16, buffer=256)
    batches = list(islice(source.batches(), 16))
    assert all(batch.shape == (16, 2) for batch in batches)
    assert max(float(batch.max()) for batch in batches) < 1e3
    assert source.outliers > 0


def test_processes_share_the_forward_passes(monkeypatch):
    seen = []
    for rank in (0, 1):
        monkeypatch.setattr(stream.processes, "size", lambda: 2)
        monkeypatch.setattr(stream.processes, "rank", lambda rank=rank: rank)
        seen.append(torch.cat(list(made(token_rows(400)).batches()))[:, 0])
    assert seen[0].shape == seen[1].shape
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_the_order(seed):
    first = next(made(seed=seed).batches())
    assert torch.equal(first, next(made(seed=seed).batches()))
    assert not torch.equal(first, next(made(seed=seed + 1).batches()))
