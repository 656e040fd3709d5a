"""Policy files that nobody should have to debug: each is refused at its place, all of a folder in one run.

The files in `malformed/` are written by hand; `expected.tsv` says where the first problem of each stands, how many
there are, and how it reads. Many more are made here, by writing every kind of value into every field of a policy
that uses the whole language.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli.policy.app import policy_app
from monitor.policy.files.lint import check_folder
from monitor.policy.files.lock import LockModel, write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.source import read_source
from monitor.policy.files.yaml_document import PolicyProblems
from tests.policy.policy_files import CONCEPT, EXAMPLES, NOTHING, PAIR, PINNED, lock_for, write_concept

FOLDER = Path(__file__).parents[1] / "malformed"
ROWS = [line.split("\t") for line in (FOLDER / "expected.tsv").read_text().splitlines()]

FULL = """\
apiVersion: monitor/v1
metadata:
  name: greed
  title: Greed
  category: greed
  severity: high
  description: Wanting everything.
  maturity: beta
  false_positives: [shopping lists]
  references: [somewhere]
probe:
  weights: [0.5, -1]
  bias: 0.25
  scale: 2
match:
  callers: ["batch-*"]
  labels:
    team: risk
  models: [demo]
conditions:
  wants:
    phases: [prompt]
    pooling:
      kind: ema
      half_life: 4
    for: 2
    threshold: 0.5
    lasts: 20
  odd:
    signal: residual_norm
    threshold:
      false_positive_rate: 0.01
    scope: session
  both:
    when:
      at_least: 2
      of: [wants, {not: odd}]
rules:
  - name: stated
    phases: [prompt, response]
    when:
      all: [both, {any: [wants, odd]}]
    for: 1
    severity: low
    action: block
    mode: shadow
  - name: counted
    features:
      - index: 3
        weight: 0.5
        label: wants
    pooling: top_k_mean
    threshold:
      - up_to: 64
        threshold: 0.8
      - up_to: null
        threshold: 1.1
    action: suppress
suppress:
  features: [9]
  target: -1.5
  when: detected
  where: active
