"""Behave like Nextclade 2 or 3 on the command line; the settings are in a file next to this one."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HEADER = [
    *("index", "seqName", "clade", "qc.overallScore", "qc.overallStatus"),
    *("substitutions", "deletions", "insertions", "aaSubstitutions", "aaDeletions"),
    *("aaInsertions", "warnings", "errors"),
]


def main(words: list[str]) -> int:
    """Do what the words say; return the exit code."""
    settings = json.loads(Path(sys.argv[0]).with_suffix(".json").read_text())
    if words == ["--version"]:
        sys.stdout.write(settings.get("version", "nextclade 2.14.0") + "\n")
        return int(settings.get("version_code", 0))
    if words[:2] == ["dataset", "get"]:
        return get_dataset(settings, words[words.index("--output-dir") + 1])
    return run(settings, words)


def get_dataset(settings: dict[str, Any], folder: str) -> int:
    """Write a dataset."""
    if "no_dataset" in settings:
        sys.stderr.write("Error: no network\n")
        return 1
    Path(folder).mkdir(parents=True)
    for name, content in settings["dataset"].items():
        (Path(folder) / name).write_text(json.dumps(content))
    return 0


def run(settings: dict[str, Any], words: list[str]) -> int:
    """Write the results, or what a broken program leaves."""
    named = {word: words[words.index(word) + 1] for word in words if word.startswith("--")}
    assert Path(named["--input-dataset"]).is_dir(), words
    assert "--retry-reverse-complement" in words, words
    lines = Path(words[-1]).read_text().splitlines()
    sequences = dict(zip((line[1:] for line in lines[::2]), lines[1::2], strict=True))
    if "pid" in settings:
        Path(settings["pid"]).write_text(f"{os.getpid()}\n")
        time.sleep(300)
    mode, header = settings.get("mode"), [*HEADER, *settings.get("more", {})]
    rows = []
    for number, (name, letters) in enumerate(sequences.items()):
        row = dict.fromkeys(header, "")
        if set(letters) <= {"N"}:
            row.update(index=str(number), seqName=name, errors="Unable to align: no seeds")
        else:
            row.update(
                index=str(number),
                seqName=name,
                clade="20C",
                substitutions=f"A{number + 1}C",
                aaSubstitutions="S:D614G",
                **{"qc.overallScore": "12.5", "qc.overallStatus": "good"},
            )
            row.update(settings.get("more", {}))
        rows.append(row)
    if mode == "foreign":
        rows.append({**rows[0], "seqName": "999999"})
    elif mode == "missing":
        del rows[1]
    elif mode == "repeated":
        rows.append(rows[0])
    elif mode == "columns":
        header.remove("qc.overallStatus")
    text = "\n".join(
        "\t".join(row[name] for name in header)
        for row in (dict(zip(header, header, strict=True)), *rows)
    )
    if mode == "half":
        text = text[: len(text) - 20]
    if mode != "nothing":
        Path(named["--output-tsv"]).write_text(text + ("" if mode == "half" else "\n"))
    aligned = "".join(
        f">{row['seqName']}\n{sequences.get(row['seqName'], 'ACGT')[:900]:-<900}\n"
        for row in rows
        if not row["errors"]
    )
    Path(named["--output-fasta"]).write_text(aligned)
    if mode == "crash":
        sys.stderr.write("thread 'main' panicked: out of luck\n")
        return 101
    return 0


sys.exit(main(sys.argv[1:]))
