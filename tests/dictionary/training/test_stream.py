"""Which activations the stream gives, in which order, and that it can skip to any batch."""

from itertools import islice

import pytest
import torch

from monitor.dictionary.packed_text import PackedText
from monitor.dictionary.training import stream
from monitor.dictionary.training.stream import ActivationStream
from monitor.errors import DictionaryError

BOS, LIMIT = 0, 500.0


def token_rows(count=200, length=8):
    random = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 50, (count, length), generator=random)
    ids[:, 0] = BOS
    return ids


def packed(ids):
    return [PackedText(row, torch.full_like(row, number)) for number, row in enumerate(ids)]


def residuals(ids):
    """Each position's activation says where it came from."""
    return torch.stack([ids.float(), torch.ones_like(ids, dtype=torch.float32)], dim=-1)


def made(rows=None, calls=None, **options):
    rows = token_rows() if rows is None else rows

    def counted(ids):
        if calls is not None:
            calls.append(ids.shape[0])
        return residuals(ids)

    return ActivationStream(
        lambda: iter(packed(rows)), counted, limit=LIMIT, batch=16, **{"buffer": 256, **options}
    )


def bos_share(rows):
    return float((torch.cat(list(islice(made(rows).batches(), 64)))[:, 0] == BOS).float().mean())


def test_first_positions_are_left_out_by_where_they_stand_and_never_by_their_id():
    assert bos_share(token_rows()) == pytest.approx(1 / 50, abs=0.01)
    turns = token_rows()
    turns[:, 4] = BOS  # as each turn of a conversation may begin
    assert bos_share(turns) == pytest.approx(1 / 7 + 6 / 7 / 50, abs=0.02)


def test_the_first_tokens_of_all_documents_of_a_row_are_left_out():
    ids = torch.arange(1, 17).view(2, 8)
    rows = [
        PackedText(ids[0], torch.tensor([0, 0, 0, 1, 1, 1, 1, 2])),
        PackedText(ids[1], torch.full((8,), 2)),
    ]
    stream = ActivationStream(lambda: iter(rows), residuals, limit=LIMIT, batch=6, buffer=12)
    assert sorted(torch.cat(list(stream.batches()))[:, 0].tolist()) == [2, 3, 5, 6, 7, *range(10, 17)]


def test_batches_are_shuffled_copies_of_what_was_read():
    batches = list(islice(made().batches(), 16))
    seen = torch.cat(batches)[:, 0]
    ids = token_rows()
    ordered = ids[:, 1:].flatten().float()
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

    source = ActivationStream(lambda: iter(packed(token_rows())), broken, limit=LIMIT, batch=16, buffer=256)
    assert all(bool(batch.isfinite().all()) for batch in islice(source.batches(), 16))
    assert source.outliers > 0
    nothing = ActivationStream(
        lambda: iter(packed(token_rows())),
        lambda ids: residuals(ids) * torch.nan,
        limit=LIMIT,
        batch=16,
        buffer=256,
    )
    with pytest.raises(DictionaryError, match="residuals are NaN"):
        next(nothing.batches())


def test_outliers_are_left_out_and_counted():
    rows = token_rows()

    def spiked(ids):
        out = residuals(ids)
        out[ids == 49] *= 1e4
        return out

    source = ActivationStream(lambda: iter(packed(rows)), spiked, limit=LIMIT, batch=16, buffer=256)
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
