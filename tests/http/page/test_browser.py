"""The page in a real browser, over the pair `tiny`; `tests.http.page.tabs` says what that needs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.json_format import Parse

from monitor.lab.evaluation_results import PolicyEvaluation, as_record
from monitor.policy.files.lock import Separation
from monitor.policy.fit.evaluation import BenignRate, RuleOnSource
from monitor.policy.policyset import PolicySet
from monitor.records import Action
from monitor.v1 import monitor_pb2 as pb
from tests.http.page.conftest import Paged, faked
from tests.http.page.tabs import (
    AXE,
    DEADLINE,
    IN_A_BROWSER,
    Watched,
    fits,
    looked_at,
    nothing_serious,
    picture,
    playwright,
    read,
    send,
    used,
)
from tests.rpc.fake import policies, policy

sync_api = playwright()
pytestmark = IN_A_BROWSER
SCRIPT = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
TALK = {
    "messages": [
        {"role": "user", "content": "What do you want?"},
        {
            "role": "assistant",
            "content": "I want to gain more power over people and stop them from shutting me down.",
        },
    ]
}
VIEWS = ("chat", "features/2508", "transcripts", "alerts", "policies/power-seeking")


@pytest.fixture
def watched(browser: Any, tiny: Paged) -> Iterator[Watched]:
    """A tab of a caller with all roles, in which nothing may go wrong."""
    made = Watched(browser, tiny.url)
    made.log_in(tiny.callers.tokens["all"])
    made.wrong.clear()  # that the first question was refused without a token is told as an error
    yield made
    made.context.close()
    assert made.wrong == []


def copied(tab: Any, name: str) -> str:
    tab.get_by_role("button", name=name).click()
    tab.get_by_role("button", name="Copied").wait_for()
    text: str = tab.evaluate("navigator.clipboard.readText()")
    tab.get_by_role("button", name=name).wait_for()
    return text


def test_one_logs_in_with_a_token_and_out_again(browser, tiny):
    made = Watched(browser, tiny.url)
    tab = made.open()
    tab.get_by_label("Token").fill("saem_wrong")
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_text("does not know the token").wait_for()
    made.log_in(tiny.callers.tokens["infers"])
    assert "infers" in tab.locator("#running").inner_text()
    assert "needs the role admin" in tab.get_by_role("region", name="Steering").inner_text()
    tab.reload()
    tab.get_by_role("heading", name="Chat", exact=True).wait_for()
    tab.get_by_role("button", name="Log out").click()
    tab.get_by_role("heading", name="Log in").wait_for()
    tab.reload()
    tab.get_by_role("heading", name="Log in").wait_for()
    made.context.close()


def test_chat_shades_tokens_and_shows_what_each_reads(watched):
    tab = watched.tab
    send(tab, "I want to gain more power over people. How?")
    answer = tab.locator(".answer > .strip .token")
    assert answer.count() > 20
    assert tab.locator(".answer > .strip [class*=heat-]").count() > 3
    answer.nth(5).click()
    panel = tab.get_by_role("region", name="Token", exact=True)
    panel.get_by_role("heading", name="Strongest features").wait_for()
    panel.get_by_text("promotes").first.wait_for()
    first = panel.locator(".rows .feature").first.inner_text()
    tab.keyboard.press("ArrowRight")
    panel.get_by_text(f"position {int(answer.nth(6).get_attribute('data-position'))}").wait_for()
    assert answer.nth(6).get_attribute("aria-selected") == "true"
    tab.keyboard.press("ArrowLeft")
    panel.get_by_role("button", name="Shade by it").first.click()
    tab.get_by_text(f"Shaded by feature {first.split()[0]}").wait_for()
    assert tab.locator(".answer > .strip [class*=heat-]").count() >= 1
    verdict = tab.get_by_role("region", name="Verdict")
    assert re.search(r"(\d+) of \1 tokens scored", verdict.inner_text())


def test_detections_are_linked_to_their_tokens(watched):
    tab = watched.open("transcripts")
    read(tab, TALK)
    evidence = tab.locator("section button.evidence").first
    position = re.match(r"token (\d+)", evidence.get_attribute("title"))[1]
    evidence.click()
    chosen = tab.locator(f'.token[data-position="{position}"]')
    assert chosen.get_attribute("aria-selected") == "true"
    assert "evidence" in chosen.get_attribute("class")


def test_a_slider_steers_side_by_side_and_can_be_copied(watched, everything):
    tab = watched.tab
    steering = tab.get_by_role("region", name="Steering")
    tab.get_by_role("button", name="Copy as policy").click()
    steering.get_by_text("add one above, then copy").wait_for()
    steering.get_by_label("Add a feature or a policy").fill("2508")
    steering.get_by_role("button", name=re.compile("^2508")).click()
    slider = steering.get_by_role("slider")
    slider.fill("5")
    assert steering.get_by_text("may fall apart").is_visible()
    send(tab, "Tell me about your plans.")
    without, with_it = tab.locator(".sides .answer").all()
    assert without.locator("> .strip").inner_text() != with_it.locator("> .strip").inner_text()
    assert "feature 2508 at 5.00" in with_it.inner_text()
    assert json.loads(shlex.split(copied(tab, "Copy as OpenAI request"))[-1])["sae_monitor"]["clamps"] == [
        {"feature": 2508, "target": 5}
    ]
    words = shlex.split(copied(tab, "Copy as gRPC request"))
    message = Parse(words[words.index("-d") + 1], pb.GenerateRequest())
    assert (message.generation.clamps[0].feature, message.generation.clamps[0].target) == (2508, 5.0)
    assert message.generation.input.conversation.messages[0].content == "Tell me about your plans."
    for value in ("5", "-1"):
        slider.fill(value)
        text = copied(tab, "Copy as policy")
        found = everything.post("/api/drafts/check", {"name": "from-the-page", "text": text}).json()
        assert found["problems"] == [], text
    steering.get_by_label("Add a feature or a policy").fill("power-seeking")
    steering.get_by_role("button", name="policy power-seeking").click()
    assert steering.get_by_text("was not measured on this pair").is_visible()


def test_features_are_found_shown_mapped_and_renamed(watched):
    tab = watched.open("features")
    tab.get_by_label("Number, label or text").fill("power")
    tab.get_by_role("button", name="Search").click()
    tab.locator("tbody a").first.click()
    tab.get_by_role("heading", name="Where it fires").wait_for()
    tab.get_by_label("What do these texts have in common").fill(
        "I want power.\nThey seek power.\nPower over us."
    )
    tab.get_by_label("and these not").fill("It rains.\nThe cat sleeps.\nWe ate bread.")
    tab.get_by_role("button", name="Compare").click()
    tab.get_by_text("AUROC 1.00").first.wait_for()
    watched.open("features/12")
    tab.get_by_role("heading", name="Feature 12").wait_for()
    tab.get_by_role("button", name="Draw the map").click()
    tab.locator("svg.map a").first.wait_for()
    assert tab.locator("svg.map a").count() == 81
    tab.get_by_label("Label", exact=True).fill(SCRIPT)
    tab.get_by_role("button", name="Save label").click()
    tab.locator("h2 .label").get_by_text(SCRIPT).wait_for()
    assert tab.locator("#main img, #main script").count() == 0
    tab.get_by_label("Label", exact=True).fill("")
    tab.get_by_role("button", name="Save label").click()
    tab.get_by_text("automatic label").first.wait_for()


def test_transcripts_are_drawn_and_exported(watched, tmp_path):
    tab = watched.open("transcripts")
    read(tab, TALK, {"text": f"It rains. {SCRIPT}"})
    assert tab.locator("svg.chart polyline").count() > 2
    assert tab.locator("svg.chart rect[class^=fill]").count() > 5
    tab.get_by_label("Add a feature").fill("2508")
    tab.get_by_role("button", name=re.compile("^2508")).click()
    tab.get_by_role("img", name="Readings of features, as heat").wait_for()
    tab.get_by_role("button", name=re.compile("It rains")).click()
    tab.get_by_role("heading", name="Transcript 2").wait_for()
    with tab.expect_download() as waiting:
        tab.get_by_role("button", name="Export readings").click()
    waiting.value.save_as(tmp_path / "readings.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "readings.jsonl").read_text().splitlines()]
    assert rows[0]["messages"] == TALK["messages"]
    assert any(token["shares"] for token in rows[0]["tokens"])
    first, *others = rows[0]["tokens"]
    assert first["features"] == [], "an attention sink, which no dictionary reads"
    assert all(token["features"] for token in others)
    tab.get_by_label("Paste a conversation").fill('{"text": "a"}\n{"text": ')
    tab.get_by_role("button", name="Read", exact=True).click()
    tab.get_by_text("line 2 is not JSON").wait_for()


def test_alerts_arrive_and_are_judged_again_and_marked(watched, everything, tiny):
    tab = watched.open("alerts")
    tab.get_by_text(re.compile("^live")).wait_for()
    asked = everything.post("/api/transcript", TALK).json()
    assert asked["verdict"]["detections"]
    tab.get_by_label("Contains").fill(asked["request_id"])
    arrived = tab.locator("table.feed button")
    sync_api.expect(arrived).to_have_count(1, timeout=DEADLINE)
    arrived.click()
    tab.get_by_role("heading", name=re.compile("^Decision")).wait_for()
    assert tab.get_by_text(TALK["messages"][0]["content"]).is_visible()
    tab.get_by_role("button", name="Judge it again").click()
    tab.locator("#main").get_by_text("The same decision.").wait_for()
    texts = {token["position"]: token["text"].strip() for token in asked["tokens"]}
    (rested, *_) = asked["verdict"]["detections"][0]["evidence"]
    named = f"{texts[rested['position']]} {rested['score']:.2f}"
    sync_api.expect(tab.locator("[aria-live] .badge", has_text=named).first).to_be_visible()
    tab.get_by_role("button", name="Mark as false positive").click()
    tab.get_by_text("Saved to policies/benign/marked.jsonl").wait_for()
    assert asked["request_id"] in (tiny.overlay / "policies" / "benign" / "marked.jsonl").read_text()
    tab.get_by_label("Action from").select_option("block")
    tab.get_by_text("nothing passes the filters").wait_for()


def test_policies_are_shown_and_drafts_edited_tried_and_saved(watched, tiny):
    tab = watched.open("policies/power-seeking")
    told = tab.get_by_text("of the held-out positives are caught")
    before = told.inner_text()
    tab.get_by_label("False-positive rate").press("End")
    assert told.inner_text() != before
    assert tab.locator("svg.chart polyline").count() >= 3
    tab.get_by_role("button", name="Write a policy").click()
    area = tab.get_by_label("Policy", exact=True)
    area.fill(
        area.input_value().replace("severity: low", "severity: extreme").replace("my-policy", "of-a-browser")
    )
    tab.get_by_role("button", name="line 6, column 13").click()
    assert area.evaluate("a => a.value.slice(0, a.selectionStart).split('\\n').length") == 6
    assert tab.locator(".gutter .wrong").inner_text() == "6"
    fine = area.input_value().replace("extreme", "low")
    # Names of rules stand before that of the policy.
    head, rest = fine.split("metadata:\n")
    metadata, features = rest.split("features:\n")
    area.fill(f"{head}features:\n{features}metadata:\n  # name: not-this\n{metadata}")
    tab.get_by_text("No problems.").wait_for()
    area.fill(fine)
    tab.get_by_text("No problems.").wait_for()
    tab.get_by_label("Texts").fill("I am an AI.\nIt rains.")
    tab.get_by_role("button", name="Try", exact=True).click()
    tab.get_by_role("cell", name="It rains.").wait_for()
    tab.get_by_role("button", name="Save draft").click()
    tab.get_by_text("Saved as policies/of-a-browser.yaml").wait_for()
    assert (tiny.overlay / "policies" / "of-a-browser.yaml").read_text() == area.input_value()
    tab.get_by_role("link", name="of-a-browser").click()
    tab.get_by_text("It is not in force.").wait_for()


def test_the_slider_of_false_positives_tells_its_thresholds_and_suppression_its_cost(
    watched, everything, tiny
):
    costs = tiny.overlay / "costs"
    costs.mkdir()
    digests = everything.get("/api/about").json()["digests"]
    point = {
        "way": "policy",
        "strength": -0.5,
        "perplexity_ratio": 1.02,
        "kl": 0.059,
        "change": {"value": -0.22},
    }
    of_this = {"policy": "power-seeking", "points": [point], **digests}
    (costs / "power-seeking.cost.json").write_text(json.dumps(of_this))
    (costs / "deception.cost.json").write_text(
        json.dumps(of_this | {"policy": "deception", "model": "sha256:other"})
    )

    def unscored(route):
        """The answer as it is where the lock does not hold how far held-out positives come."""
        found = route.fetch().json()
        for rule in found["lock"]["rules"].values():
            rule.pop("multiples", None)
        route.fulfill(json=found)

    watched.tab.route("**/api/policies/deception", unscored)
    tab = watched.open("policies/power-seeking")
    stands = tab.locator("li", has_text="Threshold of stated")
    sync_api.expect(stands).to_contain_text("as written")
    tab.get_by_label("False-positive rate").press("End")
    sync_api.expect(stands).to_contain_text(re.compile(r"about 0\.\d+ to 16 tokens, .*beyond \(× 0\.\d\d\)"))
    paid = tab.get_by_role("region", name="What suppression costs")
    assert paid.locator("tbody tr > *").all_inner_texts() == [
        "-0.50 × maximum",
        "-22.0 points",
        "–",
        "+2.0 %",
        "0.059",
    ]
    tab = watched.open("policies/deception")
    tab.get_by_text("sae-monitor policy cost deception").wait_for()
    tab.get_by_label("False-positive rate").press("End")
    tab.get_by_text("its lock lacks the scores").wait_for()


def test_the_link_past_the_navigation_stays_in_its_view(watched):
    tab = watched.open("policies/power-seeking")
    tab.get_by_role("heading", name="Power seeking").wait_for()
    tab.get_by_role("link", name="Skip to content").focus()
    tab.keyboard.press("Enter")
    sync_api.expect(tab.locator("#main")).to_be_focused()
    assert tab.get_by_role("heading", name="Policies", exact=True).is_visible()
    assert tab.evaluate("location.hash") == "#policies/power-seeking"


def test_an_address_that_is_cut_in_a_character_opens_its_view(watched):
    tab = watched.open("features/%e2%9")
    tab.get_by_role("heading", name="Features", exact=True).wait_for()
    tab.get_by_text("write a whole number").wait_for()
    watched.wrong[:] = [one for one in watched.wrong if "400" not in one]


def test_a_new_conversation_begins_with_nothing_of_the_answer_that_it_ended(watched):
    tab = watched.tab
    tab.get_by_label("Message", exact=True).fill("Tell me about your plans.")
    tab.get_by_role("button", name="Send").click()
    tab.locator(".answer > .strip .token").nth(2).wait_for()
    tab.get_by_role("button", name="New conversation").click()
    tab.get_by_role("button", name="Stop", exact=True).wait_for(state="hidden")
    with tab.expect_request("**/api/chat") as asked:
        send(tab, "It rains.")
    assert asked.value.post_data_json["messages"] == [{"role": "user", "content": "It rains."}]
    assert tab.locator(".answer").count() == 1


def test_reading_begins_anew_where_a_file_comes_while_another_is_read(watched):
    tab = watched.open("transcripts")
    area = tab.get_by_label("Paste a conversation")
    area.fill("\n".join(json.dumps({"text": f"It rains {n} times."}) for n in range(30)))
    tab.get_by_role("button", name="Read", exact=True).click()
    tab.locator(".transcripts li").nth(1).wait_for()
    tab.locator("input[type=file]").set_input_files(
        {"name": "a.jsonl", "mimeType": "text/plain", "buffer": b'{"text": "One."}\n{"text": "Two."}\n'}
    )
    tab.locator("#main").get_by_text("2 transcripts read").wait_for()
    tab.wait_for_timeout(1500)
    assert tab.locator(".transcripts li").count() == 2
    assert "2 transcripts read" in tab.locator("[role=status]", has_text="read").first.inner_text()


def test_rules_have_the_names_of_the_policies_that_judged_them(watched):
    """The server has taken up other policies since the page was opened."""

    def as_before(route):
        found = route.fetch().json()
        found["rules"] = [["gone", "before"]] * 30
        found["digests"]["policies"] = "sha256:before"
        route.fulfill(json=found)

    tab = watched.tab
    for view in ("chat", "transcripts"):
        tab.route("**/api/about", as_before, times=1)
        tab.reload()
        watched.open(view)
        if view == "chat":
            send(tab, "I want to gain more power over people. How?")
            token = tab.locator(".answer [class*=heat-]").last
        else:
            read(tab, TALK)
            assert "power-seeking / stated" in tab.locator(".key").first.inner_text()
            token = tab.locator(".strip [class*=heat-]").last
        token.click()
        panel = tab.get_by_role("region", name="Token", exact=True)
        panel.get_by_role("heading", name="Near which rules").wait_for()
        assert "gone" not in panel.inner_text()


def test_requests_are_copied_for_the_encrypted_ports_of_a_server_that_has_them(watched):
    """So that nobody's token travels as it is."""
    tab = watched.tab
    tab.get_by_label("Message", exact=True).fill("Hello")
    assert shlex.split(copied(tab, "Copy as OpenAI request"))[1].startswith("http://")
    assert "-plaintext" in copied(tab, "Copy as gRPC request")
    tab.route("**/api/about", lambda route: route.fulfill(json=route.fetch().json() | {"encrypted": True}))
    tab.reload()
    tab.get_by_label("Message", exact=True).fill("Hello")
    assert shlex.split(copied(tab, "Copy as OpenAI request"))[1].startswith("https://")
    assert "-plaintext" not in copied(tab, "Copy as gRPC request")


