"""The storage stack: private, encrypted, and as lasting as the environment wants."""

from __future__ import annotations

import pytest
from aws_cdk.assertions import Match, Template

BUCKETS = {"access logs": "AccessLogs8B620ECA", "data": "Data666C94C7", "artifacts": "Artifacts82DD59A1"}
KEY = "Key961B73FD"


def bucket(storage: Template, name: str) -> dict:
    return storage.find_resources("AWS::S3::Bucket")[BUCKETS[name]]


def rules(storage: Template, name: str) -> dict[str, dict]:
    configuration = bucket(storage, name)["Properties"]["LifecycleConfiguration"]
    return {rule["Id"]: rule for rule in configuration["Rules"] if rule["Status"] == "Enabled"}


def test_logical_ids_of_what_holds_data_are_stable(storage):
    # Another logical id means another bucket: a deployment would leave the data behind or delete it.
    assert set(storage.find_resources("AWS::S3::Bucket")) == set(BUCKETS.values())
    assert set(storage.find_resources("AWS::KMS::Key")) == {KEY}


def test_names_are_generated(storage):
    assert all("BucketName" not in bucket(storage, name)["Properties"] for name in BUCKETS)


@pytest.mark.parametrize("name", BUCKETS)
def test_buckets_refuse_public_access(storage, name):
    block = bucket(storage, name)["Properties"]["PublicAccessBlockConfiguration"]
    assert block == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }


@pytest.mark.parametrize("name", BUCKETS)
@pytest.mark.parametrize(
    "condition",
    [{"Bool": {"aws:SecureTransport": "false"}}, {"NumericLessThan": {"s3:TlsVersion": 1.2}}],
    ids=["plain HTTP", "TLS below 1.2"],
)
def test_buckets_refuse_what_is_not_modern_tls(storage, name, condition):
    arn = {"Fn::GetAtt": [BUCKETS[name], "Arn"]}
    storage.has_resource_properties(
        "AWS::S3::BucketPolicy",
        {
            "Bucket": {"Ref": BUCKETS[name]},
            "PolicyDocument": {
                "Statement": Match.array_with(
                    [
                        {
                            "Action": "s3:*",
                            "Condition": condition,
                            "Effect": "Deny",
                            "Principal": {"AWS": "*"},
                            "Resource": [arn, {"Fn::Join": ["", [arn, "/*"]]}],
                        }
                    ]
                )
            },
        },
    )


@pytest.mark.parametrize("name", ["data", "artifacts"])
def test_data_and_artifacts_are_encrypted_with_the_key(storage, name):
    (rule,) = bucket(storage, name)["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": {"Fn::GetAtt": [KEY, "Arn"]},
    }
    assert rule["BucketKeyEnabled"] is True


def test_access_logs_are_encrypted_by_s3_which_can_deliver_to_nothing_else(storage):
    (rule,) = bucket(storage, "access logs")["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


def test_the_key_rotates(storage):
    storage.has_resource_properties("AWS::KMS::Key", {"EnableKeyRotation": True})


@pytest.mark.parametrize("name", ["data", "artifacts"])
def test_access_is_logged_under_the_buckets_own_prefix(storage, name):
    assert bucket(storage, name)["Properties"]["LoggingConfiguration"] == {
        "DestinationBucketName": {"Ref": BUCKETS["access logs"]},
        "LogFilePrefix": f"{name}/",
    }


@pytest.mark.parametrize("name", BUCKETS)
def test_abandoned_uploads_are_removed(storage, name):
    rule = rules(storage, name)["abort-abandoned-uploads"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_artifacts_are_versioned_and_overwritten_versions_expire(storage):
    assert bucket(storage, "artifacts")["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert rules(storage, "artifacts")["expire-overwritten"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_only_logs_expire(storage):
    assert rules(storage, "access logs")["expire-logs"]["ExpirationInDays"] == 90
    assert all(
        "ExpirationInDays" not in rule for name in ("data", "artifacts") for rule in rules(storage, name).values()
    )


def test_data_outlives_the_stack_in_production_only(environment, storage):
    deletion, replacement = {"dev": ("Delete", "Delete"), "prod": ("RetainExceptOnCreate", "Retain")}[environment]
    for kind in ("AWS::S3::Bucket", "AWS::KMS::Key"):
        for resource in storage.find_resources(kind).values():
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (deletion, replacement)


def test_no_function_runs_on_deployment(storage):
    storage.resource_count_is("AWS::Lambda::Function", 0)


def test_the_bucket_names_are_outputs(storage):
    storage.has_output("DataBucketName", {"Value": {"Ref": BUCKETS["data"]}})
    storage.has_output("ArtifactsBucketName", {"Value": {"Ref": BUCKETS["artifacts"]}})
