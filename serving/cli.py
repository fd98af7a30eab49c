"""The commands mnist-serve and mnist-predict."""

from __future__ import annotations

import difflib
import os
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from serving.errors import AddressError, BundleError, InputsError, ResultsError, SettingsError, TuneError, WorkerError
from serving.hosts import is_loopback
from serving.models.disk import default_model
from serving.options import Place, seconds_of, settings_options
from serving.server import address, systemd
from serving.server.address import Listener
from serving.server.streams import Command, Group, Line, abandon_output, print_output, warn, write_output
from serving.settings import NO_PORT, RELEASE, Settings, flag

SERVE_EXAMPLES = """
\b
Examples:
  mnist-serve
  mnist-serve --repository models --host 0.0.0.0 --port 8080
  mnist-serve --tls-cert tls.crt --tls-key tls.key
  mnist-serve tune --p99 5ms
"""

TUNE_EXAMPLES = """
\b
Examples:
  mnist-serve tune --p99 5ms
  mnist-serve tune --p99 50ms --picture scan.png --repository models
"""

PREDICT_EXAMPLES = """
\b
Examples:
  mnist-predict digit.png
  mnist-predict --json scans/*.png
  find /archive -name '*.png' | mnist-predict - --output results.jsonl
  mnist-predict scans --output results.csv
  mnist-predict --number meter.jpg
"""

MODEL_HELP = "Model to use, in its newest version. If the repository has only one model, that model is the default."

# Exit statuses: some pictures could not be read, Ctrl-C, and SIGTERM.
UNREADABLE, INTERRUPTED, TERMINATED = 3, 130, 143


class ServeGroup(Group):
    """The group of mnist-serve, which takes no arguments of its own."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        # click itself suggests a command that looks similar.
        if not difflib.get_close_matches(args[0], self.commands):
            place = shlex.quote(args[0])
            is_file = os.path.isfile(args[0])  # noqa: PTH113 (Path.is_file raises an error for a long name)
            way_out = f"mnist-predict {place}" if is_file else f"--repository {place}"
            ctx.fail(f"{args[0]}: is no command of mnist-serve; did you mean {way_out}?")
        return super().resolve_command(ctx, args)


@click.group(cls=ServeGroup, invoke_without_command=True, subcommand_metavar="[COMMAND]", epilog=SERVE_EXAMPLES)
@settings_options
@click.version_option(package_name="mnist-service")
@click.pass_context
def serve(context: click.Context, /, **given: Any) -> None:
    """Serve a model over HTTP, and over gRPC with --grpc-port.

    Without options, it serves the packaged model, which comes with this program, on http://127.0.0.1:8000.
    """
    if context.invoked_subcommand:
        return
    from serving.server import handover
    from serving.server.descriptors import with_descriptors
    from serving.telemetry import logs

    _stop_at_hangup()
    # prometheus_client would write the metrics to files in this folder, together with those of other programs.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    if not _is_given("model"):
        given["model"] = default_model(given["repository"])
    try:
        if (given["uds"] or given["fd"]) and not (_is_given("host") or _is_given("port")):
            given["port"] = NO_PORT
        settings = with_descriptors(address.reserve_grpc(handover.lasting(Settings(**given))))
        logs.configure(settings.log_level, settings.log_format)
        passed = address.inherited(settings)
        serve_it = _serve_here if settings.workers == 1 else _serve_with_workers
        serve_it(address.settled(settings, passed), passed)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except (BundleError, AddressError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:  # Before the service is ready. Later, the server stops cleanly.
        warn("Stopped.")
        sys.exit(INTERRUPTED)


@serve.command(cls=Command, short_help="Find the best settings for this machine.", epilog=TUNE_EXAMPLES)
@click.option(
    "--p99",
    type=seconds_of,
    metavar="TIME",
    default="10ms",
    show_default=True,
    help="Time within which 99 % of the responses must come.",
)
@click.option(
    "--picture",
    type=Place(exists=True, dir_okay=False),
    help="Measure with requests that hold this picture.  [default: requests with the pixels of one image]",
)
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Seconds to measure.")
@click.option("--repository", type=Place(), help="Model repository.  [default: the packaged one]")
@click.option("--model", help=f"{MODEL_HELP}  [default: {Settings.model}]")
@click.pass_context
def tune(context: click.Context, /, p99: float, picture: Path | None, seconds: float, **given: Any) -> None:
    """Find the settings with the most requests per second on this machine, within --p99.

    The command starts services on this machine and sends them requests. It prints what it measures. At the end it
    prints the command line to use: mnist-serve with the number of workers, the number of predictions in flight and the
    largest request with which 99 % of the responses come within the time of --p99.
    """
    from serving.tune import run

    # mnist-serve has the same two settings, which may stand before the name of this command. If the user gives one, it
    # counts also if it is the default: without --model, the only model of the repository would be used.
    group = context.find_root()
    settings = {name: group.params[name] for name in given if _is_given(name, group)}
    settings |= {name: value for name, value in given.items() if value is not None}
    arguments = [part for name, value in settings.items() for part in (flag(name), str(value))]
    progress = Line(sys.stderr)
    # Without this, SIGTERM would end this process and leave the measured service.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    _stop_at_hangup()
    try:
        run.tune(run.Options(p99, seconds, picture, arguments), print_output, progress.show)
    except TuneError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        warn("Stopped.")
        sys.exit(INTERRUPTED)
    finally:
        progress.show("")


def _stop_at_hangup() -> None:
    """Do the same when the terminal is closed (SIGHUP) as at SIGTERM."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _is_given(name: str, context: click.Context | None = None) -> bool:
    """Return whether a flag or a variable has set this setting."""
    return (context or click.get_current_context()).get_parameter_source(name) is not ParameterSource.DEFAULT


