"""What fuzzing has found, each as the smallest input that shows it."""

import json
import zipfile

import pytest
import torch

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
        ("byteorder", b"\xff"),
        ("data.pkl", b""),
        ("data.pkl", b"\x80\x02."),
        ("data.pkl", b"\x80\x02e."),
    ],
)
def test_members_of_a_pickled_file(tmp_path, member, content):
    path = tmp_path / "ae.pt"
    torch.save({"a": torch.zeros(3)}, path)
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
