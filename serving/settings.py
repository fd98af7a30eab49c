"""Settings of the service. Every field is a flag of mnist-serve and an environment variable."""

from __future__ import annotations

import logging
import math
import os
import re
import typing
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from serving.errors import SettingsError, without_password
from serving.hosts import is_host, is_loopback, is_origin

PREFIX = "MNIST_"
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")

log = logging.getLogger("serving")

RELEASE = Path(__file__).parent / "release"
"""The packaged model repository."""

# Only characters that mean nothing special in a path or a URL. A leading dot marks an unfinished export.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
NAME_RULE = (
    "must have 1 to 128 characters, each of them A-Z, a-z, 0-9, a dot, a hyphen or an underscore, and must begin with "
    "A-Z, a-z or 0-9"
)

NO_PORT = -1
"""The value of ``port`` for a service that listens on no port of its own."""

FD_PATTERN = r"|systemd|\d{1,9}(,\d{1,9})*"
FD_RULE = "must be numbers of descriptors, separated by commas, such as 3, or systemd"
TLS_RULE = "needs a port, because connections over a Unix socket are not encrypted"

WHEN_FULL = ("reject", "oldest")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")

# How an error message names the type of a value.
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "on or off"}
BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

HOSTS_RULE = "must be host names without scheme, port and path, separated by commas, such as digits.example.org"

ORIGINS_RULE = (
    "must be origins as browsers send them, without a path or a slash at the end, in lower case, separated by commas, "
    "such as https://example.org or http://127.0.0.1:5500"
)

URL_RULE = "must be a URL that begins with http:// or https://, such as http://collector:4318"

