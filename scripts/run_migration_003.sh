#!/usr/bin/env bash
# Applies revision 003, from any current folder: `make migrate-003`.
set -euo pipefail

exec make --no-print-directory --directory "$(dirname "${BASH_SOURCE[0]}")/.." migrate-003
