"""The errors that the library raises, drawn as a tree.

RouterError
├── InputError                 input from a person cannot be used
│   ├── OutcomesError          an outcomes file: missing column, quality outside [0, 1], …
│   ├── PoolError              a candidate pool: duplicate, unknown or missing expert
│   ├── PlanError              a plan: members, threshold, names
│   ├── PreferenceError        cost_weight, min_quality, limits
│   └── MethodError            unknown method, or parameters that it does not accept
├── NoEligibleExpertError      no expert is eligible for a query; carries each exclusion's reason
├── EncoderError               encoder not found, or its weights are not the named ones
└── ArtifactError              a saved policy cannot be trusted or read
    ├── ManifestError          manifest missing, not JSON, wrong format or fields
    ├── SchemaVersionError     written by a newer build
    ├── IntegrityError         a listed file is missing or changed; a file is not listed
    └── WeightsError           wrong names, shapes or types; not finite

Constructors take positional arguments and pass them all on, so that an error survives
the trip between processes.
"""

from collections.abc import Mapping


class RouterError(Exception):
    """The root: catch this to catch every error that the library raises on purpose."""


class InputError(RouterError):
    """Input from a person cannot be used; the message says what was expected instead."""


class OutcomesError(InputError):
    """An outcomes file or table breaks its contract."""


class PoolError(InputError):
    """A candidate pool is empty, holds an expert twice, or lacks a named one."""


class PlanError(InputError):
    """A plan is malformed, or does not fit the candidate pool."""


class PreferenceError(InputError):
    """A preference is out of range, or two of them exclude each other."""


class MethodError(InputError):
    """A routing method is unknown, or does not accept the parameters."""


class NoEligibleExpertError(RouterError):
    """No expert is eligible for a query.

    Args:
        reasons: expert → why it is excluded.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(dict(reasons))
        self.reasons = dict(reasons)

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        return f"no expert is left for this query ({reasons or 'the candidate pool is empty'})"


class EncoderError(RouterError):
    """The encoder that a policy names is not installed, or its weights differ from the named ones."""


class ArtifactError(RouterError):
    """A saved policy cannot be trusted or read."""


class ManifestError(ArtifactError):
    """`manifest.json` is missing, is not JSON, or lacks a required fact."""


class SchemaVersionError(ArtifactError):
    """The policy was written by a newer build."""

    def __init__(self, found: int, newest: int) -> None:
        super().__init__(found, newest)
        self.found = found
        self.newest = newest

    def __str__(self) -> str:
        return (
            f"policy has schema version {self.found}, this build reads up to {self.newest}: "
            "upgrade the image or pick an older policy"
        )


class IntegrityError(ArtifactError):
    """A file of the policy is missing, was changed, or was never listed."""


class WeightsError(ArtifactError):
    """Stored arrays have the wrong names, shapes or types, or are not finite."""
