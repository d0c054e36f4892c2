"""The entries of `space:`: a hyperparameter that is sampled, or a plain value that fixes it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Scalar = bool | int | float | str


class Frozen(BaseModel):
    """A value that can't change and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _storable(arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(arguments, allow_nan=False, default=str)
    except ValueError:
        raise ValueError(
            "expected finite numbers: .inf and .nan can't be stored with the study; leave the "
            "argument out, or write null, and have the function choose the value"
        ) from None
    return arguments


# What a function of the user's is called with, by name.
Arguments = Annotated[dict[str, Any], AfterValidator(_storable)]


class _Sampled(Frozen):
    repeat: str | None = Field(
        None,
        description="Name of an integer parameter: this one becomes name_0 .. name_{n-1}.",
    )
    when: dict[str, Scalar | list[Scalar]] | None = Field(
        None,
        min_length=1,
        description="Sampled only while these parameters have this value, or one of these values.",
    )


class FloatParameter(_Sampled):
    """A number between low and high, both included."""

    type: Literal["float"]
    low: float = Field(description="The smallest value.")
    high: float = Field(description="The largest value.")
    log: bool = Field(False, description="Sample the logarithm; low must be above 0.")
    reverse: bool = Field(
        False, description="With log: the fine steps lie at the high end, not at the low one."
    )
    step: float | None = Field(
        None, gt=0, description="Only low, low + step, low + 2 step and so on."
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatParameter:
        _check_range(self.low, self.high, self.log, self.step is not None)
        _check_reverse(self.reverse, self.log)
        return self


class IntParameter(_Sampled):
    """A whole number between low and high, both included."""

    type: Literal["int"]
    low: int = Field(description="The smallest value.")
    high: int = Field(description="The largest value.")
    log: bool = Field(False, description="Sample the logarithm; low must be above 0.")
    reverse: bool = Field(
        False, description="With log: the fine steps lie at the high end, not at the low one."
    )
    step: int = Field(1, ge=1, description="Only low, low + step, low + 2 step and so on.")

    @model_validator(mode="after")
    def _is_a_range(self) -> IntParameter:
        _check_range(self.low, self.high, self.log, self.step != 1)
        _check_reverse(self.reverse, self.log)
        return self


class CategoricalParameter(_Sampled):
    """One of the choices."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(
        strict=False, min_length=1, description="The values, all different."
    )

    @model_validator(mode="after")
    def _has_no_choice_twice(self) -> CategoricalParameter:
        # Optuna looks a choice up with ==, and for Python 1 == 1.0 == True.
        twice = dict.fromkeys(
            json.dumps(choice) for choice in self.choices if self.choices.count(choice) > 1
        )
        if twice:
            raise ValueError(f"choices must differ, received more than once: {', '.join(twice)}")
        return self


class BoolParameter(_Sampled):
    """True or false."""

    type: Literal["bool"]


Parameter = FloatParameter | IntParameter | CategoricalParameter | BoolParameter
SpaceEntry = Annotated[Parameter, Field(discriminator="type")] | Scalar


def _check_range(low: float, high: float, log: bool, stepped: bool) -> None:
    if low > high:
        raise ValueError(f"low must not be above high, received low {low} and high {high}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 on a log scale, received {low}")
    if log and stepped:
        raise ValueError("log and step can't be combined: leave one of them out")


def _check_reverse(reverse: bool, log: bool) -> None:
    if reverse and not log:
        raise ValueError("reverse goes with log: true")
