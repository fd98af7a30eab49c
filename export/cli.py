"""The command mnist-export: publish a finished run as a verified bundle, or verify a published bundle again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from export import opset as opsets
from export.oci_cli import pull, push
from export.onnx_process import OnnxProcess
from serving.settings import NAME_PATTERN, NAME_RULE
from training.command import Command, Folder, Place, ending_at_once, naming_what_is_missing
from training.config import flag
from training.loop.progress import Progress
from training.memory import keep_freed_memory, no_garbage_collection
from training.openmp import sleep_while_waiting
from training.origin import RECORD

if TYPE_CHECKING:
    from export.sign import Signer

EXAMPLES = """
\b
Examples:
  mnist-export runs/cnn --repository models
  mnist-export runs/cnn --repository models --int8
  mnist-export runs/cnn --first runs/first --repository models
  mnist-export runs/cnn --repository models --not-worse-than served
  mnist-export runs/cnn --repository models --sign private.pem
  mnist-export --verify models/mnist/1 --trust public.pem
  mnist-export push models/mnist/1 oci://registry.example.org/digits/mnist:1
  mnist-export pull oci://registry.example.org/digits/mnist:1 --repository models
  mnist-export --rollback --repository models
"""


class ExportCommand(Command):
    """The command, which has two more commands: push and pull. Any other first word is a run folder."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        given = arguments[0] if arguments else options.get("args")
        words = sys.argv[1:] if given is None else list(given)
        if words and words[0] in COMMANDS:
            options |= {"args": words[1:], "prog_name": f"mnist-export {words[0]}"}
            return COMMANDS[words[0]].main(**options)
        return super().main(*arguments, **options)


COMMANDS = {"push": push, "pull": pull}

# Without a run to export, these options would do nothing: a gate among them would let everything pass.
OF_A_NEW_BUNDLE = (
    *("first", "int8", "opset", "sign", "certificate", "sign_password", "track"),
    *("min_accuracy", "not_worse_than", "margin"),
)


@click.command(cls=ExportCommand, epilog=EXAMPLES)
@click.argument("run", required=False, type=Folder())
@click.option(
    "--repository",
    type=Folder(),
    default=Path("models"),
    show_default=True,
    help="Model repository to publish into. The bundle becomes the next version.",
)
@click.option(
    "--name", help="Name of the model.  [default: the name of the data set; with --rollback or --retire: mnist]"
)
@click.option(
    "--data",
    type=Folder(),
    envvar="MNIST_DATA",
    show_envvar=True,
    help="Folder with the files of a known data set. With --verify and your own data: the pictures, or the run folder.",
)
@click.option(
    "--first",
    type=Folder(),
    metavar="RUN",
    help="Run folder of a smaller network on the same data. It sees all images and decides those that it is sure "
    "about; both networks together decide the rest. So most images take less time.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Also add a quantized ONNX file. The service then uses the faster of the two ONNX files.",
)
@click.option(
    "--opset",
    type=click.IntRange(opsets.LOWEST, opsets.HIGHEST),
    default=opsets.DEFAULT,
    show_default=True,
    help="Opset of the ONNX files: the version of their operators. Older runtimes need a lower one; the results are "
    "the same.",
)
@click.option(
    "--verify",
    type=Folder(),
    metavar="BUNDLE",
    help="Export nothing. Verify the published BUNDLE again: digests, tensors, golden images, and every figure of the "
    "manifest that can be computed.",
)
@click.option(
    "--sign",
    metavar="KEY",
    help="Sign the bundle with the private key in this PEM file, or with Sigstore if the value is `sigstore`. Needs "
    "the extra sign.",
)
@click.option(
    "--certificate",
    type=Place(dir_okay=False),
    help="File with the signing certificate of the key of --sign (X.509 in PEM), followed by its issuers.",
)
@click.option(
    "--sign-password",
    envvar="MNIST_SIGN_PASSWORD",
    show_envvar=True,
    help="Password of the key of --sign. Prefer the variable: other users of this machine can read a command line.",
)
@click.option(
    "--trust",
    default="",
    help="With --verify: who must have signed the bundle, as for mnist-serve.",
)
@click.option(
    "--track",
    type=click.Choice(["mlflow"]),
    help="Also register the published version in MLflow, under the run that mnist-train --track mlflow made.",
)
@click.option(
    "--min-accuracy",
    type=float,
    default=0.0,
    help="Publish only a run with at least this accuracy on the test set, for example 0.99.  [default: 0]",
)
@click.option(
    "--not-worse-than",
    metavar="VERSION",
    help="Publish only a run that is not worse than this version on the test set, beyond chance. Give `served` for the "
    "newest version.",
)
@click.option(
    "--margin",
    type=float,
    default=0.0005,
    show_default=True,
    help="For a run with --replay: how much lower its accuracy on the test set of the replay data set may be than that "
    "of the model it started from, and than that of every published version. 0.0005 means 5 more wrong predictions in "
    "10,000. The limit is rounded down: with fewer than 2,000 test images, 0.0005 allows not one more. 1 publishes in "
    "any case.",
)
@click.option(
    "--retire",
    type=click.IntRange(1),
    metavar="VERSION",
    help="Export nothing. Take this version out of service; its folder is kept under a hidden name.",
)
@click.option(
    "--rollback", is_flag=True, help="Export nothing. Retire the newest version, so the one before is served."
)
@click.version_option(package_name="mnist-service")
@click.pass_context
def main(
    context: click.Context,
    /,
    run: Path | None,
    repository: Path,
    name: str | None,
    data: Path | None,
    first: Path | None,
    int8: bool,
    opset: int,
    verify: Path | None,
    sign: str | None,
    certificate: Path | None,
    sign_password: str | None,
    trust: str,
    track: str | None,
    min_accuracy: float,
    not_worse_than: str | None,
    margin: float,
    retire: int | None,
    rollback: bool,
) -> None:
    """Export a finished run to ONNX and TorchScript, verify both files, and publish them.

    RUN is the run folder that mnist-train wrote. Each file is loaded again and compared with the network on the whole
    test set. If a file is not equivalent to the network, nothing is published.

    \b
    Other commands:
      mnist-export push   upload a bundle to an OCI registry
      mnist-export pull   download a bundle from one
    """
    check_options(context)
    if rollback or retire is not None:
        take_back(repository, name or "mnist", retire)
        return
    check_folders(run, first, verify, track)
    signer = signer_of(sign, certificate, sign_password)
    sleep_while_waiting()
    keep_freed_memory()
    progress = Progress(sys.stderr)
    context.call_on_close(progress.clear)
    # On a single core, a second process would only import torch once more.
    beside = context.with_resource(OnnxProcess()) if run is not None and (os.cpu_count() or 1) > 1 else None
    with (
        progress.waiting("loading torch", late=True),
        ending_at_once(),
        naming_what_is_missing("mnist-export"),
        no_garbage_collection(),
    ):
        from export import actions
        from export.gate import Gate
    with actions.explained(repository, "not published" if verify is None else "not verified"):
        if verify is not None:
            actions.verify(verify, data, trust, progress)
            return
        assert run is not None  # noqa: S101 (check_options() has checked it)
        bundle = actions.publish_run(
            run,
            first,
            repository,
            name,
            data,
            int8=int8,
            opset=opset,
            gate=Gate(min_accuracy, not_worse_than, margin),
            signer=signer,
            progress=progress,
            beside=beside,
        )
    if bundle is not None:
        actions.print_published(bundle, repository, actions.register(run, bundle) if track else "")


