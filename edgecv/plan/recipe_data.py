"""A recipe's `data:` and `bench:`: images and how they become input, and how long is timed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edgecv import data as datasets
from edgecv import pixel_units
from edgecv.errors import DataError
from edgecv.runtime.preprocess import MOST_CHANNELS


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Checked):
    """Where images come from and how pixels become network input (the device does the same).

    Held as train and test, sources of `edgecv.data`, also where images are given without labels.

    mean and std: one value or one per channel, in the order of the network's channels; given in
    units of 0..1 (a pixel of 255 is 1.0) or of 0..255 (`edgecv.pixel_units`), held in 0..1.
    """

    train: str = Field(
        default="",
        description="imagefolder:PATH, npz:PATH, coco:JSON, yolo:DATA.yaml, voc:DIR, masks:DIR, "
        "a registered name, module:function",
    )
    test: str = Field(default="", description="the same, for the accuracy that is reported")
    images: str | None = Field(
        default=None,
        description="instead of both, without labels: a folder, .npy or .npz (docs/networks.md); "
        "int8 is calibrated on two thirds of them and judged on the others",
    )
    size: int | tuple[int, int] | None = Field(
        default=None, description="input size in pixels, or [height, width]; default: the file's"
    )
    resize: Literal["crop", "stretch", "letterbox", "none"] = Field(
        default="crop",
        description="crop the centre, stretch to the size, keep the aspect and pad, or none at all",
    )
    pad_value: int = Field(default=114, ge=0, le=255, description="of letterbox: the pixel around")
    pad_at: Literal["centre", "corner"] = Field(
        default="centre", description="of letterbox: corner puts the image at the upper left"
    )
    color: Literal["rgb", "bgr", "grey"] = Field(
        default="rgb", description="the order of three channels; grey is one channel"
    )
    channels: int | None = Field(
        default=None, ge=1, le=MOST_CHANNELS, description="default: the data's own"
    )
    crop_pct: float = Field(
        default=0.875,
        ge=0.05,
        le=1,
        description="of crop: short side becomes size / crop_pct before it",
    )
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    units: Literal["0..1", "0..255"] | None = Field(
        default=None, description="of mean and std; default: what they can only be"
    )
    mean: tuple[float, ...] = Field(default=(0.5,), min_length=1)
    std: tuple[float, ...] = Field(default=(0.5,), min_length=1)

    @field_validator("size")
    @classmethod
    def _positive(cls, value: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        sides = (value, value) if isinstance(value, int) else value
        if sides and (min(sides) < 1 or max(sides) > 4096):
            raise ValueError("a side is between 1 and 4096 pixels")
        return value

    @field_validator("images")
    @classmethod
    def _without_labels(cls, value: str | None) -> str | None:
        if value is not None:
            unlabelled(value)
        return value

    @field_validator("pad_value", "pad_at", "crop_pct")
    @classmethod
    def _of_its_resize(cls, value: Any, info: ValidationInfo) -> Any:
        needed = "crop" if info.field_name == "crop_pct" else "letterbox"
        if (found := info.data.get("resize", needed)) != needed:
            raise ValueError(f"means nothing with resize {found}, only with {needed}")
        return value

    @field_validator("channels")
    @classmethod
    def _of_its_color(cls, value: int | None, info: ValidationInfo) -> int | None:
        needed = {"grey": 1, "bgr": 3}.get(info.data.get("color", "rgb"), value)
        if value not in (None, needed):
            raise ValueError(f"{info.data['color']} is of {needed} channels")
        return value

    @field_validator("mean", "std", mode="before", json_schema_input_type=float | tuple[float, ...])
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """Before units are told by what a truth value would count as; a number is a list."""
        listed = value if isinstance(value, list | tuple) else [value]
        if truth := [v for v in listed if isinstance(v, bool)]:
            raise ValueError(f"takes a number, found {str(truth[0]).lower()}")
        return listed if isinstance(value, int | float) else value

    @field_validator("mean", "std")
    @classmethod
    def _per_channel(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        channels = info.data.get("channels")
        if len(value) not in ((1, 3) if channels is None else (1, channels)):
            raise ValueError("give one value, or one per channel")
        return value

    @field_validator("std")
    @classmethod
    def _nonzero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0:
            raise ValueError("a standard deviation is above 0")
        return value

    @model_validator(mode="after")
    def _of_one_kind(self) -> Data:
        given = [k for k in ("train", "test") if k in self.model_fields_set]
        if self.images is None:
            for key in ("train", "test"):
                if key not in given:
                    raise ValueError(f"key {key!r} is missing; without labels: images: FOLDER")
            return self
        if given:
            raise ValueError(f"images stands instead of {given[0]}: give the one or the other")
        source = unlabelled(self.images)
        for key in ("train", "test"):
            object.__setattr__(self, key, source)
        return self

    @model_validator(mode="after")
    def _in_units_of_one(self) -> Data:
        taken: dict[str, Any] = {}
        given = {k: getattr(self, k) for k in ("mean", "std") if k in self.model_fields_set}
        units = self.units or pixel_units.told(given.get("mean"), given.get("std"), "0..1")
        if units == "0..255":
            taken = {k: tuple(v / 255.0 for v in values) for k, values in given.items()}
        elif any(abs(v) > 4 for values in given.values() for v in values):
            raise ValueError("mean and std are above 4, and units of 0..1 are asked for")
        if self.color == "grey":
            taken["channels"] = 1
        for key, value in {**taken, "units": units}.items():
            object.__setattr__(self, key, value)  # frozen for everybody else
        return self

    @property
    def height_width(self) -> tuple[int, int]:
        assert self.size is not None  # `check` finds the file's where the recipe says none
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def geometry(self) -> dict[str, Any]:
        """How images come to the input's size, and its channels, as Preprocess names it; without
        what goes without saying."""
        said: dict[str, Any] = {"resize": self.resize}
        if self.resize == "crop":
            said = {"crop_pct": self.crop_pct}
        if self.resize == "letterbox":
            said |= {"pad_value": self.pad_value, "pad_at": self.pad_at}
        return {**said, "interpolation": self.interpolation}


def unlabelled(images: str) -> str:
    """What `images:` means as a source (`edgecv.data`). Raises ValueError: a source of labels."""
    with suppress(DataError):
        if not (named := datasets.parse(images)).labelled:
            return images
        raise ValueError(f"{named.kind} has labels: give it as train and test")
    return f"parted:{images}"


class Bench(_Checked):
    """How long the latency of what was built is measured, per target."""

    rounds: int = Field(default=40, ge=3, description="interleaved rounds, at least")
    precision: float = Field(
        default=0.01, ge=0.006, le=1, description="half-width of the ratios' 95% intervals to reach"
    )
    budget_s: float = Field(default=15.0, gt=0, description="seconds after which it ends anyway")
    burst_ms: float = Field(default=5.0, gt=0, description="one bundle's turn in a round")
