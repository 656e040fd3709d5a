"""The recording of a server's decisions, built from settings: the log, the live feed and the contents of records."""

from __future__ import annotations

from pathlib import Path

from monitor.errors import ConfigurationError
from monitor.pairs.registry import named
from monitor.rpc.decisions.ledger import Contents, Ledger
from monitor.rpc.decisions.watch import DetectionWatch
from monitor.settings import Settings, decision_folder, split_address
from monitor.telemetry.decisions.feed import Feed
from monitor.telemetry.decisions.folder import Retention, WriterLock
from monitor.telemetry.decisions.log import DecisionLog
from monitor.telemetry.decisions.privacy import PromptHash, TextMasks
from monitor.telemetry.decisions.writer import LogWriter, Rotation
from monitor.telemetry.metrics.decisions import WatchMeter
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.tracing import tracing_to

_WATCHER_QUEUE = 256
"""Maximum number of records that wait for one client of WatchDetections. Beyond it the oldest is dropped."""


def check_recorder(settings: Settings) -> None:
    """Raise ConfigurationError where decisions could not be recorded. Called before a model is loaded."""
    PromptHash.of_file(settings.decision_log_salt_file)
    tracing_to(settings.otlp_endpoint, settings.trace_ratio).close(0.0)
    folder = decision_folder(settings, split_address(settings.listen)[1])
    if folder is not None:
        WriterLock(folder).release()


class DecisionRecorder:
    """The ledger, the log and the streams of one server. Call `start` and `stop` once each."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Raises ConfigurationError where the salt file cannot be used."""
        self._settings, self._metrics = settings, metrics
        self._folder = decision_folder(settings, split_address(settings.listen)[1])
        contents = Contents(
            everything=settings.decision_log_records == "all",
            text=TextMasks(settings.decision_log_masks) if settings.decision_log_text else None,
            readings=settings.decision_log_readings,
            hashing=PromptHash.of_file(settings.decision_log_salt_file),
        )
        meter = WatchMeter(metrics.registry)
        feed = Feed(settings.watch_subscribers, _WATCHER_QUEUE, settings.retry_after_seconds, meter)
        self.ledger = Ledger(
            feed, contents, _model_name(settings), metrics.rejected, findings=settings.trace_findings
        )
        self.watch = DetectionWatch(self.ledger, self._folder, settings.max_call_seconds)

    def start(self) -> None:
        """Lock and open the log, if decisions are logged. Raises ConfigurationError where that is not possible."""
        if self._folder is None:
            return
        writer = _writer(self._settings, self._folder)
        self.ledger.log = DecisionLog(writer, self._settings.decision_log_on_full, self._metrics.decision_log)

    @property
    def place(self) -> str:
        """Folder of the log, or `off`."""
        return str(self._folder or "off")

    def close_streams(self) -> None:
        """End all WatchDetections streams, which would not end by themselves."""
        self.ledger.feed.close()

    async def stop(self) -> None:
        """Write waiting records, then close the log."""
        await self.ledger.close()


def _writer(settings: Settings, folder: Path) -> LogWriter:
    rotation = Rotation(settings.decision_log_file_bytes, settings.decision_log_file_seconds)
    retention = Retention(
        settings.decision_log_keep_files, settings.decision_log_keep_bytes, settings.decision_log_keep_seconds
    )
    try:
        return LogWriter(folder, rotation, retention)
    except OSError as error:
        raise ConfigurationError(f"decision_log: {folder} cannot be used: {error.strerror}") from None


def _model_name(settings: Settings) -> str:
    """Name of the model in traces: as its pair calls it, a hub name as it is, of a folder its last part."""
    if settings.model is None:
        return named(settings.pair).model
    return Path(settings.model).name if Path(settings.model).is_dir() else settings.model
