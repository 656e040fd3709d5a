"""vLLM's own front end with the monitor inside, on the demo pair.

Where MONITORED_OVERLAPS is set, vLLM lays a pass out while the one before it runs, which it does not on CPUs by itself.
"""

import json
import os
import urllib.request
import warnings
from contextlib import nullcontext

from tests.rpc.pairs import demo_scene
from tests.waiting import wait_for

SIZES = {
    "block_size": 32,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "max_model_len": 512,
    "kv_cache_memory_bytes": 64 << 20,
    "enable_prefix_caching": True,
}
OVERLAPS = bool(os.environ.get("MONITORED_OVERLAPS"))


def written_settings(folder, flags):
    """The file of settings of the monitor, written."""
    settings = {
        "dictionary": str(flags["dictionary"]),
        "policies": str(flags["policies"]),
        "device": "cpu",
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "decision_log": str(folder / "decisions"),
        "decision_log_records": "all",
        "reload_seconds": 0.2,
        "vllm_plugin": True,
        "vllm_xargs": True,
    }
    path = folder / "settings.yaml"
    path.write_text(json.dumps(settings))
    return path


class Monitored:
    """vLLM with the monitor's flags. Once in a process."""

    def __init__(self, folder, *, dtype="float32", eager=True, blocks=True):
        self.folder, self.scene = folder, demo_scene(folder)
        flags = self.scene.flags
        policy = json.loads((flags["policies"] / "alerting.yaml").read_text())
        policy["metadata"] |= {"name": "stops", "title": "stops"}
        policy["features"] = [{"index": self.scene.blocking}]
        policy["rules"] = [policy["rules"][0] | {"phases": ["prompt"], "action": "block"}]
        policy["match"] = {"labels": {"strict": "yes"}}
        (flags["policies"] / "stops.yaml").write_text(json.dumps(policy))
        if not blocks:
            (flags["policies"] / "blocking.yaml").unlink()
        os.environ["SAE_MONITOR_SETTINGS"] = str(written_settings(folder, flags))
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from vllm import LLM

            from monitor.plugin.front import register
            from monitor.plugin.host import host_for
            from monitor.vllm.names import async_scheduling

            register()
            with async_scheduling() if OVERLAPS else nullcontext():
                self.llm = LLM(
                    str(flags["model"]),
                    dtype=dtype,
                    enforce_eager=eager,
                    async_scheduling=OVERLAPS,
                    **SIZES,
                    worker_cls="monitor.plugin.worker.HostedWorker",
                    scheduler_cls="monitor.plugin.scheduler.HostedScheduler",
                )
        self.core = self.llm.llm_engine.engine_core.engine_core
        assert (self.core.batch_queue is not None) is OVERLAPS
        self.host = host_for(None)
        self.metrics = self.host.addresses.metrics

    def ask(self, prompts, **sampling):
        from vllm import SamplingParams

        given = [prompts] if isinstance(prompts, str) else prompts
        asked = SamplingParams(**({"temperature": 0.0, "max_tokens": 12} | sampling))
        found = self.llm.generate(given, asked, use_tqdm=False)
        return found[0] if isinstance(prompts, str) else found

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"sae_monitor_{name}"))

    def last_of(self, *prompt, **sampling):
        """The answer to a prompt and the decision on it, which vLLM's own server does not wait for."""
        before = len(self.decisions())
        answer = self.ask(*prompt, **sampling)
        wait_for(lambda: len(self.decisions()) > before)
        return answer, self.decisions()[-1]

    def decisions(self):
        files = sorted((self.folder / "decisions").rglob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]
