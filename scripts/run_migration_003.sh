#!/usr/bin/env bash
# Runs `make migrate-003` from any directory: upgrade to revision 003.
set -euo pipefail

exec make --no-print-directory --directory "$(dirname "${BASH_SOURCE[0]}")/.." migrate-003
