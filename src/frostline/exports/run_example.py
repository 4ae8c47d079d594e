"""Run an artefact's example on photo files, in an interpreter of its own. It does not import frostline, and reports
whether the example did.

``python -I run_example.py EXAMPLE`` reads ``{"files": [...], "timed": n}`` on stdin and prints ``{"classes": [...],
"probabilities": [[...] | null], "faults": {index: why}, "latency_ms": [...], "file_ms": [...], "throughput": photos/s,
"frostline": bool}``.
"""

import json
import runpy
import sys
import time
from concurrent.futures import ThreadPoolExecutor

AHEAD = 4  # threads that read photos while one is classified


def main() -> None:
    """See the module."""
    asked = json.load(sys.stdin)
    example, sys.argv = sys.argv[1], sys.argv[1:2]
    namespace = runpy.run_path(example)
    read, classify = namespace["read"], namespace["classify"]

    def attempt(path):  # type: ignore[no-untyped-def]
        try:
            return read(path), ""
        except Exception as error:  # whatever a decoder raises: the photo is listed, the rest goes on
            return None, f"{type(error).__name__}: {error}"

    results: list[list[float] | None] = []
    faults: dict[int, str] = {}
    kept: list[tuple[str, object]] = []
    files = asked["files"]
    with ThreadPoolExecutor(AHEAD) as pool:
        begun = time.perf_counter()
        for start in range(0, len(files), 64):
            for number, (photo, why) in enumerate(pool.map(attempt, files[start : start + 64]), start):
                if photo is None:
                    faults[number] = why
                    results.append(None)
                    continue
                results.append([float(p) for p in classify(photo).ravel()])
                if len(kept) < asked["timed"]:
                    kept.append((files[number], photo))
        spent = time.perf_counter() - begun
    latency, from_file = [], []
    for path, photo in kept:
        before = time.perf_counter()
        classify(photo)
        between = time.perf_counter()
        classify(read(path))
        latency.append(1000 * (between - before))
        from_file.append(1000 * (time.perf_counter() - between))
    json.dump(
        {
            "classes": list(namespace["classes"]),
            "probabilities": results,
            "faults": faults,
            "latency_ms": latency,
            "file_ms": from_file,
            "throughput": (len(files) - len(faults)) / spent if spent else 0.0,
            "frostline": any(name.partition(".")[0] == "frostline" for name in sys.modules),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
