"""vLLM, which may be absent."""

from tests.vllm_environment import pytest_collection_modifyitems, vllm

__all__ = ["pytest_collection_modifyitems", "vllm"]