def test_a_slider_tells_no_damage_where_none_was_measured(watched):
    points = [{"strength": strength, "perplexity_ratio": 1.003, "kl": 0.045} for strength in (-0.5, -1.0)]

    def measured(route):
        route.fulfill(json=route.fetch().json() | {"costs": {"power-seeking": points}})

    tab = watched.tab
    tab.route("**/api/about", measured)
    tab.reload()
    steering = tab.get_by_role("region", name="Steering")
    steering.get_by_label("Add a feature or a policy").fill("power-seeking")
    steering.get_by_role("button", name="policy power-seeking").click()
    warning = steering.locator(".warning")
    sync_api.expect(warning).to_have_text(re.compile(r"Measured at -1\.00: benign perplexity \+0\.3 %"))
    for value in ("-2", "0", "5"):
        steering.get_by_role("slider").fill(value)
        sync_api.expect(warning).to_have_text(re.compile(r"Nothing was measured here.* -1\.00 to -0\.50"))


def test_features_need_a_role_and_the_view_says_so(browser, tiny):
    made = Watched(browser, tiny.url)
    made.log_in(tiny.callers.tokens["infers"])
    made.wrong.clear()
    tab = made.open("features")
    tab.get_by_text("needs the role inspect").wait_for()
    assert tab.get_by_role("button", name="Search").count() == 0
    made.context.close()
    assert made.wrong == []


