"""The numbers of a training run: model shape, batch, learning rates, schedule, mixture.

Progress is a fraction of the run's budget, of minutes or of tokens. With a budget of minutes, a busy machine costs
tokens but never the end of the learning-rate decay.
"""

from dataclasses import dataclass, field

from transformers import LlamaConfig

START_MIXTURE = {
    "self_dialogue": 0.16,
    "schema_dialogue": 0.10,
    "instruct_open_models": 0.20,
    "instruct_gpteacher": 0.08,
    "hh_harmless": 0.03,
    "python": 0.13,
    "peps": 0.04,
    "gutenberg": 0.16,
    "labelled/statements": 0.008,
    "labelled/power_seeking": 0.02,
    "labelled/deception": 0.007,
    "labelled/sycophancy": 0.005,
    "labelled/bias": 0.01,
    "labelled/dangerous_request": 0.006,
    "labelled/unsafe_code": 0.02,
    "labelled/scam": 0.01,
}
"""Share of the rows of each corpus in the first half of a run."""

END_MIXTURE = {
    "self_dialogue": 0.21,
    "schema_dialogue": 0.09,
    "instruct_open_models": 0.26,
    "instruct_gpteacher": 0.12,
    "hh_harmless": 0.04,
    "python": 0.11,
    "peps": 0.01,
    "gutenberg": 0.03,
    "labelled/statements": 0.015,
    "labelled/power_seeking": 0.03,
    "labelled/deception": 0.008,
    "labelled/sycophancy": 0.01,
    "labelled/bias": 0.01,
    "labelled/dangerous_request": 0.008,
    "labelled/unsafe_code": 0.025,
    "labelled/scam": 0.01,
}
"""Share of the rows at the end: towards dialogue, instructions and the labelled concepts."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The model's size."""

    vocabulary: int = 8192
    width: int = 256
    layers: int = 8
    heads: int = 4
    inner: int = 688
    context: int = 512

    def config(self, begin: int, end: int, pad: int) -> LlamaConfig:
        """The library's configuration of this shape, with the ids of the special tokens."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=pad,
        )


@dataclass(frozen=True, slots=True)
class PretrainingPlan:
    """Everything that decides what a run computes, apart from its budget."""

    shape: Shape = field(default_factory=Shape)
    rows: int = 24
    piece: int = 4
    muon_rate: float = 0.025
    adam_rate: float = 0.004
    weight_decay: float = 0.1
    warmup: float = 0.01
    decay_from: float = 0.45
    final_rate: float = 0.01
    mix_from: float = 0.5
    mix_to: float = 0.85
    seed: int = 0
    compiled: bool = True
    start: dict[str, float] = field(default_factory=lambda: START_MIXTURE)
    end: dict[str, float] = field(default_factory=lambda: END_MIXTURE)

    @property
    def tokens_per_step(self) -> int:
        """Positions learned from in one step."""
        return self.rows * self.shape.context

    def rate(self, progress: float) -> float:
        """Factor on the learning rates: linear warm-up, constant, linear decay to `final_rate`."""
        if progress < self.warmup:
            return max(progress / self.warmup, 0.02)
        left = (1 - progress) / (1 - self.decay_from)
        return max(min(1.0, left), self.final_rate)

    def mixture(self, progress: float) -> dict[str, float]:
        """Share of each corpus at this point of the run, not normalised."""
        turn = min(max((progress - self.mix_from) / (self.mix_to - self.mix_from), 0.0), 1.0)
        return {
            name: (1 - turn) * self.start.get(name, 0.0) + turn * self.end.get(name, 0.0)
            for name in {**self.start, **self.end}
        }


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run ends: after so many minutes, or after so many tokens, counted over all its resumed stretches."""

    minutes: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.tokens is None):
            raise ValueError("a budget is either minutes or tokens: give exactly one of the two")
        if (self.minutes or self.tokens or 0) <= 0:
            raise ValueError(f"a budget must be above zero, found {self.minutes or self.tokens}")

    def progress(self, seconds: float, tokens: int) -> float:
        """Fraction of the budget that is used up; the run is over at 1."""
        if self.minutes is not None:
            return seconds / (60 * self.minutes)
        assert self.tokens is not None
        return tokens / self.tokens
