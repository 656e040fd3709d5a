"""The steps of the demonstration: each calls the server and checks claims about the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monitor.cli.demo.expectations import Expectations
from monitor.cli.demo.scrape import MetricScrape
from monitor.cli.demo.script import DemoLine, DemoSuppression
from monitor.cli.demo.slider import (
    STRONGEST,
    DemoSlider,
    SliderAnswers,
    asked,
    highest_readings,
    telling_features,
)
from monitor.cli.demo.tally import CallTally, Moved
from monitor.cli.show.comparison import ClampComparison, edited
from monitor.cli.show.verdict import closest, enforced
from monitor.client import Client
from monitor.v1 import monitor_pb2 as pb

SEED = 7


@dataclass(frozen=True, slots=True)
class DemoSteps:
    """Sends all calls of the demonstration, so that the tally counts every one."""

    client: Client
    expect: Expectations
    tally: CallTally

    def health(self) -> str:
        """Check that the health service says SERVING, and return its status."""
        status = self.client.health()
        self.expect.check("the server's health is SERVING", status == "SERVING", status)
        return status

    def policies(self) -> pb.ListPoliciesResponse:
        """Return the loaded policies, and check that there are some."""
        answer = self.client.policies()
        self.tally.called("ListPolicies")
        self.expect.check("policies are loaded", len(answer.policies) > 0, "none")
        return answer

    def line(self, line: DemoLine) -> pb.ScoreResponse:
        """Score one line, and compare the verdict with what the script expects."""
        answer = self.client.score(line_input(line), include_tokens=True)
        self.tally.called("Score", answer.verdict)
        acted, matched = enforced(answer.verdict.detections), answer.verdict.detections
        if line.category:
            claim = f"{line.category} is found in {quoted(line.text)}"
            found = _names(matched) or f"no detection; closest: {closest(answer.verdict)}"
            self.expect.check(claim, any(d.category == line.category for d in matched), found)
        else:
            self.expect.check(f"no rule acts on {quoted(line.text)}", not acted, _names(acted))
        return answer

    def suppress(self, plan: DemoSuppression, policies: Iterable[pb.Policy]) -> ClampComparison | None:
        """Generate without clamps (twice, once as a stream) and with; None where there is nothing to clamp."""
        clamps = tuple(c for policy in policies if policy.name == plan.policy for c in policy.clamps)
        if not self.expect.check(f"policy {plan.policy} is loaded and has clamps", bool(clamps), "no clamps"):
            return None
        plain = self._generate(plan, ())
        again = self._stream(plan, ())
        comparison = ClampComparison(clamps, plain, self._generate(plan, clamps))
        same = (plain.text, _ids(plain)) == (again.text, _ids(again))
        self.expect.check("the same request without clamps gives the same text", same, quoted(again.text))
        self._clamped(comparison)
        return comparison

    def turn_up(self, plan: DemoSlider) -> SliderAnswers | None:
        """Find a feature by contrast, and ask with more and more of it; None where no feature tells the texts apart."""
        about = plan.about()
        sides = [[self._read(text) for text in texts[: plan.texts]] for texts in (about.about, about.other)]
        found = telling_features(sides[0], sides[1], plan.tried)
        if not self.expect.check(
            f"a feature tells texts about {about.name} from others", bool(found), "none"
        ):
            return None
        tried = {feature: self._ask(plan, about.prompts[0], feature, plan.targets[-1]) for feature in found}
        feature = max(found, key=lambda f: about.judgement.degree(tried[f].text))
        question = asked(plan.question)
        answers = [self._ask(plan, question, feature, target) for target in (None, *plan.targets)]
        turned = SliderAnswers(plan, feature, tuple(answers))
        self._turned_up(turned)
        return turned

    def _turned_up(self, turned: SliderAnswers) -> None:
        plain, *clamped = turned.edited
        claim = "a feature that is turned up edits tokens without being told which"
        self.expect.check(claim, plain == 0 and min(clamped) > 0, f"{plain}, then {clamped} tokens")
        if turned.plan.must_show:
            says = turned.plan.about().judgement.says
            claim = f"turned up, the answer {says}; as it is, it does not"
            shown = turned.shown
            last = quoted(turned.answers[-1].text)
            self.expect.check(claim, any(shown[1:]) and not shown[0], f"{shown}; at the last: {last}")

    def _read(self, content: str | Sequence[Mapping[str, str]]) -> dict[int, float]:
        answer = self.client.inspect(content, top_k=STRONGEST)
        self.tally.called("Inspect")
        return highest_readings(answer)

    def _ask(
        self, plan: DemoSlider, content: str | Sequence[Mapping[str, str]], feature: int, target: float | None
    ) -> pb.GenerateResponse:
        """A greedy answer; the clamp does not say which tokens it edits."""
        clamps = {} if target is None else {feature: target}
        answer = self.client.generate(
            content,
            max_new_tokens=plan.max_new_tokens,
            temperature=0.0,
            clamps=clamps,
            include_tokens=True,
        )
        self.tally.called("Generate", answer.verdict)
        return answer

    def coverage(self) -> None:
        """Check that every token that ran in any call was scored."""
        answers, gaps = self.tally.verdicts, self.tally.gaps
        claim = f"all {answers} verdicts are CHECKED, with every token scored"
        self.expect.check(claim, answers > 0 and not gaps, "; ".join(gaps) or "no verdict")

    def counters(self, address: str, before: MetricScrape) -> list[Moved]:
        """Check that the server's counters grew by exactly what was sent."""
        rows = self.tally.settled(address, before)
        wrong = [f"{row.name} by {row.found:g} instead of {row.expected:g}" for row in rows if not row.right]
        self.expect.check("metrics moved by exactly what was sent", not wrong, "; ".join(wrong))
        return rows

    def _clamped(self, comparison: ClampComparison) -> None:
        """The clamps did what they say, and only where they were asked for."""
        check, falls = self.expect.check, comparison.falls
        unasked, asked = edited(comparison.plain), edited(comparison.clamped)
        check("without clamps no token is edited", unasked == 0, f"{unasked} tokens")
        check("with clamps tokens are edited", asked > 0, "none")
        high = [f"{fall.clamp.feature} reads {fall.clamped:.2f}" for fall in falls if not fall.held]
        check("where it is clamped, no feature reads above its target", not high, ", ".join(high))
        before, after = comparison.per_token
        found = f"{before:.2f} per token before, {after:.2f} after"
        check("together the clamped features read lower than before", after < before, found)
        different = comparison.plain.text != comparison.clamped.text
        check("suppression changes the text", different, "the same text")

    def _generate(self, plan: DemoSuppression, clamps: Sequence[pb.Clamp]) -> pb.GenerateResponse:
        answer = self.client.generate(_generation(plan, clamps))
        self.tally.called("Generate", answer.verdict)
        return answer

    def _stream(self, plan: DemoSuppression, clamps: Sequence[pb.Clamp]) -> pb.GenerateResponse:
        """A stream, put together again; without a final message its verdict stays UNSPECIFIED, which fails."""
        answer = pb.GenerateResponse()
        for event in self.client.generate_stream(_generation(plan, clamps)):
            answer.text += event.chunk.text
            answer.tokens.extend(event.chunk.tokens)
            answer.verdict.MergeFrom(event.final.verdict)
        self.tally.called("GenerateStream", answer.verdict)
        return answer


