"""Write every dashboard as JSON: `python -m deploy.grafana.source [FOLDER]`.

The files are checked in; a test builds them again and fails where they differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.source import evidence, policy, safety, serving

FOLDER = Path(__file__).parents[1] / "dashboards"
DASHBOARDS = {"safety": safety, "policy": policy, "serving": serving, "evidence": evidence}


def texts() -> dict[str, str]:
    """The JSON of every dashboard by file name."""
    return {
        f"{name}.json": json.dumps(module.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, module in DASHBOARDS.items()
    }


def main(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
