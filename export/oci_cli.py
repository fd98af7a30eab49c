"""The commands ``mnist-export push`` and ``mnist-export pull``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from training.command import Command, Folder, Place, ending_at_once, naming_what_is_missing, print_output

PUSH_EXAMPLES = """
\b
Examples:
  mnist-export push models/mnist/1 oci://registry.example.org/digits/mnist:1
  mnist-export push models/mnist/1 oci://127.0.0.1:5000/mnist:1 --sbom sbom/wheel.cdx.json
"""

PULL_EXAMPLES = """
\b
Examples:
  mnist-export pull oci://registry.example.org/digits/mnist:1 --repository models
  mnist-export pull oci://127.0.0.1:5000/mnist:1 --trust public.pem
"""

# Letters of an error. Paths may have 4,096.
MAX_ERROR = 10_000

plain_http = click.option(
    "--plain-http", is_flag=True, help="Use HTTP and not HTTPS. For a registry on this machine HTTP is the default."
)


@click.command("push", cls=Command, epilog=PUSH_EXAMPLES)
@click.argument("folder", metavar="BUNDLE", type=Folder())
@click.argument("place", metavar="oci://REGISTRY/NAME:TAG")
@click.option(
    "--sbom",
    type=Place(dir_okay=False),
    help="Attach this bill of materials (CycloneDX as JSON), for example that of make sbom.",
)
@plain_http
def push(folder: Path, place: str, sbom: Path | None, plain_http: bool) -> None:
    """Upload the published BUNDLE to an OCI registry, as an image with its files below /models.

    Its signature becomes a referrer of the image. The credentials are those of `docker login`.
    """
    with _explained():
        from export import oci

        digest = oci.push(folder, oci.ImageReference.parse(place), sbom, plain=plain_http)
    print_output(
        f"Pushed   {place}\nDigest   {digest}\n"
        f"Next     {shlex.join(['mnist-export', 'pull', place, '--repository', 'models'])}"
    )


@click.command("pull", cls=Command, epilog=PULL_EXAMPLES)
@click.argument("place", metavar="oci://REGISTRY/NAME:TAG")
@click.option(
    "--repository", type=Folder(), default=Path("models"), show_default=True, help="Model repository to publish into."
)
@click.option("--trust", default="", help="Who must have signed the bundle, as for mnist-serve.")
@plain_http
def pull(place: str, repository: Path, trust: str, plain_http: bool) -> None:
    """Download a bundle from an OCI registry, verify it, and publish it under the version that it has."""
    with _explained():
        from export import oci
        from serving.models.trust import Trust

        found, digest = oci.pull(oci.ImageReference.parse(place), repository, Trust.of(trust), plain=plain_http)
    model = [] if found.manifest.name == "mnist" else ["--model", found.manifest.name]
    print_output(
        f"Pulled   {found.folder}\nDigest   {digest}\n"
        f"Next     {shlex.join(['mnist-serve', '--repository', str(repository), *model])}"
    )


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of the block into one line."""
    with ending_at_once(), naming_what_is_missing("mnist-export"):
        from export.oci import RegistryError
        from serving.errors import BundleError, SettingsError, printable
    try:
        yield
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except (BundleError, RegistryError) as error:
        # A manifest from a registry may hold anything, and errors of a bundle show what is wrong in it.
        raise click.ClickException(printable(str(error)[:MAX_ERROR])) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'the bundle'}: {error.strerror or error}") from error
