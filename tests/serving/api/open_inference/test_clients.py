"""Real clients of the inference protocol, over HTTP and gRPC: Triton's, KServe's, and perf_analyzer.

None of them is adapted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.support import PIXELS, missing, new_environment, service, started


@pytest.fixture(scope="module")
def addresses():
    with started("--admin-keys", "key", "--grpc-port", 0) as (addresses, _):
        yield addresses


@pytest.fixture(scope="module")
def url(addresses):
    return addresses["http"]


@pytest.fixture(scope="module")
def expected(url, digits):
    """Return the probabilities that /predict gives for the first 70 digits, as float32."""
    response = httpx.post(f"{url}/predict", content=digits[:70].tobytes(), headers=PIXELS).json()
    return np.array([prediction["probabilities"] for prediction in response["predictions"]], np.float32)


@pytest.fixture
def client(url):
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    yield client
    client.close()


def tensor(images, module=triton, **options):
    """Return the input tensor in the form of Triton's client."""
    tensor = module.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, **options)
    return tensor


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_triton_client_gets_the_probabilities_of_predict_bit_for_bit(
    client, digits, expected, binary_input, binary_output
):
    outputs = None
    if binary_output is not None:
        outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary_output)]
    inputs = [tensor(digits[:70], binary_data=binary_input)]
    result = client.infer("mnist", inputs, outputs=outputs, request_id="7")
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)
    assert result.get_response()["id"] == "7"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_client_compresses_requests_and_responses(client, digits, expected, algorithm):
    result = client.infer(
        "mnist",
        [tensor(digits[:70])],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)


