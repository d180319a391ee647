"""The keys that sign requests to the S3 store: those of the settings, or without any, temporary
keys of the IAM role of this pod, task or machine.

AWS tells a process by environment variables where its role's keys are; only an EC2 instance has
none of them.
"""

from __future__ import annotations

import os
import re
from xml.etree.ElementTree import ParseError

import certifi
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError

WEB_IDENTITY = "AWS_WEB_IDENTITY_TOKEN_FILE"
ROLE_VARIABLES = (
    WEB_IDENTITY,  # EKS: IAM roles for service accounts
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",  # ECS
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",  # EKS: Pod Identity
)
AWS_HOST = re.compile(r"\.amazonaws\.com(\.cn)?(:\d+)?\Z")

CONNECT_S, READ_S = 2.0, 5.0
"""Short: outside AWS nothing answers at the address of the instance metadata."""

HINT = (
    "set PROOFLOOP_S3_ACCESS_KEY and PROOFLOOP_S3_SECRET_KEY, or give this pod, task or instance an"
    " IAM role for the bucket"
)


def s3_keys(settings: Settings, host: str) -> Provider:
    """The keys for the store on this host. Raises ConfigError if there are none."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    if access and secret:
        return StaticProvider(access.get_secret_value(), secret.get_secret_value())
    names = ["PROOFLOOP_S3_ACCESS_KEY", "PROOFLOOP_S3_SECRET_KEY"]
    if access or secret:
        given, missing = names if access else reversed(names)
        raise ConfigError(f"{given} is set, but {missing} is not", "set both, or none for a role")
    problem = "PROOFLOOP_S3_ENDPOINT is set, but its keys are not"
    if not AWS_HOST.search(host) and not any(map(os.environ.get, ROLE_VARIABLES)):
        raise ConfigError(problem, HINT)
    keys = RoleKeys(settings.s3_region)
    try:
        keys.retrieve()
    except ConnectionError as error:
        raise ConfigError(f"{problem}, and {error}", HINT) from error
    return keys


class RoleKeys(Provider):
    """Temporary keys of a role, renewed when they expire. Safe to share between threads."""

    def __init__(self, region: str) -> None:
        is_web = os.environ.get(WEB_IDENTITY)
        self._aws = IamAwsProvider(
            custom_endpoint=os.environ.get(
                "AWS_ENDPOINT_URL_STS" if is_web else "AWS_EC2_METADATA_SERVICE_ENDPOINT"
            ),
            region=region,
            http_client=PoolManager(
                retries=False,  # the store retries; urllib3 would log the address with the token
                timeout=Timeout(connect=CONNECT_S, read=READ_S),
                cert_reqs="CERT_REQUIRED",
                ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
            ),
        )

    def retrieve(self) -> Credentials:
        """Raises ConnectionError."""
        try:
            return self._aws.retrieve()
        except (HTTPError, ValueError, LookupError, ParseError, OSError) as error:
            # The query of the address holds the token, so the error is not chained either.
            problem = re.sub(r"\?\S*", "", str(error))
        raise ConnectionError(f"AWS gives no keys for a role: {problem}")