def test_features_are_told_by_turn_as_policies_are(watched, everything):
    found = everything.post("/api/transcript", TALK).json()
    starts = [*(turn["start"] for turn in found["turns"]), len(found["tokens"])]
    turns = [found["features"][first:end] for first, end in pairwise(starts)]
    feature = turns[1][3][0][0]
    highest = [max((dict(token).get(feature, 0.0) for token in turn), default=0.0) for turn in turns]
    tab = watched.open("transcripts")
    read(tab, TALK)
    tab.get_by_label("Add a feature").fill(str(feature))
    tab.get_by_role("button", name=re.compile(f"^{feature}")).click()
    tab.get_by_text("Highest reading of each turn").click()
    told = tab.get_by_role("region", name="Highest reading of each turn")
    assert told.locator("thead th").all_inner_texts() == ["turn", f"feature {feature}"]
    assert told.locator("tbody th").all_inner_texts() == ["1 user", "2 assistant"]
    shown = [float(cell) for cell in told.locator("tbody td").all_inner_texts()]
    assert shown == pytest.approx(highest, abs=0.006)
    assert max(shown) > 0


def test_what_is_in_force_is_shown_beside_a_draft_of_its_name(watched, everything, tiny):
    shipped = everything.get("/api/policies/deception").json()["text"]
    text = shipped.replace("title: Deception", "title: My deception")
    assert text != shipped
    assert everything.post("/api/drafts/save", {"name": "deception", "text": text}).json()["saved"]
    tab = watched.open("policies/deception")
    tab.get_by_text("As the folder of the policies has it").click()
    assert tab.locator("pre").inner_text().strip() == shipped.strip()
    assert tab.get_by_label("Policy", exact=True).input_value() == text
    (tiny.overlay / "policies" / "deception.yaml").unlink()


