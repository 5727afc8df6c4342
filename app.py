"""The CDK app: settings of one environment -> its stacks.

``cdk synth``, ``cdk deploy --all`` and the like take the environment from ``-c env=<name>`` (``dev`` by default);
its settings are in ``config/<name>.yaml``.
"""

from __future__ import annotations

import sys

import aws_cdk as cdk

from stacks.settings import Settings, SettingsError, load_settings
from stacks.storage import StorageStack


def create_stacks(app: cdk.App, settings: Settings) -> None:
    """Add the stacks of one environment to the app; the environment is the prefix of their names."""
    env = cdk.Environment(account=settings.account, region=settings.region)
    StorageStack(
        app,
        f"{settings.environment}-fleet-scaling-storage",
        remove_data_on_destroy=settings.remove_data_on_destroy,
        env=env,
    )
    for key, value in settings.tags.items():
        cdk.Tags.of(app).add(key, value)


def main() -> None:
    """Synthesise the environment that the context names; exits with 2 when its settings are wrong."""
    app = cdk.App()
    environment = app.node.try_get_context("env")
    try:
        settings = load_settings("dev" if environment is None else environment)
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    create_stacks(app, settings)
    app.synth()


if __name__ == "__main__":
    main()
