"""What a pair reads in texts: activations of features, probes and signals, residuals, and attributions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from monitor.dictionary.training.progress import WorkLines
from monitor.errors import InputError
from monitor.lab.pair import Pair, need_feature, need_statistics, open_labels
from monitor.lab.policies import load_set, running_of
from monitor.model.load.hook_points import Place
from monitor.model.prompts import DocumentReader, PlacedText
from monitor.model.selftest.capture import one_pass
from monitor.model.tap.probe_columns import ProbeColumns
from monitor.policy.files.occurrences import Document
from monitor.policy.fit.readings import TextReadings, TokenReadings
from monitor.records import Signal, WatchPlan
from monitor.telemetry.decisions.tokens import column_names

BATCH_TOKENS = 4096
LONGEST = 512
"""Tokens that are read of a text; the rest is left out."""
KEPT = 1 << 30
"""Bytes of residuals that `LaterResiduals` keeps, so that texts shared by policies are read once."""


@dataclass(frozen=True, eq=False, repr=False)
class PairReadings:
    """What a pair reads in texts, token by token.

    Attention sinks, the first token of each text among them, are left out, as rules leave them out.
    """

    columns: tuple[int | str, ...]
    """What each column is: a feature's index, `probe NAME` or `signal NAME`."""
    values: NDArray[np.float32]
    """`[tokens of all texts, columns]`: features in units of their maximum, probes and signals in their own."""
    starts: NDArray[np.intp]
    """`[texts + 1]`: text `i` holds the rows `starts[i]` to `starts[i + 1]`."""
    tokens: tuple[tuple[str, ...], ...]
    """The tokens of each text, spelt out."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, text: int) -> NDArray[np.float32]:
        """Readings `[tokens, columns]` of one text."""
        text = range(len(self))[text]
        return self.values[self.starts[text] : self.starts[text + 1]]

    @property
    def maximum(self) -> NDArray[np.float32]:
        """`[texts, columns]`: the highest reading of each text; NaN for a text without tokens."""
        empty = np.full(len(self.columns), np.nan, np.float32)
        return np.stack([self[i].max(axis=0) if len(self[i]) else empty for i in range(len(self))])

    @property
    def mean(self) -> NDArray[np.float32]:
        """`[texts, columns]`: the mean reading of each text; NaN for a text without tokens."""
        empty = np.full(len(self.columns), np.nan, np.float32)
        return np.stack([self[i].mean(axis=0) if len(self[i]) else empty for i in range(len(self))])

    def __repr__(self) -> str:
        """Sizes, and each text's beginning with its highest reading."""
        lines = [f"PairReadings({len(self)} texts, {len(self.values)} tokens, {len(self.columns)} columns)"]
        for i in range(min(len(self), 10)):
            lines.append(f"  {i}: {self._peak(i)}")
        return "\n".join([*lines, "  …"] if len(self) > 10 else lines)

    def _peak(self, text: int) -> str:
        words = "".join(self.tokens[text])
        shown = repr(words if len(words) <= 48 else words[:47] + "…")
        if not self[text].size:
            return shown
        token, column = np.unravel_index(int(self[text].argmax()), self[text].shape)
        where = f"{self.columns[int(column)]} at {self.tokens[text][int(token)]!r}"
        return f"{shown}: highest {self[text][token, column]:.2f}, {where}"


