"""Behave like pangolin 4 on the command line; the settings are in a file next to this one."""

import csv
import json
import sys
from pathlib import Path

HEADER = [
    *("taxon", "lineage", "conflict", "ambiguity_score", "scorpio_call", "scorpio_support"),
    *("scorpio_conflict", "scorpio_notes", "version", "pangolin_version", "scorpio_version"),
    *("constellation_version", "is_designated", "qc_status", "qc_notes", "note"),
]
USUAL = {
    "lineage": "BA.2",
    "conflict": "0.0",
    "ambiguity_score": "0.987",
    "scorpio_call": "Omicron (BA.2-like)",
    "scorpio_support": "0.95",
    "version": "PUSHER-v1.23.1",
    "pangolin_version": "4.3.1",
    "qc_status": "pass",
}


def main(words: list[str]) -> int:
    """Do what the words say; return the exit code."""
    settings = json.loads(Path(sys.argv[0]).with_suffix(".json").read_text())
    answers = {
        "--version": settings.get("version", "pangolin 4.3.1"),
        "--pangolin-data-version": settings.get("data", "pangolin-data 1.23.1"),
        "--all-versions": "pangolin: 4.3.1\npangolin-data: 1.23.1\nconstellations: v0.1.12\n",
    }
    if words[0] in answers:
        sys.stdout.write(answers[words[0]] + "\n")
        return 0
    named = {word: words[words.index(word) + 1] for word in words if word.startswith("--")}
    lines = Path(words[0]).read_text().splitlines()
    mode, header = settings.get("mode"), [*HEADER, *settings.get("columns", [])]
    rows = [{**USUAL, "taxon": line[1:]} for line in lines[::2]]
    for row in rows:
        row.update(settings.get("rows", {}).get(row["taxon"], settings.get("all", {})))
    if mode == "foreign":
        rows.append({**rows[0], "taxon": "hCoV-19/USA/CA-1/2020"})
    elif mode == "missing":
        del rows[0]
    elif mode == "columns":
        header.remove("version")
    path = Path(named["--outdir"]) / named["--outfile"]
    if mode != "nothing":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, header, restval="", extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
    if mode == "half":
        path.write_text(path.read_text()[:-20])
    if mode == "crash":
        sys.stderr.write("Error: minimap2 is not installed\n")
        return 255
    return 0


sys.exit(main(sys.argv[1:]))
