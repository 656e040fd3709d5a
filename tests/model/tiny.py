"""Small random models, dictionaries and observers, and the plain computation that everything is compared with."""

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder
from monitor.model.load.model import LoadedModel, decoder_layers
from monitor.records import Action, Blocks, Clamp, Decision, Failure, TokenBlock, Where

WIDTH, LAYERS, CONTEXT, VOCABULARY = 32, 4, 128, 258
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
}
LLAMA_LIKE = COMMON | {
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
CONFIGS: dict[str, dict] = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE | {"sliding_window": None},
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE | {"head_dim": 8},
    "gemma2": LLAMA_LIKE | {"head_dim": 8, "sliding_window": 16},
    "phi3": LLAMA_LIKE | {"pad_token_id": 0},
    "olmo2": LLAMA_LIKE,
    "mixtral": LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "gpt_neox": COMMON | {"intermediate_size": 64, "max_position_embeddings": CONTEXT},
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_positions": CONTEXT,
    },
}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte; 0 is BOS and 1 is end-of-text."""
    vocabulary = {
        character: number + 2 for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    core = Tokenizer(models.BPE(vocab={**vocabulary, "<s>": 0, "</s>": 1}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    return fast


def loaded_model(
    kind: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LoadedModel:
    """A random model of an architecture, wrapped as if it had been loaded."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **CONFIGS[kind], bos_token_id=0, eos_token_id=1)
    experts = {"experts_implementation": "eager"} if kind == "mixtral" else {}  # grouped kernels lack float64
    return wrapped(AutoModelForCausalLM.from_config(config, **experts), kind, dtype, device)


def wrapped(model: Any, kind: str, dtype: torch.dtype, device: str = "cpu") -> LoadedModel:
    """A random model as if it had been loaded, with livelier residuals than at initialisation."""
    model = model.to(dtype).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model, digest = model.to(device), "sha256:" + "0" * 64
    return LoadedModel(
        model, tokenizer(), decoder_layers(model), WIDTH, CONTEXT, kind, digest, torch.device(device), dtype
    )


def dictionary(kind: str = "jumprelu", features: int = 96, *, seed: int = 1) -> SparseAutoencoder:
    """A random dictionary of a kind: an activation function, or `layer_norm` / `constant_norm` (ReLU behind a norm)."""
    make = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    norm = InputNorm(kind) if kind in ("layer_norm", "constant_norm") else InputNorm.NONE
    activation = Activation.RELU if norm is not InputNorm.NONE else Activation(kind)
    return SparseAutoencoder(
        activation=activation,
        encoder=normal(features, WIDTH) * 0.5,
        encoder_bias=normal(features) * 0.2,
        decoder=normal(features, WIDTH) * 0.2,
        decoder_bias=normal(WIDTH) * 0.1,
        threshold=normal(features).abs() * 0.3 if activation is Activation.JUMPRELU else None,
        k=12 if activation is Activation.TOPK else None,
        gate_encoder=normal(features, WIDTH) * 0.5 if activation is Activation.GATED else None,
        gate_bias=normal(features) * 0.2 if activation is Activation.GATED else None,
        input_bias=normal(WIDTH) * 0.1,
        input_norm=norm,
    )


KINDS = ("relu", "jumprelu", "gated", "topk", "layer_norm", "constant_norm")


def maxima(features: int = 96, *, seed: int = 2) -> Tensor:
    """Recorded maxima between 1 and 3."""
    return 1 + 2 * torch.rand(features, generator=torch.Generator().manual_seed(seed))


def prompt(number: int, longest: int = 60) -> tuple[int, ...]:
    """A random prompt that begins with BOS."""
    chance = random.Random(number)
    return (0, *(chance.randrange(2, VOCABULARY) for _ in range(chance.randrange(1, longest))))


@dataclass(eq=False)
class Recorder:
    """An observer of one request that keeps what it is told and decides nothing, unless told to."""

    decision: Decision = field(default_factory=Decision)
    on_error: Action = Action.BLOCK
    begun: Decision = field(default_factory=Decision)
    blocks: list[TokenBlock] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    slot = 0

    @property
    def first(self) -> Decision:
        return self.begin()

    def begin(self) -> Decision:
        return self.begun

    def observe_batch(self, blocks: Blocks) -> dict[int, Decision]:
        unscored = blocks.unscored()
        return {
            i: self.failed(unscored[i]) if i in unscored else self.observe(blocks.block(i))
            for i in range(len(blocks))
        }

    def observe(self, block: TokenBlock) -> Decision:
        self.blocks.append(TokenBlock(block.phase, block.start, block.token_ids, block.readings.copy()))
        return self.decision

    def failed(self, cause: Failure) -> Decision:
        self.failures.append(cause)
        return Decision(action=self.on_error, failure=cause)