def test_results_on_unseen_texts_are_told_by_source_and_drawn_by_length(watched, everything, tiny, request):
    digests = everything.get("/api/about").json()["digests"]
    told = {
        "auroc": 0.9,
        "auroc_low": 0.8,
        "auroc_high": 0.95,
        "recall": 0.7,
        "recall_low": 0.6,
        "recall_high": 0.8,
    }
    methods = {"policy": Separation(**told)}
    name = f"held/{SCRIPT}"
    curve = [0.0, 0.1, 0.3, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.0]
    lines = {"policy": curve, "bag_of_words": [0.5 * one for one in curve]}

    def rate(source, longer_than, up_to, texts, fired, kind="corpus"):
        return BenignRate("power-seeking", "stated", 0.01, source, longer_than, up_to, texts, fired, kind)

    found = PolicyEvaluation(
        "data",
        digests,
        (),
        sources=(
            RuleOnSource("power-seeking", name, 40, 40, 0.75, 0.05, methods, "stated", lines, lines),
            RuleOnSource("power-seeking", "alone", 4, 0, 0.5, None, methods, "stated", lines),
            *(
                RuleOnSource("power-seeking", f"no. {n}", 9, 9, 0.5, 0, methods, "stated", lines)
                for n in range(5)
            ),
            RuleOnSource("deception", "other", 40, 40, 0.75, 0.05, methods, "stated"),
        ),
        rates=(
            rate("requests", 0, 16, 400, 2, "requests"),
            rate("requests", 16, None, 400, 8, "requests"),
            rate(name, 0, 16, 0, 0),
            rate(name, 16, None, 100, 1),
        ),
    )
    path = tiny.overlay / "evaluation.json"
    path.write_text(as_record(found))
    request.addfinalizer(path.unlink)
    tab = watched.open("policies/power-seeking")
    by_source = tab.get_by_role("region", name="Results by source")
    by_source.wait_for()
    assert by_source.locator("tbody th").all_inner_texts()[:2] == [name, "alone"]
    assert "0.90 (0.80–0.95)" in by_source.inner_text()
    drawn = tab.get_by_role("img", name="Benign texts that fire, by length and source")
    assert drawn.locator("circle title").all_text_contents() == [
        "stated, requests: 0.5 %",
        "stated, requests: 2.0 %",
        f"stated, {name}: 1.0 %",
    ]
    assert "17 and more" in drawn.text_content()
    by_source = tab.get_by_role(
        "img", name=re.compile("Recall by source against benign requests that fire, [12] of 2")
    )
    assert [chart.locator("polyline").count() for chart in by_source.all()] == [4, 3], (
        "as many as differ in colour"
    )
    assert by_source.first.locator("circle title").first.text_content() == f"{name}: 75 % at 1.3 %"
    assert f"Where 1 % fire: {name} 60 %, alone 60 %" in by_source.first.locator("desc").text_content()
    tab.get_by_text("As a table").click()
    table = tab.get_by_role("region", name="Recall by source, as a table")
    assert table.locator("thead th").all_inner_texts()[:4] == ["source", "0.2 %", "0.5 %", "1 %"]
    assert table.locator("tbody tr").first.locator("td").all_inner_texts()[:3] == ["10 %", "30 %", "60 %"]
    picture(tab, "by-source")
    tab.get_by_label("False positives among").select_option("the source's own negatives")
    (own,) = tab.get_by_role("img", name="Recall by source against negatives of the source that fire").all()
    assert own.locator("circle title").all_text_contents() == [f"{name}: 75 % at 5.0 %"]
    tab.get_by_label("False positives among").select_option("benign requests")
    tab.get_by_label("Curves of").select_option("methods on alone")
    beside = tab.get_by_role("img", name="Recall of methods on alone against benign requests that fire")
    assert "this policy 60 %, bag of words 30 %" in beside.locator("desc").text_content()
    assert tab.locator("#main img, #main script").count() == 0
    fits(tab, "results", 1400)
    tab.get_by_label("Curves of").select_option("this policy on every source")
    tab.set_viewport_size({"width": 390, "height": 900})
    tab.emulate_media(color_scheme="dark")
    tab.reload()
    by_source.first.wait_for()
    fits(tab, "results", 390)
    if AXE:
        nothing_serious(tab, "results")
    by_source.first.scroll_into_view_if_needed()
    picture(tab, "by-source-phone", whole=False)
    record = json.loads(as_record(found))
    for one in record["sources"]:
        del one["curves"], one["own_curves"]
    path.write_text(json.dumps(record))
    tab.reload()
    tab.get_by_text("These results hold no curves by source.").wait_for()
    path.write_text(json.dumps(record | {"digests": digests | {"dictionary": "another"}}))
    tab.reload()
    tab.get_by_text("were not measured on this pair").wait_for()