def check_options(context: click.Context) -> None:
    """Check what can be checked of the options before torch is loaded.

    Raises:
        UsageError: options do not belong together, or one breaks its rule.
    """
    given = context.params
    run, sign, name, not_worse_than = (given[option] for option in ("run", "sign", "name", "not_worse_than"))
    tasks = [run is not None, given["verify"] is not None, given["retire"] is not None, given["rollback"]]
    if tasks.count(True) != 1:
        raise click.UsageError(
            "give either the run folder to export, or --verify with a published bundle, or --retire, or --rollback"
        )
    if not_worse_than not in (None, "served") and not not_worse_than.isdecimal():
        raise click.UsageError(f"--not-worse-than {not_worse_than}: must be `served` or the number of a version")
    if sign == "":
        raise click.UsageError("--sign: names no key; leave the option out to sign nothing")
    for option in OF_A_NEW_BUNDLE if run is None else ():
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{flag(option)}: belongs to a new bundle; name the run to export")
    if given["certificate"] is not None and sign in (None, "sigstore"):
        raise click.UsageError(f"--certificate {given['certificate']}: belongs to a key; name it with --sign")
    if given["trust"] and given["verify"] is None:
        raise click.UsageError(f"--trust {given['trust']}: belongs to --verify")
    for option, value in (("--min-accuracy", given["min_accuracy"]), ("--margin", given["margin"])):
        if not 0 <= value <= 1:
            raise click.UsageError(f"{option} {value:g}: must be from 0 to 1; 0.99 means 99 %")
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise click.UsageError(f"--name {name}: {NAME_RULE}")


def check_folders(run: Path | None, first: Path | None, verify: Path | None, track: str | None) -> None:
    """Check what can be checked of the folders before torch is loaded.

    Raises:
        ClickException: a folder is missing, or holds no finished run, or none that was tracked.
    """
    with ending_at_once(), naming_what_is_missing("mnist-export"):
        from export.folder import ExportError, read_file
        from training.track.mlflow import run_of
        from training.track.shown import TrackingError

    try:
        for folder in filter(None, (run, first)):
            read_file(folder, RECORD)
        if run and track:
            run_of(run)  # Otherwise nothing could be registered.
        if verify is not None and not verify.exists():
            raise ExportError(
                f"--verify {verify}: there is no such folder; name a published version, such as models/mnist/1"
            )
    except (ExportError, TrackingError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        failed = "not published" if verify is None else "not verified"
        raise click.ClickException(f"{failed}: {error.filename}: {error.strerror}") from error


def signer_of(key: str | None, certificate: Path | None, password: str | None) -> Signer | None:
    """Return what signs with ``key``, or None if there is no key.

    Raises:
        ClickException: the key or the certificate cannot be used.
    """
    if not key:
        return None
    with ending_at_once(), naming_what_is_missing("mnist-export"):
        from export.folder import ExportError
        from export.sign import Signer
    try:
        return Signer(key, certificate, password)
    except ExportError as error:
        raise click.ClickException(str(error)) from error


def take_back(repository: Path, name: str, version: int | None) -> None:
    """Take a version out of service, by default the newest, and print what is served then and how to undo it."""
    from export.history import newest, retire
    from serving.errors import BundleError

    try:
        number = newest(repository, name) if version is None else version
        folder, served = retire(repository, name, number)
    except (BundleError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"Retired     {name} version {number}\n"
        f"Newest      {repository / name / str(served)}\n"
        f"Undo        {shlex.join(['mv', str(folder), str(repository / name / str(number))])}"
    )
