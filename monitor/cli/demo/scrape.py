"""Read the counters at a server's `/metrics`, and by how much they grew between two scrapes."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from monitor.client import Unreachable

SCRAPE_SECONDS = 5.0
Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name of a sample and its labels in order."""


@dataclass(frozen=True, slots=True)
class MetricScrape:
    """The values of all counters at one scrape, and the counts of histograms."""

    samples: Mapping[Series, float]

    def total(self, name: str, **labels: str) -> float:
        """Sum over every series of `name` that has these labels."""
        return sum(
            value
            for (found, pairs), value in self.samples.items()
            if found == name and labels.items() <= dict(pairs).items()
        )

    def since(self, earlier: MetricScrape) -> MetricScrape:
        """The increase of every series since an earlier scrape; series without an increase are left out."""
        moved = {s: v - earlier.samples.get(s, 0.0) for s, v in self.samples.items()}
        return MetricScrape({series: value for series, value in moved.items() if value})


def parse(text: str) -> MetricScrape:
    """The counters in a text exposition."""
    samples: dict[Series, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            counts = family.type == "counter" and sample.name.endswith("_total")
            if counts or (family.type == "histogram" and sample.name.endswith("_count")):
                samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return MetricScrape(samples)


def scrape(address: str) -> MetricScrape:
    """Read the counters at `http://address/metrics`, without a proxy. Raises `Unreachable` where that fails."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=SCRAPE_SECONDS) as answer:
            return parse(answer.read().decode("utf-8"))
    except OSError as error:
        raise Unreachable(f"no metrics at http://{address}/metrics: {error}") from error
