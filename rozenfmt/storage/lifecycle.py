"""What rules of a bucket would do to what is stored there: values in, words out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

__all__ = ["COLD", "abort_days", "warnings_of"]

COLD: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Classes whose objects must be thawed before they can be read; GLACIER_IR is none of them."""


def abort_days(rules: Sequence[Mapping[str, Any]], folder: str) -> int | None:
    """Days after which unfinished uploads in the folder are aborted; None if no rule does.

    Args:
        rules: As GetBucketLifecycleConfiguration gives them.
        folder: Prefix of the folder in the bucket.
    """
    found = [
        int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
        for rule in _enabled(rules)
        if "DaysAfterInitiation" in rule.get("AbortIncompleteMultipartUpload", {})
        # One that names less than the folder leaves the rest.
        and folder.startswith(_prefix(rule))
    ]
    return min(found, default=None)


def warnings_of(
    rules: Sequence[Mapping[str, Any]], folder: str, *, warm: Sequence[str], kept: Sequence[str]
) -> Iterator[str]:
    """Rules that would break reading, resuming or keeping, in words.

    Args:
        rules: As GetBucketLifecycleConfiguration gives them.
        folder: Prefix of the folder in the bucket.
        warm: Prefixes in the folder that must stay readable at once.
        kept: Prefixes in the folder below which nothing may be deleted.
    """
    for rule in _enabled(rules):
        name = f"the bucket's rule {rule.get('ID') or '(without a name)'!r}"
        prefix = _prefix(rule)
        some = " (those with certain tags or sizes)" if _narrowed(rule) else ""
        for step in (*rule.get("Transitions", ()), *rule.get("NoncurrentVersionTransitions", ())):
            met = [one for one in warm if _meets(prefix, folder + one)]
            if step.get("StorageClass") in COLD and met:
                yield (
                    f"{name} moves objects in {', '.join(met)}{some} to {step['StorageClass']} {_when(step)}: then the "
                    "vault cannot be listed, read or verified before they are thawed. Let it name data/ only"
                )
        if _expires(rule):
            met = [one for one in kept if _meets(prefix, folder + one)]
            if met:
                yield (
                    f"{name} deletes objects in {', '.join(met)}{some} {_when(rule['Expiration'])}, whether or not a "
                    "snapshot needs them. Remove it, or let it name something else"
                )
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        if days is not None and int(days) < 2 and any(_meets(prefix, folder + one) for one in kept):
            yield (
                f"{name} aborts uploads {days} days after their begin: one that takes longer never completes, and none "
                "can be resumed later. A week is a good number"
            )


def _enabled(rules: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (rule for rule in rules if rule.get("Status") == "Enabled")


def _prefix(rule: Mapping[str, Any]) -> str:
    """The prefix in any of the three places where rules of different ages have it."""
    where = rule.get("Filter") or {}
    return str(where.get("Prefix") or where.get("And", {}).get("Prefix") or rule.get("Prefix") or "")


def _narrowed(rule: Mapping[str, Any]) -> bool:
    where = rule.get("Filter") or {}
    return bool({*where, *where.get("And", {})} - {"Prefix", "And"})


def _meets(prefix: str, place: str) -> bool:
    return prefix.startswith(place) or place.startswith(prefix)


def _expires(rule: Mapping[str, Any]) -> bool:
    # The third kind of expiration only clears markers of what was deleted before.
    return bool({"Days", "Date"} & set(rule.get("Expiration", ())))


def _when(step: Mapping[str, Any]) -> str:
    days = step.get("Days", step.get("NoncurrentDays"))
    return f"after {days} days" if days is not None else f"at {step.get('Date', 'some time')}"
