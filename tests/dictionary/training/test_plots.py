from monitor.dictionary.training import plots
from tests.dictionary.training.toy_run import train


def test_picture(tmp_path):
    report = train(tmp_path)
    path = plots.draw_training(report.as_json(), tmp_path / "training.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000
