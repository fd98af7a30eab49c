"""Settings of the service: every field is a flag of mnist-serve and an environment variable."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from serving.errors import SettingsError
from serving.models.bundle import RELEASE

PREFIX = "MNIST_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may choose.

    Raises:
        SettingsError: a value breaks its rule.
    """

    host: Annotated[str, "Address to listen on; 0.0.0.0 is every one of this machine."] = "127.0.0.1"
    port: Annotated[int, "Port to listen on; 0 takes a free one."] = 8000
    repository: Annotated[Path, "Model repository: `<repository>/<name>/<version>/`."] = RELEASE
    model: Annotated[str, "Name of the model that /predict answers with; its newest version is served."] = "mnist"
    versions: Annotated[int, "Newest versions of each model to have loaded; 0 is all."] = 3
    poll: Annotated[float, "Seconds between two looks for new versions in the repository; 0 never looks again."] = 1.0
    workers: Annotated[int, "Processes that answer; as many as cores is a good number."] = 1
    max_concurrency: Annotated[
        int, "Predictions that may wait or be under way in a worker; beyond it the answer is 429."
    ] = 16
    max_connections: Annotated[int, "Connections a worker holds open; beyond it new ones are closed."] = 1000
    request_timeout: Annotated[int, "Seconds a client may take to send a request, headers and body."] = 20
    keep_alive: Annotated[int, "Seconds a connection may idle between two requests."] = 30
    max_batch: Annotated[int, "Images in one request at most."] = 1024
    max_head: Annotated[int, "Bytes of a request's line and headers at most."] = 32_768
    max_body: Annotated[int, "Bytes of a request body at most."] = 8_000_000
    max_pixels: Annotated[int, "Pixels of a picture at most."] = 25_000_000
    grace: Annotated[int, "Seconds that requests under way may take to finish at shutdown."] = 20
    drain: Annotated[float, "Seconds to go on answering, but not ready, after SIGTERM."] = 1.0
    predict_keys: Annotated[
        str, "API keys for predictions, separated by commas. A command line is public: prefer the variable or the file."
    ] = field(default="", repr=False)
    predict_keys_file: Annotated[str, "File with API keys for predictions, one a line."] = ""
    admin_keys: Annotated[str, "API keys for loading and unloading models; without any, both are refused."] = field(
        default="", repr=False
    )
    admin_keys_file: Annotated[str, "File with API keys for loading and unloading models, one a line."] = ""
    cors_origins: Annotated[str, "Origins whose pages may call this service, separated by commas; * is any."] = ""
    access_log: Annotated[bool, "Log a line for every request."] = False
    log_level: Annotated[str, "Log from this level on: debug, info, warning or error."] = "info"
    log_format: Annotated[str, "Form of the log lines: json or text."] = "json"

    def __post_init__(self) -> None:
        """Check the bounds."""
        self._check("port", 0 <= self.port < 65536, "must lie between 0 and 65535")
        positive = ("workers", "max_concurrency", "max_connections", "request_timeout", "keep_alive")
        for name in (*positive, "max_batch", "max_head", "max_body", "max_pixels", "grace"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        self._check("drain", 0 <= self.drain < float("inf"), "must not be negative")
        self._check("versions", self.versions >= 0, "must not be negative; 0 is all")
        self._check("poll", 0 <= self.poll < float("inf"), "must not be negative; 0 never looks again")
        self._check("log_level", self.log_level in ("debug", "info", "warning", "error"), "is no level of the log")
        self._check("log_format", self.log_format in ("json", "text"), "must be json or text")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise SettingsError(f"{flag(name)} {getattr(self, name)}: {rule}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Settings from ``MNIST_*`` variables, defaults for the rest."""
        given: dict[str, Any] = {}
        for name, kind, _ in described():
            text = environment.get(variable(name))
            if text is None:
                continue
            try:
                given[name] = _truth(text) if kind is bool else kind(text)
            except ValueError as error:
                raise SettingsError(f"{variable(name)}={text}: must be of type {kind.__name__}") from error
        return cls(**given)


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def described() -> list[tuple[str, type, str]]:
    """Name, type and text of each field."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    return [(field.name, *typing.get_args(hints[field.name])) for field in fields(Settings)]


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]