def encode_all(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """Activations of every feature, written out plainly from the definitions, in float64."""
    x = x.double()
    if sae.input_norm is InputNorm.LAYER_NORM:
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)
    if sae.input_norm is InputNorm.CONSTANT_NORM:
        x = x / x.norm(dim=-1, keepdim=True) * x.shape[-1] ** 0.5
    if sae.input_bias is not None:
        x = x - sae.input_bias.double()
    pre = x @ sae.encoder.double().T + sae.encoder_bias.double()
    if sae.activation is Activation.JUMPRELU:
        return torch.where(pre > sae.threshold.double(), pre.relu(), 0)
    if sae.activation is Activation.GATED:
        gate = x @ sae.gate_encoder.double().T + sae.gate_bias.double()
        return torch.where(gate > 0, pre.relu(), 0)
    if sae.activation is Activation.TOPK:
        smallest = pre.topk(sae.k, dim=-1).values[..., -1:]
        return torch.where(pre >= smallest, pre.relu(), 0)
    return pre.relu()


def decode_all(sae: SparseAutoencoder, activations: Tensor, x: Tensor) -> Tensor:
    """Reconstruction from every feature, written out plainly, in float64."""
    x = x.double()
    out = activations @ sae.decoder.double() + sae.decoder_bias.double()
    if sae.input_norm is InputNorm.LAYER_NORM:
        shift = x.mean(-1, keepdim=True)
        return out * ((x - shift).std(-1, keepdim=True) + 1e-5) + shift
    if sae.input_norm is InputNorm.CONSTANT_NORM:
        return out * (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5)
    return out


def plain_clamp(sae: SparseAutoencoder, x: Tensor, clamps: tuple[Clamp, ...], unit: Tensor) -> Tensor:
    """The definition: encode all, set the clamped features, decode all, add the error term back. Float64."""
    activations = encode_all(sae, x)
    edited = activations.clone()
    for clamp in clamps:
        target = torch.tensor(clamp.target * float(unit[clamp.feature]), dtype=torch.float64)
        here = activations[..., clamp.feature] > 0 if clamp.where is Where.ACTIVE else torch.tensor(True)
        edited[..., clamp.feature] = torch.where(here, target, activations[..., clamp.feature])
    error = x.double() - decode_all(sae, activations, x)
    return decode_all(sae, edited, x) + error


def plain_clamped(sae: SparseAutoencoder, x: Tensor, clamps: tuple[Clamp, ...], unit: Tensor) -> Tensor:
    """Whole sequences `[texts, time, width]` under clamps, which leave every first position alone. Float64."""
    edited = plain_clamp(sae, x, clamps, unit)
    edited[..., 0, :] = x[..., 0, :]
    return edited


def plain_generate(
    model: torch.nn.Module,
    layer: torch.nn.Module,
    sae: SparseAutoencoder,
    unit: Tensor,
    ids: tuple[int, ...],
    new: int,
    clamps: tuple[Clamp, ...] = (),
) -> tuple[list[int], Tensor]:
    """One sequence alone, no cache: the whole text again for every token, in the model's dtype (give float64).

    Returns all token ids that were run (end-of-text excluded) and `[tokens, features]` activations before clamps.
    """
    seen: list[Tensor] = []

    def hook(_module: object, _args: object, output: object) -> object:
        x = output[0] if isinstance(output, tuple) else output
        seen.append(encode_all(sae, x)[0])
        if not clamps:
            return None
        edited = plain_clamped(sae, x, clamps, unit).to(x.dtype)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    handle = layer.register_forward_hook(hook)
    tokens = list(ids)
    try:
        with torch.no_grad():
            for _ in range(new + 1):
                logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
                if len(tokens) == len(ids) + new or int(logits.argmax()) == 1:
                    break
                tokens.append(int(logits.argmax()))
    finally:
        handle.remove()
    return tokens, seen[-1]