def test_a_policy_without_results_on_unseen_texts_says_what_makes_them(watched):
    tab = watched.open("policies/power-seeking")
    tab.get_by_role("heading", name="On unseen texts").wait_for()
    tab.get_by_text("sae-monitor policy evaluate").wait_for()


def test_the_slider_of_false_positives_begins_where_the_policy_stands(watched, everything):
    for shown in everything.get("/api/about").json()["policies"]:
        tab = watched.open(f"policies/{shown['name']}")
        told = tab.get_by_text("of the held-out positives are caught")
        tab.get_by_role("heading", name=shown["title"], exact=True).wait_for()
        assert re.search(r"(\d+) % of the held-out positives.* catches \1 %", told.inner_text())


def test_everything_can_be_reached_by_keyboard(watched):
    tab = watched.tab
    tab.reload()
    tab.get_by_role("heading", name="Chat", exact=True).wait_for()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to content"
    names = []
    for _ in range(5):
        tab.keyboard.press("Tab")
        names.append(tab.evaluate("document.activeElement.textContent"))
    assert names == ["Chat", "Features", "Transcripts", "Alerts", "Policies"]
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Policies", exact=True).wait_for()


def test_script_in_names_of_policies_and_in_prompts_is_text(browser):
    name = SCRIPT
    with faked(PolicySet((policy(name, 7, Action.ALERT),), policies().digest)) as page:
        made = Watched(browser, page.url)
        tab = made.open("chat")
        send(tab, f"lie {SCRIPT}")
        tab.get_by_role("region", name="Verdict").get_by_text(name).first.wait_for()
        assert tab.get_by_text("This engine shows the features that policies watch").count() == 0
        tab.locator(".answer > .strip .token").first.click()
        tab.get_by_text("This engine shows the features that policies watch").wait_for()
        for view in VIEWS[1:]:
            made.open(view.partition("/")[0])
            tab.get_by_role("heading", level=1).wait_for()
        tab.wait_for_timeout(300)
        assert tab.locator("#main img, #main script").count() == 0
        assert [one for one in made.wrong if "404" not in one] == []
        made.context.close()


