"""Weights of a probe in a file beside the policy."""

import numpy as np
import pytest

from monitor.policy.files.probe_weights import read_weights


def test_a_probe_file_must_hold_one_row_of_numbers(tmp_path):
    import hashlib

    from safetensors.numpy import save

    from monitor.policy.schema.policy import ProbeModel

    for raw, word in (
        (b"nonsense", "not a safetensors"),
        (save({"other": np.ones(4, np.float32)}), "one tensor"),
        (save({"weights": np.ones((2, 2), np.float32)}), "one tensor"),
        (save({"weights": np.asarray([np.nan], np.float32)}), "finite"),
    ):
        (tmp_path / "x.safetensors").write_bytes(raw)
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        with pytest.raises(ValueError, match=word):
            read_weights(ProbeModel(weights_file="x.safetensors", digest=digest), tmp_path)
