#!/usr/bin/env bash
# Takes revision 003 back, from any current folder; the rows of its tables are saved to backups/ first: `make rollback-003`.
set -euo pipefail

exec make --no-print-directory --directory "$(dirname "${BASH_SOURCE[0]}")/.." rollback-003
