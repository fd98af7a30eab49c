"""mnist-serve and mnist-predict."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path
from typing import Any

import click

from serving.errors import SettingsError
from serving.settings import Settings, described, flag, variable

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
    from serving.errors import BundleError
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
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}. Name another with --port."
        ) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    service = app.state.service
    if not service.keys.predict and not _is_loopback(settings.host):
        click.echo(
            f"WARNING: anyone who reaches {settings.host} can use this service: no API key is needed. "
            "Set --predict-keys-file, or see that only those who should can reach it.",
            err=True,
        )
    model = service.repository.get(settings.model)
    result = model.bundle.manifest.result.get("test", {})
    click.echo(
        f"{model.name} version {model.version}, {result.get('accuracy', 0):.2%} on its test set, "
        f"{model.precision}, verified on this CPU\n"
        f"http://{host}:{listener.getsockname()[1]}  (Ctrl-C stops it)"
    )
    server.run(settings, listener, app)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.command(epilog=PREDICT_EXAMPLES)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as /predict answers, with each file's name.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="Model repository.  [default: the packaged one]",
)
@click.option("--model", default=Settings.model, show_default=True, help="Name of the model.")
@click.version_option(package_name="mnist-service")
def predict(files: tuple[Path, ...], as_json: bool, repository: Path | None, model: str) -> None:
    """Recognise the digit in each picture, without a server."""
    import numpy as np

    from serving.errors import BundleError, InputError
    from serving.models import repository as models
    from serving.models.bundle import RELEASE
    from serving.pictures.mnist_form import to_mnist_form

    try:
        loaded = models.load(repository or RELEASE, model)
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    read = []
    for file in files:
        try:
            read.append(to_mnist_form(file.read_bytes(), Settings.max_pixels))
        except (OSError, InputError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.ClickException(f"{file}: {reason}") from error
    images = np.stack([digit.image for digit in read])
    answers = loaded.classifier.classify(images)
    reasons = loaded.judge(images, answers, {i: digit.reason for i, digit in enumerate(read)})
    rows = [
        {
            "file": str(file),
            "digit": int(row.argmax()),
            "label": loaded.labels[int(row.argmax())],
            "confidence": float(row.max()),
            "probabilities": row.tolist(),
            "accepted": reason is None,
            "reason": reason,
        }
        for file, row, reason in zip(files, answers.probabilities, reasons, strict=True)
    ]
    if as_json:
        answer = {"model": {"name": loaded.name, "version": loaded.version}, "predictions": rows}
        click.echo(json.dumps(answer, indent=2))
        return
    width = max(len("file"), *(len(str(row["file"])) for row in rows))
    click.echo(f"{'file':{width}}  digit  confidence  accepted")
    for row in rows:
        click.echo(f"{row['file']!s:{width}}  {row['label']!s:5}  {row['confidence']:10.2%}  {row['reason'] or 'yes'}")