on_error: closed
"""

JUNK = [
    "[]",
    "{}",
    "{a: 1}",
    "[[1]]",
    "'text'",
    "''",
    "true",
    "-1e9",
    "1e400",
    ".nan",
    "2020-02-30",
    "!x y",
    "*a",
    "@",
]


def refused(path):
    problems = told(path)
    assert problems
    return problems


def told(path):
    """The problems of a file, each at a place that the file has; none where it is fine."""
    try:
        read_source(path, None)
    except PolicyProblems as error:
        problems = error.problems
    else:
        return ()
    assert all(str(p).startswith(f"{p.file}:{p.line}:{p.column}: ") for p in problems)
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", path.read_bytes().decode("utf-8-sig", "replace"))
    for p in problems:
        assert 1 <= p.line <= max(1, len(lines))
        if p.source:
            assert p.source == lines[p.line - 1]
            assert p.column <= len(p.source) + 1
    return problems


def written(folder, text):
    path = folder / "greed.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(("name", "place", "count", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_hand_made_files(name, place, count, message, tmp_path):
    problems = refused(written(tmp_path, (FOLDER / f"{name}.yaml").read_text()))
    assert (f"{problems[0].line}:{problems[0].column}", len(problems)) == (place, int(count))
    assert problems[0].message == message


def test_every_file_of_a_folder_is_told_in_one_run(tmp_path):
    for name, *_ in ROWS:
        shutil.copy(FOLDER / f"{name}.yaml", tmp_path)
    with pytest.raises(PolicyProblems) as caught:
        check_folder(tmp_path)
    assert {Path(p.file).stem for p in caught.value.problems} == {row[0] for row in ROWS}
    run = CliRunner().invoke(policy_app, ["check", str(tmp_path)])
    assert run.exit_code == 2
    assert run.stderr.count(".yaml:") >= len(ROWS)
    assert "Traceback" not in run.output


def test_the_whole_language_is_fine_as_it_is(tmp_path):
    assert read_source(written(tmp_path, FULL), None).model.metadata.name == "greed"


@pytest.mark.slow
def test_every_kind_of_value_in_every_field(tmp_path):
    lines = FULL.split("\n")
    places = [i for i, line in enumerate(lines) if re.match(r"\s*(- )?\w+: ?\S", line)]
    found = 0
    for i in places:
        for junk in JUNK:
            key = lines[i].split(": ", 1)[0]
            path = written(tmp_path, "\n".join([*lines[:i], f"{key}: {junk}", *lines[i + 1 :]]))
            found += bool(told(path))
    assert found > 400


@pytest.mark.slow
def test_every_line_left_out_twice_or_moved(tmp_path):
    lines = FULL.split("\n")[:-1]
    found = 0
    for i, line in enumerate(lines):
        before, after = lines[:i], lines[i + 1 :]
        for text in (before + after, [*before, line, line, *after], [*before, " " + line, *after]):
            found += bool(told(written(tmp_path, "\n".join(text))))
    assert found > 100


BYTES = {
    "utf-16": PINNED.encode("utf-16"),
    "latin-1": PINNED.replace("Greed\n", "Gr\u00e9ed\n").encode("latin-1"),
    "nul": PINNED.replace("Greed\n", "Gr\0eed\n").encode(),
    "nul alone": b"\0",
    "bom in the middle": PINNED.replace("Greed\n", "Gr\ufeffeed\n\ufeff").encode(),
    "binary": bytes(range(256)),
    "huge": b"# " + b"x" * (300 * 1024),
    "huge key": b"a" * (200 * 1024) + b": 1",
    "many keys": b"\n".join(b"k%d: 1" % i for i in range(20_000)),
    "deep list": b"[" * 100_000,
    "deep block": b"\n".join(b" " * i + b"a:" for i in range(400)),
    "many anchors": b"a: [" + b"&x 1, " * 20_000 + b"]",
    "alias bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n",
    "only newlines": b"\n" * 1000,
    "only spaces": b" " * 1000,
    "carriage returns": PINNED.replace("severity: high", "severity: hi").replace("\n", "\r").encode(),
    "dos lines": PINNED.replace("severity: high", "severity: hi").replace("\n", "\r\n").encode(),
    "separators": PINNED.replace("severity: high", "severity: hi\u2028").encode(),
    "dots": b"...\n",
    "dashes": b"---\n---\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BYTES)
def test_bytes(name, tmp_path):
    assert len(str(refused(written(tmp_path, BYTES[name]))[0])) < 3000


def test_a_byte_order_mark_at_the_start_is_no_problem(tmp_path):
    assert read_source(written(tmp_path, b"\xef\xbb\xbf" + PINNED.encode()), None)


def test_what_is_no_file(tmp_path):
    def refused_there(name):
        with pytest.raises(PolicyProblems) as caught:
            check_folder(tmp_path)
        (problem,) = [p for p in caught.value.problems if p.file.endswith(name)]
        assert str(problem).startswith(f"{tmp_path / name}:1:1: cannot be read")

    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("folder.yaml", "loop.yaml", "dangling.yaml", "pipe.yaml"):
        refused_there(name)
    looped = tmp_path / "around"
    looped.symlink_to(looped)
    with pytest.raises(PolicyProblems, match="is not a folder"):
        check_folder(looped)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = written(tmp_path, PINNED)

    def denied(self, *_args, **_more):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    assert refused_message(path) == "cannot be read: Permission denied"


def refused_message(path):
    with pytest.raises(PolicyProblems) as caught:
        read_source(path, None)
    return caught.value.problems[0].message


def test_files_beside_a_policy_that_is_wrong_are_told_with_it(tmp_path):
    path = written(tmp_path, PINNED.replace("severity: high", "severity: hi"))
    locks = lock_path(path, PAIR).parent
    locks.mkdir(parents=True)
    (locks / "greed.lock.yaml").write_text("apiVersion: monitor/v2\n")
    (tmp_path / "greed.test.yaml").write_text("cases: 3\n")
    (tmp_path / "benign.jsonl").write_text("{}\n")
    with pytest.raises(PolicyProblems) as caught:
        check_folder(path.parent)
    files = {Path(p.file).name for p in caught.value.problems}
    assert files == {"greed.yaml", "greed.lock.yaml", "greed.test.yaml", "benign.jsonl"}


ORPHANS = [
    (
        "gone.test.yaml",
        "apiVersion: monitor/v1\npolicy: gone\ncases: []\n",
        "belongs to a policy gone.yaml that is not here",
    ),
    ("locks/mine/gone.lock.yaml", "nothing\n", "belongs to a policy gone.yaml that is not here"),
    ("locks/mine/gred.lock.yaml", "nothing\n", "rename it to greed.lock.yaml"),
    ("locks/mine/gone.probe.safetensors", "", "belongs to no policy here"),
    ("greed.lock.yaml", "nothing\n", "move it to"),
    ("locks/greed.lock.yaml", "nothing\n", "each pair has a folder of locks of its own"),
    ("gred.test.yaml", "nothing\n", "rename it to greed.test.yaml"),
    ("gone.examples.jsonl", "{}\n", "belongs to no policy here"),
    ("gone.safetensors", "", "belongs to no policy here"),
]


@pytest.mark.parametrize(("name", "text", "said"), ORPHANS, ids=[name for name, *_ in ORPHANS])
def test_files_of_policies_that_are_gone_are_told(tmp_path, name, text, said):
    written(tmp_path, PINNED)
    check_folder(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(PolicyProblems) as caught:
        check_folder(tmp_path)
    (problem,) = caught.value.problems
    assert problem.file == str(tmp_path / name)
    assert said in str(problem)


def test_files_that_belong_to_nobody_are_told_once_it_is_known_what_belongs(tmp_path):
    written(tmp_path, PINNED.replace("threshold: 0.8", "threshold: x"))
    (tmp_path / "perhaps.jsonl").write_text("{}\n")
    with pytest.raises(PolicyProblems) as caught:
        check_folder(tmp_path)
    assert [Path(problem.file).name for problem in caught.value.problems] == ["greed.yaml"]


def test_the_benign_texts_and_other_files_may_stand_there(tmp_path):
    written(tmp_path, PINNED)
    (tmp_path / "benign.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "costs").mkdir()
    assert check_folder(tmp_path).policies == 1


def test_a_threshold_of_a_rule_that_is_gone_is_noted(tmp_path):
    write_concept(tmp_path)
    assert not any("is gone" in note for note in check_folder(tmp_path).notes)
    text = (tmp_path / "greed.yaml").read_text()
    (tmp_path / "greed.yaml").write_text(text.replace("name: stated", "name: said"))
    assert (
        "greed: the lock for mine holds a threshold for `stated`, which is gone"
        in check_folder(tmp_path).notes
    )


ALWAYS = PINNED.replace("    action: suppress\n", "    mode: MODE\n").replace(
    "  target: -1.5", "  target: -1.5\n  when: always"
)


@pytest.mark.parametrize(("mode", "told_of"), [("shadow", True), ("enforce", False)])
def test_clamps_that_never_act_are_noted(tmp_path, mode, told_of):
    written(tmp_path, ALWAYS.replace("MODE", mode))
    assert any("clamps nothing" in note for note in check_folder(tmp_path).notes) is told_of


OWN = "    features: [{index: 5}]\n    threshold: 0.8"
PINS = "features:\n  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}"
OWNING = PINNED.replace("    threshold: 0.8", OWN)
MEANINGLESS = [
    (OWNING, 9, "nothing reads `features`: every rule and condition names its own"),
    (OWNING.replace(PINS, "probe: {weights: [1]}"), 8, "nothing reads `probe`: every rule"),
    (PINNED + "refusal: Ask another.\n", 18, "`refusal` is shown where a rule blocks"),
]


@pytest.mark.parametrize(("text", "line", "said"), MEANINGLESS)
def test_a_field_that_another_one_makes_meaningless_is_refused_at_its_line(tmp_path, text, line, said):
    (problem,) = refused(written(tmp_path, text))
    assert said in problem.message
    assert abs(problem.line - line) <= 1


@pytest.mark.parametrize("end", [".yaml", ".test.yaml", ".lock.yaml"])
def test_a_byte_order_mark_is_no_part_of_a_file_and_utf_16_is_named(tmp_path, end):
    written(tmp_path, CONCEPT)
    lock = write_lock(tmp_path / "greed.yaml", lock_for(EXAMPLES), PAIR)
    path = lock if end == ".lock.yaml" else tmp_path / f"greed{end}"
    (tmp_path / "greed.test.yaml").write_text(
        "apiVersion: monitor/v1\npolicy: greed\ncases:\n  - {name: a, texts: [x], fires: []}\n"
    )
    text = path.read_text()
    path.write_text(text, "utf-8-sig")
    check_folder(tmp_path)
    path.write_text(text, "utf-16")
    with pytest.raises(
        PolicyProblems, match=r"is UTF-16, not UTF-8(.|\n)*convert it, for example with `iconv"
    ):
        check_folder(tmp_path)


def relocked(**changes):
    return LockModel.model_validate(lock_for(EXAMPLES).model_dump(by_alias=True) | changes)


def test_pairs_are_listed_with_the_policies_that_have_locks_and_lack_them(tmp_path):
    path, _ = write_concept(tmp_path)
    written_as = {
        "envy": CONCEPT,
        "bound": CONCEPT.replace("concept:", "match: {models: [other]}\nconcept:", 1),
    }
    for name, text in {**written_as, "pinned": PINNED}.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("name: greed", f"name: {name}"))
    other = relocked(model={"name": "other", "digest": NOTHING}, policy="envy")
    write_lock(tmp_path / "envy.yaml", other, "second")
    found = {one.pair: (one.there, one.missing) for one in check_folder(tmp_path).locks}
    assert found == {PAIR: (("greed",), ("envy",)), "second": (("envy",), ("bound", "greed"))}
    assert path.exists()


def test_notes_on_a_lock_say_whose_it_is(tmp_path):
    path, _ = write_concept(tmp_path)
    write_lock(path, relocked(examples=NOTHING, model={"name": "m", "digest": NOTHING}), "second")
    notes = check_folder(tmp_path).notes
    assert "greed: the examples changed since it was fitted to second" in notes
    path.write_text(path.read_text().replace("pooling: max", "pooling: mean"))
    notes = check_folder(tmp_path).notes
    changed = "greed: `stated` changed its pooling, `for`, signal or rate since it was fitted (locks/{})"
    assert {changed.format("mine"), changed.format("second")} <= set(notes)


def test_two_locks_of_a_policy_for_one_pair_are_a_problem(tmp_path):
    path, _ = write_concept(tmp_path)
    again = write_lock(path, lock_for(EXAMPLES), "again")
    with pytest.raises(PolicyProblems) as caught:
        check_folder(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.message) == (str(lock_path(path, PAIR)), f"is of the same pair as {again}")


def test_a_broken_lock_of_any_pair_is_told(tmp_path):
    path, _ = write_concept(tmp_path)
    lock_path(path, "second").parent.mkdir()
    lock_path(path, "second").write_text("rules: [\n")
    with pytest.raises(PolicyProblems) as caught:
        check_folder(tmp_path)
    assert {problem.file for problem in caught.value.problems} == {str(lock_path(path, "second"))}
