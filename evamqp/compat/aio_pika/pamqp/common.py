"""Types of field tables, to annotate with."""

from __future__ import annotations

from typing import Any, TypeAlias

FieldValue: TypeAlias = Any
FieldArray: TypeAlias = list[FieldValue]
FieldTable: TypeAlias = dict[str, FieldValue]
Arguments: TypeAlias = FieldTable | None
