"""Tells which Python tools of the tests are missing, each with the command that installs it, and fails if any is.

Arguments name those that matter; without any, all do.
"""

import importlib
import importlib.metadata
import sys

# What to install, the module that imports only if it is there with its extras (none if it has none: importing takes time), and
# the one version, if it matters.
TOOLS = [
    ("moto[server]", "moto.server", "5.2.1"),  # tests name what this version does unlike AWS
    ("boto3", "boto3", None),
    ("aws-sam-translator", None, "1.110.0"),  # what CloudFormation makes of template.yaml
    ("cfn-lint", None, "1.51.0"),  # each version has rules of its own
]


def problem(requirement, module, version):
    """Returns what keeps the tool from being used, or None."""
    name = requirement.split("[")[0]
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement} is missing"
    if version and found != version:
        return f"{name} is {found}; the tests know {version}"
    try:
        if module:
            importlib.import_module(module)
    except ImportError as e:
        return f"{requirement} is not all there ({e})"
    print(f"{name} {found}")
    return None


failed = False
for requirement, module, version in TOOLS:
    if sys.argv[1:] and requirement.split("[")[0] not in sys.argv[1:]:
        continue
    if what := problem(requirement, module, version):
        failed = True
        wanted = f"'{requirement}=={version}'" if version else requirement
        print(f"{what}: pip install {wanted}", file=sys.stderr)
sys.exit(failed)
