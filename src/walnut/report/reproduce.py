"""The section that says how to get the same figures again."""

from __future__ import annotations

import json
from typing import Any

from .parts import Section
from .words import count, dig, duration, known, plural

Record = dict[str, Any]


def reproduce(result: Record) -> Section:
    """The command, and everything that its outcome depends on."""
    machine, data = result.get("machine"), result.get("data")
    versions = {"walnut": result.get("walnut"), "torch": dig(machine, "torch")}
    versions["Python"] = dig(machine, "python")
    where = [dig(machine, "processor")]
    for key, noun in (("cores", "core"), ("threads", "thread")):
        value = dig(machine, key)
        where += [plural(value, noun)] if isinstance(value, int) else []
    candidates = {
        "Seed": result.get("seed"),
        "Data": dig(data, "name"),
        "Examples": count(dig(data, "examples")) if known(dig(data, "examples")) else None,
        "Configuration, sha256": result.get("config_sha256"),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items() if value),
        "Machine": ", ".join(str(part) for part in where if part),
        "Made": result.get("created"),
        "Took": duration(result["seconds"]) if known(result.get("seconds")) else None,
    }
    facts = tuple((name, str(v)) for name, v in candidates.items() if v not in (None, ""))
    config = result.get("config")
    more: tuple[tuple[str, str], ...] = ()
    if config:
        more = (("Configuration", json.dumps(config, indent=2, ensure_ascii=False)),)
    records = attack_reprs(result)
    more += (("Attacks", "\n".join(records)),) if records else ()
    code = str(result.get("command") or "")
    return Section(
        "reproduce", "How to reproduce this", "Reproduce", facts=facts, code=code, more=more
    )


def attack_reprs(result: Record) -> list[str]:
    """Return the full record of every attack that was run, once each."""
    rows = [row for row in result.get("rows") or [] if isinstance(row, dict)]
    found = [dig(a, "attack") for row in rows for a in (row.get("attacks") or {}).values()]
    found += [dig(entry, "attack") for entry in result.get("transfer") or []]
    verdicts = result.get("verdict") or []
    found += [dig(stage, "attack") for one in verdicts for stage in one.get("stages") or []]
    return list(dict.fromkeys(str(text) for text in found if text))
