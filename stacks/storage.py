"""The storage stack: where load traces, models and the results of training live."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct


class StorageStack(cdk.Stack):
    """One KMS key and three private buckets.

    Attributes:
        key: encrypts the data and the artifacts.
        data: load traces and other inputs.
        artifacts: models, checkpoints and evaluations; versioned, so that what overwrites a deployed model destroys
            nothing.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, remove_data_on_destroy: bool, env: cdk.Environment | None = None
    ) -> None:
        """Create the stack.

        Args:
            scope: the app.
            construct_id: name of the stack.
            remove_data_on_destroy: whether the key and the (then empty) buckets are removed with the stack.
            env: account and region; those of the credentials when absent.
        """
        super().__init__(scope, construct_id, env=env, description="Load traces, models and results of training")
        # Retained data still goes when the stack's very first deployment fails: nothing is in it yet.
        self._removal_policy = (
            cdk.RemovalPolicy.DESTROY if remove_data_on_destroy else cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
        )
        self.key = kms.Key(
            self,
            "Key",
            description="Encrypts load traces, models and results of training",
            enable_key_rotation=True,
            removal_policy=self._removal_policy,
        )
        # S3 delivers access logs only to buckets that it encrypts with its own keys.
        self._access_logs = self._create_bucket(
            "AccessLogs",
            s3.LifecycleRule(id="expire-logs", expiration=cdk.Duration.days(90)),
            encryption=s3.BucketEncryption.S3_MANAGED,
        )
        self.data = self._create_encrypted_bucket("Data")
        # Each checkpoint overwrites the one before it: without expiry, old versions would pile up.
        self.artifacts = self._create_encrypted_bucket(
            "Artifacts",
            s3.LifecycleRule(id="expire-overwritten", noncurrent_version_expiration=cdk.Duration.days(30)),
            versioned=True,
        )
        cdk.CfnOutput(self, "DataBucketName", value=self.data.bucket_name, description="Put load traces here")
        cdk.CfnOutput(
            self, "ArtifactsBucketName", value=self.artifacts.bucket_name, description="Find models and results here"
        )

    def _create_encrypted_bucket(self, name: str, *rules: s3.LifecycleRule, **properties: Any) -> s3.Bucket:
        return self._create_bucket(
            name,
            *rules,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            server_access_logs_bucket=self._access_logs,
            server_access_logs_prefix=f"{name.lower()}/",
            **properties,
        )

    def _create_bucket(self, name: str, *rules: s3.LifecycleRule, **properties: Any) -> s3.Bucket:
        abandoned_uploads = s3.LifecycleRule(
            id="abort-abandoned-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(7)
        )
        return s3.Bucket(
            self,
            name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            lifecycle_rules=[*rules, abandoned_uploads],
            removal_policy=self._removal_policy,
            **properties,
        )
