"""What is cut out of an address before it is said."""

from __future__ import annotations

import pytest

from raydc.errors import without_password


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://me:hidden@host:5000/a", "http://me@host:5000/a"),
        ("s3://KEY:hidden@bucket/x?region=eu", "s3://KEY@bucket/x?region=eu"),
        ("s3://bucket/x?secret_key=hidden&region=eu&session_token=hidden", "s3://bucket/x?region=eu"),
        ("s3://bucket/x?secret%5Fkey=hidden", "s3://bucket/x"),
        ("postgresql:///runs?password=hidden", "postgresql:///runs"),
        ("s3://KEY:hid/den@bucket/x", "s3://KEY@bucket/x"),
        ("s3://KEY:hid?den@bucket/x", "s3://KEY@bucket/x"),
        ("s3://[KEY:hidden@bucket", "s3://[KEY@bucket"),
    ],
)
def test_secrets_are_cut_out_of_an_address(uri: str, said: str) -> None:
    assert without_password(uri) == said


@pytest.mark.parametrize(
    "uri", ["runs", "/a:b@c", "sqlite:////runs/mlflow.db", "http://host:5000/a@b", "s3://bucket/x?region=eu"]
)
def test_what_holds_no_secret_stays(uri: str) -> None:
    assert without_password(uri) == uri