def read(
    pair: Pair,
    texts: Sequence[str],
    *,
    features: Sequence[int] | None = None,
    policies: str | Path | None = None,
) -> PairReadings:
    """What a pair reads in texts: of the features named, or of everything that a folder of policies watches.

    Args:
        pair: From `open_pair`.
        texts: As a caller would send them; of each at most the model's context is read, and at most 512 tokens.
        features: Indices into the dictionary, each once.
        policies: A folder of policies that were fitted to the pair; its features, probes and signals are read.

    Raises:
        InputError: No text, neither or both of `features` and `policies`, or a feature named twice.
        NotFound: The dictionary has no such feature.
        PolicyError: The policies do not fit the pair.
    """
    if isinstance(texts, str) or not texts:
        raise InputError('give a list of texts, such as ["one text"]')
    plan = _plan(pair, features, policies)
    reader = PairReader(pair)
    rows: dict[int, NDArray[np.float32]] = {}
    spelt: dict[int, tuple[str, ...]] = {}
    for which, ids, lengths in reader.batches(texts):
        residual = pair.residuals(ids, lengths)
        read = ~pair.sinks(residual)
        for row, (text, length) in enumerate(zip(which, lengths, strict=True)):
            kept = read[row, :length]
            rows[text] = reader.columns(residual[row, :length][kept], plan)
            pieces = pair.speller.pieces(ids[row, 1:length].tolist())
            spelt[text] = tuple(compress(pieces, kept[1:].tolist()))
    counts = [len(rows[i]) for i in range(len(texts))]
    return PairReadings(
        columns=tuple(column_names(plan)),
        values=np.concatenate([rows[i] for i in range(len(texts))]),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.intp),
        tokens=tuple(spelt[i] for i in range(len(texts))),
    )


def _plan(pair: Pair, features: Sequence[int] | None, policies: str | Path | None) -> WatchPlan:
    if features is not None and policies is None:
        wanted = tuple(int(need_feature(pair.dictionary, int(feature))) for feature in features)
        if not wanted or len(set(wanted)) < len(wanted):
            raise InputError("name at least one feature, and each once, such as features=[12, 907]")
        return WatchPlan(wanted)
    if policies is not None and features is None:
        return load_set(Path(policies), running_of(pair)).watch
    raise InputError("say what to read: features=[…], or policies= a folder of policies; not both")


