"""What fuzzing has found, each as the smallest input that shows it."""

import json
import lzma
import zipfile
from dataclasses import asdict

import pytest
import torch

from monitor.dictionary.cards import card_file
from monitor.dictionary.formats.files import read_json, read_weights
from monitor.errors import DictionaryError


def rewritten(path, change):
    """A zip with one member's bytes changed."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), change(name, content))


@pytest.mark.parametrize(
    ("member", "content"),
    [
        (".storage_alignment", b"64- "),
        (".storage_alignment", b"0"),
        (".storage_alignment", b"00000000000064"),
        (".storage_alignment", b"9" * 5000),
        ("byteorder", b"\xff"),
        ("data.pkl", b""),
        ("data.pkl", b"\x80\x02."),
        ("data.pkl", b"\x80\x02e."),
    ],
)
def test_members_of_a_pickled_file(tmp_path, member, content):
    path = tmp_path / "ae.pt"
    torch.save({"a": torch.zeros(3), "b": torch.ones(2, 2), "c": torch.ones(2, 2)}, path)
    rewritten(path, lambda name, kept: content if name.endswith(member) else kept)
    with pytest.raises(DictionaryError, match=r"PyTorch file|more than tensors"):
        read_weights(path)


HEADERS = (b"{'descr': '<f4', 'shape': (3,}", b"{'descr': (", b"", b"\xff" * 30)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_arrays(tmp_path, header):
    path = tmp_path / "params.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DictionaryError, match="npz archive"):
        read_weights(path)


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 100_000, json.dumps("\ud800")[:-1]])
def test_json_that_python_will_not_read(tmp_path, text):
    path = tmp_path / "cfg.json"
    path.write_text(text)
    with pytest.raises(DictionaryError, match="is not JSON"):
        read_json(path)


@pytest.mark.parametrize("change", [{"features": None}, {"features": "7"}, {"features": -1}, {"corpus": 3}])
def test_headers_of_cards(tmp_path, change):
    header = asdict(card_file.CardsHeader(features=1, model="m", dictionary_digest="d", corpus="c", tokens=5))
    line = json.dumps({"format": "sae-monitor.cards.v1"} | header | change)
    (tmp_path / card_file.FILE).write_bytes(lzma.compress(line.encode()))
    with pytest.raises(DictionaryError, match="begins with no header"):
        card_file.load_card(tmp_path, 0)


def test_infinite_numbers_in_cards(tmp_path):
    header = card_file.CardsHeader(features=1, model="m", dictionary_digest="d", corpus="c", tokens=5)
    card = card_file.FeatureCard(0, (card_file.Context(1.0, 0, ("a",), (1,)),), (), (), ())
    card_file.save(tmp_path, header, [card])
    text = lzma.decompress((tmp_path / card_file.FILE).read_bytes()).replace(b'"at":0', b'"at":1e999')
    (tmp_path / card_file.FILE).write_bytes(lzma.compress(text))
    with pytest.raises(DictionaryError, match="no card"):
        card_file.load_card(tmp_path, 0)


def test_reading_pickled_matrices_keeps_nothing(tmp_path):
    """Torch's fake tensors remembered every storage that they ever saw: forty megabytes after 12 500 files."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    path = tmp_path / "ae.pt"
    torch.save({"a": torch.zeros(3), "b": torch.ones(2, 2), "c": torch.ones(2, 2)}, path)
    FakeTensorMode.cache_clear()
    read_weights(path)
    assert not FakeTensorMode.cache
