"""`sae-monitor deploy export`: what is there is not lost."""

from monitor.cli.deploy import deploy_files


def test_files_are_written_and_said(run, tmp_path):
    done = run("deploy", "export", tmp_path / "a" / "b")
    assert done.exit_code == 0, done.stderr
    names = {path.relative_to(tmp_path / "a/b").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {name for name, _ in deploy_files("")}
    for name in names:
        assert str(tmp_path / "a/b" / name) in done.stdout
    assert f"{len(names)} files written" in done.stdout
    assert {name.split("/")[0] for name in names} == {
        *("prometheus", "alertmanager", "grafana", "systemd", "envoy", "nemo", "runbook.md")
    }


def test_the_same_again_changes_nothing(run, tmp_path):
    assert run("deploy", "export", tmp_path).exit_code == 0
    assert run("deploy", "export", tmp_path).exit_code == 0


def test_what_differs_is_left_alone_unless_told(run, tmp_path):
    assert run("deploy", "export", tmp_path).exit_code == 0
    ours, other = tmp_path / "alertmanager" / "alertmanager.yml", tmp_path / "runbook.md"
    ours.write_text("my receivers")
    other.unlink()
    done = run("deploy", "export", tmp_path)
    assert done.exit_code == 2
    assert "alertmanager/alertmanager.yml" in done.stderr
    assert "--overwrite" in done.stderr
    assert ours.read_text() == "my receivers"
    assert not other.exists(), "nothing is written where something would be lost"
    assert run("deploy", "export", tmp_path, "--overwrite").exit_code == 0
    assert "receivers:" in ours.read_text()
    assert other.exists()


def test_a_place_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("x")
    done = run("deploy", "export", tmp_path / "file")
    assert done.exit_code == 2
    assert str(tmp_path / "file") in done.stderr


def test_alerts_link_to_the_runbook_where_it_is(run, tmp_path):
    assert run("deploy", "export", tmp_path / "a").exit_code == 0
    url = "https://example.org/runbook"
    assert run("deploy", "export", tmp_path / "b", "--runbook-url", url).exit_code == 0
    for folder, link in (("a", "runbook.md"), ("b", url)):
        text = (tmp_path / folder / "prometheus" / "rules" / "service.yml").read_text()
        assert f"runbook_url: {link}#saemonitordown" in text
