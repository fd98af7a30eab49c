"""The options of the commands: a flag and a variable for each setting of the service, paths, and times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from serving.server.streams import warn
from serving.settings import Settings, described, flag, is_service_link, service_link_warning, variable


class Place(click.Path):
    """A path. ``~`` stands for the home folder, as in a shell, which does not replace it after a ``=``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        # An empty name comes from an unset variable of a shell, and would stand for the current folder.
        if not str(value):
            self.fail("must not be empty", param, ctx)
        try:
            return super().convert(Path(value).expanduser(), param, ctx)
        except RuntimeError as error:
            self.fail(f"{str(value)!r}: {error}", param, ctx)


class SettingOption(click.Option):
    """An option that ignores a variable of its name that Kubernetes has set for another service.

    Another flag is not its value: click would take ``--port`` for the folder in ``--feedback --port 8001``.
    """

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        if any(value in parameter.opts for parameter in ctx.command.params):
            raise click.BadOptionUsage(self.opts[0], f"{self.opts[0]}: needs a value, but {value} follows it", ctx)
        return super().type_cast_value(ctx, value)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        text = super().resolve_envvar_value(ctx)
        name = str(self.envvar)
        if text is not None and is_service_link(name, text):
            warn(f"WARNING: {service_link_warning(name, text)}")
            return None
        return text


def settings_options(command: Any) -> Any:
    """Give ``command`` a flag and an environment variable for each field of Settings."""
    for name, kind, text in reversed(described()):
        default = getattr(Settings, name, "")
        command = click.option(
            f"{flag(name)}/--no-{flag(name)[2:]}" if kind is bool else flag(name),
            cls=SettingOption,
            type=Place() if kind is Path else kind,
            default=default,
            show_default="the packaged one" if kind is Path else default != "",
            envvar=variable(name),
            show_envvar=True,
            help=text,
        )(command)
    return command


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 5ms, 500us or 0.2s."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(us|ms|s)", text.strip())
    seconds = float(found[1]) / {"us": 1e6, "ms": 1e3, "s": 1.0}[found[2]] if found else 0.0
    if not seconds:
        raise click.BadParameter(f"{text!r}: must be a time of more than 0, such as 5ms, 500us or 0.2s")
    return seconds
