"""Look up known vulnerabilities of the versions in constraints.txt with pip-audit; `make audit` runs this.

The exit status is 1 if a version has a known vulnerability, and 3 if a version could not be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys

PIP_AUDIT = (
    "pip_audit --require-hashes --disable-pip --requirement constraints.txt --format json --progress-spinner off"
)
EXIT_VULNERABLE = 1
EXIT_NOT_AUDITED = 3


def main() -> int:
    """Print the known vulnerabilities and return the exit status."""
    command = [sys.executable, "-m", *PIP_AUDIT.split()]
    output = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  constants
    try:
        packages = json.loads(output.stdout)["dependencies"]
    except ValueError:
        cause = output.stderr.strip().rpartition("\n")[2]
        print(
            "No version was checked. Run `make audit` on a machine that reaches an advisory service. pip-audit says: "
            f"{cause}",
            file=sys.stderr,
        )
        return EXIT_NOT_AUDITED
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    # pip-audit itself exits 0 for packages that the service does not know.
    if skipped := [package["name"] for package in packages if "skip_reason" in package]:
        print(
            f"{len(skipped)} of {len(packages)} packages were not checked, because the advisory service does not know "
            f"them: {', '.join(skipped)}.",
            file=sys.stderr,
        )
    if vulnerable:
        return EXIT_VULNERABLE
    if skipped:
        return EXIT_NOT_AUDITED
    print(f"No known vulnerability in {len(packages)} packages.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
