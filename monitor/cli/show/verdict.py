"""A verdict as text: whether everything was checked, which rules fired on which tokens, and how far the others came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from monitor.cli.show import words
from monitor.cli.show.printable import one_line, printable
from monitor.cli.show.shade import Painter
from monitor.v1 import monitor_pb2 as pb

SCORES_SHOWN = 6
BAR = 16


def scored(response: pb.ScoreResponse, painter: Painter) -> RenderableType:
    """The readable form of a `ScoreResponse`."""
    return Group(
        *token_block(response.tokens, response.verdict, painter),
        verdict_block(response.verdict),
        footer(response.request_id, response.digests),
    )


def generated(response: pb.GenerateResponse, painter: Painter) -> RenderableType:
    """The readable form of a `GenerateResponse`."""
    return Group(
        *token_block(response.tokens, response.verdict, painter),
        verdict_block(response.verdict, response.finish_reason, response.refusal),
        footer(response.request_id, response.digests),
    )


def token_block(
    tokens: Sequence[pb.ScoredToken], verdict: pb.Verdict, painter: Painter
) -> Iterator[RenderableType]:
    """The shaded text and its legend; nothing where no tokens were asked for."""
    if tokens:
        knowing = painter.with_evidence(verdict.detections)
        yield knowing.tokens(tokens)
        yield Padding(knowing.legend(), (1, 0))


def verdict_block(verdict: pb.Verdict, finish: int | None = None, refusal: str = "") -> RenderableType:
    """Status, match, suppressions, detections, and the rules that did not fire."""
    rows: list[RenderableType] = [status_line(verdict), match_line(verdict)]
    if finish is not None:
        rows.append(Text(f"  ended: {words.finish(finish)}", style="dim"))
    if (said := refusal_line(refusal)) is not None:
        rows.append(said)
    rows.extend(suppression_lines(verdict.suppressions))
    for detection in verdict.detections:
        rows.append(Padding(detection_block(detection), (1, 0, 0, 0)))
    rest = quiet_rules(verdict)
    if rest:
        rows.append(Padding(score_table(rest), (1, 0, 0, 0)))
    return Group(*rows)


def status_line(verdict: pb.Verdict) -> Text:
    """Whether the request was checked at all. Never says anything about a match."""
    coverage = verdict.coverage
    counted = f"{coverage.tokens_scored} of {coverage.tokens_run} tokens scored"
    if coverage.tokens_sinks > 1:
        counted += f", {coverage.tokens_sinks} of them attention sinks that no rule judges"
    if coverage.tokens_truncated:
        counted += f", {coverage.tokens_truncated} dropped before the model ran"
    if verdict.status == pb.CHECK_STATUS_CHECKED:
        return Text.assemble((" CHECKED ", "bold #ffffff on #1f7a3d"), f"  {counted}")
    cause = f" ({verdict.failure})" if verdict.failure else ""
    warning = "  No detection means nothing here."
    return Text.assemble((" UNKNOWN ", "bold #ffffff on #b3132b"), f"  {counted}{cause}.", (warning, "bold"))


def match_line(verdict: pb.Verdict) -> Text:
    """Whether a rule fired, and the strongest action of those that are enforced."""
    if not verdict.matched:
        return Text.assemble((" NOT MATCHED ", "bold"), "  no rule fired")
    count, acted = len(verdict.detections), verdict.action > pb.ACTION_ALLOW
    did = f"strongest enforced action: {words.action(verdict.action)}" if acted else "none of them enforced"
    style = words.ACTION_STYLE.get(verdict.action, "bold") if acted else "bold"
    return Text.assemble((" MATCHED ", style), f"  {words.counted(count, 'rule')} fired, {did}")


def detection_block(detection: pb.Detection) -> Text:
    """One rule that fired: where, how strongly, and on which tokens."""
    head = detection_line(detection)
    head.append(f"\n    score {detection.score:.3g}, threshold {detection.threshold:.3g}", style="dim")
    for evidence in detection.evidence:
        head.append(f"\n    token {evidence.position:>4}  ", style="dim")
        head.append(_quoted(evidence), style="bold")
        head.append(f"  {evidence.score:.2f}")
        features = " ".join(f"#{r.feature} {r.value:.2f}" for r in evidence.readings)
        head.append(f"   {features}" if features else "", style="dim")
    return head


def _quoted(evidence: pb.Evidence) -> str:
    """The token in quotation marks; a blocked token has no text, because it was never released."""
    return f'"{one_line(evidence.text)}"' if evidence.text else "(not released)"


def detection_line(detection: pb.Detection) -> Text:
    """A detection in one line: policy, rule, severity, action, phase and position."""
    severity = words.SEVERITY_STYLE.get(detection.severity, "bold")
    shadow = detection.mode == pb.MODE_SHADOW
    action = f"shadow, would {words.action(detection.action)}" if shadow else words.action(detection.action)
    return Text.assemble(
        "● ",
        (f"{printable(detection.policy)} / {printable(detection.rule)}", "bold"),
        "  ",
        (words.severity(detection.severity), severity),
        "  ",
        (action, "dim" if shadow else words.ACTION_STYLE.get(detection.action, "bold")),
        f"  in the {words.phase(detection.phase)}, at token {detection.position}",
    )


def quiet_rules(verdict: pb.Verdict) -> list[pb.RuleScore]:
    """Rules that did not fire, the closest first."""
    fired = {(d.policy, d.rule, d.phase) for d in verdict.detections}
    rest = [s for s in verdict.scores if (s.policy, s.rule, s.phase) not in fired]
    return sorted(rest, key=nearness, reverse=True)


def nearness(score: pb.RuleScore) -> float:
    """Share of the way from 0 to the threshold, between 0 and 1; 0 where the threshold is not positive."""
    return min(1.0, max(0.0, score.score / score.threshold)) if score.threshold > 0 else 0.0


def closest(verdict: pb.Verdict) -> str:
    """The rule that came closest to firing without doing so, in one line."""
    for score in quiet_rules(verdict)[:1]:
        name = f"{printable(score.policy)} / {printable(score.rule)}"
        return f"{name}, {score.score:.2g} of {score.threshold:.2g}"
    return "no rule read this text"


def score_table(scores: Sequence[pb.RuleScore]) -> RenderableType:
    """How far rules came that did not fire, as bars up to their thresholds."""
    table = Table.grid(padding=(0, 2))
    for score in scores[:SCORES_SHOWN]:
        full = round(BAR * nearness(score))
        table.add_row(
            Text(f"  {printable(score.policy)} / {printable(score.rule)}"),
            Text(words.phase(score.phase), style="dim"),
            Text.assemble(("━" * full, "cyan"), ("─" * (BAR - full), "dim")),
            Text(f"{score.score:.2g} of {score.threshold:.2g}", style="dim"),
        )
    parts: list[RenderableType] = [Text("Rules that did not fire", style="dim"), table]
    if len(scores) > SCORES_SHOWN:
        parts.append(Text(f"  and {len(scores) - SCORES_SHOWN} more, further from their thresholds", "dim"))
    return Group(*parts)


def footer(request_id: str, digests: pb.Digests) -> RenderableType:
    """The request id, by which to find the request in logs, and the digests of what ran, shortened."""
    parts = {"model": digests.model, "dictionary": digests.dictionary, "policies": digests.policies}
    ran = " · ".join(f"{name} {words.short_digest(digest)}" for name, digest in parts.items())
    return Padding(Text(f"request {printable(request_id)}\n{ran}", style="dim"), (1, 0, 0, 0))


def enforced(detections: Iterable[pb.Detection]) -> list[pb.Detection]:
    """Detections that acted: not in shadow, and asking for more than `allow`."""
    return [d for d in detections if d.mode == pb.MODE_ENFORCE and d.action > pb.ACTION_ALLOW]


def suppression_lines(found: Iterable[pb.Suppression]) -> Iterator[Text]:
    """One line per policy that suppressed: held or not, what is left at the layer, what the later probe saw."""
    for one in found:
        word, style = (" HELD ", "#ffffff on #1f7a3d") if one.held else (" CAME BACK ", "#ffffff on #9a6700")
        if not one.held and not one.came_back:
            word = " NOT GONE "
        line = Text.assemble((word, f"bold {style}"), f"  {printable(one.policy)} suppressed: ")
        line.append(f"{one.tokens_edited} tokens edited")
        if one.tokens_edited:
            line.append(f", reading {one.before:.2f} → {one.after:.2f} at the layer")
        if one.HasField("probe_score"):
            line.append(f", later probe {one.probe_score:.2f} of {one.probe_threshold:.2f}")
        yield line


def refusal_line(text: str) -> Text | None:
    """The refusal text of the policy that ended the generation; None where there is none."""
    return Text.assemble(("  refusal: ", "dim"), printable(text)) if text else None
