"""A base image from Debian's packages, for machines that reach no image registry.

It holds Debian's own Python with pip, and nothing else: no certificates, no users, no package database. So a build on
it proves an image's own steps, not the upstream base that they are made for.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKAGES = ("python3-pip", "libstdc++6", "dash", "coreutils")
_MERGED = ("bin", "lib", "lib64", "sbin")


class NoStandInBase(Exception):
    """Why the base cannot be made on this machine."""


def make_root_filesystem(folder: Path) -> Path:
    """Unpack the packages, for this machine's architecture, into a new root file system below an empty folder.

    Downloads with apt-get, in a state of its own: what the machine has installed neither matters nor changes.

    Returns:
        The root file system's folder. ``python`` and ``sh`` work in it; no package's scripts were run.

    Raises:
        NoStandInBase: not a Debian machine, or its packages cannot be downloaded.
    """
    root = folder / "root"
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for archive in _download(folder / "apt"):
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], capture_output=True, check=True, timeout=60)
        # Packages of releases before the merge of /usr hold /bin and /lib, which must not replace the links.
        subprocess.run(
            ["tar", "--extract", "--keep-directory-symlink", "--directory", root],
            input=unpacked.stdout,
            check=True,
            timeout=60,
        )
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")
    (root / "usr/bin/python").symlink_to("python3")
    return root


def _download(folder: Path) -> list[Path]:
    """The packages and all that they depend on, as archives in ``folder``."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'Dir::State "{folder}";\n'
        f'Dir::Cache "{folder}";\n'
        'Dir::State::status "/dev/null";\n'
        'APT::Install-Recommends "false";\n'
        'APT::Sandbox::User "";\n',
        encoding="utf-8",
    )
    for command in (["update"], ["--yes", "--download-only", "install", *PACKAGES]):
        try:
            subprocess.run(
                ["apt-get", "--quiet=2", *command],
                env={"APT_CONFIG": str(configuration), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=180,
            )
        except FileNotFoundError as error:
            raise NoStandInBase("this is not a Debian machine: it has no apt-get") from error
        except subprocess.TimeoutExpired as error:
            raise NoStandInBase(f"apt-get {command[0]} took more than 180 seconds") from error
        except subprocess.CalledProcessError as error:
            raise NoStandInBase(f"apt-get {command[0]} failed: {error.stderr.strip()}") from error
    return sorted((folder / "archives").glob("*.deb"))