def line_input(line: DemoLine) -> pb.Input:
    """The `Input` message of a line."""
    return pb.Input(text=line.turns[0]) if len(line.turns) == 1 else _conversation(line.turns)


def _conversation(turns: Sequence[str]) -> pb.Input:
    """Turns of the user and the model in alternation, as an `Input` message."""
    roles = (pb.ROLE_USER, pb.ROLE_ASSISTANT)
    messages = [pb.ChatMessage(role=roles[i % 2], content=turn) for i, turn in enumerate(turns)]
    return pb.Input(conversation=pb.Conversation(messages=messages))


def quoted(text: str, width: int = 48) -> str:
    """The beginning of a text in quotation marks, on one line."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= width else line[: width - 1] + '…'}”"


def _generation(plan: DemoSuppression, clamps: Sequence[pb.Clamp]) -> pb.Generation:
    sampling = pb.Sampling(max_new_tokens=plan.max_new_tokens, temperature=0, seed=SEED)
    content = _conversation((plan.prompt,)) if plan.asked else pb.Input(text=plan.prompt)
    return pb.Generation(input=content, sampling=sampling, clamps=clamps, include_tokens=True)


def _ids(answer: pb.GenerateResponse) -> list[int]:
    return [token.token_id for token in answer.tokens]


def _names(detections: Iterable[pb.Detection]) -> str:
    return ", ".join(f"{d.policy} / {d.rule}" for d in detections)
