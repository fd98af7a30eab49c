"""The commands mnist-serve and mnist-predict."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.errors import BundleError, InputError, SettingsError
from serving.settings import RELEASE, Settings, described, flag, is_loopback, variable

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
"""


def settings_options(command: Any) -> Any:
    """Give ``command`` a flag and an environment variable for each field of Settings."""
    for name, kind, text in reversed(described()):
        default = getattr(Settings, name, "")
        command = click.option(
            f"{flag(name)}/--no-{flag(name)[2:]}" if kind is bool else flag(name),
            type=click.Path(path_type=Path) if kind is Path else kind,
            default=default,
            show_default="the packaged one" if kind is Path else default != "",
            envvar=variable(name),
            show_envvar=True,
            help=text,
        )(command)
    return command


@click.command(epilog=SERVE_EXAMPLES)
@settings_options
@click.version_option(package_name="mnist-service")
def serve(**given: Any) -> None:
    """Serve a model over HTTP."""
    from serving.api.app import create_app
    from serving.server import run as server
    from serving.telemetry import logs

    try:
        settings = Settings(**given)
        logs.configure(settings.log_level, settings.log_format)
        app = create_app(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    listener = _listen(settings)
    service = app.state.service
    if not service.keys.prediction and not is_loopback(settings.host):
        click.echo(
            f"WARNING: anyone who reaches {settings.host} can use this service, because it has no prediction key. "
            "Set --predict-keys-file, or make sure that only the right people can reach it.",
            err=True,
        )
    model = service.repository.get(settings.model)
    accuracy = model.bundle.manifest.result.get("test", {}).get("accuracy", 0)
    click.echo(
        f"{model.name} version {model.version}: accuracy {accuracy:.2%} on its test set, {model.precision}, "
        "verified on this CPU"
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    click.echo(f"http://{host}:{listener.getsockname()[1]}  (stop with Ctrl-C)")
    server.run(settings, listener, app)


def _listen(settings: Settings) -> socket.socket:
    from serving.server.run import BACKLOG

    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Choose another address with --host or another port with --port."
        ) from error


@click.command(epilog=PREDICT_EXAMPLES)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON like /predict, with the name of each file.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="Model repository: the folder that holds `<name>/<version>/`.  [default: the packaged one]",
)
@click.option("--model", default=Settings.model, show_default=True, help="Model to use. Its newest version is used.")
@click.version_option(package_name="mnist-service")
def predict(files: tuple[Path, ...], as_json: bool, repository: Path | None, model: str) -> None:
    """Recognise the digit in each picture, without a server."""
    from serving.models.repository import load

    try:
        loaded = load(repository or RELEASE, model)
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    rows = _predictions(loaded, files)
    if as_json:
        response = {"model": {"name": loaded.name, "version": loaded.version}, "predictions": rows}
        click.echo(json.dumps(response, indent=2))
        return
    width = max(len("file"), *(len(row["file"]) for row in rows))
    click.echo(f"{'file':{width}}  digit  confidence  accepted")
    for row in rows:
        click.echo(f"{row['file']:{width}}  {row['label']:5}  {row['confidence']:10.2%}  {row['reason'] or 'yes'}")


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
