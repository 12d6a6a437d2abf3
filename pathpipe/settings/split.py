"""Settings of the split and of the audit that looks for what leaks through it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pathpipe.settings.base import Settings, absolute

LeakKind = Literal["same-patient", "same-file", "near-duplicate"]


class SplitSettings(Settings):
    """Folds, always by patient."""

    target: str = Field(
        "label",
        description="What to predict: COLUMN or COLUMN:KIND (ordinal, regression, TIME/EVENT:survival or :cox, "
        "A/B/C:multilabel), several joined by commas",
    )
    folds: int = Field(5, ge=1, le=50, description="Number of folds; 1 needs a fixed test set")
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of each fold's training patients kept for validation"
    )
    seed: int = Field(0, ge=0, description="Seed of the assignment")
    group: str | None = Field(
        None, description="Cohort column: patients of one value (a family, a batch) stay in one role"
    )
    by_site: Literal["ignored", "preserved", "leave-one-out"] = Field(
        "ignored",
        description="Sites: ignored; preserved: every site whole in one role, classes balanced; leave-one-out: a fold "
        "tests one site",
    )
    test_column: str | None = Field(
        None, description="Cohort column that marks a fixed test set; every fold is tested on it"
    )
    test_value: str = Field("test", description="Its value that means test")
    test_list: str | None = Field(
        None, description="File with the patients or slides of a fixed test set, one a line, instead of a column"
    )
    inner_folds: int = Field(
        0, ge=0, le=20, description="Folds inside each fold's training patients, to choose models in (0: none)"
    )
    folds_from: str | None = Field(
        None, description="Take the folds from a file or folder of CLAM, MCAT or pathpipe instead of making them"
    )

    @field_validator("test_list", "folds_from")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        return absolute(value)

    @property
    def fixed_test(self) -> bool:
        """Whether the test set is given."""
        return self.test_column is not None or self.test_list is not None

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.test_column is not None and self.test_list is not None:
            raise ValueError("test_column and test_list say the same thing: give one of the two")
        if self.inner_folds in (1, 2):
            raise ValueError("inner_folds must be 0, or at least 3: one to stop by, one to score, one to train on")
        if self.fixed_test and self.by_site == "leave-one-out":
            raise ValueError("by_site leave-one-out makes its own test sets: leave out test_column and test_list")
        if self.folds_from is not None:
            making = {"group": self.group, "by_site": self.by_site != "ignored", "test_column": self.test_column}
            making |= {"test_list": self.test_list}
            extra = [name for name, value in making.items() if value]
            if extra:
                raise ValueError(f"folds_from says who is in which role: leave out {extra[0]}")
        elif self.folds == 1 and not self.fixed_test and self.by_site != "leave-one-out":
            raise ValueError("folds 1 needs a fixed test set: test_column or test_list")
        return self


class AuditSettings(Settings):
    """What is looked for before training, and what is let pass."""

    columns: list[str] = Field(
        default_factory=list,
        description="Further cohort columns, e.g. scanner, to look for in the features as `site` is",
    )
    duplicate_cosine: float = Field(
        0.999, gt=0.5, le=1, description="Slides whose mean features have a smaller cosine are no near-duplicates"
    )
    allow: list[LeakKind] = Field(
        default_factory=list,
        description="Leaks to train in spite of: same-patient, same-file, near-duplicate",
    )

    @field_validator("columns")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))
