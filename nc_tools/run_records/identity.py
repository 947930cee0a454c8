"""Who a run is: everything that is known before its first step and never changes afterwards."""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from nc_tools.run_records import environment
from nc_tools.run_records.json_files import finite_or_null
from nc_tools.run_records.redact import redact, redact_command

SCHEMA = 1
RunKind = Literal["final", "holdout", "tuning", "loop"]


@dataclass(frozen=True)
class RunIdentity:
    """The contents of ``run.json``.

    Attributes:
        kind: "final" runs are what a comparison reports; "holdout" and "tuning" runs serve to choose; "loop"
            is a user's own training loop.
        arm: Name of the method.
        seed: Seed of everything but the head's frame.
        draw: Number of the head's frame, for arms that have one.
        experiment: The question: runs of one experiment lie side by side.
        suite: Identifier of the comparison that the run belongs to.
        config: Everything that was set, nested.
        data: name, fingerprint, num_classes, class_counts, classes and whatever else describes the data.
        config_hash: Hash of the config; equal hashes mean the same run.
        group_hash: Hash of the config without seed and draw; equal hashes mean replicates.
        git_commit: Commit of the code, where known.
        versions: Package to version.
        hardware: One line.
        command: Command line, without credentials.
        created_ms: Milliseconds since the epoch.
    """

    kind: RunKind
    arm: str
    seed: int
    draw: int = 0
    experiment: str = "nc_tools"
    suite: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    group_hash: str = ""
    git_commit: str | None = field(default_factory=environment.git_commit)
    versions: Mapping[str, str] = field(default_factory=environment.versions)
    hardware: str = field(default_factory=environment.hardware)
    command: tuple[str, ...] = field(default_factory=environment.command)
    created_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def __post_init__(self) -> None:
        """Fill the hashes in where the caller leaves them to us, and clean the command."""
        if self.kind not in get_args(RunKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(RunKind))}, got {self.kind!r}")
        if not self.arm:
            raise ValueError("arm must be a name, got an empty one; it says which method the run belongs to")
        whole = {"arm": self.arm, "kind": self.kind, "config": self.config}
        if not self.group_hash:
            object.__setattr__(self, "group_hash", hash_config(without_replicate(whole)))
        if not self.config_hash:
            object.__setattr__(self, "config_hash", hash_config({**whole, "seed": self.seed, "draw": self.draw}))
        object.__setattr__(self, "command", redact_command(self.command))

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable, safe for a file system, and different for different configs.

        Example:
            >>> RunIdentity("final", "etf + la", seed=1, config={"lr": 0.1}).run_id
            'etf-la-s1-d0-final-8ae1c4e6'
        """
        arm = re.sub(r"[^A-Za-z0-9._]+", "-", self.arm).strip("-.") or "arm"
        return f"{arm[:60]}-s{self.seed}-d{self.draw}-{self.kind}-{self.config_hash[:8]}"

    @property
    def label(self) -> str:
        """How the run is called in a table or in MLflow's list."""
        kind = f" ({self.kind})" if self.kind in ("tuning", "holdout") else ""
        return f"{self.arm} s{self.seed} d{self.draw}{kind}"

    def to_json(self) -> dict[str, Any]:
        """Return what ``run.json`` holds."""
        return {"schema": SCHEMA, "run_id": self.run_id, **_without_credentials(finite_or_null(asdict(self)))}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunIdentity":
        """Read ``run.json``; fields of a newer version that this one does not know are left aside.

        Raises:
            ValueError: If a field without a default is missing.
        """
        names = {item.name for item in fields(cls)}
        # What an old record does not say is unknown; today's machine and commit are not the answer.
        unknown: dict[str, Any] = {
            "git_commit": None,
            "versions": {},
            "hardware": "",
            "command": (),
            "created_ms": 0,
        }
        known = {key: value for key, value in values.items() if key in names}
        missing = sorted({"kind", "arm", "seed"} - set(known))
        if missing:
            raise ValueError(f"run.json must have the field {missing[0]!r}; it is not there")
        return cls(**{**unknown, **known})


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_credentials(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_credentials(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def hash_config(config: object) -> str:
    """Hash of a nested config (64 hexadecimal digits) that does not depend on the order of its keys.

    Example:
        >>> hash_config({"a": 1, "b": 2}) == hash_config({"b": 2, "a": 1})
        True
    """
    text = json.dumps(finite_or_null(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def without_replicate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop ``seed`` and ``draw`` from the top level and from ``config``: what is left names the group."""
    kept = {key: value for key, value in config.items() if key not in ("seed", "draw")}
    inner = kept.get("config")
    return {**kept, "config": without_replicate(inner)} if isinstance(inner, Mapping) else kept
