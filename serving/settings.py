"""Settings of the service: every field is a flag of mnist-serve and an environment variable."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from serving.bundle import RELEASE

PREFIX = "MNIST_"


class SettingsError(ValueError):
    """A setting is out of its bounds; the message names it, its value and the rule."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may choose.

    Raises:
        SettingsError: a value breaks its rule.
    """

    host: Annotated[str, "Address to listen on; 0.0.0.0 is every one of this machine."] = "127.0.0.1"
    port: Annotated[int, "Port to listen on; 0 takes a free one."] = 8000
    repository: Annotated[Path, "Model repository: <repository>/<name>/<version>/."] = RELEASE
    model: Annotated[str, "Name of the model that /predict answers with; its newest version is served."] = "mnist"
    max_batch: Annotated[int, "Images in one request at most."] = 1024
    max_body: Annotated[int, "Bytes of a request body at most."] = 8_000_000
    max_pixels: Annotated[int, "Pixels of a picture at most."] = 25_000_000
    grace: Annotated[int, "Seconds that requests under way may take to finish at shutdown."] = 20

    def __post_init__(self) -> None:
        """Check the bounds."""
        self._check("port", 0 <= self.port < 65536, "must lie between 0 and 65535")
        for name in ("max_batch", "max_body", "max_pixels", "grace"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise SettingsError(f"--{name.replace('_', '-')} {getattr(self, name)}: {rule}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Settings from ``MNIST_*`` variables, defaults for the rest."""
        kinds = {name: kind for name, kind, _ in described()}
        given: dict[str, Any] = {}
        for name, kind in kinds.items():
            text = environment.get(variable(name))
            if text is None:
                continue
            try:
                given[name] = kind(text)
            except ValueError as error:
                raise SettingsError(f"{variable(name)}={text}: must be of type {kind.__name__}") from error
        return cls(**given)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def described() -> list[tuple[str, type, str]]:
    """Name, type and text of each field."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    return [(field.name, *typing.get_args(hints[field.name])) for field in fields(Settings)]
