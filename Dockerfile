# Two images: `serving` serves predictions, `pipeline` trains and exports. `serving` is last, so it is the default.
#
#   docker build --tag mnist-service .
#   docker build --tag mnist-service:latest-pipeline --target pipeline .
#
# BuildKit and the classic builder both work.
ARG PYTHON_VERSION=3.14
ARG DEBIAN_RELEASE=trixie
# deploy/pin adds the digest of this image.
ARG BASE=python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE}

FROM ${BASE} AS untouched

FROM ${BASE} AS builder
# The date of every file in our layers: 1980-01-01, the first date that a zip archive can hold.
ARG SOURCE_DATE_EPOCH=315532800
# deploy/image/settle compiles the files. pip would compile them too: PIP_NO_COMPILE=1 means the opposite of its name.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_COMPILE=0 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH}
WORKDIR /build
# The environment has no pip, so an intruder cannot use it to install programs.
RUN python -m venv --without-pip /opt/venv
COPY constraints.txt deploy/image/requirements deploy/image/settle ./

# The dependencies are in a separate layer, before the code. A change of the code does not install them again.
FROM builder AS dependencies
# Optional parts of the service, separated by spaces: grpc, otel for traces, sign for signatures.
ARG EXTRAS=
COPY pyproject.toml ./
RUN ./requirements ${EXTRAS} > serving.txt \
    && pip --python /opt/venv/bin/python install --constraint constraints.txt --requirement serving.txt \
    && mkdir /layer && mv /opt /layer \
    && ./settle /layer

FROM builder AS pipeline-dependencies
# PyTorch's index of CPU builds. torch from the default package index includes several GB of CUDA libraries.
# For a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml ./
# Only torch, torchvision and their dependencies come from that index.
# ensurepip adds pip to this image: if MNIST's mirrors cannot be reached, mnist-train downloads the data set with pip.
RUN pip --python /opt/venv/bin/python install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch torchvision \
    && ./requirements train export > pipeline.txt \
    && pip --python /opt/venv/bin/python install --constraint constraints.txt --requirement pipeline.txt \
    && /opt/venv/bin/python -m ensurepip \
    && mkdir /layer && mv /opt /layer \
    && ./settle /layer

FROM builder AS application
RUN pip install --constraint constraints.txt hatchling
COPY LICENSE README.md pyproject.toml ./
COPY training training
COPY export export
COPY serving serving
# The health check of the image.
COPY deploy/image/healthy /application/usr/local/bin/
# Put the installed package under /application, and the folders that the container's user will own under /folders. Both
# have the layout of the final image.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/venv/bin/python install --no-deps --root /application dist/*.whl \
    && mkdir -p /folders/serving/state /folders/pipeline/models /folders/pipeline/runs /folders/pipeline/data \
    && cp -r serving/release /folders/serving/models \
    && ./settle /application \
    && ./settle /folders

# /base is the base image without pip and the other programs that install Python packages.
FROM ${BASE} AS stripped
ARG SOURCE_DATE_EPOCH=315532800
# hadolint ignore=DL3067
COPY --from=untouched / /base/
RUN find /base/usr \( -name 'pip' -o -name 'pip[0-9]*' -o -name 'pip-*' -o -name 'ensurepip' -o -name 'python-wheels' \
    -o -path '*-packages/setuptools*' -o -path '*-packages/pkg_resources' -o -path '*-packages/wheel*' \
    -o -path '*-packages/_distutils_hack' -o -name 'distutils-precedence.pth' -o -path '*/bin/wheel' \) -prune \
    -exec sh -c 'for each; do rm -rf "$each"; touch --date="@$SOURCE_DATE_EPOCH" "${each%/*}"; done' sh {} +

# The layers are copies. If files were deleted in a layer above the base image, the layer would hold the time of that, so
# the same source would not give the same layers.
FROM scratch AS runtime
COPY --from=stripped /base /
LABEL org.opencontainers.image.title="mnist-service" \
      org.opencontainers.image.description="MNIST digit recogniser over HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.2.0.dev0"
ENV HOME=/tmp \
    LANG=C.UTF-8 \
    PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

FROM runtime AS pipeline
COPY --from=pipeline-dependencies /layer /
COPY --from=application /application /
COPY --from=application --chown=10001:10001 /folders/pipeline /
ENV MNIST_DATA=/data XDG_CACHE_HOME=/data
USER 10001:10001
CMD ["mnist-train", "--help"]

FROM runtime AS serving
COPY --from=dependencies /layer /
COPY --from=application /application /
COPY --from=application --chown=10001:10001 /folders/serving /
ENV MNIST_HOST=0.0.0.0 \
    MNIST_PORT=8000 \
    MNIST_REPOSITORY=/models
USER 10001:10001
EXPOSE 8000 8001
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-IS", "/usr/local/bin/healthy"]
ENTRYPOINT ["mnist-serve"]
