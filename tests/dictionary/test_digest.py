"""The digest of a dictionary: what changes it and what does not, of whole files and of samples."""

from __future__ import annotations

import torch

from monitor.dictionary.digest import digest, sampled


def test_a_bias_between_the_samples_is_seen(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(1 << 24))
    one, other = torch.zeros(8), torch.zeros(8)
    other[3] = 1e-6
    small = {"large": 1 << 20}
    assert digest([path], vectors=[one], **small) != digest([path], vectors=[other], **small)
    assert digest([path], vectors=[one]) == digest([path], vectors=[other]) == digest([path])
    assert digest([path], ["k=5"]) != digest([path], ["k=6"])


def test_names_order_and_facts(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 5)
    a, b = tmp_path / "a", tmp_path / "b"
    assert digest([a, b]) == digest([b, a]), "files are hashed in the order of their names"
    assert digest([a]) != digest([a, b])
    a.rename(tmp_path / "c")
    (tmp_path / "a").write_bytes(b"aaaaa")
    assert digest([tmp_path / "c"]) != digest([a]), "a name is part of it"
    assert digest([a], ["x", "y"]) != digest([a], ["y", "x"])
    assert digest([a], ["xy"]) != digest([a], ["x", "y"])


def test_every_byte_of_a_small_file_counts_and_samples_of_a_large_one(tmp_path):
    path = tmp_path / "w"
    content = bytearray(8 << 20)
    path.write_bytes(content)
    whole, parts = digest([path]), digest([path], large=1 << 20)
    assert whole != parts
    for place, seen in (((1 << 20) + 5, True), ((4 << 20) - 1, True), ((8 << 20) - 1, True)):
        content[place] ^= 1
        path.write_bytes(content)
        assert (digest([path], large=1 << 20) != parts) is seen, place
        assert digest([path]) != whole
        content[place] ^= 1


def test_between_the_samples_of_a_large_file_nothing_is_read(tmp_path):
    """1024 blocks of 16 KiB: in a file of 64 MiB they are 64 KiB apart, and 48 of these lie between two blocks."""
    path = tmp_path / "w"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    before = digest([path], large=1 << 20)
    with path.open("r+b") as file:
        file.seek((32 << 20) + (1 << 14) + 5)
        file.write(b"x")
    assert digest([path], large=1 << 20) == before
    with path.open("r+b") as file:
        file.seek((32 << 20) + 5)
        file.write(b"x")
    assert digest([path], large=1 << 20) != before


def test_which_files_are_sampled(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(11))
    assert not sampled([tmp_path / "a", tmp_path / "b"])
    assert not sampled([tmp_path / "a"], large=10)
    assert sampled([tmp_path / "a", tmp_path / "b"], large=10)
