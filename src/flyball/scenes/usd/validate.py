"""OpenUSD's own validators, all of them.

In: a USD file. Out: what the registered validators find, under every choice of every variant set, each finding with
the prims it is about. These are the rules behind ``usdchecker``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.scenes.usd.guard import call, need_pxr


@dataclass(frozen=True)
class Finding:
    """What a validator says.

    Attributes:
      level: ``error``, ``warning`` or ``info``.
      rule: validator and name of the finding.
      sites: prims and layers it is about.
      variant: the choice under which it was found, "" when in the file as it is.
    """

    level: str
    rule: str
    text: str
    sites: tuple[str, ...]
    variant: str = ""


@dataclass(frozen=True)
class Validation:
    """All findings, and the names of the validators that ran."""

    findings: tuple[Finding, ...]
    validators: tuple[str, ...]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(f.level == "error" for f in self.findings)

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return sum(f.level == "warning" for f in self.findings)


def validate(path: Path) -> Validation:
    """Run every validator that this OpenUSD has.

    Raises:
      InputError: the file does not open.
      NotPossible: OpenUSD is not installed.
    """
    need_pxr()
    answer, _ = call("validate", {"path": str(path)}, where=str(path))
    findings = tuple(Finding(**{**f, "sites": tuple(f["sites"])}) for f in answer["findings"])
    return Validation(findings, tuple(answer["validators"]))


def validate_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """The work, in a process that may die of the file."""
    from pxr import UsdValidation

    from flyball.scenes.usd.stage import foreign, open_stage, quiet

    path = Path(order["path"])
    with quiet(), foreign(path):
        registry = UsdValidation.ValidationRegistry()
        context = UsdValidation.ValidationContext(registry.GetOrLoadAllValidators())
        names = sorted(m.name for m in registry.GetAllValidatorMetadata())
        opened = open_stage(path)
        findings = _findings(context, opened.stage, "")
        known = {(f["rule"], f["text"]) for f in findings}
        for prim, sets in opened.selected.items():
            for name, selected in sets.items():
                for choice in opened.stage.GetPrimAtPath(prim).GetVariantSet(name).GetVariantNames():
                    if choice != selected:
                        again = open_stage(path, {f"{prim}.{name}": choice}).stage
                        more = _findings(context, again, f"{name}={choice}")
                        findings += [f for f in more if (f["rule"], f["text"]) not in known]
    return {"findings": findings, "validators": names}


def _findings(context: Any, stage: Any, variant: str) -> list[dict[str, Any]]:
    out = []
    for error in context.Validate(stage):
        level = str(error.GetType()).rsplit(".", 1)[-1].removeprefix("ValidationErrorType_").lower()
        level = {"warn": "warning"}.get(level, level)
        sites = []
        for site in error.GetSites():
            prim = site.GetPrim() if site.IsValid() else None
            layer = site.GetLayer() if site.IsValid() else None
            sites.append(str(prim.GetPath()) if prim else layer.identifier if layer else "?")
        rule = f"{error.GetIdentifier() or error.GetName()}"
        out.append({"level": level, "rule": rule, "text": " ".join(error.GetMessage().split()), "sites": sites,
                    "variant": variant})  # fmt: skip
    return out
