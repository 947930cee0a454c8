"""The identity of a training run: everything that is fixed before its first step."""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.short_repr import short_repr
from nc_tools.run_records import environment
from nc_tools.run_records.json_files import finite_or_null, read_json
from nc_tools.run_records.redact import redact_addresses, redact_command, redact_settings
from nc_tools.type_check import hint_text, hints_of, matches

SCHEMA = 1
RunKind = Literal["final", "holdout", "tuning", "loop"]
"""What a run is for: a reported result, a hold-out run, a tuning trial, or a run of a user's own training loop."""


@dataclass(frozen=True)
class RunIdentity:
    """The identity of a training run, which is the contents of its ``run.json``.

    Attributes:
        kind: "final" runs are those that a comparison reports; "holdout" and "tuning" runs choose settings; "loop" is a
            user's own training loop.
        arm: Name of the method.
        seed: Seed of everything but the head's frame.
        draw: Number of the run among those of the same arm and seed, which differ in their head's frame.
        frame_seed: Seed of the head's random frame; None for a head without one, "unknown" if it is not
            known.
        experiment: Name of the question that the runs answer; MLflow lists the runs of one experiment together.
        suite: Identifier of the comparison to which the run belongs.
        config: All settings, nested.
        data: Name, fingerprint, num_classes, class_counts, classes and other facts about the data.
        config_hash: Hash of arm, kind, config, seed and draw; equal hashes mean the same run.
        group_hash: The same hash without seed and draw; equal hashes mean replicates.
        git_commit: Commit of the code; None if unknown.
        versions: Version of each package.
        hardware: One line about the machine.
        about: Class name to a short description, for the classes of the head and of the loss.
        command: Command line, without credentials.
        created_ms: Time of creation, in milliseconds since the epoch.

    Raises:
        ValueError: If ``kind`` is unknown or ``arm`` is empty.
    """

    kind: RunKind
    arm: str
    seed: int
    draw: int = 0
    frame_seed: int | Literal["unknown"] | None = None
    experiment: str = "nc_tools"
    suite: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    group_hash: str = ""
    git_commit: str | None = field(default_factory=environment.git_commit)
    versions: Mapping[str, str] = field(default_factory=environment.versions)
    hardware: str = field(default_factory=environment.hardware)
    about: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = field(default_factory=environment.command)
    created_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def __post_init__(self) -> None:
        """Check kind, arm, seed and draw, compute missing hashes, and remove credentials from the command."""
        if self.kind not in get_args(RunKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(RunKind))}, got {self.kind!r}")
        if not self.arm:
            raise ValueError("arm must not be empty: it names the method that the run belongs to")
        for name in ("seed", "draw"):
            number = getattr(self, name)
            if type(number) is not int or not 0 <= number < 2**63:
                raise ValueError(f"{name} must be a whole number from 0 to 2^63 - 1, got {short_repr(number)}")
        identifying = {"arm": self.arm, "kind": self.kind, "config": self.config}
        if not self.group_hash:
            object.__setattr__(self, "group_hash", hash_config(without_replicate(identifying)))
        if not self.config_hash:
            object.__setattr__(self, "config_hash", hash_config({**identifying, "seed": self.seed, "draw": self.draw}))
        object.__setattr__(self, "command", redact_command(self.command))

    @property
    def run_id(self) -> str:
        """Name of the run's folder, which is valid on every file system and differs between configurations.

        Example:
            >>> RunIdentity("final", "etf + la", seed=1, config={"lr": 0.1}).run_id
            'etf-la-s1-d0-final-8ae1c4e6'
        """
        arm = re.sub(r"[^A-Za-z0-9._]+", "-", self.arm).strip("-.") or "arm"
        return f"{arm[:60]}-s{self.seed}-d{self.draw}-{self.kind}-{self.config_hash[:8]}"

    @property
    def label(self) -> str:
        """Short name of the run for tables and for MLflow, such as "etf s0 d1" for seed 0 and draw 1."""
        kind = f" ({self.kind})" if self.kind in ("tuning", "holdout") else ""
        return f"{self.arm} s{self.seed} d{self.draw}{kind}"

    def to_json(self) -> dict[str, Any]:
        """Return the contents of ``run.json``."""
        values: Any = finite_or_null(asdict(self))
        # Names of classes and of data are not settings: only addresses among them can hold a credential.
        data = _redacted_addresses(values.pop("data"))
        return {"schema": SCHEMA, "run_id": self.run_id, **redact_settings(values), "data": data}

    @classmethod
    def read(cls, file: Path) -> "RunIdentity":
        """Read an identity from a ``run.json``.

        Raises:
            FileNotFoundError: If there is no such file.
            DamagedFileError: If it is damaged; the message names it.
        """
        values = read_json(file)
        try:
            return cls.from_json(values)
        except ValueError as error:
            raise DamagedFileError(f"{file} cannot be used: {error}") from error

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunIdentity":
        """Build an identity from the contents of ``run.json``; unknown fields (of a newer version) are ignored.

        Raises:
            ValueError: If a field without a default is missing, or a value has the wrong type.
        """
        # What an old record does not hold is unknown: the defaults of the class would be today's machine and commit.
        absent: dict[str, Any] = {
            "frame_seed": "unknown",
            "git_commit": None,
            "versions": {},
            "hardware": "",
            "about": {},
            "command": (),
            "created_ms": 0,
        }
        present = {key: value for key, value in values.items() if key in FIELD_HINTS}
        missing = sorted({"kind", "arm", "seed"} - set(present))
        if missing:
            raise ValueError(f"run.json must have the fields kind, arm and seed, but lacks {', '.join(missing)}")
        if isinstance(present.get("command"), list):
            present["command"] = tuple(present["command"])
        for key, value in present.items():
            if not matches(value, FIELD_HINTS[key]):
                raise ValueError(f"{key} in run.json must be {hint_text(FIELD_HINTS[key])}, got {short_repr(value)}")
        return cls(**{**absent, **present})


FIELD_HINTS = hints_of(RunIdentity)
"""The type hint of each field of run.json."""


def _redacted_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted_addresses(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted_addresses(item) for item in value]
    return redact_addresses(value) if isinstance(value, str) else value


def hash_config(config: object) -> str:
    """Return a hash (64 hexadecimal digits) of a nested configuration, whatever the order of its keys.

    Example:
        >>> hash_config({"a": 1, "b": 2}) == hash_config({"b": 2, "a": 1})
        True
    """
    text = json.dumps(finite_or_null(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def without_replicate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without ``seed`` and ``draw``, which is the same for all repetitions of a run."""
    kept = {key: value for key, value in config.items() if key not in ("seed", "draw")}
    inner = kept.get("config")
    return {**kept, "config": without_replicate(inner)} if isinstance(inner, Mapping) else kept