def test_triton_client_reads_health_metadata_and_statistics(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mnist")
    assert client.is_model_ready("mnist", "1")
    assert not client.is_model_ready("letters")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("mnist")["inputs"][0]["name"] == "images"
    assert client.get_model_config("mnist")["max_batch_size"] > 0
    assert client.get_inference_statistics("mnist")["model_stats"][0]["name"] == "mnist"
    assert client.get_inference_statistics()["model_stats"]
    assert client.get_model_repository_index()[0]["state"] == "READY"


def test_triton_client_loads_and_unloads_with_an_admin_key(client):
    with pytest.raises(InferenceServerException, match="send a valid admin key"):
        client.unload_model("mnist")
    with service("--admin-keys", "key") as (own, _):
        admin = triton.InferenceServerClient(own.removeprefix("http://"))
        key = {"X-API-Key": "key"}
        admin.unload_model("mnist", headers=key)
        assert not admin.is_model_ready("mnist")
        admin.load_model("mnist", headers=key)
        assert admin.is_model_ready("mnist")
        admin.close()


def test_triton_client_gets_the_most_probable_classes(client, digits, truth):
    output = triton.InferRequestedOutput("probabilities", class_count=2)
    result = client.infer("mnist", [tensor(digits[:5])], outputs=[output]).as_numpy("probabilities")
    assert result.shape == (5, 2)
    assert [int(row[0].decode().split(":")[2]) for row in result] == truth[:5].tolist()


def test_triton_client_reads_error_messages(client, digits):
    with pytest.raises(InferenceServerException, match="no model 'letters'"):
        client.infer("letters", [tensor(digits[:1])])
    wrong = triton.InferInput("images", [1, 28, 28], "FP32")
    wrong.set_data_from_numpy(digits[:1].astype(np.float32))
    with pytest.raises(InferenceServerException, match="UINT8"):
        client.infer("mnist", [wrong])
    with pytest.raises(InferenceServerException, match="there is nothing at"):
        client.get_trace_settings()


def test_triton_asyncio_client_sends_concurrent_requests(url, digits, expected):
    async def infer():
        async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            tensors = [tensor(digits[i : i + 10], triton_aio) for i in range(0, 70, 10)]
            results = await asyncio.gather(*(client.infer("mnist", [tensor]) for tensor in tensors))
            return np.concatenate([result.as_numpy("probabilities") for result in results])

    np.testing.assert_allclose(asyncio.run(infer()), expected, atol=1e-5)


TRITON_GRPC_PROGRAM = """
import asyncio, json, sys
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

address, images = sys.argv[1], np.load(sys.argv[2])

def tensor(images, module=triton):
    tensor = module.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return [tensor]

with triton.InferenceServerClient(address) as client:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("mnist", "1") and not client.is_model_ready("letters")
    assert "statistics" in client.get_server_metadata(as_json=True)["extensions"]
    assert client.get_model_metadata("mnist", as_json=True)["inputs"][0]["shape"] == ["-1", "28", "28"]
    assert client.get_model_config("mnist").config.max_batch_size > 0
    output = triton.InferRequestedOutput("probabilities")
    result = client.infer("mnist", tensor(images), outputs=[output], request_id="7", client_timeout=30, timeout=10**7)
    assert result.get_response().id == "7"
    output = triton.InferRequestedOutput("probabilities", class_count=2)
    classes = client.infer("mnist", tensor(images[:5]), outputs=[output]).as_numpy("probabilities")
    assert classes.shape == (5, 2) and classes[0][0].count(b":") == 2
    text = client.infer("mnist", tensor(np.full((1, 60, 90), 255, np.uint8)), parameters={"mode": "number"})
    assert text.as_numpy("text").tolist() == [b""]
    compressed = client.infer("mnist", tensor(images), compression_algorithm="gzip")
    assert (compressed.as_numpy("probabilities") == result.as_numpy("probabilities")).all()
    assert client.get_inference_statistics("mnist", as_json=True)["model_stats"][0]["name"] == "mnist"
    assert client.get_model_repository_index(as_json=True)["models"][0]["state"] == "READY"
    try:
        client.unload_model("mnist")
        raise SystemExit("unloaded without a key")
    except InferenceServerException as error:
        assert error.status() == "StatusCode.UNAUTHENTICATED" and "admin key" in error.message()
    client.load_model("mnist", headers={"x-api-key": "key"})

async def infer():
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        tensors = [tensor(images[i : i + 10], triton_aio) for i in range(0, len(images), 10)]
        results = await asyncio.gather(*(client.infer("mnist", tensor) for tensor in tensors))
        return np.concatenate([result.as_numpy("probabilities") for result in results])

answers = [result.as_numpy("probabilities"), asyncio.run(infer())]
print(json.dumps([answer.tolist() for answer in answers]))
"""


@pytest.fixture(scope="module")
def triton_grpc(tmp_path_factory):
    """Return the environment for a Python with the older grpcio and protobuf that Triton's client needs."""
    folder = tmp_path_factory.mktemp("triton")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    installed = subprocess.run([*pip, "--target", folder, "grpcio<1.68", "protobuf<7"], capture_output=True, text=True)
    if installed.returncode:
        missing(f"grpcio<1.68 and protobuf<7 from a package index: {installed.stderr.strip().splitlines()[-1]}")
    return os.environ | {"PYTHONPATH": str(folder)}


def test_triton_grpc_clients_get_the_probabilities_of_predict(triton_grpc, addresses, digits, expected, tmp_path):
    np.save(tmp_path / "images.npy", digits[:70])
    command = [sys.executable, "-c", TRITON_GRPC_PROGRAM, addresses["grpc"], tmp_path / "images.npy"]
    done = subprocess.run(command, env=triton_grpc, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    at_once, concurrent = np.array(json.loads(done.stdout), np.float32)
    np.testing.assert_array_equal(at_once, expected)
    np.testing.assert_allclose(concurrent, expected, atol=1e-5)


KSERVE_PROGRAM = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(url, binary, grpc):
    images = np.load(sys.argv[3])
    tensor = InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    request = InferRequest(model_name="mnist", infer_inputs=[tensor])
    if grpc:
        client = InferenceGRPCClient(url)
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("mnist")
        response = await client.infer(request)
    else:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "mnist")
        response = await client.infer(url, request, model_name="mnist")
    outputs = {output.name: output.as_numpy().tolist() for output in response.outputs}
    print(json.dumps(outputs["probabilities"]))

asyncio.run(main(sys.argv[1], "binary" in sys.argv[2], "grpc" in sys.argv[2]))
"""


@pytest.fixture(scope="module")
def kserve(tmp_path_factory):
    """Return a Python with KServe's client. The client needs other versions of many packages than this project."""
    folder = tmp_path_factory.mktemp("kserve")
    installed = new_environment(folder, "kserve==0.21.0")
    if installed.returncode:
        missing(f"kserve from a package index: {installed.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "python"


@pytest.mark.xdist_group("kserve")
@pytest.mark.parametrize("form", ["json", "binary", "grpc binary", "grpc typed"])
def test_kserve_client_gets_the_probabilities_of_predict(kserve, addresses, digits, expected, tmp_path, form):
    np.save(tmp_path / "images.npy", digits[:70])
    address = addresses["grpc" if "grpc" in form else "http"]
    command = [kserve, "-c", KSERVE_PROGRAM, address, form, tmp_path / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.array(json.loads(done.stdout.splitlines()[-1]), np.float32), expected)


@pytest.fixture(scope="module")
def perf_analyzer(tmp_path_factory):
    """Return the command of Triton's load generator. It gets newer libraries if the system has a glibc before 2.38."""
    folder = tmp_path_factory.mktemp("perf_analyzer")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wheel = ["--only-binary=:all:", "--platform", "manylinux_2_38_x86_64", "perf-analyzer==2.60.0"]
    downloaded = subprocess.run([*pip, "--dest", folder, *wheel], capture_output=True, text=True)
    if downloaded.returncode:
        missing(f"perf-analyzer from a package index: {downloaded.stderr.strip().splitlines()[-1]}")
    [archive] = folder.glob("*.whl")
    shutil.unpack_archive(archive, folder, "zip")
    binary = folder / "perf_analyzer" / "bin" / "perf_analyzer"
    binary.chmod(0o755)
    if tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 38):
        return [binary]
    libraries = trixie_libraries(folder / "trixie")
    return [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, binary]


def trixie_libraries(folder):
    """Unpack the C and C++ libraries of Debian trixie into ``folder``, from the mirror of this machine's own Debian."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if not sources.exists() or not shutil.which("apt-get"):
        missing("glibc 2.38, or Debian's apt-get to download it")
    (folder / "lists" / "partial").mkdir(parents=True)
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)[1]
    (folder / "trixie.sources").write_text(sources.read_text().replace(release, "trixie"))
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={folder}/trixie.sources", "-o", "Dir::Etc::sourceparts=-"]
    apt += ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
    packages = ["libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g", "libzstd1"]
    for command in (["update"], ["download", *packages]):
        done = subprocess.run([*apt, *command], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            missing(f"packages of Debian trixie: {done.stderr.strip()}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "--extract", package, folder], check=True)
    return folder / "usr" / "lib" / "x86_64-linux-gnu"


def run_to_its_end(command):
    """Run perf_analyzer, which with --async sometimes has all its responses and still waits for ever."""
    for _ in range(3):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run(command, capture_output=True, text=True, timeout=120)
    raise TimeoutError(f"{command} never ended")


@pytest.mark.xdist_group("perf_analyzer")
@pytest.mark.parametrize(
    "options",
    [
        ["-b", "8"],
        ["-i", "grpc", "-b", "8"],
        ["--input-tensor-format", "json", "--output-tensor-format", "json"],
        ["--async", "--concurrency-range", "4", "-b", "2", "--input-data", "zero"],
    ],
    ids=["binary", "grpc", "json", "async"],
)
def test_perf_analyzer_counts_the_same_inferences_as_the_service(perf_analyzer, addresses, url, options):
    batch = int(options[options.index("-b") + 1]) if "-b" in options else 1
    statistics = triton.InferenceServerClient(url.removeprefix("http://"))

    def counted():
        return statistics.get_inference_statistics("mnist")["model_stats"][0]["inference_count"]

    before = counted()
    address = addresses["grpc"] if "grpc" in options else url.removeprefix("http://")
    done = run_to_its_end([*perf_analyzer, "-m", "mnist", "-u", address, "--request-count", "100", *options])
    assert done.returncode == 0, done.stdout + done.stderr
    assert counted() >= before + 100 * batch
    statistics.close()
    # perf_analyzer reads the statistics of the service before and after each measurement and reports the difference.
    client, server = done.stdout.split("Request concurrency: ")[1].split("Server:")
    assert re.search(r"Request count: \d+\n", client), done.stdout
    assert int(re.search(r"Inference count: (\d+)", server)[1]) > 0