HEADER_RULE = "must be the name of a header: 1 to 100 letters, digits and hyphens"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one service. The text in the annotation of a field is the help of its flag.

    Raises:
        SettingsError: a value breaks its rule.
    """

    host: Annotated[str, "Address to listen on; 0.0.0.0 means every address of this machine."] = "127.0.0.1"
    port: Annotated[
        int, "Port to listen on; 0 means any free port, -1 means no port, which is the default with --uds or --fd."
    ] = 8000
    grpc_port: Annotated[int, "Port for gRPC, beside HTTP; 0 means any free port, -1 means no gRPC."] = -1
    uds: Annotated[
        str, "Path of a Unix socket to listen on. Then the service listens on a port only if you also set --port."
    ] = ""
    fd: Annotated[
        str,
        "Descriptors of inherited sockets to listen on, separated by commas; `systemd` means those of its socket unit.",
    ] = ""
    tls_cert: Annotated[
        str, "File with the certificate for HTTPS in PEM, followed by its issuers. It is read again when it changes."
    ] = ""
    tls_key: Annotated[str, "File with the key of the certificate. Without it, the key is in --tls-cert."] = ""
    tls_client_ca: Annotated[
        str, "File with the issuers of client certificates. With it, a client must have a certificate (mTLS)."
    ] = ""
    repository: Annotated[Path, "Model repository: the folder that holds `<name>/<version>/`."] = RELEASE
    model: Annotated[
        str,
        "Default model of /predict: its newest version, with --rollout the stable one. If the "
        "repository has only one model, that model is the default.",
    ] = "mnist"
    versions: Annotated[int, "Number of versions to load of each model, the newest first; 0 means all versions."] = 3
    poll: Annotated[float, "Seconds between two scans of the repository for changes; 0 means no scans."] = 1.0
    trust: Annotated[
        str,
        "Serve only versions that one of these has signed: files with public keys or signing certificates, or "
        "sigstore:IDENTITY@ISSUER, separated by commas. Needs the extra sign.",
    ] = ""
    rollout: Annotated[
        bool, "Compare each new version with the one that responds, instead of letting the new one respond at once."
    ] = False
    shadow: Annotated[
        float,
        "With --rollout, share of the requests, from 0 to 1, that the new version predicts too, for the comparison. It "
        "does so after the response, and for fewer requests while the service is busy.",
    ] = 1.0
    promote_after: Annotated[
        int,
        "With --rollout, number of compared predictions after which the new version takes over, if it agrees with the "
        "old one; see --max-disagreement. 0 means never.",
    ] = 0
    max_disagreement: Annotated[
        float,
        "With --promote-after, the new version agrees if it gives another label to at most this share of the "
        "predictions, and rejects at most this share more than the old one.",
    ] = 0.005
    canary: Annotated[
        float, "With --rollout, share of the requests, from 0 to 1, to which the new version already responds."
    ] = 0.0
    canary_header: Annotated[
        str, "With --canary, the header that decides which version responds: the same value gets the same version."
    ] = "X-Request-ID"
    state: Annotated[
        str, "With --rollout, folder for its state, which all workers share; by default the folder of each model."
    ] = ""
    workers: Annotated[int, "Worker processes; the number of CPU cores is a good choice."] = 1
    max_concurrency: Annotated[
        int,
        "Largest number of predictions in flight in one worker, of which half may be large requests; further ones are "
        "rejected with status 429.",
    ] = 16
    max_connections: Annotated[
        int,
        "Largest number of open connections in one worker. A further one replaces the connection that has waited "
        "longest for its client, or is rejected with status 503.",
    ] = 1000
    request_timeout: Annotated[int, "Seconds that a client may take to send a request, headers and body together."] = 20
    keep_alive: Annotated[int, "Seconds that a connection may stay idle between two requests."] = 30
    work_timeout: Annotated[
        float,
        "Seconds that the service may work on one request, from its arrival; then the response is 504, or 429 if "
        "others used the time.",
    ] = 5.0
    write_timeout: Annotated[
        int, "Seconds for which a client may read nothing of its response; then the connection is closed."
    ] = 20
    max_batch: Annotated[int, "Largest number of images in one request."] = 1024
    max_head: Annotated[int, "Largest size of the request line and the headers, in bytes."] = 32_768
    max_body: Annotated[int, "Largest size of a request body, in bytes."] = 8_000_000
    max_held: Annotated[
        int,
        "Largest sum of the bytes of unfinished requests and unread responses in one worker. Beyond it, the connection "
        "that has waited longest for its client is closed, or the request is rejected with status 429.",
    ] = 32_000_000
    max_pixels: Annotated[
        int,
        "Largest size of a picture, in pixels (width times height). A large JPEG counts with the reduced size at which "
        "it is decoded.",
    ] = 25_000_000
    max_request_pixels: Annotated[int, "Largest sum of the sizes of all pictures in one request, in pixels."] = (
        100_000_000
    )
    grace: Annotated[int, "Seconds that requests in flight may take to finish at shutdown."] = 20
    drain: Annotated[
        float, "Seconds after SIGTERM during which the service is not ready but still responds; 0 means none."
    ] = 1.0
    predict_keys: Annotated[
        str,
        "Prediction keys, separated by commas. Without one, everybody may predict. Prefer the environment "
        "variable or the file: other users of this machine can read a command line.",
    ] = field(default="", repr=False)
    predict_keys_file: Annotated[str, "File with prediction keys, one per line."] = ""
    admin_keys: Annotated[
        str, "Admin keys, separated by commas. Without one, nobody may load, unload or roll out models."
    ] = field(default="", repr=False)
    admin_keys_file: Annotated[str, "File with admin keys, one per line."] = ""
    feedback: Annotated[
        str,
        "Folder for the corrections of visitors, a data set for mnist-train. Without this setting, nothing is stored.",
    ] = ""
    feedback_keys: Annotated[
        str, "Feedback keys, separated by commas. Without one, whoever may predict may also send corrections."
    ] = field(default="", repr=False)
    feedback_keys_file: Annotated[str, "File with feedback keys, one per line."] = ""
    feedback_bytes: Annotated[int, "Largest sum of the sizes of the stored corrections, in bytes."] = 100_000_000
    feedback_files: Annotated[int, "Largest number of files of stored corrections; each correction has two."] = 20_000
    feedback_full: Annotated[
        str,
        "What to do if there is no space for a correction: reject (it is rejected) or oldest (the oldest ones are "
        "removed).",
    ] = "reject"
    cors_origins: Annotated[
        str,
        "Origins whose web pages may call this service, such as https://example.org, separated by commas; * means "
        "every origin.",
    ] = ""
    allowed_hosts: Annotated[
        str,
        "Host names that the Host header of a request may have, separated by commas. *.example.org means every name "
        "below example.org, and * every name. Without this setting, a service on a loopback address allows only the "
        "names of loopback, such as localhost; any other service allows every name.",
    ] = ""
    otlp_endpoint: Annotated[
        str,
        "URL of the OpenTelemetry collector that gets the traces, such as http://collector:4318 (OTLP over HTTP). The "
        "default is the variable OTEL_EXPORTER_OTLP_ENDPOINT; without both, there are no traces.",
    ] = ""
    trace_sample: Annotated[
        str,
        "Share of the requests without a traceparent that are traced, from 0 to 1. The client decides about its own "
        "traces.  [default: 1]",
    ] = ""
    access_log: Annotated[bool, "Log every request."] = False
    log_level: Annotated[str, "Lowest level to log: debug, info, warning or error."] = "info"
    log_format: Annotated[
        str, "Format of the log lines: json or text.  [default: text on a terminal, json elsewhere]"
    ] = ""

    def __post_init__(self) -> None:
        self._check("port", NO_PORT <= self.port < 65536, "must be between 0 and 65535, or -1 for no port")
        self._check("port", self.port != NO_PORT or self.uds or self.fd, "needs --uds or --fd to listen on")
        self._check("grpc_port", -1 <= self.grpc_port < 65536, "must be between 0 and 65535, or -1 for no gRPC")
        self._check("fd", re.fullmatch(FD_PATTERN, self.fd) is not None, FD_RULE)
        numbers = [int(number) for number in self.fd.split(",") if number.isdigit()]
        self._check("fd", len(set(numbers)) == len(numbers), "must name each descriptor once")
        for name in ("tls_key", "tls_client_ca"):
            self._check(name, self.tls_cert or not getattr(self, name), "needs --tls-cert")
        self._check("tls_cert", not self.tls_cert or self.port != NO_PORT or self.fd, TLS_RULE)
        for name in (
            *("workers", "max_concurrency", "max_connections", "request_timeout", "keep_alive"),
            *("max_batch", "max_head", "max_body", "max_held", "max_pixels", "max_request_pixels"),
            *("write_timeout", "grace", "feedback_bytes"),
        ):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        self._check("work_timeout", 0 < self.work_timeout < math.inf, "must be more than 0 and finite")
        self._check("versions", self.versions >= 0, "must be at least 0; 0 means all versions")
        self._check("poll", 0 <= self.poll < math.inf, "must be at least 0 and finite; 0 means no scans")
        for name in ("shadow", "canary", "max_disagreement"):
            self._check(name, 0 <= getattr(self, name) <= 1, "must be between 0 and 1")
        self._check("promote_after", self.promote_after >= 0, "must be at least 0; 0 means never")
        self._check("canary_header", re.fullmatch(r"[A-Za-z0-9-]{1,100}", self.canary_header) is not None, HEADER_RULE)
        for name in ("canary", "promote_after", "state"):
            self._check(name, self.rollout or not getattr(self, name), "has an effect only with --rollout; add it")
        self._check("drain", 0 <= self.drain < math.inf, "must be at least 0 and finite")
        self._check("log_level", self.log_level in LOG_LEVELS, f"must be one of {', '.join(LOG_LEVELS)}")
        self._check("model", re.fullmatch(NAME_PATTERN, self.model) is not None, NAME_RULE)
        self._check("feedback_files", self.feedback_files >= 2, "must be at least 2, for one correction")
        self._check("feedback_full", self.feedback_full in WHEN_FULL, f"must be {' or '.join(WHEN_FULL)}")
        has_key = any((self.feedback_keys, self.feedback_keys_file, self.predict_keys, self.predict_keys_file))
        self._check(
            "feedback",
            not self.feedback or has_key or is_loopback(self.host),
            f"needs a key, because {self.host} can be reached by others; add --feedback-keys-file",
        )
        for name in ("predict_keys", "admin_keys", "feedback_keys", "allowed_hosts", "cors_origins", "trust"):
            text = getattr(self, name)
            self._check(name, not text or text.strip(" \t\r\n,") != "", "holds no entry; leave the setting out instead")
        self._check("allowed_hosts", all(map(is_host, self.allowed_hosts.split(","))), HOSTS_RULE)
        self._check("cors_origins", all(map(is_origin, self.cors_origins.split(","))), ORIGINS_RULE)
        self._check("otlp_endpoint", not self.otlp_endpoint or _is_url(self.otlp_endpoint), URL_RULE)
        self._check("trace_sample", not self.trace_sample or _is_share(self.trace_sample), "must be from 0 to 1")
        self._check("log_format", self.log_format in ("", *LOG_FORMATS), f"must be one of {', '.join(LOG_FORMATS)}")

    def _check(self, name: str, holds: object, rule: str) -> None:
        if not holds:
            raise SettingsError(without_password(f"{flag(name)} {getattr(self, name)}: {rule}"))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings in the variables ``MNIST_*``, with defaults for the rest.

        Raises:
            SettingsError: a value has the wrong type or breaks its rule.
        """
        given: dict[str, Any] = {}
        for name, kind, _ in described():
            text = environment.get(variable(name))
            if text is None:
                continue
            if is_service_link(variable(name), text):
                log.warning("%s", service_link_warning(variable(name), text))
                continue
            try:
                given[name] = BOOLEANS[text.lower()] if kind is bool else kind(text)
            except (ValueError, KeyError) as error:
                raise SettingsError(f"{variable(name)}={text}: must be {TYPE_NAMES[kind]}") from error
        return cls(**given)


def _is_url(text: str) -> bool:
    try:
        url = urllib.parse.urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        return False


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + name.upper()


def is_service_link(name: str, text: str) -> bool:
    """Return whether Kubernetes has set this variable for another service, for example MNIST_PORT=tcp://10.0.0.1:80.

    Kubernetes sets such variables in every pod for every Service. Those of a Service named ``mnist`` have the names of
    this service's own settings.
    """
    return name.endswith("_PORT") and SERVICE_LINK.match(text) is not None


def service_link_warning(name: str, text: str) -> str:
    return (
        f"{name}={text} is ignored: Kubernetes sets it for a Service. "
        "Set enableServiceLinks: false in the pod, or set the value with a flag."
    )


def described() -> list[tuple[str, type, str]]:
    """Return the name, the type and the help text of each field."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    return [(field.name, *typing.get_args(hints[field.name])) for field in fields(Settings)]