class PairReader:
    """A pair as fits, tests and explanations of policies need it: readings of texts, and what they do to the output."""

    def __init__(self, pair: Pair, signals: Collection[Signal] = ()) -> None:
        """`signals` are those that `read` gives; an error of reconstruction costs as much as reading again."""
        self.pair = pair
        self.tell: Callable[[str], None] = lambda line: None
        """Is told how far a long reading of texts is."""
        self._asked = tuple(signals)
        self._held: tuple[WatchPlan, ProbeColumns] | None = None
        self._autoencoder = pair.dictionary.autoencoder
        self._maximum = need_statistics(pair.dictionary).maximum.to(pair.loaded.device)
        alive = self._maximum > 0
        self._unit = torch.where(alive, 1.0 / self._maximum.clamp_min(1e-30), torch.zeros_like(self._maximum))

    @property
    def maxima(self) -> NDArray[np.float64]:
        """`[features]` recorded maxima."""
        return np.asarray(self._maximum.double().cpu().numpy())

    @cached_property
    def _labels(self) -> dict[int, str]:
        labels = open_labels(self.pair.dictionary)
        return {i: labels.best(i) for i in range(self._autoencoder.features)}

    def label(self, feature: int) -> str:
        """What the dictionary calls a feature."""
        return self._labels.get(feature, "")[:100]

    @cached_property
    def takes_turns(self) -> bool:
        """Whether the model has a chat template, so that conversations can be read."""
        return self._documents.takes_turns

    @cached_property
    def _documents(self) -> DocumentReader:
        return DocumentReader(self.pair.loaded)

    def ids(self, text: Document) -> list[int]:
        """Token ids of a text, cut to the model's context and to what is read."""
        return list(self.placed(text).ids)

    def placed(self, text: Document) -> PlacedText:
        """A text as a server runs it, cut to the model's context and to what is read."""
        if isinstance(text, str):
            return PlacedText(tuple(self.pair.ids(text)[:LONGEST]))
        found = self._documents.placed(text)
        most = min(self.pair.loaded.context, found.begin + LONGEST)
        return PlacedText(found.ids[:most], found.begin, found.lead)

    def readings(self, ids: Sequence[int], features: Sequence[int]) -> NDArray[np.float32]:
        """Readings `[tokens, len(features)]` of every token of one text."""
        return self._features(self.pair.residuals(torch.tensor([list(ids)]))[0], features)

    def watched(self, ids: Sequence[int], plan: WatchPlan) -> tuple[list[int], NDArray[np.float32]]:
        """The tokens of one text that rules are shown, and their readings `[tokens, watched]`.

        These are the first one and all that are no attention sinks; columns are features, probes and signals of a watch
        plan.
        """
        kept, residual = self._shown(ids)
        return list(compress(ids, kept.tolist())), self.columns(residual[kept], plan)

    def watched_parts(
        self, prompt: Sequence[int], response: Sequence[int], plan: WatchPlan
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Readings as of `watched`, of a prompt and of the response behind it, read in one pass."""
        kept, residual = self._shown([*prompt, *response])
        found = self.columns(residual[kept], plan)
        behind = int(kept[: len(prompt)].sum())
        return found[:behind], found[behind:]

    def judged_columns(self, text: Document, plan: WatchPlan) -> NDArray[np.float32]:
        """Readings `[1 + tokens, watched]` of the tokens of a text that rules judge, zero in the first row.

        So they can be put to rules, which pass over the first token of a sequence.
        """
        placed = self.placed(text)
        ids = torch.tensor([list(placed.ids)])
        residual = self.pair.residuals(ids)
        rows = self.columns(residual[0][self.judged(residual, ids, [placed.begin])[0]], plan)
        return np.concatenate([np.zeros((1, len(plan)), np.float32), rows])

    def _shown(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Which tokens rules are shown `[tokens]`, and the residuals of all `[tokens, d_model]`."""
        residual = self.pair.residuals(torch.tensor([list(ids)]))[0]
        kept = ~self.pair.sinks(residual)
        kept[:1] = True
        return kept, residual

    def columns(self, residual: Tensor, plan: WatchPlan) -> NDArray[np.float32]:
        """Readings `[tokens, watched]` of residuals `[tokens, d_model]`, columns as in a watch plan."""
        features = self._features(residual, plan.features)
        if not plan.probes and not plan.signals:
            return features
        columns = self._columns(plan)
        others = columns.read(residual).cpu().numpy()[:, columns.where(plan)]
        return np.concatenate([features, others], axis=1).astype(np.float32)

    def _features(self, residual: Tensor, features: Sequence[int]) -> NDArray[np.float32]:
        where = torch.tensor(list(features), dtype=torch.long, device=self.pair.loaded.device)
        read = (self._autoencoder.encode(residual) * self._unit)[:, where]
        return np.asarray(read.cpu().numpy(), np.float32)

    def _columns(self, plan: WatchPlan) -> ProbeColumns:
        """The probe and signal columns of a plan; those of the last one are kept."""
        if self._held is None or self._held[0] is not plan:
            device = self.pair.loaded.device
            self._held = plan, ProbeColumns(self._autoencoder, plan, device=device, dtype=torch.float32)
        return self._held[1]

    def read(self, texts: Sequence[Document]) -> TextReadings:
        """Readings, residuals and anomaly signals of texts, of conversations those of what is judged.

        Left out is what rules pass over: attention sinks and control tokens.
        """
        found: dict[int, tuple[sparse.csr_matrix, NDArray[np.float32], dict[str, NDArray[np.float64]]]] = {}
        places: dict[int, NDArray[np.intp]] = {}
        placed = [self.placed(text) for text in texts]
        advance = WorkLines("reading", len(texts), "texts", self.tell)
        for which, ids, lengths in _batches([one.ids for one in placed]):
            residual = self.pair.residuals(ids, lengths)
            kept = self.judged(residual, ids, [placed[text].begin for text in which])
            for row, (text, length) in enumerate(zip(which, lengths, strict=True)):
                x = residual[row, :length][kept[row, :length]]
                places[text] = np.flatnonzero(kept[row, :length].cpu().numpy())
                active = self._autoencoder.encode(x)
                read = sparse.csr_matrix((active * self._unit).cpu().numpy())
                found[text] = (read, x.float().cpu().numpy().copy(), self._signals(x, active))
            advance(len(which))
        matrices = [found[i][0] for i in range(len(texts))]
        starts = np.concatenate([[0], np.cumsum([m.shape[0] for m in matrices])]).astype(np.intp)
        return TextReadings(
            TokenReadings(sparse.vstack(matrices, format="csr"), starts),
            np.concatenate([found[i][1] for i in range(len(texts))]),
            {
                str(name): np.concatenate([found[i][2][name] for i in range(len(texts))])
                for name in self._asked
            },
            np.concatenate([places[i] for i in range(len(texts))]),
            np.asarray(
                [int((places[i] < one.begin + one.lead).sum()) for i, one in enumerate(placed)], np.intp
            ),
        )

    def judged(self, residual: Tensor, ids: Tensor, begins: Sequence[int]) -> Tensor:
        """`[texts, time]`: which tokens rules judge, of residuals `[texts, time, d_model]`, from `begins` on."""
        special = torch.tensor(sorted(self.pair.loaded.text.special_ids), dtype=ids.dtype)
        judged = ~torch.isin(ids, special) & (torch.arange(ids.shape[1]) >= torch.tensor(begins)[:, None])
        return ~self.pair.sinks(residual) & judged.to(residual.device)

    def _signals(self, x: Tensor, active: Tensor) -> dict[str, NDArray[np.float64]]:
        """By signal asked for, its value at every token `[tokens]`; definitions in `Signal`."""
        found = {}
        if Signal.RESIDUAL_NORM in self._asked:
            found[Signal.RESIDUAL_NORM] = x.double().norm(dim=-1) / x.shape[-1] ** 0.5
        if Signal.RECONSTRUCTION_ERROR in self._asked:
            nothing = self._autoencoder.decode(torch.zeros_like(active[:1]), x)
            missed = (x - nothing - self._spoken(x, active)).double().square().sum(-1)
            whole = (x - nothing).double().square().sum(-1).clamp_min(1e-30)
            found[Signal.RECONSTRUCTION_ERROR] = missed / whole
        return {str(name): value.cpu().numpy() for name, value in found.items()}

    def _spoken(self, x: Tensor, active: Tensor) -> Tensor:
        """What the active features add to the reconstruction, `[tokens, d_model]`; few are, so not a full product."""
        scale = self._autoencoder.normalise(x)[2]
        added = sparse.csr_matrix(active.cpu().numpy()) @ self._decoder
        found = torch.from_numpy(np.asarray(added, np.float32)).to(x.device)
        return found if scale is None else found * scale

    @cached_property
    def _decoder(self) -> NDArray[np.float32]:
        """Decoder rows `[features, d_model]`."""
        return np.asarray(self._autoencoder.decoder.float().cpu().numpy())

    def reach(self, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[features]`: what a reading of 1 of each feature adds to the product of the residual and `direction`."""
        return np.asarray((self._decoder @ direction) * self.maxima)

    def attribution(self, texts: Sequence[Document]) -> NDArray[np.float64]:
        """`[features]`: mean over texts and tokens of a_i · (∂ log p(text)/∂x · W_dec_i), nats per token.

        Of a conversation these are the tokens that are judged, and their log-probability.
        """
        total = torch.zeros(self._autoencoder.features, dtype=torch.float64, device=self.pair.loaded.device)
        placed = [self.placed(text) for text in texts]
        for which, ids, lengths in _batches([one.ids for one in placed]):
            begins = [placed[text].begin for text in which]
            residual, gradient = self._gradient(ids, lengths, begins)
            kept = self.judged(residual, ids, begins)
            for row, length in enumerate(lengths):
                mine = kept[row, :length]
                if bool(mine.any()):
                    total += self._effect(residual[row, :length][mine], gradient[row, :length][mine])
        return np.asarray((total / max(len(texts), 1)).cpu().numpy())

    def _effect(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Mean over the tokens of one text, `[features]`."""
        active = self._autoencoder.encode(x)
        scale = self._autoencoder.normalise(x)[2]
        reach = gradient @ self._autoencoder.decoder.T
        return (active * (reach if scale is None else reach * scale)).double().mean(0)

    def _gradient(self, ids: Tensor, lengths: Sequence[int], begins: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Residuals and ∂ log p(text)/∂x, both `[texts, time, d_model]`; `begins`: where each text begins."""
        kept: list[Tensor] = []

        def watch(x: Tensor) -> Tensor:
            kept.append(x.detach().requires_grad_(True))
            return kept[0]

        with torch.enable_grad():
            logits = self.pair.harvester.logits(ids, watch, lengths).float()
            target = ids.to(logits.device)[:, 1:]
            each = torch.log_softmax(logits[:, :-1], -1).gather(-1, target[..., None])[..., 0]
            ends = torch.tensor(list(lengths), device=logits.device)
            places = torch.arange(1, ids.shape[1], device=logits.device)[None, :]
            starts = torch.tensor(list(begins), device=logits.device)
            real = (places < ends[:, None]) & (places >= starts[:, None])
            (gradient,) = torch.autograd.grad((each * real).sum(), kept)
        return kept[0].detach().float(), gradient.float()

    def batches(self, texts: Sequence[Document]) -> Iterator[tuple[list[int], Tensor, list[int]]]:
        """Texts of like length together: their numbers, padded ids `[texts, time]`, and lengths."""
        return _batches([self.ids(text) for text in texts])


def _batches(ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor, list[int]]]:
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    while order:
        longest = max(len(ids[order[-1]]), 1)
        count = max(1, BATCH_TOKENS // longest)
        which, order = order[-count:], order[:-count]
        padded = torch.zeros(len(which), longest, dtype=torch.long)
        for row, i in enumerate(which):
            padded[row, : len(ids[i])] = torch.tensor(ids[i])
        yield which, padded, [len(ids[i]) for i in which]


class LaterResiduals:
    """Residuals of texts at a layer behind the dictionary's, from which the later probe of a policy learns."""

    def __init__(self, reader: PairReader, layer: int) -> None:
        self.layer = layer
        self._reader = reader
        self._kept: dict[PlacedText, NDArray[np.float32]] = {}
        self._bytes = 0

    def residuals(self, texts: Sequence[Document]) -> list[NDArray[np.float64]]:
        """Residuals `[tokens, d_model]` of what is judged of each text."""
        placed = [self._reader.placed(text) for text in texts]
        found = {one: self._kept[one] for one in placed if one in self._kept}
        missing = [one for one in dict.fromkeys(placed) if one not in found]
        for which, ids, lengths in _batches([one.ids for one in missing]):
            residual, kept = self._behind(ids, lengths, [missing[number].begin for number in which])
            for row, (number, length) in enumerate(zip(which, lengths, strict=True)):
                rows = residual[row, :length][kept[row, :length]]
                found[missing[number]] = self._keep(missing[number], rows.cpu().numpy())
        return [found[one].astype(np.float64) for one in placed]

    @torch.no_grad()
    def _behind(self, ids: Tensor, lengths: Sequence[int], begins: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Residuals `[texts, time, d_model]` at the later layer, and which tokens `[texts, time]` are judged."""
        pair = self._reader.pair
        tapped, later = pair.harvester.place, Place(self.layer)
        seen = one_pass(pair.loaded, [tapped, later], ids, lengths=lengths)
        kept = self._reader.judged(seen[tapped].to(pair.loaded.device), ids, begins)
        return seen[later].to(pair.loaded.device).float(), kept

    def _keep(self, text: PlacedText, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._bytes + rows.nbytes <= KEPT:
            self._kept[text] = rows
            self._bytes += rows.nbytes
        return rows


def later_residuals(reader: PairReader) -> LaterResiduals | None:
    """The residuals behind a pair's layer; None where the dictionary stands at the last layer."""
    tapped, last = reader.pair.harvester.layer, len(reader.pair.loaded.layers) - 1
    layer = later_layer(tapped, last)
    return None if layer is None else LaterResiduals(reader, layer)


def later_layer(tapped: int, last: int) -> int | None:
    """The layer half way from the tapped one to the last, rounded up; None where there is none."""
    return None if tapped >= last else tapped + (last - tapped + 1) // 2