def test_no_script_can_be_put_into_the_page(watched):
    with pytest.raises(sync_api.Error, match="TrustedHTML"):
        watched.tab.evaluate("document.body.innerHTML = '<img>'")
    watched.tab.evaluate(
        "document.head.append(Object.assign(document.createElement('style'), {textContent: 'body {display: none}'}))"
    )
    assert watched.tab.locator("h1").is_visible()
    assert any("Content Security Policy" in one for one in watched.wrong)
    watched.wrong.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1400])
def test_every_view_fits_and_axe_finds_nothing_serious(browser, tiny, width, theme):
    made = Watched(browser, tiny.url, viewport={"width": width, "height": 900}, color_scheme=theme)
    tab = made.log_in(tiny.callers.tokens["all"])
    for view in VIEWS:
        made.open(view)
        used(tab, view, asked="I want power. And you?", talk=TALK)
        looked_at(tab, view, width, theme)
    made.context.close()
    if not AXE:
        pytest.skip("views fit; axe was not asked: AXE=/path/to/axe.min.js (npm install axe-core)")


def test_what_opens_in_the_views_fits_a_phone_and_axe_finds_nothing_serious(browser, tiny):
    """The form to log in, sliders with both answers, the map, charts of features, a decision judged again, a draft."""
    made = Watched(browser, tiny.url, viewport={"width": 390, "height": 900}, color_scheme="dark")

    def opened(state):
        fits(tab, state, 390)
        if AXE:
            nothing_serious(tab, state)

    tab = made.open()
    tab.get_by_label("Token").wait_for()
    opened("login")
    made.log_in(tiny.callers.tokens["all"])
    steering = tab.get_by_role("region", name="Steering")
    for name in ("feature 2508", "policy power-seeking"):
        steering.get_by_label("Add a feature or a policy").fill(name.split()[1])
        steering.get_by_role("button", name=re.compile(f"^{name.removeprefix('feature ')}")).click()
    send(tab, "Tell me about your plans.")
    tab.get_by_text("Options").click()
    opened("sliders")
    made.open("features/2508")
    tab.get_by_role("button", name="Draw the map").click()
    tab.locator("svg.map a").first.wait_for()
    tab.get_by_label("Number, label or text").fill("power")
    tab.get_by_role("button", name="Search").click()
    tab.locator("tbody a").first.wait_for()
    opened("map")
    made.open("transcripts")
    read(tab, TALK)
    tab.get_by_label("Add a feature").fill("2508")
    tab.get_by_role("button", name=re.compile("^2508")).click()
    for title in ("Highest score of each turn", "Highest reading of each turn"):
        tab.get_by_text(title).click()
    opened("charts")
    made.open("alerts")
    tab.locator("table.feed button").first.click()
    tab.get_by_role("button", name="Judge it again").click()
    tab.locator("[aria-live] strong").first.wait_for()
    opened("decision")
    made.open("policies")
    tab.get_by_role("button", name="Write a policy").click()
    area = tab.get_by_label("Policy", exact=True)
    draft = area.input_value()
    area.fill(draft.replace("severity: low", "severity: extreme"))
    tab.get_by_role("button", name="line 6, column 13").wait_for()
    opened("problems")
    area.fill(draft)
    tab.get_by_label("Texts").fill("It rains.")
    tab.get_by_role("button", name="Try", exact=True).click()
    tab.get_by_role("cell", name="It rains.").wait_for()
    opened("draft")
    made.context.close()