def _serve_here(settings: Settings, passed: list[Listener]) -> None:
    from serving.api.app import create_app
    from serving.server import run

    app = create_app(settings)
    server = run.make_server(settings, app)
    # Nobody can connect before the model is loaded.
    with address.listening(settings, passed) as listeners:
        _warn_without_key(settings, listeners)
        server.announce = partial(_announce, settings, listeners, run.description(app))
        run.run(server, [listener.socket for listener in listeners])


def _serve_with_workers(settings: Settings, passed: list[Listener]) -> None:
    import asyncio

    from serving.server.supervisor import Supervisor

    with address.listening(settings, passed) as listeners:
        _warn_without_key(settings, listeners)
        sockets = [listener.socket for listener in listeners]
        asyncio.run(Supervisor(settings, sockets, partial(_announce, settings, listeners)).run())


def _announce(settings: Settings, listeners: list[Listener], description: str) -> None:
    scheme = "grpcs" if settings.tls_cert else "grpc"
    grpc = f"{scheme}://{address.name(settings.host, settings.grpc_port)}\n" if settings.grpc_port >= 0 else ""
    addresses = " and ".join(listener.address for listener in listeners)
    try:
        print_output(f"{description}\n{grpc}{addresses}  (stop with Ctrl-C)")
    except OSError as error:
        abandon_output()
        warn(f"WARNING: cannot write to standard output ({error.strerror}): the service runs on {addresses}")
    systemd.report_ready()


def _warn_without_key(settings: Settings, listeners: list[Listener]) -> None:
    hosts = [listener.public_host for listener in listeners if listener.public_host]
    if settings.grpc_port >= 0 and not is_loopback(settings.host):
        hosts.append(settings.host)
    if hosts and not (settings.predict_keys or settings.predict_keys_file or settings.tls_client_ca):
        warn(
            f"WARNING: anyone who reaches {hosts[0]} can use this service, because it has no prediction key. "
            "Set --predict-keys-file, or make sure that only the right people can reach it."
        )


@click.command(cls=Command, epilog=PREDICT_EXAMPLES)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--output",
    type=Place(),
    help="Write the rows to this file: .csv, .jsonl or .parquet. After an interruption, the same command continues.",
)
@click.option(
    "--number",
    "as_numbers",
    is_flag=True,
    help="Read all lines of digits in each picture, not one digit. Cannot be combined with --output or --engine ray.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON like /predict, with the name of each file.")
@click.option(
    "--repository",
    type=Place(),
    help="Model repository: the folder that holds `<name>/<version>/`.  [default: the packaged one]",
)
@click.option("--model", default=Settings.model, show_default=True, help=MODEL_HELP)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes on this machine.  [default: one for each core]"
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to work: the cores of this machine, or a cluster of Ray.",
)
@click.option("--ray-address", help="Address of the cluster of Ray.  [default: a cluster on this machine]")
@click.version_option(package_name="mnist-service")
def predict(inputs: tuple[str, ...], repository: Path | None, workers: int | None, **given: Any) -> None:
    """Recognise the digit or symbol in each picture, or with --number all digits, without a server.

    An input is a picture, a folder, a pattern such as 'scans/*.png', a list of names (LIST.txt, one per line), or - for
    standard input, which holds a picture or a list of names.
    """
    from serving.batch import run
    from serving.batch.inputs import similar_name
    from serving.batch.progress import rounded

    repository = repository or RELEASE
    if not _is_given("model"):
        given["model"] = default_model(repository)
    options = run.Options(repository=repository, workers=workers or run.default_workers(), **given)
    try:
        options.check()
        outcome = run.predict(inputs, options, write_output)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except (BundleError, InputsError, ResultsError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        warn("Stopped." + (" The same command continues from here." if options.output else ""))
        sys.exit(INTERRUPTED)
    if options.output:
        speed = f"{rounded(outcome.rate)} pictures per second" if outcome.rate else "all there already"
        rows = f"{outcome.rows:,} row{'s' * (outcome.rows != 1)}, {outcome.accepted:,} accepted"
        print_output(f"{options.output}: {rows}, {speed}")
    if outcome.left_out:
        files = f"{outcome.left_out:,} file{'s' * (outcome.left_out != 1)}"
        warn(f"left out {files} in the folders, without the extension of a picture")
    if outcome.unreadable:
        several = f"{outcome.unreadable:,} pictures could not be read; the row of each has its error"
        meant = next(filter(None, map(similar_name, inputs)), "")
        hint = f"; did you mean {shlex.quote(meant)}?" if meant else ""
        warn(f"Error: {several if outcome.unreadable > 1 else outcome.first_error + hint}")
        sys.exit(UNREADABLE)
