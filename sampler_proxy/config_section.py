"""What every section of the configuration is: frozen data that refuses unknown keys and shows no value in an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """Fields are set by their name in code and by their key in the file; never both ways in one place."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, data: object) -> object:
        """A section whose keys are all commented out."""
        return {} if data is None else data
