"""mnist-export push and pull, with a real registry, and what skopeo and umoci make of the image."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import shutil
import socket
import subprocess
import tarfile
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from export import oci, oci_image, oci_layer, triton
from export.cli import main
from export.oci import ImageReference, RegistryError
from export.sign import Signer
from serving.errors import BundleError
from serving.models import bundle
from serving.models.trust import Trust
from serving.settings import RELEASE
from tests.serving.models import bundles, signing
from tests.support import application, missing, until

PACKAGED = RELEASE / "mnist" / "1"


def tool(name):
    found = shutil.which(name)
    return found or missing(name)


@contextlib.contextmanager
def running_registry(folder, **more):
    """Run Debian's docker-registry, which holds nothing, and yield its address."""
    try:
        import oras  # noqa: F401
    except ImportError:
        missing("the package oras")
    program = tool("docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {"addr": address},
        **more,
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)

        def responds():
            assert process.poll() is None, (folder / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://{address}/v2/", timeout=5) as response:
                    return response.status == 200
            except urllib.error.HTTPError as error:
                return error.code == 401
            except OSError:
                return False

        try:
            until(responds)
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    signing.needs_model_signing()
    return signing.key_pair(tmp_path_factory.mktemp("keys") / "mine")


@pytest.fixture(scope="module")
def signed(keys, tmp_path_factory):
    models = shutil.copytree(RELEASE, tmp_path_factory.mktemp("signed") / "models")
    Signer(str(keys[0]))(models / "mnist" / "1")
    return models / "mnist" / "1"


@pytest.fixture(scope="module")
def pushed(registry, signed, tmp_path_factory):
    """The place and the digest of the signed bundle in the registry."""
    sbom = tmp_path_factory.mktemp("sbom") / "sbom.json"
    sbom.write_text('{"bomFormat": "CycloneDX"}')
    place = f"oci://{registry}/digits/mnist:1"
    return place, oci.push(signed, ImageReference.parse(place), sbom)


def export(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_skopeo_and_umoci_read_the_image_and_the_service_serves_it(pushed, signed, keys, tmp_path):
    place, digest = pushed
    source = place.replace("oci://", "docker://")
    line = [tool("skopeo"), "inspect", "--tls-verify=false", source]
    seen = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    assert seen["Digest"] == digest
    assert seen["Labels"]["org.opencontainers.image.version"] == "1"

    line = [tool("skopeo"), "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{tmp_path}/layout:1"]
    subprocess.run(line, check=True)
    line = [tool("umoci"), "unpack", "--rootless", "--image", f"{tmp_path}/layout:1", tmp_path / "unpacked"]
    subprocess.run(line, check=True, capture_output=True)
    models = tmp_path / "unpacked" / "rootfs" / "models"
    for path in signed.iterdir():
        assert (models / "mnist" / "1" / path.name).read_bytes() == path.read_bytes()
    assert (models / "mnist" / "config.pbtxt").exists()
    with application(repository=models, trust=str(keys[1]), poll=0) as client:
        assert client.get("/v2/health/ready").status_code == 200


def test_signature_and_sbom_are_referrers_of_the_image(pushed, signed):
    place, digest = pushed
    remote = oci.Remote(ImageReference.parse(place))
    index, _ = remote.manifest(digest.replace(":", "-"))
    kinds = {entry["artifactType"]: entry["digest"] for entry in index["manifests"]}
    assert kinds.keys() == {oci_image.SIGNATURE_TYPE, oci_image.SBOM_TYPE}
    manifest, _ = remote.manifest(kinds[oci_image.SIGNATURE_TYPE])
    assert manifest["subject"]["digest"] == digest
    assert remote.blob(manifest["layers"][0]) == (signed / bundle.SIGNATURE).read_bytes()


def test_pushing_again_changes_nothing(pushed, signed):
    place, digest = pushed
    assert oci.push(signed, ImageReference.parse(place)) == digest
    index, _ = oci.Remote(ImageReference.parse(place)).manifest(digest.replace(":", "-"))
    assert len(index["manifests"]) == 2


def test_registry_that_wants_a_password_gets_the_one_of_docker_login(tmp_path, monkeypatch):
    # The password is "secret".
    (tmp_path / "htpasswd").write_text("me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / ".docker" / "config.json"
    config.parent.mkdir()
    login = {"htpasswd": {"realm": "Registry", "path": str(tmp_path / "htpasswd")}}
    with running_registry(tmp_path, auth=login) as address:
        place = f"oci://{address}/mnist:1"
        for password, is_right in ((None, False), ("guess", False), ("secret", True)):
            if password:
                auth = base64.b64encode(f"me:{password}".encode()).decode()
                config.write_text(json.dumps({"auths": {address: {"auth": auth}}}))
            done = export("push", RELEASE / "mnist" / "1", place)
            if is_right:
                assert done.exit_code == 0, done.output
            else:
                assert f"it wants a user and a password that it knows; run: docker login {address}" in done.output
        done = export("pull", place, "--repository", tmp_path / "models")
        assert done.exit_code == 0, done.output


def test_commands_push_and_pull(registry, tmp_path):
    place = f"oci://{registry}/unsigned:latest"
    done = export("push", PACKAGED, place)
    assert done.exit_code == 0, done.output
    assert f"Pushed   {place}\nDigest   sha256:" in done.output
    for _ in range(2):
        done = export("pull", place, "--repository", tmp_path / "models")
        assert done.exit_code == 0, done.output
        assert f"Pulled   {tmp_path / 'models' / 'mnist' / '1'}" in done.output
    assert bundle.read(tmp_path / "models" / "mnist" / "1").manifest == bundle.read(PACKAGED).manifest
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["mnist"]


def test_pull_accepts_only_what_a_trusted_key_signed(pushed, registry, keys, tmp_path):
    place, digest = pushed
    by_digest = ImageReference.parse(f"{place.rpartition(':')[0]}@{digest}")
    found, _ = oci.pull(by_digest, tmp_path / "models", Trust(str(keys[1])))
    assert found.folder == tmp_path / "models" / "mnist" / "1"
    oci.push(PACKAGED, ImageReference.parse(f"oci://{registry}/digits/mnist:unsigned"))
    done = export("pull", f"oci://{registry}/digits/mnist:unsigned", "--trust", keys[1], "--repository", tmp_path / "x")
    assert done.exit_code == 1
    assert "has no signature" in done.output
    assert not (tmp_path / "x").exists()


def test_pull_replaces_no_other_version(pushed, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    bundles.publish(models, 1, temperature=2.0)
    done = export("pull", pushed[0], "--repository", models)
    assert done.exit_code == 1
    assert "is another bundle already" in done.output


@pytest.mark.parametrize(("newer", "classes"), [(None, 10), ("2", 26)])
def test_configuration_for_triton_follows_the_newest_version(pushed, tmp_path, newer, classes):
    """Triton rejects a version of another number of classes than its configuration has."""
    path = tmp_path / "mnist" / triton.CONFIG
    path.parent.mkdir()
    if newer:
        (path.parent / newer).mkdir()
    path.write_text((RELEASE / "mnist" / triton.CONFIG).read_text().replace("[-1, 10]", "[-1, 26]"))
    oci.pull(ImageReference.parse(pushed[0]), tmp_path)
    assert path.read_text().count(f"[-1, {classes}]") == 2


def test_pull_completes_the_signature_of_a_version_that_is_there(pushed, signed, keys, tmp_path):
    place, trust = ImageReference.parse(pushed[0]), Trust(str(keys[1]))
    target = shutil.copytree(PACKAGED, tmp_path / "models" / "mnist" / "1")
    oci.pull(place, tmp_path / "models", trust)
    assert (target / bundle.SIGNATURE).read_bytes() == (signed / bundle.SIGNATURE).read_bytes()
    oci.pull(place, tmp_path / "models", trust)


def test_pull_replaces_a_signature_that_is_not_trusted(pushed, signed, keys, tmp_path):
    place, trust = ImageReference.parse(pushed[0]), Trust(str(keys[1]))
    target = shutil.copytree(PACKAGED, tmp_path / "models" / "mnist" / "1")
    Signer(str(signing.key_pair(tmp_path / "other")[0]))(target)
    others = (target / bundle.SIGNATURE).read_bytes()
    oci.pull(place, tmp_path / "models")
    assert (target / bundle.SIGNATURE).read_bytes() == others
    for content in (others, b"garbage"):
        (target / bundle.SIGNATURE).write_bytes(content)
        oci.pull(place, tmp_path / "models", trust)
        assert (target / bundle.SIGNATURE).read_bytes() == (signed / bundle.SIGNATURE).read_bytes()


def test_pull_without_trust_adds_no_signature(pushed, tmp_path):
    target = shutil.copytree(PACKAGED, tmp_path / "models" / "mnist" / "1")
    oci.pull(ImageReference.parse(pushed[0]), tmp_path / "models")
    assert not (target / bundle.SIGNATURE).exists()


def test_damaged_version_that_is_there_has_a_way_out(pushed, keys, tmp_path):
    place, trust = ImageReference.parse(pushed[0]), Trust(str(keys[1]))
    target = shutil.copytree(PACKAGED, tmp_path / "models" / "mnist" / "1")
    way_out = f"; remove {target} and pull again"
    (target / "more").touch()
    with pytest.raises(BundleError, match=rf"is not what a trusted key signed: .*{way_out}$"):
        oci.pull(place, tmp_path / "models", trust)
    (target / bundle.ONNX).write_bytes(b"")
    with pytest.raises(BundleError, match=rf"has 0 bytes, but its manifest says \d+{way_out}$"):
        oci.pull(place, tmp_path / "models")


def test_image_with_a_file_that_its_manifest_does_not_name_is_rejected(pushed, tmp_path, monkeypatch):
    unpack = oci_image.unpack

    def unpack_more(content, folder):
        (folder / "more").touch()
        return unpack(content, folder)

    monkeypatch.setattr(oci_image, "unpack", unpack_more)
    with pytest.raises(BundleError, match=r"has more, which its manifest does not name; push .* again"):
        oci.pull(ImageReference.parse(pushed[0]), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_pull_accepts_a_version_that_another_pull_publishes_meanwhile(pushed, signed, tmp_path, monkeypatch):
    models, write = tmp_path / "models", oci.write_atomically

    def write_and_publish(path, content):
        write(path, content)
        if path.name == triton.CONFIG:
            shutil.copytree(signed, models / "mnist" / "1")

    monkeypatch.setattr(oci, "write_atomically", write_and_publish)
    found, _ = oci.pull(ImageReference.parse(pushed[0]), models)
    assert found.folder == models / "mnist" / "1"
    assert [path.name for path in models.iterdir()] == ["mnist"]


def test_folder_of_another_version_is_rejected_with_a_way_out(pushed, tmp_path, monkeypatch):
    unpack = oci_image.unpack
    monkeypatch.setattr(oci_image, "unpack", lambda layer, folder: (unpack(layer, folder)[0], 2))
    with pytest.raises(BundleError, match=r"/models/mnist/2 must hold .* it holds mnist version 1; push .* again"):
        oci.pull(ImageReference.parse(pushed[0]), tmp_path / "models")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[]", b"null", b'"text"'])
def test_manifest_that_is_no_json_object_is_one_line(registry, monkeypatch, content):
    remote = oci.Remote(ImageReference.parse(f"oci://{registry}/digits/mnist:1"))
    monkeypatch.setattr(oci.Remote, "_get", lambda *_, **__: content)
    with pytest.raises(RegistryError, match="sent a manifest that is no"):
        remote.manifest("1")


@pytest.mark.parametrize("content", [b"[]", b'{"manifests": null}', b'{"manifests": [1]}', b'{"manifests": {}}'])
def test_list_of_referrers_that_is_malformed_is_one_line(registry, monkeypatch, content):
    remote = oci.Remote(ImageReference.parse(f"oci://{registry}/digits/other:1"))
    monkeypatch.setattr(oci.Remote, "_get", lambda *_, **__: content)
    image = oci_image.image_of(bundle.read(PACKAGED))
    with pytest.raises(RegistryError, match=r"manifest that is no JSON object|must be a list of manifests"):
        remote.attach(image, oci_image.SBOM_TYPE, "sbom.cdx.json", b"{}")


@pytest.mark.parametrize("descriptor", [{}, {"digest": "md5:1", "size": 1}, {"digest": "sha256:" + "0" * 64}])
def test_layer_without_a_digest_or_a_size_is_one_line(registry, descriptor):
    remote = oci.Remote(ImageReference.parse(f"oci://{registry}/digits/mnist:1"))
    with pytest.raises(RegistryError, match=r"a layer must have a SHA-256 digest and at most \d+ bytes; push"):
        remote.blob(descriptor)


@pytest.mark.parametrize(
    "place", ["mnist:1", "oci://", "oci://host", "oci://host/Name:1", "docker://host/a:1", "oci://h/a b"]
)
def test_place_of_another_form_is_rejected(place):
    with pytest.raises(RegistryError, match="must be like oci://registry"):
        ImageReference.parse(place)


def test_errors_of_registries_are_one_line(registry, tmp_path):
    for place in (f"oci://{registry}/digits/none:1", "oci://127.0.0.1:1/digits/mnist:1"):
        done = export("pull", place, "--repository", tmp_path / "models")
        assert done.exit_code == 1
        assert done.output.startswith("Error: 127.0.0.1:")
        assert len(done.output.splitlines()) == 1
    done = export("push", tmp_path, f"oci://{registry}/digits/mnist:1")
    assert done.exit_code == 1
    assert "is not a model bundle" in done.output


def test_error_of_a_bundle_has_no_control_characters(monkeypatch):
    def pull(*_, **__):
        raise BundleError("\x1b]0;owned\x07 is missing" + "a" * 1_000_000)

    monkeypatch.setattr(oci, "pull", pull)
    done = export("pull", "oci://127.0.0.1:1/mnist:1")
    assert done.exit_code == 1
    assert done.output.startswith(r"Error: \x1b]0;owned\x07 is missing")
    assert len(done.output) < 20_000


def layer(**members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in members.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    return gzip.compress(buffer.getvalue(), mtime=0)


def headers(kind, size=0, count=1):
    """Return a layer with members of ``kind``, which say that they have ``size`` bytes of zeros."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, size
    return gzip.compress((entry.tobuf(tarfile.GNU_FORMAT) + bytes(size)) * count, 1, mtime=0)


def named(path):
    """Return a layer with one file, whose extended header names ``path``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("x")
        entry.pax_headers = {"path": path}
        archive.addfile(entry)
    return gzip.compress(buffer.getvalue(), mtime=0)


def in_blocks():
    """Return a layer with a file of 200 kB, in blocks of deflate that are not compressed."""
    entry = tarfile.TarInfo("models/mnist/1/model.onnx")
    entry.size = 200_000
    return gzip.compress(entry.tobuf() + bytes(entry.size), 0, mtime=0)


def test_layer_that_is_damaged_inside_a_file_is_one_line(tmp_path):
    whole = in_blocks()
    # 10 bytes of gzip, and blocks with 5 bytes before up to 65,535. 7 is the header of no kind of block.
    second = 10 + 5 + int.from_bytes(whole[11:13], "little")
    assert second < len(whole)
    no_block = whole[:second] + b"\x07" + whole[second + 1 :]
    no_member = gzip.compress(gzip.decompress(whole)[:100_000]) + b"\x1f\x8b\x09"
    for content in (whole[:100_000], no_block, no_member):
        with pytest.raises(BundleError, match=r"^the image cannot be unpacked: .{1,100}$"):
            oci_image.unpack(content, tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "a\nb\x1b[31m", "..", ".git"])
def test_file_with_an_odd_name_is_left_out(tmp_path, name):
    with pytest.raises(BundleError, match=r"^the image holds no bundle below /models$"):
        oci_image.unpack(named(f"models/mnist/1/{name}"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (headers(tarfile.XHDTYPE, 2 << 20), "bytes of headers"),
        (headers(tarfile.GNUTYPE_LONGNAME, 2 << 20), "bytes of headers"),
        (headers(tarfile.XHDTYPE, 0, 3000), "cannot be unpacked"),
        (headers(tarfile.DIRTYPE, 0, 60), "more than 50 files"),
        (headers(tarfile.REGTYPE, 4 << 20, 2), "unpacks to more"),
        (layer(**{f"models/a/1/{name}": tarfile.REGTYPE for name in range(6)}), "5 files"),
        (headers(tarfile.DIRTYPE, 0, 9)[:30] + b"\xff" * 30, "cannot be unpacked"),
        (b"nothing", "cannot be unpacked"),
        (layer(), "holds no bundle"),
        (layer(**{"models/mnist/1/model.onnx": tarfile.SYMTYPE}), "holds no bundle"),
        (layer(**{"models/../1/model.onnx": tarfile.REGTYPE}), "holds no bundle"),
        (layer(**{"models/a/1/x": tarfile.REGTYPE, "models/b/1/x": tarfile.REGTYPE}), "several bundles"),
        (layer(**{"models/a/1/x": tarfile.REGTYPE})[:40], "cannot be unpacked"),
    ],
    ids=[
        *("an extended header", "a long name", "a chain of headers", "many files", "a bomb", "many files of a bundle"),
        *("no deflate", "no archive", "empty", "a link", "a path to the parent", "two bundles", "cut off"),
    ],
)
def test_hostile_layers_are_rejected(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(oci_layer, "MAX_MEMBERS", 50)
    monkeypatch.setattr(oci_layer, "MAX_BYTES", 6 << 20)
    monkeypatch.setattr(oci_image, "MAX_FILES", 5)
    with pytest.raises(BundleError, match=reason) as raised:
        oci_image.unpack(content, tmp_path)
    assert "\n" not in str(raised.value)
