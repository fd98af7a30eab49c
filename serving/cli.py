"""The commands mnist-serve and mnist-predict."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.errors import AddressError, BundleError, InputError, SettingsError, WorkerError
from serving.server import address
from serving.server.streams import Command, abandon_output, print_output, warn
from serving.settings import (
    RELEASE,
    Settings,
    described,
    flag,
    is_loopback,
    is_service_link,
    service_link_warning,
    variable,
)

if TYPE_CHECKING:
    from serving.models.model import Model

SERVE_EXAMPLES = """
\b
Examples:
  mnist-serve
  mnist-serve --repository models --host 0.0.0.0 --port 8080
"""

PREDICT_EXAMPLES = """
\b
Examples:
  mnist-predict digit.png
  mnist-predict --json scans/*.png
  mnist-predict --number meter.jpg
"""


class SettingOption(click.Option):
    """An option that ignores a variable of its name that Kubernetes has set for another service."""

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
            type=click.Path(path_type=Path) if kind is Path else kind,
            default=default,
            show_default="the packaged one" if kind is Path else default != "",
            envvar=variable(name),
            show_envvar=True,
            help=text,
        )(command)
    return command


@click.command(cls=Command, epilog=SERVE_EXAMPLES)
@settings_options
@click.version_option(package_name="mnist-service")
def serve(**given: Any) -> None:
    """Serve a model over HTTP."""
    from serving.server import handover
    from serving.telemetry import logs

    # prometheus_client would write the metrics to files in this folder, together with those of other programs.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    try:
        settings = handover.lasting(Settings(**given))
        logs.configure(settings.log_level, settings.log_format)
        (_serve_here if settings.workers == 1 else _serve_with_workers)(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except (BundleError, AddressError, WorkerError) as error:
        raise click.ClickException(str(error)) from error


def _serve_here(settings: Settings) -> None:
    from serving.api.app import create_app
    from serving.server import run

    app = create_app(settings)
    listener = address.listen(settings.host, settings.port)
    _warn_without_key(settings)
    _announce(address.url(settings.host, listener), run.description(app))
    run.run(settings, listener, app)


def _serve_with_workers(settings: Settings) -> None:
    import asyncio

    from serving.server.supervisor import Supervisor

    listener = address.listen(settings.host, settings.port)
    _warn_without_key(settings)
    asyncio.run(Supervisor(settings, listener, partial(_announce, address.url(settings.host, listener))).run())


def _announce(url: str, description: str) -> None:
    try:
        print_output(f"{description}\n{url}  (stop with Ctrl-C)")
    except OSError as error:
        abandon_output()
        warn(f"WARNING: cannot write to standard output ({error.strerror}): the service runs on {url}")


def _warn_without_key(settings: Settings) -> None:
    if settings.predict_keys or settings.predict_keys_file or is_loopback(settings.host):
        return
    warn(
        f"WARNING: anyone who reaches {settings.host} can use this service, because it has no prediction key. "
        "Set --predict-keys-file, or make sure that only the right people can reach it."
    )


@click.command(cls=Command, epilog=PREDICT_EXAMPLES)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--number", "as_number", is_flag=True, help="Read all lines of digits in each picture.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON like /predict, with the name of each file.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="Model repository: the folder that holds `<name>/<version>/`.  [default: the packaged one]",
)
@click.option("--model", default=Settings.model, show_default=True, help="Model to use. Its newest version is used.")
@click.version_option(package_name="mnist-service")
def predict(files: tuple[Path, ...], as_number: bool, as_json: bool, repository: Path | None, model: str) -> None:
    """Recognise the digit in each picture, or with --number all digits, without a server."""
    from serving.models.repository import load

    try:
        loaded = load(repository or RELEASE, model)
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    rows = (_numbers if as_number else _predictions)(loaded, files)
    if as_json:
        response = {"model": {"name": loaded.name, "version": loaded.version}, "predictions": rows}
        print_output(json.dumps(response, indent=2))
        return
    width = max(len("file"), *(len(row["file"]) for row in rows))
    if as_number:
        _print_numbers(rows, width)
        return
    print_output(f"{'file':{width}}  digit  confidence  accepted")
    for row in rows:
        print_output(f"{row['file']:{width}}  {row['label']:5}  {row['confidence']:10.2%}  {row['reason'] or 'yes'}")


def _predictions(model: Model, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the prediction for each picture: the fields of a prediction of /predict, and the name of the file."""
    import numpy as np

    from serving.pictures.mnist_form import to_mnist_form

    pictures = []
    for file in files:
        try:
            pictures.append(to_mnist_form(file.read_bytes(), Settings.max_pixels))
        except (OSError, InputError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.ClickException(f"{file}: {reason}") from error
    images = np.stack([picture.image for picture in pictures])
    output = model.classifier.classify(images)
    reasons = model.judge(images, output, {i: picture.reason for i, picture in enumerate(pictures)})
    return [
        {
            "file": str(file),
            "digit": int(row.argmax()),
            "label": model.labels[int(row.argmax())],
            "confidence": float(row.max()),
            "probabilities": row.tolist(),
            "accepted": reason is None,
            "reason": reason,
        }
        for file, row, reason in zip(files, output.probabilities, reasons, strict=True)
    ]


def _numbers(model: Model, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the numbers in each picture: as /predict?mode=number does, and with the name of the file."""
    import msgspec

    from serving.inference.numbers import Reading
    from serving.pictures.number_form import to_number_page

    rows = []
    for file in files:
        try:
            page = to_number_page(file.read_bytes(), Settings.max_pixels)
        except (OSError, InputError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.ClickException(f"{file}: {reason}") from error
        reading = Reading(model, [page])
        output = model.classifier.classify(reading.images) if len(reading.images) else None
        rows += [{"file": str(file)} | msgspec.to_builtins(number) for number in reading.predictions(output)]
    return rows


def _print_numbers(rows: Sequence[dict[str, Any]], width: int) -> None:
    """Print a line for each line of digits, and one for each picture without any."""
    lines = [(row["file"], line) for row in rows for line in row["lines"] or [row | {"confidence": 0.0}]]
    number_width = max(len("number"), *(len(line["text"]) for _, line in lines))
    print_output(f"{'file':{width}}  {'number':{number_width}}  confidence  accepted")
    for file, line in lines:
        text = f"{line['text']:{number_width}}  {line['confidence']:10.2%}"
        print_output(f"{file:{width}}  {text}  {line['reason'] or 'yes'}")
