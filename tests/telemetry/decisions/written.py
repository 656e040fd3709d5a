"""What is in a folder after two records."""

from monitor.telemetry.decisions.folder import segments
from monitor.telemetry.decisions.reader import read
from tests.telemetry.decisions.logs import record, tape


def ids(folder, after=0):
    return [content["id"] for content in read(folder, after)]


def whole(folder):
    writer = tape(folder)
    writer.append([record("a"), record("b")])
    writer.close()
    return segments(folder)[0].path
